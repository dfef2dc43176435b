"""What one thread of the soak owns of a region, and what it must hold: checked and rewritten by the loops of
soak.c, or page by page inside Region.resident, where a lost page is an exception and not the end of the process."""

from __future__ import annotations

import ctypes
import functools
import random
import time
from pathlib import Path
from typing import Any

import numpy as np

import uswap
from _support.native import shared_object
from _support.soak_ledger import Ledger

PAGE, WORDS = 4096, 512
SOURCE = Path(__file__).with_name("soak.c")
TURNS = 64
# A look at any page every so many turns. Few: a page lost in a shared region is then found by its owner, as a rule.
LOOK_EVERY = 64
# Somebody who is being killed may hold a shared page for a while. Against hangs only.
DISCARD_SECONDS = 60.0


class WrongError(Exception):
    """A word was not what it must be."""


@functools.cache
def _native() -> Any:
    library = ctypes.CDLL(shared_object(SOURCE))
    for name in ("soak_check", "soak_take_over", "soak_turns"):
        getattr(library, name).restype = ctypes.c_uint64
    return library


class Book:
    """The pages first, first + step, ... of a region. One thread at a time.

    Attributes:
        own: their numbers.
    """

    def __init__(self, region: Any, first: int, step: int, seed: int, row: Ledger, name: str) -> None:
        self._region, self._first, self._step, self._row, self._name = region, first, step, row, name
        self._rows = np.frombuffer(region, dtype="u8").reshape(-1, WORDS)
        self._address = ctypes.c_void_p(self._rows.ctypes.data)
        self._random = random.Random(seed)
        self.own = range(first, len(self._rows), step)
        self._versions = (ctypes.c_uint32 * len(self.own))()
        self._stores = ctypes.c_uint64()

    def take_over(self) -> None:
        """Another process may have had these pages, and died in the middle of a store: each is looked at, and
        written; what was lost since is thrown away."""
        classes = self._region.page_classes()
        for chosen, page in enumerate(self.own):
            if classes[page] == uswap.PageClass.POISONED:
                self._give_up(chosen)
        u64 = ctypes.c_uint64
        own = map(u64, (self._first, self._step, len(self.own)))
        wrong = _native().soak_take_over(self._address, *own, self._versions)
        self._row.add("page_loads", len(self.own))
        self._row.add("page_stores", len(self.own))
        self._judge(wrong, "what another process left")

    def turns(self) -> None:
        """Some, by touches alone."""
        u64 = ctypes.c_uint64
        before = self._stores.value
        wrong = _native().soak_turns(
            self._address,
            *map(u64, (len(self._rows), self._first, self._step, len(self.own))),
            self._versions,
            *map(u64, (self._random.getrandbits(63) | 1, TURNS, LOOK_EVERY)),
            ctypes.byref(self._stores),
        )
        self._row.add("page_loads", TURNS + TURNS // LOOK_EVERY)
        self._row.add("page_stores", self._stores.value - before)
        self._judge(wrong, "one of some")

    def careful_turn(self) -> None:
        """One, on a page that is asked for first."""
        chosen = self._random.randrange(len(self.own))
        self._check(chosen)
        self._write(chosen)

    def check_all(self) -> None:
        """Every page, asked for first."""
        for chosen in range(len(self.own)):
            self._check(chosen)

    def mend(self, page: int) -> bool:
        """A page that somebody has found lost: if it is one of these it is thrown away. Return: whether it is."""
        if page not in self.own:
            return False
        self._give_up((page - self._first) // self._step)
        return True

    def _check(self, chosen: int) -> None:
        u64 = ctypes.c_uint64
        page = self.own[chosen]
        self._with_page(chosen, lambda: _native().soak_check(self._address, u64(page), u64(self._versions[chosen])))

    def _write(self, chosen: int) -> None:
        self._versions[chosen] += 1

        def store() -> int:
            u64 = ctypes.c_uint64
            _native().soak_store(self._address, u64(self.own[chosen]), u64(self._versions[chosen]))
            self._row.add("page_stores", 1)
            return 0

        self._with_page(chosen, store)

    def _with_page(self, chosen: int, work: Any) -> None:
        """work with the page held in memory; a lost page is thrown away instead."""
        page = self.own[chosen]
        try:
            with self._region.resident(page * PAGE, PAGE):
                wrong = work()
        except uswap.SwapError as error:
            if error.offset != page * PAGE:
                raise WrongError(
                    f"{self._name}: page {page} was asked for, offset {error.offset} is lost"
                ) from error
            self._give_up(chosen)
            return
        self._row.add("page_loads", 1)
        self._judge(wrong, f"page {page}, version {self._versions[chosen]}")

    def _give_up(self, chosen: int) -> None:
        """The page is lost, and said to be: it is zeroes from now on. Counted afterwards: who takes over from a
        process that is killed here must not count it again."""
        self._versions[chosen] = 0
        start, deadline = self.own[chosen] * PAGE, time.monotonic() + DISCARD_SECONDS
        while True:
            try:
                self._region.advise(uswap.Advice.DONTNEED, start, PAGE)
                break
            except uswap.BusyError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)  # until who holds the page goes on, or is buried
        self._row.add("pages_lost", 1)

    def _judge(self, wrong: int, what: str) -> None:
        if wrong:
            self._row.add("words_wrong", wrong)
            raise WrongError(f"{self._name}: {what}: {wrong} words wrong")
