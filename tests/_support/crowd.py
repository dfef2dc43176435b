"""Members of a named pool as processes: started, watched, killed."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parent.parent
# Against hangs only.
DEADLINE_SECONDS = 60.0


class Member:
    """A process that runs crowd_member.py."""

    def __init__(self, job: dict[str, Any], runtime: Path) -> None:
        self.job = job
        path = [str(TESTS), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "_support.crowd_member", json.dumps(job)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path), "USWAP_RUNTIME_DIR": str(runtime)},
        )
        self.pid = self._process.pid
        self._lines: queue.Queue[str] = queue.Queue()
        self._errors: list[str] = []
        streams = ((self._process.stdout, self._lines.put), (self._process.stderr, self._errors.append))
        self._readers = [threading.Thread(target=self._read, args=each, daemon=True) for each in streams]
        for reader in self._readers:
            reader.start()

    @staticmethod
    def _read(stream: Any, take: Any) -> None:
        for line in stream:
            take(line.rstrip("\n"))
        take("")

    def _failure(self, text: str) -> AssertionError:
        return AssertionError(
            f"member {self.pid} {text}; {self._process.poll()=}\n" + "\n".join(self._errors[-20:])
        )

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
            if not line and self._process.poll() is not None:
                raise self._failure(f"ended before {wanted!r}")

    def await_turns(self, seconds: float = DEADLINE_SECONDS) -> float:
        """=> seconds until it has said twice from now on that it goes on."""
        while not self._lines.empty():
            self._next(seconds)
        began = time.monotonic()
        for _ in range(2):
            while not self._next(seconds).startswith("turns"):
                pass
        return time.monotonic() - began

    def end_by_itself(self, seconds: float = DEADLINE_SECONDS) -> int:
        """Waits for its end; => its status."""
        return self._process.wait(seconds)

    def close(self) -> None:
        """Kills it, if it is there."""
        if self.alive:
            self.resume()
            self.kill()
        for reader in self._readers:
            reader.join()
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            with contextlib.suppress(OSError):  # what it was never told
                stream.close()  # type: ignore[union-attr]

    @property
    def alive(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    @property
    def stopped(self) -> bool:
        """Whether it is stopped by a signal."""
        with contextlib.suppress(OSError):
            return Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "T"
        return False

    def kill(self) -> None:
        """SIGKILL; waits for its end."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait(DEADLINE_SECONDS)

    def resume(self) -> None:
        """SIGCONT."""
        self._process.send_signal(signal.SIGCONT)

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def stop(self) -> None:
        """Has it check what is its own; raises AssertionError if it is wrong. It stays a member."""
        self._say("stop")
        self.await_line("right")

    def count(self) -> None:
        """After stop, when nobody else does anything: every frame and slot must be accounted for."""
        self._say("count")
        self.await_line("counted")

    def leave(self) -> None:
        """After stop: it ends, in good order."""
        self._say("leave")
        status = self._process.wait(DEADLINE_SECONDS)
        if status != 0:
            raise self._failure(f"ended with {status}")


@contextlib.contextmanager
def pool_of_members(
    runtime: Path,
    folder: Path,
    *,
    places: int,
    taken: int | None = None,
    limit: str,
    size: str,
    private: str | None = None,
    seed: int = 1,
) -> Iterator[Members]:
    """A named pool with members at so many places (taken: at those of them, from the first on), all at work. None of them
    outlives the block."""
    members = Members(runtime, folder, places, size, private, seed)
    try:
        members.start(0, limit=limit)
        for place in range(1, places if taken is None else taken):
            members.start(place)
        yield members
    finally:
        for member in members.all:
            member.close()


class Members:
    """Who has which place."""

    def __init__(self, runtime: Path, folder: Path, places: int, size: str, private: str | None, seed: int) -> None:
        self._runtime, self._folder, self._places = runtime, folder, places
        self._size, self._private, self._seed = size, private, seed
        self.all: list[Member] = []
        self.at: dict[int, Member] = {}

    def job(self, place: int, **more: Any) -> dict[str, Any]:
        """What a member at that place is to do."""
        self._seed += 1
        return {
            "name": "stress",
            "limit": None,
            "bytes": self._size,
            "folder": str(self._folder),
            "place": place,
            "places": self._places,
            "threads": 2,
            "seed": self._seed * 100,
            "private_bytes": self._private,
            "failpoint": None,
        } | more

    def begin(self, place: int, **more: Any) -> Member:
        """A new member at that place; it may not be ready yet, or never be."""
        member = Member(self.job(place, **more), self._runtime)
        self.all.append(member)
        self.at[place] = member
        return member

    def start(self, place: int, **more: Any) -> Member:
        """A new member at that place, ready."""
        member = self.begin(place, **more)
        member.await_line("ready")
        return member

    def stop(self) -> None:
        """All check what is their own; the last one counts; then all leave."""
        living = list(self.at.values())
        last = living.pop()
        for member in living:
            member.stop()
        last.stop()
        last.count()
        for member in living:
            member.leave()
        last.count()
        last.leave()
