"""A member of the soak: threads that check and rewrite pages of a shared and of a private region, by touches, while
soak_injector.py injects errors of the disk. crowd.py starts it; the lines it is told and says are those of
crowd_member.py.

The job: as crowd_member.py's; threads, private_bytes, and ledger (a folder: see soak_ledger.py).
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import queue
import random
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import uswap
from _support import soak_ledger
from _support.crowd_member import REGION, SAY_SECONDS, count, join, listen, region_named
from _support.soak_book import PAGE, Book, WrongError
from _support.soak_injector import Injector
from _support.soak_ledger import Ledger

# How its threads work: by touches; by asking for each page first; not at all.
TOUCH, CAREFUL, REST = "touch", "careful", "rest"


class Mode:
    """How all threads work now, and how each of them does."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._wanted = TOUCH
        self._seen: dict[int, str] = {}

    def look(self, number: int) -> str:
        """By the thread of that number, between two turns; at REST it waits."""
        with self._changed:
            if self._seen.get(number) != self._wanted:
                self._seen[number] = self._wanted
                self._changed.notify_all()
            if self._wanted == REST:
                self._changed.wait(SAY_SECONDS)
            return self._wanted

    def leave(self, number: int) -> None:
        """That thread works no more."""
        with self._changed:
            self._seen.pop(number, None)
            self._changed.notify_all()

    def change(self, wanted: str) -> None:
        """Returns when all threads work that way."""
        with self._changed:
            self._wanted = wanted
            self._changed.notify_all()
            while any(seen != wanted for seen in self._seen.values()):
                self._changed.wait()


class Worker(threading.Thread):
    """Works on its books until told to stop, then checks all of them."""

    def __init__(self, number: int, books: list[Book], mode: Mode, stop: threading.Event) -> None:
        super().__init__(daemon=True, name=f"worker-{number}")
        self._number, self._books, self._mode, self._halt = number, books, mode, stop
        self.turns = 0
        self.error: BaseException | None = None

    def run(self) -> None:
        """The thread."""
        chance = random.Random(self._number)
        try:
            while not self._halt.is_set():
                how = self._mode.look(self._number)
                book = chance.choice(self._books)
                if how == TOUCH:
                    book.turns()
                elif how == CAREFUL:
                    book.careful_turn()
                self.turns += 1
            self._mode.leave(self._number)
            for book in self._books:
                book.check_all()
        except BaseException as error:
            self.error = error
        finally:
            self._mode.leave(self._number)


class Soak:
    """What a member works on, from its beginning to its end."""

    def __init__(self, pool: uswap.Pool, job: dict[str, Any]) -> None:
        self._pool, threads = pool, job["threads"]
        path = Path(job["ledger"]) / f"{os.getpid()}-{job['seed']}.ledger"
        *rows, self._injected, self._sampled = soak_ledger.make(path, threads + 2)
        self._shared, self._private = region_named(pool, job, REGION, job["bytes"]), self._own_region(job)
        self._seed, step = job["seed"], job["places"] * threads
        self._books = [self._books_of(number, rows[number], step, job) for number in range(threads)]
        for shared, _ in self._books:
            shared.take_over()

    def _own_region(self, job: dict[str, Any]) -> Any:
        return self._pool.region(job["private_bytes"], name="private")

    def _books_of(self, number: int, row: Ledger, step: int, job: dict[str, Any]) -> tuple[Book, Book]:
        first, seed = job["place"] * job["threads"] + number, self._seed + number
        return (
            Book(self._shared, first, step, seed, row, "shared"),
            Book(self._private, number, job["threads"], seed + 1, row, "private"),
        )

    def begin(self) -> None:
        """All go to work."""
        self._mode, self._stop = Mode(), threading.Event()
        self._workers = [
            Worker(number, list(books), self._mode, self._stop) for number, books in enumerate(self._books)
        ]
        self._injector = Injector(self._seed, self._injected, self._carefully)
        self._seed += 1
        for thread in (*self._workers, self._injector):
            thread.start()

    def _carefully(self, work: Callable[[], None]) -> None:
        """work while nobody touches a page that was not asked for; what is lost then is found without a touch."""
        self._mode.change(CAREFUL)
        try:
            work()
            self._mode.change(REST)
            for region, books in zip((self._shared, self._private), zip(*self._books, strict=True), strict=True):
                self._mend(region, books)
        finally:
            self._mode.change(TOUCH)

    @staticmethod
    def _mend(region: Any, books: tuple[Book, ...]) -> None:
        """A lost page says so in every way that is no touch; its owner throws it away."""
        classes = region.page_classes()
        for page in (page for page, one in enumerate(classes) if one == uswap.PageClass.POISONED):
            ours = any(page in book.own for book in books)
            for look in (region.verify, lambda start, length: region.resident(start, length).__enter__()):
                with contextlib.suppress(uswap.SwapError):
                    look(page * PAGE, PAGE)
                    if ours:
                        raise WrongError(f"page {page} is lost, and nothing says so")
            for book in books:
                book.mend(page)

    def report(self) -> None:
        """Says how far they are; raises what one of them has found wrong."""
        stats, group = self._pool.stats(), self._pool.group_info()
        self._sampled.put("private_pages_in", stats.pages_in)
        self._sampled.put("private_pages_out", stats.pages_out)
        self._sampled.put("shared_pages_in", group.pages_read)
        self._sampled.put("shared_pages_out", group.pages_written)
        for thread in (*self._workers, self._injector):
            if thread.error is not None:
                raise thread.error
        print("turns", json.dumps({worker.name: worker.turns for worker in self._workers}), flush=True)

    def end(self) -> None:
        """Nothing is injected any more; all check what is theirs; raises what one of them has found wrong."""
        self._injector.end()
        self._stop.set()
        for worker in self._workers:
            worker.join()
        self.report()


def follow(pool: uswap.Pool, soak: Soak, lines: queue.Queue[str]) -> None:
    """What is said, until "leave". Raises WrongError."""
    working = True
    soak.begin()
    while True:
        try:
            line = lines.get(timeout=SAY_SECONDS)
        except queue.Empty:
            if working:
                soak.report()
            continue
        word, _, argument = line.partition(" ")
        if working and word in ("stop", "leave"):
            soak.end()
            working = False
        if word == "leave":
            return
        if word == "stop":
            print("right", flush=True)
        elif word == "go":
            soak.begin()
            working = True
            print("going", flush=True)
        elif word == "count":
            count(pool, int(argument))
            print("counted", flush=True)


def run(job: dict[str, Any]) -> int:
    """=> 0, 1 if anything was wrong. Standard error is for lost pages alone: the injected errors are no news."""
    warnings.simplefilter("ignore", uswap.UswapWarning)
    logging.getLogger("uswap").addHandler(logging.NullHandler())
    lines: queue.Queue[str] = queue.Queue()
    try:
        pool = join(job)
        soak = Soak(pool, job)
        threading.Thread(target=listen, args=(lines,), daemon=True).start()
        print("ready", flush=True)
        follow(pool, soak, lines)
    except (WrongError, uswap.UswapError) as error:
        print("WRONG", type(error).__name__, str(error).replace("\n", " "), flush=True)
        return 1
    return 0
