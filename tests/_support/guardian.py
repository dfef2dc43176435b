"""A worker of pytest-xdist's takes its children with it, however it ends.

A child that a test has forked has the worker's pipes too: where a hanging test ends the worker (pytest-timeout by
os._exit), a child that goes on keeps them open, and the run waits for it for ever. So each worker has a guardian:
a process that outlives it and kills what it left: all of its session, and whatever has its mark in the environment.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

MARK = "USWAP_TEST_WORKER"
# Against a process that the kernel cannot end: it waits for a disk that does not answer.
DEATH_MILLISECONDS = 10_000


def guard_this_process() -> None:
    """This process becomes the leader of a session, and gets a guardian. Raises OSError: it leads a group."""
    os.setsid()
    mark = f"{os.getpid()}-{os.urandom(8).hex()}"
    os.environ[MARK] = mark
    this = os.pidfd_open(os.getpid())
    try:
        subprocess.Popen(
            [sys.executable, "-I", __file__, str(this), str(os.getpid()), mark],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={},
            pass_fds=[this],
            start_new_session=True,
        ).returncode = 0  # it outlives us: nobody waits for it
    finally:
        os.close(this)


def _left_by(leader: int, mark: str) -> Iterator[int]:
    """Processes of that session, or with that mark; no zombies."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, _, _, session = (folder / "stat").read_text().rpartition(")")[2].split()[:4]
            marked = f"{MARK}={mark}".encode() in (folder / "environ").read_bytes().split(b"\0")
        except (OSError, ValueError):
            continue
        if state not in "ZX" and (int(session) == leader or marked):
            yield int(folder.name)


def _await_death(pidfd: int, milliseconds: int | None) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(milliseconds))


def _kill(pid: int) -> bool:
    """=> whether it is dead; gone counts."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        return _await_death(pidfd, DEATH_MILLISECONDS)
    except (ProcessLookupError, PermissionError):
        return True
    finally:
        os.close(pidfd)


def main(worker: int, leader: int, mark: str) -> None:
    _await_death(worker, None)
    # Again until there is none: one that is looked at may fork.
    while left := list(_left_by(leader, mark)):
        ends = [_kill(pid) for pid in left]
        if not all(ends):
            return


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
