"""Resident memory of a process, sampled by another one at 100 Hz or more.

As a program (``python sampler.py PID``) it samples until its standard input ends, then prints the peak of
statm, the peak that the kernel kept (VmHWM), and how many samples it took.
"""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PERIOD_SECONDS = 0.005


@dataclass
class Peak:
    """Bytes of resident memory beyond the baseline, once the block has ended."""

    baseline_bytes: int = 0
    sampled_bytes: int = 0
    high_water_bytes: int = 0
    samples: int = 0

    @property
    def growth_bytes(self) -> int:
        """The larger of both peaks, less the baseline."""
        return max(self.sampled_bytes, self.high_water_bytes) - self.baseline_bytes


def _status_bytes(pid: int, field: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise KeyError(field)


def resident_bytes(pid: int) -> int:
    """Now, by statm."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


@contextlib.contextmanager
def sampled() -> Iterator[Peak]:
    """Samples this process while the block runs. VmHWM starts anew, so that it is the peak of the block."""
    pid = os.getpid()
    peak = Peak()
    sampler = subprocess.Popen(
        [sys.executable, __file__, str(pid)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert sampler.stdin is not None and sampler.stdout is not None
    assert sampler.stdout.readline() == "ready\n"
    Path("/proc/self/clear_refs").write_text("5")
    peak.baseline_bytes = resident_bytes(pid)
    try:
        yield peak
    finally:
        sampler.stdin.close()
        peak.sampled_bytes, peak.high_water_bytes, peak.samples = map(int, sampler.stdout.readline().split())
        sampler.stdout.close()
        sampler.wait()


def _sample(pid: int) -> None:
    peak = samples = 0
    print("ready", flush=True)
    while not select.select([sys.stdin], [], [], PERIOD_SECONDS)[0]:
        peak = max(peak, resident_bytes(pid))
        samples += 1
    print(peak, _status_bytes(pid, "VmHWM"), samples, flush=True)


if __name__ == "__main__":
    _sample(int(sys.argv[1]))
