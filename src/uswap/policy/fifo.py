"""Fifo: pages leave in the order in which they came."""

from __future__ import annotations

from uswap.policy.interface import Answer, Batch, Need, Policy
from uswap.policy.queue import Queue


class Fifo(Policy):
    """First in, first out. A page that is touched while it waits, clean, for its frame to be needed comes again, as
    the youngest.

    Example:
        >>> import uswap
        >>> with uswap.Pool(limit="64MiB", policy=uswap.policy.Fifo()) as pool:
        ...     a = pool.zeros((1 << 25,), dtype="f8")      # 256 MiB
        ...     a += 1
        ...     print(pool.reclaimer.error)
        None
    """

    def __init__(self) -> None:
        self.pages = Queue()

    def decide(self, seen: Batch, need: Need) -> Answer:
        for arrived in (seen.kept, seen.read_ahead, seen.faulted, seen.rescued):
            self.pages.push(arrived)
        return Answer(clean=self.pages.pop(need.frames + need.target - need.inactive))
