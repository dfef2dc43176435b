"""What bench_policies.py runs: reference strings, and programs on managed arrays. One file a workload.

A new one needs its file and a line in STRINGS or PROGRAMS.
"""

from __future__ import annotations

import importlib

from workloads.base import Program, Reference, StringMaker

# name -> the module, and the function in it that makes the string
STRINGS = {
    "zipf_0.8": ("zipf", "zipf_08"),
    "zipf_0.99": ("zipf", "zipf_099"),
    "loop": ("loop", "sequential"),
    "loop_shuffled": ("loop", "shuffled"),
    "scan_hot": ("scan_hot", "scan_and_hot_set"),
    "phases": ("phases", "phases"),
}
# name -> the module, whose PROGRAM it is; imported only to be run, with what it needs
PROGRAMS = {
    "pagerank": "pagerank",
    "groupby_merge": "groupby_merge",
    "kmeans": "kmeans",
}


def string_named(name: str) -> StringMaker:
    """The function that makes the string. Raises KeyError."""
    module, function = STRINGS[name]
    maker: StringMaker = getattr(importlib.import_module(f"workloads.{module}"), function)
    return maker


def program_named(name: str) -> Program:
    """The program. Raises KeyError; ImportError: what it needs is not installed."""
    program: Program = importlib.import_module(f"workloads.{PROGRAMS[name]}").PROGRAM
    return program


__all__ = ["PROGRAMS", "STRINGS", "Program", "Reference", "program_named", "string_named"]
