"""Resident memory of a process, measured from outside it. Run as a program: ``python _sampler.py PID``.

It samples /proc/PID/statm at 100 Hz until its standard input ends, then prints the peak, the peak that the
kernel kept (VmHWM), and the number of samples. It imports nothing of uswap: it must not share its mistakes.
"""

import os
import select
import subprocess
import sys
from pathlib import Path
from types import TracebackType

PERIOD_SECONDS = 0.01


class ResidentPeak:
    """Context manager: has another process sample this one while the block runs.

    Attributes:
        baseline_bytes: resident when the block began.
        sampled_bytes, high_water_bytes: peaks by statm and VmHWM, once the block has ended.
        samples: how many.

    Example:
        >>> with ResidentPeak() as peak:
        ...     data = bytearray(1 << 24)
        >>> peak.growth_bytes >= 1 << 23 and peak.samples >= 0
        True
    """

    baseline_bytes = sampled_bytes = high_water_bytes = samples = 0

    @property
    def growth_bytes(self) -> int:
        """The larger peak, less the baseline."""
        return max(self.sampled_bytes, self.high_water_bytes) - self.baseline_bytes

    def __enter__(self) -> "ResidentPeak":
        self._process = subprocess.Popen(
            [sys.executable, "-I", __file__, str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self._process.stdout.readline()
        Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts anew, from what is resident now
        self.baseline_bytes = resident_bytes(os.getpid())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        output, _ = self._process.communicate()
        self.sampled_bytes, self.high_water_bytes, self.samples = map(int, output.split())


def resident_bytes(pid: int) -> int:
    """Resident memory now, by statm."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def high_water_bytes(pid: int) -> int:
    """The peak that the kernel has kept."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


def _sample(pid: int) -> None:
    peak = samples = 0
    print("ready", flush=True)
    while not select.select([sys.stdin], [], [], PERIOD_SECONDS)[0]:
        peak = max(peak, resident_bytes(pid))
        samples += 1
    print(peak, high_water_bytes(pid), samples, flush=True)


if __name__ == "__main__":
    _sample(int(sys.argv[1]))
