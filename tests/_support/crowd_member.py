"""A member of a named pool that writes and checks, told what to do by lines on standard input. crowd.py starts
it.

Pages of the shared region belong to *places*: page p to place p % places. The member that has a place writes its
pages, and knows what they hold; all others may look. Every word of a page names the page and the version, so that a
word that has come from anywhere else is seen, also in a page whose writer was killed in the middle of it.

The job: name (of the pool), limit and bytes (null: join; else make the pool and its regions), map_for_peers (of a
pool that it makes), folder (swap), place, places, threads, seed, private_bytes, elsewhere_bytes (a second shared
region, which members 0 and 1 have alone; with it there is a third one, whose size members that are busy change),
busy (it does everything that there is to be done), object_mib (of the first object that it makes then; each is
larger than the one before; 0: small ones), failpoints ([name, action, argument, nth, every]), arm_first (before
joining).
Lines: "stop": end work, check everything that is one's own, say "right"; "go on"; "count N": nobody else does
anything, so every frame and slot must be accounted for when N members are there: say "counted"; "check": every word
of what members share must agree, whatever they are doing: say "checked"; "leave": end. It says "joined", "ready",
then "turns JSON" (by part) now and then, or "WRONG ...".
"""

from __future__ import annotations

import collections
import contextlib
import json
import queue
import random
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

import uswap
from uswap._core import lib

PAGE, WORDS = 4096, 512
REGION, ELSEWHERE, STRETCH = "data", "elsewhere", "stretch"
# Of the region that gets longer and shorter: what everybody sees of it, and how long it gets.
STRETCH_BYTES, STRETCHED_BYTES = 16 * PAGE, 48 * PAGE
SAY_SECONDS = 0.02
# Against hangs only.
DEADLINE_SECONDS = 20.0
ELSEWHERE_PLACES = 2


class WrongError(Exception):
    """A word was not what it must be."""


class Shared:
    """The shared region as rows of words, and what one thread of this member knows of its own pages: nobody else
    stores to them, or throws them away."""

    def __init__(self, region: Any, own: Sequence[int], seed: int) -> None:
        self.region = region
        self._rows = np.frombuffer(region, dtype="u8").reshape(-1, WORDS)
        self._version = np.zeros(len(self._rows), dtype="u8")
        self._random = random.Random(seed)
        self._own = own
        for page in self._own:
            self._write(page, 1)

    def _write(self, page: int, version: int) -> None:
        self._version[page] = version
        self._rows[page] = np.uint64(page << 32 | version)

    def _check_own(self, page: int) -> None:
        version = int(self._version[page])
        expected = page << 32 | version if version else 0
        if not (self._rows[page] == expected).all():
            raise WrongError(f"own page {page}: {expected:#x} expected, {self._rows[page][:4]} found")

    def _check_other(self, page: int) -> None:
        row = self._rows[page].copy()
        if not ((row >> np.uint64(32) == page) | (row == 0)).all():
            raise WrongError(f"page {page} has words of another: {row[:4]}")

    def turn(self) -> None:
        """A store, some looks."""
        page = self._random.choice(self._own)
        self._check_own(page)
        self._write(page, self._random.randrange(1, 1 << 31))
        self._check_other(self._random.randrange(len(self._rows)))

    def discard(self) -> None:
        """One page is thrown away: it is zeroes."""
        page = self._random.choice(self._own)
        with contextlib.suppress(uswap.UswapError):  # somebody who is stopped has it
            self.region.advise(uswap.Advice.DONTNEED, page * PAGE, PAGE)
            self._version[page] = 0

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
        """A look, a store."""
        page = self._random.randrange(len(self._rows))
        self._check(page)
        self._version[page] = self._random.randrange(1, 1 << 40)
        self._rows[page] = self._version[page]

    def check_all(self) -> None:
        """Every page."""
        for page in range(len(self._rows)):
            self._check(page)


