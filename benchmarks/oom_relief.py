"""A memory cgroup that is given a little more whenever the kernel would kill a process in it.

At small limits the kernel swaps for a while and then kills, though there is swap: there is no time to compare with.
So its OOM killer is switched off, and each time a process stops for want of memory the limit is raised by a step,
for good: that side then has more than ours, and the table says how much.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path

STEP_BYTES = 1 << 20


class OomRelief:
    """Context manager over a cgroup (v1; on v2 it does nothing: there the killer cannot be switched off).

    Attributes:
        limit_bytes: the cgroup's limit now.
        times: how often the kernel would have killed.
    """

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.times = 0
        self._folder = folder
        self._events = -1
        self._ended = False
        self._thread: threading.Thread | None = None

    def __enter__(self) -> OomRelief:
        control = self._folder / "memory.oom_control"
        if not control.exists():
            return self
        self._events = os.eventfd(0)
        with control.open() as file:
            (self._folder / "cgroup.event_control").write_text(f"{self._events} {file.fileno()}")
        control.write_text("1")
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._thread:
            self._ended = True
            os.eventfd_write(self._events, 1)
            self._thread.join()
            os.close(self._events)

    def _watch(self) -> None:
        while os.eventfd_read(self._events) and not self._ended:
            self.times += 1
            self.limit_bytes += STEP_BYTES
            (self._folder / "memory.limit_in_bytes").write_text(str(self.limit_bytes))
