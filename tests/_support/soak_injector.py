"""Injected errors of the disk, in a member of the soak.

Most lose nothing: a read or write that fails once is tried again; contents that come damaged once are read again; a
write that fails twice leaves the page in memory, and the slot is not used again. Two kinds lose one page each: the
second try fails as well. Before one of them the member's threads may be told to ask for pages (Region.resident) and
not to touch them; else the touch ends the process, as it must.
"""

from __future__ import annotations

import errno
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass

from _support.failpoints import Action, hits, set_failpoint
from _support.soak_ledger import Ledger

PAUSE_SECONDS = (0.01, 0.2)
# How long an error waits for its read or write to come.
ARMED_SECONDS = 0.5
LOOK_SECONDS = 0.005
DELAY_MICROSECONDS = 50_000
CAREFUL_IN_LOSING = 0.8


@dataclass(frozen=True)
class Fault:
    """steps: (failpoint, action, argument), hit once each; the first tells whether it has happened. counted: a
    field of the ledger."""

    steps: tuple[tuple[str, Action, int], ...]
    counted: str
    weight: int
    loses: bool = False


def _faults() -> list[Fault]:
    found = []
    for in_, one, hash_, out in (
        ("page_in.read", "page_in.one", "page_in.hash", "page_out.written"),
        ("shared.read", "shared.one", "shared.hash", "shared.written"),
    ):
        again = (one, Action.ERROR, errno.EIO)
        failed_write = (out, Action.ERROR, errno.EIO)
        found += [
            Fault(((in_, Action.ERROR, errno.EIO),), "read_errors_injected", 20),
            Fault((failed_write,), "write_errors_injected", 20),
            Fault(((out, Action.ERROR, errno.ENOSPC),), "write_errors_injected", 10),
            Fault(((hash_, Action.FLIP, 12345),), "contents_damaged", 20),
            Fault(((in_, Action.DELAY, DELAY_MICROSECONDS),), "delays_injected", 5),
            Fault(((out, Action.DELAY, DELAY_MICROSECONDS),), "delays_injected", 5),
            Fault(((in_, Action.ERROR, errno.EIO), again), "read_errors_injected", 2, loses=True),
            Fault(((hash_, Action.FLIP, 777), again), "contents_damaged", 2, loses=True),
        ]
    found.append(
        Fault(
            (("page_out.written", Action.ERROR, errno.EIO), ("page_out.one", Action.ERROR, errno.EIO)),
            "write_errors_injected",
            5,
        )
    )
    return found


class Injector(threading.Thread):
    """Injects until told to stop. careful: called with a function, which it calls while nobody touches a page that
    was not asked for, and then sees to it that all lost pages are found."""

    def __init__(self, seed: int, row: Ledger, careful: Callable[[Callable[[], None]], None]) -> None:
        super().__init__(daemon=True, name="injector")
        self._random, self._row, self._careful = random.Random(seed), row, careful
        self._halt = threading.Event()
        self.error: BaseException | None = None

    def run(self) -> None:
        """The thread."""
        faults = _faults()
        weights = [fault.weight for fault in faults]
        try:
            while not self._halt.wait(self._random.uniform(*PAUSE_SECONDS)):
                fault = self._random.choices(faults, weights)[0]
                if fault.loses and self._random.random() < CAREFUL_IN_LOSING:
                    self._careful(lambda fault=fault: self._inject(fault))
                else:
                    self._inject(fault)
        except BaseException as error:
            self.error = error

    def end(self) -> None:
        """Nothing is injected any more."""
        self._halt.set()
        self.join()

    def _inject(self, fault: Fault) -> None:
        if fault.loses:
            self._row.add("losing_errors_armed", 1)
        for name, action, argument in reversed(fault.steps):
            set_failpoint(name, action, argument, nth=1)
        first = fault.steps[0][0]
        waited = 0.0
        while hits(first) == 0 and waited < ARMED_SECONDS and not self._halt.wait(LOOK_SECONDS):
            waited += LOOK_SECONDS
        happened = hits(first) > 0
        for name, _, _ in fault.steps:
            set_failpoint(name, 0, nth=0)
        if happened:
            self._row.add(fault.counted, 1)