class Busy:
    """What else there is to be done: memory of one's own comes and goes, so that parts of the limit change hands;
    so do objects; one that others have gets longer, and shorter again; pages of its own are stored to and thrown
    away; pages of others may only be read here for a while, so that the mapping is in pieces."""

    USED_BYTES = 16 * PAGE
    PROTECTED = 16

    def __init__(
        self, pool: uswap.Pool, shared: Shared, stretch: Any, private_bytes: str, object_mib: int, others: list[int]
    ) -> None:
        self._pool, self._shared, self._stretch = pool, shared, stretch
        self._others, self._protected = others, collections.deque[int]()
        self._random = random.Random(len(others))
        self._private = pool.region(private_bytes)
        self._object_bytes = (object_mib << 20) or self.USED_BYTES
        self._growth = 32 << 20 if object_mib else 0

    def _protect(self) -> None:
        page = self._random.choice(self._others)
        self._shared.region.protect(uswap.Protection.READ, page * PAGE, PAGE)
        self._protected.append(page)
        if len(self._protected) > self.PROTECTED:
            both = uswap.Protection.READ | uswap.Protection.WRITE
            self._shared.region.protect(both, self._protected.popleft() * PAGE, PAGE)

    def _resize(self) -> None:
        self._stretch.resize(STRETCHED_BYTES)
        if self._stretch[STRETCH_BYTES:].strip(b"\0"):
            raise WrongError("what was cut off has come again")
        self._stretch[STRETCH_BYTES:] = bytes([2]) * (STRETCHED_BYTES - STRETCH_BYTES)
        self._stretch.resize(STRETCH_BYTES)

    def turn(self) -> None:
        """All of it once."""
        self._protect()
        self._resize()
        for start in range(0, len(self._private), PAGE):
            self._private[start] = 1
        self._private.advise(uswap.Advice.DONTNEED)
        self._shared.turn()
        self._shared.discard()
        with self._pool.region(self._object_bytes, shared=True) as region:
            region[: self.USED_BYTES] = bytes([1]) * self.USED_BYTES
            if region[: self.USED_BYTES] != bytes([1]) * self.USED_BYTES:
                raise WrongError("a new object does not hold what was written")
        self._object_bytes += self._growth

    def check_all(self) -> None:
        """Every page of its own."""
        self._shared.check_all()


def join(job: dict[str, Any]) -> uswap.Pool:
    """The pool, made or joined."""
    swap = uswap.SwapArea(job["folder"], size="1GiB")
    if job["limit"] is not None:
        return uswap.Pool(job["limit"], name=job["name"], swap=swap, map_for_peers=job["map_for_peers"])
    return uswap.attach(job["name"], swap=swap)


def region_named(pool: uswap.Pool, job: dict[str, Any], name: str, size: int | str) -> Any:
    """A shared region, made by whoever has made the pool."""
    return pool.region(size, shared=True, name=name) if job["limit"] is not None else pool.open_region(name)


def stretched(pool: uswap.Pool, job: dict[str, Any]) -> Any:
    """The region that gets longer and shorter. Who has died in the middle of that has left it as it was, or is
    to be."""
    region = region_named(pool, job, STRETCH, STRETCH_BYTES)
    if job["limit"] is None and len(region) != STRETCH_BYTES:
        region.resize(STRETCH_BYTES)
    return region


