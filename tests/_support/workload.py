"""Native loops over the pages of a buffer (workload.c), compiled once a session of tests."""

from __future__ import annotations

import ctypes
import functools
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from _support.native import shared_object

PAGE = 4096
SOURCE = Path(__file__).with_name("workload.c")


@functools.cache
def _library(hold_gil: bool) -> Any:
    library = (ctypes.PyDLL if hold_gil else ctypes.CDLL)(shared_object(SOURCE))
    for name in ("pages_check", "pages_check_random", "pages_stress", "pages_touch"):
        getattr(library, name).restype = ctypes.c_uint64
    return library


def _u64(*values: int) -> list[ctypes.c_uint64]:
    return [ctypes.c_uint64(value) for value in values]


class Pages:
    """The pages of a writable buffer, worked on by native loops. hold_gil: these keep the GIL throughout."""

    def __init__(self, buffer: Any, *, hold_gil: bool = False) -> None:
        self.view = memoryview(buffer).cast("B")
        self.count = len(self.view) // PAGE
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self.view))
        self._native = _library(hold_gil)
        self._versions = (ctypes.c_uint32 * self.count)()

    def _call(self, name: str, *arguments: Any) -> int:
        return int(getattr(self._native, name)(ctypes.c_void_p(self.address), *arguments) or 0)

    def fill(self, version: int, first: int = 0, count: int | None = None) -> None:
        """Writes every word of the pages."""
        self._call("pages_fill", *_u64(first, self.count - first if count is None else count, version))

    def wrong(self, version: int, first: int = 0, count: int | None = None) -> int:
        """How many words of the pages are not what fill(version) wrote (0: untouched)."""
        count = self.count - first if count is None else count
        return self._call("pages_check", *_u64(first, count, version))

    def wrong_at_random(self, version: int, seed: int, count: int) -> int:
        """As wrong, for count pages at random."""
        return self._call("pages_check_random", *_u64(self.count, version, seed, count))

    def stress(self, seed: int, count: int) -> int:
        """Checks and rewrites count pages at random; threads may do so together. => wrong words."""
        return self._call("pages_stress", *_u64(self.count), self._versions, *_u64(seed, count))

    def wrong_after_stress(self) -> int:
        """How many words are not as stress left them."""
        return sum(self.wrong(self._versions[page] >> 1, page, 1) for page in range(self.count))

    def touch(self, order: Sequence[int]) -> int:
        """Reads one word of each page named, in this order; => their sum."""
        pages = (ctypes.c_uint64 * len(order))(*order)
        return self._call("pages_touch", pages, *_u64(len(order)))

    def store(self, order: Sequence[int], values: Sequence[int]) -> None:
        """Writes the first word of each page named, in this order."""
        pages = (ctypes.c_uint64 * len(order))(*order)
        words = (ctypes.c_uint64 * len(values))(*values)
        self._call("pages_store", pages, words, *_u64(len(order)))


def in_threads(count: int, work: Callable[[int], None]) -> None:
    """work(0) to work(count - 1), each in a thread; raises the first exception of any."""
    failures: list[BaseException] = []

    def run(number: int) -> None:
        try:
            work(number)
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=run, args=(number,), daemon=True) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
