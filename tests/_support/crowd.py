"""Members of a named pool as processes: started, watched, stopped, killed."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import select
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from uswap.testing import nursery

TESTS = Path(__file__).resolve().parent.parent
# Against hangs only.
DEADLINE_SECONDS = 60.0
# What a member can be: its job's "program" -> where its run(job) is.
PROGRAMS = {
    "crowd": "_support.crowd_member",
    "soak": "_support.soak_member",
    "keeper": "_support.soak_keeper",
}


class Nursery(nursery.Nursery):
    """Starts members quickly."""

    def __init__(self) -> None:
        super().__init__(*PROGRAMS.values(), path=[str(TESTS)])

    def member(self, job: dict[str, Any], descriptors: list[int]) -> int:
        """A new member, with these as its standard descriptors; => its pid."""
        run = f"{PROGRAMS[job['program']]}:run"
        return self.fork(run, job, dict(enumerate(descriptors)), USWAP_RUNTIME_DIR=job["runtime"])


class Member:
    """A process that runs crowd_member.py."""

    def __init__(self, nursery: Nursery, job: dict[str, Any]) -> None:
        self.job = job
        self._nursery = nursery
        (in_, self._stdin), (self._stdout, out), (self._stderr, err) = (self._pipe() for _ in range(3))
        self.pid = nursery.member(job, [in_, out, err])
        self._pidfd = os.pidfd_open(self.pid)
        self._status: int | None = None
        for descriptor in (in_, out, err):
            os.close(descriptor)
        self._lines: queue.Queue[str] = queue.Queue()
        self._said: list[str] = []
        # Of each part, in the last await_turns: after how many seconds it had gone on; not there: it had not.
        self.went_on: dict[str, float] = {}
        self._errors: list[str] = []
        streams = ((os.fdopen(self._stdout), self._hear), (os.fdopen(self._stderr), self._errors.append))
        self._readers = [threading.Thread(target=self._read, args=each, daemon=True) for each in streams]
        for reader in self._readers:
            reader.start()

    @staticmethod
    def _pipe() -> tuple[int, int]:
        return os.pipe()

    @staticmethod
    def _read(stream: TextIO, take: Any) -> None:
        with stream:
            for line in stream:
                take(line.rstrip("\n"))
        take("")

    def _hear(self, line: str) -> None:
        self._said.append(line)
        self._lines.put(line)

    def _failure(self, text: str) -> AssertionError:
        return AssertionError(f"member {self.pid} {text}\n{self.last_words()}")

    def last_words(self) -> str:
        """How it has ended, if it has, what it was to do, and what it has said, on either stream."""
        status = self._poll(0)
        if status is not None:  # all that it has said is there; the readers may not have come to the end of it
            for reader in self._readers:
                reader.join(DEADLINE_SECONDS)
        return "\n".join([f"status {status}", str(self.job), *self._said[-20:], *self._errors[-20:]])

    @property
    def complaints(self) -> list[str]:
        """What it has said on standard error."""
        return [line for line in list(self._errors) if line]

    def _poll(self, seconds: float) -> int | None:
        """Its status; None: it has not ended in that time."""
        if self._status is None and select.select([self._pidfd], [], [], seconds)[0]:
            self._status = self._nursery.status(self.pid)
        return self._status

    def _next(self, seconds: float) -> str:
        try:
            line = self._lines.get(timeout=seconds)
        except queue.Empty:
            raise self._failure(f"said nothing for {seconds} s") from None
        if line.startswith("WRONG"):
            raise self._failure(line)
        return line

    def await_line(self, wanted: str, seconds: float = DEADLINE_SECONDS) -> None:
        """Until it says so. Raises AssertionError if it ends, hangs, or found wrong words."""
        while (line := self._next(seconds)) != wanted:
            if not line and self._poll(1.0) is not None:
                raise self._failure(f"ended before {wanted!r}")

    def await_turns(self, seconds: float = DEADLINE_SECONDS, part: str = "all") -> float:
        """=> seconds until that part of it ("all", or a part's name) has gone on: a turn that began after now has
        ended."""
        while not self._lines.empty():
            self._next(seconds)
        began = time.monotonic()
        first: dict[str, int] | None = None
        turns: dict[str, int] = {}
        self.went_on = {}
        while True:
            left = began + seconds - time.monotonic()
            try:
                word, _, text = self._next(max(left, 0)).partition(" ")
            except AssertionError as error:
                raise self._failure(f"does not go on with {part}: from {first} to {turns}") from error
            if word != "turns":
                continue
            turns = json.loads(text)
            first = first or turns
            wanted = [name for name in turns if part in ("all", name.partition("-")[0])]
            for name in wanted:
                if turns[name] >= first[name] + 2:
                    self.went_on.setdefault(name, time.monotonic() - began)
            if all(name in self.went_on for name in wanted):
                return time.monotonic() - began

    def end_by_itself(self, seconds: float = DEADLINE_SECONDS) -> int:
        """Waits for its end; => its status."""
        status = self._poll(seconds)
        if status is None:
            raise self._failure(f"has not ended in {seconds} s")
        return status

    def close(self) -> None:
        """Kills it, if it is there."""
        if self.alive:
            self.kill()
        for reader in self._readers:
            reader.join()
        for descriptor in (self._stdin, self._pidfd):
            os.close(descriptor)

    @property
    def alive(self) -> bool:
        """Whether it has not ended."""
        return self._poll(0) is None

    @property
    def stopped(self) -> bool:
        """Whether it is stopped by a signal."""
        with contextlib.suppress(OSError):
            return Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "T"
        return False

    def await_end_or_stop(self, seconds: float) -> bool:
        """Whether it has ended, or is stopped, within that time."""
        deadline = time.monotonic() + seconds
        while self._poll(0.005) is None and not self.stopped:
            if time.monotonic() > deadline:
                return False
        return True

    def kill(self) -> None:
        """SIGKILL; waits for its end."""
        signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        self.end_by_itself()

    def halt(self) -> None:
        """SIGSTOP; waits until it has stopped."""
        signal.pidfd_send_signal(self._pidfd, signal.SIGSTOP)
        assert self.await_end_or_stop(DEADLINE_SECONDS)

    def resume(self) -> None:
        """SIGCONT."""
        signal.pidfd_send_signal(self._pidfd, signal.SIGCONT)

    def say(self, line: str) -> None:
        """Tells it something."""
        with contextlib.suppress(BrokenPipeError):  # what is missing then is its answer
            os.write(self._stdin, (line + "\n").encode())

    def stop(self) -> None:
        """Has it check what is its own; raises AssertionError if it is wrong. It stays a member."""
        self.say("stop")
        self.await_line("right")

    def go_on(self) -> None:
        """After stop: it works again."""
        self.say("go on")
        self.await_line("going")

    def count(self, members: int) -> None:
        """After stop, when nobody else does anything: so many members are there, and every frame, slot and chunk
        must be accounted for."""
        self.say(f"count {members}")
        self.await_line("counted")

    def check(self) -> None:
        """At any time: what all members share must be consistent. Raises AssertionError."""
        self.say("check")
        self.await_line("checked")

    def leave(self) -> None:
        """After stop: it ends, in good order."""
        self.say("leave")
        status = self.end_by_itself()
        if status != 0:
            raise self._failure(f"ended with {status}")


@contextlib.contextmanager
def pool_of_members(
    runtime: Path,
    folder: Path,
    *,
    places: int,
    limit: str,
    size: str,
    private: str | None = None,
    seed: int = 1,
    **more: Any,
) -> Iterator[Members]:
    """A named pool with a member at each place, all at work; more: for their jobs. None of them outlives the
    block."""
    with Nursery() as nursery, Members(nursery, runtime, folder, places, size, private, seed, **more) as members:
        members.start(0, limit=limit)
        for place in range(1, places):
            members.start(place)
        yield members


class Members:
    """Who has which place. As a context manager it kills them all at the end of the block."""

    def __init__(
        self,
        nursery: Nursery,
        runtime: Path,
        folder: Path,
        places: int,
        size: str,
        private: str | None = None,
        seed: int = 1,
        **more: Any,
    ) -> None:
        self._nursery, self._runtime, self._folder, self._places = nursery, runtime, folder, places
        self._size, self._private, self._seed, self._more = size, private, seed, more
        self.all: list[Member] = []
        self.at: dict[int, Member] = {}

    def __enter__(self) -> Members:
        return self

    def __exit__(self, *_: object) -> None:
        for member in self.all:
            member.close()

    def job(self, place: int, **more: Any) -> dict[str, Any]:
        """What a member at that place is to do."""
        self._seed += 1
        return (
            {
                "program": "crowd",
                "runtime": str(self._runtime),
                "name": "stress",
                "limit": None,
                "map_for_peers": True,
                "bytes": self._size,
                "folder": str(self._folder),
                "place": place,
                "places": self._places,
                "threads": 2,
                "seed": self._seed * 100,
                "private_bytes": self._private,
                "elsewhere_bytes": None,
                "busy": False,
                "object_mib": 0,
                "failpoints": [],
                "arm_first": False,
            }
            | self._more
            | more
        )

    def begin(self, place: int, **more: Any) -> Member:
        """A new member at that place; it may not be ready yet, or never be."""
        member = Member(self._nursery, self.job(place, **more))
        self.all.append(member)
        self.at[place] = member
        return member

    def start(self, place: int, **more: Any) -> Member:
        """A new member at that place, ready."""
        member = self.begin(place, **more)
        member.await_line("ready")
        return member

    def forget(self, place: int) -> None:
        """Of who has ended there nothing is left here."""
        member = self.at.pop(place)
        member.close()
        self.all.remove(member)

    def pause(self) -> None:
        """All check what is their own, and rest; one of them counts."""
        for member in self.at.values():
            member.say("stop")
        for member in self.at.values():
            member.await_line("right")
        next(iter(self.at.values())).count(len(self.at))

    def go_on(self) -> None:
        """After pause."""
        for member in self.at.values():
            member.go_on()

    def stop(self) -> None:
        """All check what is their own; the last one counts; then all leave."""
        self.pause()
        living = list(self.at.values())
        last = living.pop()
        for member in living:
            member.leave()
        last.count(1)
        last.leave()