def parts_of(pool: uswap.Pool, job: dict[str, Any]) -> dict[str, Any]:
    """What this member works on, by name; what is behind a hyphen is only a number."""
    region, threads = region_named(pool, job, REGION, job["bytes"]), job["threads"]
    own = range(job["place"], len(region) // PAGE, job["places"])
    shares = threads + bool(job["busy"])
    shared = [Shared(region, own[share::shares], job["seed"] + share) for share in range(shares)]
    parts: dict[str, Any] = {f"shared-{thread}": part for thread, part in enumerate(shared[:threads])}
    if job["elsewhere_bytes"] and job["place"] < ELSEWHERE_PLACES:
        elsewhere = region_named(pool, job, ELSEWHERE, job["elsewhere_bytes"])
        own = range(job["place"], len(elsewhere) // PAGE, ELSEWHERE_PLACES)
        parts["elsewhere"] = Shared(elsewhere, own, job["seed"] + shares)
        own = range(job["place"], STRETCH_BYTES // PAGE, ELSEWHERE_PLACES)
        parts["stretch"] = Shared(stretched(pool, job), own, job["seed"] + shares + 1)
    if job["busy"]:
        others = [page for page in range(len(region) // PAGE) if page % job["places"] != job["place"]]
        parts["busy"] = Busy(
            pool, shared[threads], stretched(pool, job), job["private_bytes"], job["object_mib"], others
        )
    elif job["private_bytes"]:
        parts["private"] = Private(pool.region(job["private_bytes"]), job["seed"])
    return parts


def arm(failpoints: Any) -> None:
    """Sets them."""
    if failpoints:
        from _support.failpoints import set_failpoint

        for name, action, argument, nth, every in failpoints:
            set_failpoint(name, action, argument, nth=nth, every=every)


def listen(lines: queue.Queue[str]) -> None:
    """What is said, for whoever waits."""
    for line in sys.stdin:
        lines.put(line.strip())
    lines.put("leave")


class Worker(threading.Thread):
    """Works on a part until told to stop, then checks all of it. NumPy lets go of the GIL for a page, so one who
    waits for a page keeps nobody else."""

    def __init__(self, name: str, part: Any, stop: threading.Event) -> None:
        super().__init__(daemon=True, name=name)
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


class Crew:
    """The workers, from one "go on" to the next "stop"."""

    def __init__(self, parts: dict[str, Any]) -> None:
        self._stop = threading.Event()
        self._workers = [Worker(name, part, self._stop) for name, part in parts.items()]
        self._said: dict[str, int] = {}
        for worker in self._workers:
            worker.start()

    def report(self) -> None:
        """Says how far they are; raises what one of them has found wrong."""
        for worker in self._workers:
            if worker.error is not None:
                raise worker.error
        turns = {worker.name: worker.turns for worker in self._workers}
        if turns != self._said:
            print("turns", json.dumps(turns), flush=True)
            self._said = turns

    def end(self) -> None:
        """They check what is theirs; raises what one of them has found wrong."""
        self._stop.set()
        for worker in self._workers:
            worker.join()
        self.report()


def count(pool: uswap.Pool, members: int) -> None:
    """When so many are left: who has died is buried first."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while len(pool.members()) != members:
        if time.monotonic() > deadline:
            raise WrongError(f"{members} members expected, found {pool.members()}")
        time.sleep(0.001)
    pool._core.call(lib.uswap_group_check)
    pool.check()


def follow(pool: uswap.Pool, parts: dict[str, Any], lines: queue.Queue[str]) -> None:
    """What is said, until "leave". Raises WrongError."""
    crew: Crew | None = Crew(parts)
    while True:
        try:
            line = lines.get(timeout=SAY_SECONDS)
        except queue.Empty:
            if crew:
                crew.report()
            continue
        word, _, argument = line.partition(" ")
        if crew and word in ("stop", "leave"):
            crew.end()
            crew = None
        if word == "leave":
            return
        if word == "stop":
            print("right", flush=True)
        elif word == "go":
            crew = Crew(parts)
            print("going", flush=True)
        elif word == "check":
            pool._core.call(lib.uswap_group_check)
            print("checked", flush=True)
        elif word == "count":
            count(pool, int(argument))
            print("counted", flush=True)


def run(job: dict[str, Any]) -> int:
    """=> 0, 1 if anything was wrong."""
    if job["arm_first"]:
        arm(job["failpoints"])
    lines: queue.Queue[str] = queue.Queue()
    try:
        pool = join(job)
        parts = parts_of(pool, job)
        threading.Thread(target=listen, args=(lines,), daemon=True).start()
        print("joined", flush=True)
        if not job["arm_first"]:
            arm(job["failpoints"])
        print("ready", flush=True)
        follow(pool, parts, lines)
    except (WrongError, uswap.UswapError) as error:
        print("WRONG", type(error).__name__, str(error).replace("\n", " "), flush=True)
        return 1
    return 0
