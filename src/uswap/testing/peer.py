"""Another process of a named pool, told what to do: one request, one answer."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import threading
from multiprocessing.connection import Connection
from typing import Any

import uswap
from uswap.testing import failpoints, memory
from uswap.testing.memory import PAGE
from uswap.testing.nursery import Nursery

_SOCKET = 3  # its number in the peer
_FOLDER = "USWAP_RUNTIME_DIR"  # where named pools are
# A peer that is not wanted any more has this long to end in good order.
_END_SECONDS = 30.0


class PeerDied(Exception):
    """The process is not there any more."""


class Peer:
    """A process that has joined a named pool and its shared region.

    doomed: it may die at any time, and is to. stopping: the point at which it may be stopped. seen: bytes of the
    shared region."""

    def __init__(self, nursery: Nursery, pool: str, region: str, swap: str, **options: Any) -> None:
        ours, theirs = os.pipe(), os.pipe()
        self._nursery = nursery
        # The nursery may be older than what this process says now.
        job = {"pool": pool, "region": region, "swap": swap, "options": options, "folder": os.environ.get(_FOLDER)}
        descriptors = {0: ours[0], _SOCKET: theirs[1]}
        self._requests, self._answers = Connection(ours[1], readable=False), Connection(theirs[0], writable=False)
        try:
            self.pid = nursery.fork("uswap.testing.peer:run", job, descriptors)
        finally:
            os.close(ours[0])
            os.close(theirs[1])
        self._pidfd = os.pidfd_open(self.pid)
        self._lock = threading.Lock()
        self.doomed = False
        self.seen = 0
        self.stopping: str | None = None
        self.dead = False

    def __call__(self, what: str, *arguments: Any) -> Any:
        """What the peer answers. Raises PeerDied; AssertionError: it raised what it must not."""
        try:
            with self._lock:
                self._requests.send((what, arguments))
                kind, value = self._answers.recv()
        except (EOFError, OSError) as error:
            raise PeerDied(f"process {self.pid} has ended") from error
        if kind == "raised":
            raise AssertionError(f"in process {self.pid}: {what} raised {value}")
        return value

    @property
    def busy(self) -> bool:
        """Whether it has a request that is not answered."""
        return self._lock.locked()

    def send_signal(self, number: int) -> None:
        """To the process, if it is there."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, number)

    def await_end(self, seconds: float) -> bool:
        """Whether it has ended within that time."""
        return bool(select.select([self._pidfd], [], [], seconds)[0])

    def reap(self) -> int:
        """Waits for the end of who is ending; => the status."""
        self.dead = True
        if not self.await_end(_END_SECONDS):
            raise AssertionError(f"process {self.pid} does not end")
        status = self._nursery.status(self.pid)
        os.close(self._pidfd)
        return status


class _Work:
    """What the peer does, in its process."""

    def __init__(self, job: dict[str, Any]) -> None:
        self._pool = uswap.attach(job["pool"], swap=uswap.SwapArea(job["swap"], size="64MiB"), **job["options"])
        self._region: Any = self._pool.open_region(job["region"])

    def store(self, start: int, data: bytes) -> None:
        memory.store(self._region._address + start, data)

    def load(self, start: int, length: int) -> bytes:
        return memory.load(self._region._address + start, length)

    def advise(self, advice: str, start: int, length: int) -> None:
        with contextlib.suppress(uswap.BusyError):  # somebody who is stopped has it
            self._region.advise(uswap.Advice[advice], start, length)

    def resize(self, size: int) -> tuple[str, int]:
        """The shared region; size 0: refresh. => why it was refused, or "", and how much of it is seen now."""
        refused = ""
        try:
            self._region.resize(size) if size else self._region.refresh()
        except (uswap.OutOfSpaceError, uswap.BusyError) as error:
            refused = f"{type(error).__name__}: {error}"
        return refused, len(self._region)

    def private(self, pages: int) -> None:
        """Memory of its own comes and goes: parts of the limit change hands."""
        with self._pool.region(pages * PAGE) as region:
            memory.store(region._address, bytes([7]) * (pages * PAGE))
            if memory.load(region._address, pages * PAGE) != bytes([7]) * (pages * PAGE):
                raise AssertionError("lost or stale data in a peer's private region")

    def arm(self, name: str, action: int, nth: int) -> None:
        failpoints.set_failpoint(name, action, nth=nth)

    def clear(self, name: str) -> None:
        failpoints.clear(name)

    def check(self) -> None:
        self._pool.check()

    def leave(self) -> None:
        self._region.close()
        self._pool.close()


def run(job: dict[str, Any]) -> int:
    """The peer's process. => 0."""
    requests, answers = Connection(0, writable=False), Connection(_SOCKET, readable=False)
    os.environ.pop(_FOLDER, None)
    if job["folder"] is not None:
        os.environ[_FOLDER] = job["folder"]
    work: _Work | None = None
    with contextlib.suppress(EOFError, BrokenPipeError):  # who told it what to do has gone
        while True:
            what, arguments = requests.recv()
            try:
                if what == "join":
                    work = _Work(job)
                    answers.send(("done", None))
                else:
                    answers.send(("done", getattr(work, what)(*arguments)))
            except Exception as error:
                answers.send(("raised", f"{type(error).__name__}: {error}"))
            if what == "leave":
                break
    sys.stdout.flush()
    os._exit(0)
