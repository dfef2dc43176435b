"""Records: a part of a trace, as columns."""

from __future__ import annotations

import sys
from array import array
from functools import cached_property
from typing import Any

from uswap.trace._numpy import numpy_or_none
from uswap.trace.format import (
    KIND_SHIFT,
    PAGE_KEY_MASK,
    PAYLOAD_MASK,
    REGION_BITS,
    REGION_MASK,
    STORE,
    TOUCHES,
    Kind,
)

_FIRST_UNUSED, _FIRST_SPECIAL = Kind.AGED + 1, Kind.END


class Records:
    """Records in their order. The columns are numpy arrays where NumPy is installed, else arrays of the standard
    library; each is made when it is asked for.

    Attributes:
        raw: array('Q'), as in the file.
        begin_ns: time of what comes before the first TIME.
    """

    def __init__(self, raw: array[int], begin_ns: int = 0) -> None:
        self.raw = raw
        self.begin_ns = begin_ns

    def __len__(self) -> int:
        return len(self.raw)

    @cached_property
    def kinds(self) -> Any:
        """8 bits each: see Kind."""
        if numpy := numpy_or_none():
            return (self._words(numpy) >> numpy.uint64(KIND_SHIFT)).astype(numpy.uint8)
        return array("B", [word >> KIND_SHIFT for word in self.raw])

    @cached_property
    def page_keys(self) -> Any:
        """page << 18 | key of the region. Says nothing for TIME, END and LOST, as the next three."""
        if numpy := numpy_or_none():
            return self._words(numpy) & numpy.uint64(PAGE_KEY_MASK)
        return array("Q", [word & PAGE_KEY_MASK for word in self.raw])

    @cached_property
    def pages(self) -> Any:
        """Page of the region, from 0."""
        if numpy := numpy_or_none():
            return self.page_keys >> numpy.uint64(REGION_BITS)
        return array("Q", [key >> REGION_BITS for key in self.page_keys])

    @cached_property
    def regions(self) -> Any:
        """Key of the region."""
        if numpy := numpy_or_none():
            return (self.page_keys & numpy.uint64(REGION_MASK)).astype(numpy.uint32)
        return array("I", [key & REGION_MASK for key in self.page_keys])

    @cached_property
    def stores(self) -> Any:
        """1 where the touch was a store, as far as known."""
        if numpy := numpy_or_none():
            return ((self._words(numpy) & numpy.uint64(STORE)) != 0).astype(numpy.uint8)
        return array("B", [word & STORE != 0 for word in self.raw])

    @cached_property
    def times_ns(self) -> Any:
        """Since the trace began: to 1 ms, and never too late."""
        if numpy := numpy_or_none():
            words = self._words(numpy)
            told = numpy.where(self.kinds == Kind.TIME, words & numpy.uint64(PAYLOAD_MASK), numpy.uint64(0))
            return numpy.maximum.accumulate(numpy.maximum(told, numpy.uint64(self.begin_ns)))
        now, times = self.begin_ns, array("Q")
        for word in self.raw:
            if word >> KIND_SHIFT == Kind.TIME:
                now = max(now, word)
            times.append(now)
        return times

    def touches(self) -> list[int]:
        """Page keys of what was touched; ~key where the touch was a FIRST."""
        if numpy := numpy_or_none():
            inside = (self.kinds >= TOUCHES.start) & (self.kinds < TOUCHES.stop)
            keys = self.page_keys[inside].astype(numpy.int64)
            touched: list[int] = numpy.where(self.kinds[inside] == Kind.FIRST, ~keys, keys).tolist()
            return touched
        first, least, beyond = Kind.FIRST << KIND_SHIFT, Kind.READ << KIND_SHIFT, TOUCHES.stop << KIND_SHIFT
        return [
            word & PAGE_KEY_MASK if word >= least else ~(word & PAGE_KEY_MASK)
            for word in self.raw
            if first <= word < beyond
        ]

    def count_stores(self) -> tuple[int, int]:
        """(touches of pages that had contents, those of them that were stores)."""
        if numpy := numpy_or_none():
            inside = (self.kinds > Kind.FIRST) & (self.kinds < TOUCHES.stop)
            return int(numpy.count_nonzero(inside)), int(numpy.count_nonzero(self.stores[inside]))
        least, beyond = Kind.READ << KIND_SHIFT, TOUCHES.stop << KIND_SHIFT
        inside = [word & STORE for word in self.raw if least <= word < beyond]
        return len(inside), len(inside) - inside.count(0)

    def special(self) -> list[int]:
        """Where (by index) something other than a TIME or a page stands: END, LOST, or a kind that there is not."""
        if len(self.raw) == 0:
            return []
        if numpy := numpy_or_none():
            found: list[int] = numpy.flatnonzero(self.kinds >= _FIRST_UNUSED).tolist()
            return found
        beyond = _FIRST_UNUSED << KIND_SHIFT
        if max(self.raw) < beyond:
            return []
        return [index for index, word in enumerate(self.raw) if word >= beyond]

    def _words(self, numpy: Any) -> Any:
        return numpy.frombuffer(self.raw, dtype=numpy.uint64)


def records_from_bytes(data: bytes, begin_ns: int = 0) -> Records:
    """Whole records; the rest of data is left out."""
    raw = array("Q")
    raw.frombytes(data[: len(data) // 8 * 8])
    if sys.byteorder == "big":
        raw.byteswap()
    return Records(raw, begin_ns)
