"""The engine of `uswap bench`: patterns, the sides that run them, the disk by itself, tables and plots.

Not part of the API: names in here may change.
"""
