"""Watches from outside what a process and all that descend from it have in memory:
``python -m _support.pss_watch PID ...``.

Not a thread of that process: os.fork holds the GIL from its first step to its last, so such a thread would look
away during each fork. It ends with its standard input, and then says what it has seen, as JSON.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from _support.forks import pss_bytes

PAUSE_SECONDS = 0.01


def family(pid: int) -> list[int]:
    """That process and its descendants, but for this one."""
    found = [pid]
    for one in found:
        for task in tasks_of(one):
            try:
                found += [int(word) for word in (task / "children").read_text().split() if int(word) != os.getpid()]
            except OSError:
                continue
    return found


def send(pids: list[int], number: int) -> None:
    """The signal to all that are still there."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def is_at_rest(pid: int) -> bool:
    """Whether all its threads are stopped, or it has ended."""
    try:
        states = [(task / "stat").read_text().rpartition(")")[2].split()[0] for task in tasks_of(pid)]
    except OSError:
        return False  # a thread has just ended
    return all(state in "TZX" for state in states)


def tasks_of(pid: int) -> list[Path]:
    """Its threads, none if it has ended."""
    try:
        return list(Path(f"/proc/{pid}/task").iterdir())
    except OSError:
        return []


@contextlib.contextmanager
def stopped(pid: int) -> Iterator[list[int]]:
    """Inside the with block that process and its descendants are stopped: one after the other while they run, they
    would be added up at moments of which each has its own."""
    pids: list[int] = []
    try:
        while (found := family(pid)) != pids or not all(map(is_at_rest, pids)):
            pids = found
            send(pids, signal.SIGSTOP)
        yield pids
    finally:
        send(pids, signal.SIGCONT)


class Watch:
    """A process that watches this one from now on.

    least: bytes of this process that are not to be counted. allowed: bytes for all, and for each process besides.
    """

    def __init__(self, least: int, allowed: int, allowed_each: int) -> None:
        words = [str(number) for number in (os.getpid(), least, allowed, allowed_each)]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "_support.pss_watch", *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def end(self) -> dict[str, int]:
        """=> samples: how many times it looked; shared: at more processes than one; processes: the most; over:
        bytes beyond what is allowed, at most (negative: never)."""
        output, _ = self._process.communicate()
        seen: dict[str, int] = json.loads(output)
        return seen


def main(pid: int, least: int, allowed: int, allowed_each: int) -> None:
    """Until standard input ends."""
    seen = {"samples": 0, "shared": 0, "processes": 0, "over": -allowed}
    while not select.select([sys.stdin], [], [], PAUSE_SECONDS)[0]:
        with stopped(pid) as pids:
            over = pss_bytes(pids) - least - allowed - allowed_each * len(pids)
        seen = {
            "samples": seen["samples"] + 1,
            "shared": seen["shared"] + (len(pids) > 1),
            "processes": max(seen["processes"], len(pids)),
            "over": max(seen["over"], over),
        }
    print(json.dumps(seen))


if __name__ == "__main__":
    main(*(int(word) for word in sys.argv[1:]))
