"""A member of a named pool that writes and checks: ``python -m _support.crowd_member JSON``, told what to do by lines
on standard input.

Pages of the shared region belong to *places*: page p to place p % places. The member that has a place writes its
pages, and knows what they hold; all others may look. Every word of a page names the page and the version, so that a
word that has come from anywhere else is seen, also in a page whose writer was killed in the middle of it.

JSON: name (of the pool), limit and bytes (null: join; else make the pool and its region), folder (swap), place,
places, threads, seed, private_bytes, failpoint (null, or [name, action, nth]), arm_first (before joining).
Lines: "stop": end work, check everything that is one's own, say "right"; "count": nobody else does anything, so
every frame and slot must be accounted for: say "counted"; "leave": end. It says "ready", then "turns N" now and
then, or "WRONG ...".
"""

from __future__ import annotations

import json
import queue
import random
import sys
import threading
from typing import Any

import numpy as np

import uswap
from uswap._core import lib

PAGE, WORDS = 4096, 512
REGION = "data"
SAY_SECONDS = 0.1


class WrongError(Exception):
    """A word was not what it must be."""


class Shared:
    """The shared region as rows of words, and what this member knows of its own pages."""

    def __init__(self, region: Any, place: int, places: int, seed: int) -> None:
        self._rows = np.frombuffer(region, dtype="u8").reshape(-1, WORDS)
        self._version = np.zeros(len(self._rows), dtype="u8")
        self._random = random.Random(seed)
        self._own = range(place, len(self._rows), places)
        for page in self._own:
            self._write(page, 1)

    def _write(self, page: int, version: int) -> None:
        self._version[page] = version
        self._rows[page] = np.uint64(page << 32 | version)

    def _check_own(self, page: int) -> None:
        expected = page << 32 | int(self._version[page])
        if not (self._rows[page] == expected).all():
            raise WrongError(f"own page {page}: {expected:#x} expected, {self._rows[page][:4]} found")

    def _check_other(self, page: int) -> None:
        row = self._rows[page].copy()
        if not ((row >> np.uint64(32) == page) | (row == 0)).all():
            raise WrongError(f"page {page} has words of another: {row[:4]}")

    def turn(self) -> None:
        """Some stores, some looks."""
        for _ in range(8):
            page = self._random.choice(self._own)
            self._check_own(page)
            self._write(page, self._random.randrange(1, 1 << 31))
            self._check_other(self._random.randrange(len(self._rows)))

    def check_all(self) -> None:
        """Every page of one's own."""
        for page in self._own:
            self._check_own(page)


class Private:
    """The same for memory of this process alone."""

    def __init__(self, region: Any, seed: int) -> None:
        self._rows = np.frombuffer(region, dtype="u8").reshape(-1, WORDS)
        self._version = np.zeros(len(self._rows), dtype="u8")
        self._random = random.Random(seed)

    def _check(self, page: int) -> None:
        if not (self._rows[page] == self._version[page]).all():
            raise WrongError(f"private page {page}: {self._version[page]} expected, {self._rows[page][:4]} found")

    def turn(self) -> None:
        """Some stores, some looks."""
        for _ in range(8):
            page = self._random.randrange(len(self._rows))
            self._check(page)
            self._version[page] = self._random.randrange(1, 1 << 40)
            self._rows[page] = self._version[page]

    def check_all(self) -> None:
        """Every page."""
        for page in range(len(self._rows)):
            self._check(page)


def join(job: dict[str, Any]) -> tuple[uswap.Pool, Any]:
    """The pool and its shared region, made or joined."""
    if job["limit"] is not None:
        pool = uswap.Pool(job["limit"], name=job["name"], swap=uswap.SwapArea(job["folder"], size="1GiB"))
        return pool, pool.region(job["bytes"], shared=True, name=REGION)
    pool = uswap.attach(job["name"], swap=uswap.SwapArea(job["folder"], size="1GiB"))
    return pool, pool.open_region(REGION)


def arm(failpoint: Any) -> None:
    """Sets the failpoint, if there is one."""
    if failpoint is not None:
        from _support.failpoints import set_failpoint

        name, action, nth = failpoint
        set_failpoint(name, action, nth=nth)


def listen(lines: queue.Queue[str], stop: threading.Event) -> None:
    """The first line stops the work, the others are for whoever waits."""
    for line in sys.stdin:
        if stop.is_set():
            lines.put(line.strip())
        stop.set()
    lines.put("leave")


class Worker(threading.Thread):
    """Works on a part until told to stop, then checks all of it. NumPy lets go of the GIL for a page, so one who
    waits for a page keeps nobody else."""

    def __init__(self, part: Any, stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self._part, self._halt = part, stop
        self.turns = 0
        self.error: BaseException | None = None

    def run(self) -> None:
        """The thread."""
        try:
            while not self._halt.is_set():
                self._part.turn()
                self.turns += 1
            self._part.check_all()
        except BaseException as error:
            self.error = error


def work(parts: list[Any], stop: threading.Event) -> None:
    """Until told to stop. Says now and then that somebody goes on; raises what a part found wrong."""
    workers = [Worker(part, stop) for part in parts]
    for worker in workers:
        worker.start()
    said = 0
    while any(worker.is_alive() for worker in workers):
        for worker in workers:
            worker.join(SAY_SECONDS / len(workers))
            if worker.error is not None:
                raise worker.error
        if (turns := sum(worker.turns for worker in workers)) != said:
            print("turns", turns, flush=True)
            said = turns
    for worker in workers:
        if worker.error is not None:
            raise worker.error


def main() -> int:
    """=> 0, 1 if anything was wrong."""
    job = json.loads(sys.argv[1])
    if job.get("arm_first"):
        arm(job["failpoint"])
    pool, region = join(job)
    threads = job["threads"]
    parts: list[Any] = [
        Shared(region, job["place"] * threads + thread, job["places"] * threads, job["seed"] + thread)
        for thread in range(threads)
    ]
    if job["private_bytes"]:
        parts.append(Private(pool.region(job["private_bytes"]), job["seed"]))
    stop = threading.Event()
    lines: queue.Queue[str] = queue.Queue()
    threading.Thread(target=listen, args=(lines, stop), daemon=True).start()
    print("ready", flush=True)
    if not job.get("arm_first"):
        arm(job["failpoint"])
    try:
        work(parts, stop)
    except WrongError as error:
        print("WRONG", error, flush=True)
        return 1
    print("right", flush=True)
    while lines.get() == "count":
        pool._core.call(lib.uswap_group_check)
        pool.check()
        print("counted", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
