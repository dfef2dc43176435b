"""How much memory processes take together, seen from outside: the sum of their proportional set sizes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import psutil

_SAMPLE_SECONDS = 0.05


def pss_bytes(pid: int) -> int:
    """Proportional set size of a process; 0 once it is gone."""
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


def family(pid: int) -> list[int]:
    """The process and all that descend from it."""
    try:
        return [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]
    except psutil.NoSuchProcess:
        return [pid]


class SampledPeak:
    """Context manager: the largest value that now() has while the block runs; less_before: less what it was before.

    Attributes:
        peak_bytes: that value. samples: how often it was taken.
    """

    def __init__(self, now: Callable[[], int], *, less_before: bool = False) -> None:
        self._now, self._less_before, self._stop = now, less_before, threading.Event()
        self.peak_bytes, self.samples = 0, 0

    def _run(self) -> None:
        while not self._stop.wait(_SAMPLE_SECONDS):
            self.peak_bytes = max(self.peak_bytes, self._now() - self._base)
            self.samples += 1

    def __enter__(self) -> SampledPeak:
        self._base = self._now() if self._less_before else 0
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


class PssPeak(SampledPeak):
    """The largest sum of Pss of some processes, less what the same were before. pids: which, or a function that
    says so anew for each sample. less_before=False: all that they are."""

    def __init__(self, pids: list[int] | Callable[[], list[int]], *, less_before: bool = True) -> None:
        which = pids if callable(pids) else lambda: pids
        super().__init__(lambda: sum(pss_bytes(pid) for pid in which()), less_before=less_before)
