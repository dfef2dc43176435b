"""Traces of page touches: what a program did with its pages, and what it would have cost otherwise.

    trace = uswap.trace.Trace.open("program.trace")
    print(uswap.trace.simulate(trace, uswap.policy.Fifo(), frames=1 << 17))

Works without the compiled core.
"""

from uswap._errors import PolicyError, TraceError
from uswap.trace.format import End, Header, Kind
from uswap.trace.frames import Frames, frames_of
from uswap.trace.reader import Trace
from uswap.trace.records import Records
from uswap.trace.simulator import Simulated, simulate
from uswap.trace.writer import TraceWriter

__all__ = [
    "End",
    "Frames",
    "Header",
    "Kind",
    "PolicyError",
    "Records",
    "Simulated",
    "Trace",
    "TraceError",
    "TraceWriter",
    "frames_of",
    "simulate",
]
