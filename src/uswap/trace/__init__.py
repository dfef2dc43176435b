"""Traces of page touches: what a program did with its pages, and what it would have cost otherwise.

    trace = uswap.trace.Trace.open("program.trace")
    print(uswap.trace.simulate(trace, uswap.policy.Fifo(), frames=1 << 17))

Works without the compiled core.
"""

from uswap._errors import TraceError
from uswap.trace.format import End, Header, Kind
from uswap.trace.reader import Trace
from uswap.trace.records import Records
from uswap.trace.writer import TraceWriter

__all__ = ["End", "Header", "Kind", "Records", "Trace", "TraceError", "TraceWriter"]
