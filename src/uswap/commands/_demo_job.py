"""The demo's job: records made from a counter, sorted, grouped; and the same answer computed independently.

A record is (value, key), two 32-bit numbers in one 64-bit word with the key on top, so that NumPy's own
in-place sort of the words orders the records by key, then value.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    Words: TypeAlias = npt.NDArray[np.uint64]
    Progress: TypeAlias = Callable[[str, int, int], None]

RECORD = np.dtype([("value", "<u4"), ("key", "<u4")])
# Records: 512 KiB. NumPy's temporaries are a dozen times this and outside the limit: they must be small beside the
# 16 MiB that the demo allows for all that is.
CHUNK = 1 << 16
GROUPS = 1 << 16
_GROUP_SHIFT = np.uint64(48)  # a group is the upper half of the key


def _mix(words: Words) -> Words:
    """splitmix64 (Steele, Lea, Flood 2014), in place."""
    words += np.uint64(0x9E3779B97F4A7C15)
    words ^= words >> np.uint64(30)
    words *= np.uint64(0xBF58476D1CE4E5B9)
    words ^= words >> np.uint64(27)
    words *= np.uint64(0x94D049BB133111EB)
    words ^= words >> np.uint64(31)
    return words


def chunks(count: int) -> Iterator[tuple[int, int]]:
    """(start, stop) of pieces of so many records."""
    for start in range(0, count, CHUNK):
        yield start, min(start + CHUNK, count)


def records(start: int, stop: int) -> Words:
    """Records number start to stop, from nothing but their numbers."""
    return _mix(np.arange(start, stop, dtype=np.uint64) * np.uint64(0xD1342543DE82EF95))


@dataclass
class Summary:
    """What a multiset of records comes to, whatever their order.

    Attributes:
        count, total, mixed: number of records; sum of their words and of a hash of each, modulo 2**64.
        sums, counts: per group, the sum of the values and the number of records.
    """

    count: int
    total: int
    mixed: int
    sums: Any
    counts: Any

    @classmethod
    def empty(cls) -> Summary:
        """Of no records."""
        return cls(0, 0, 0, np.zeros(GROUPS, np.uint64), np.zeros(GROUPS, np.int64))

    def same_as(self, other: Summary) -> bool:
        """Whether both are the same in every figure."""
        return (
            (self.count, self.total, self.mixed) == (other.count, other.total, other.mixed)
            and bool((self.sums == other.sums).all())
            and bool((self.counts == other.counts).all())
        )

    def _add_checksums(self, words: Words) -> None:
        self.count += len(words)
        self.total = (self.total + int(words.sum(dtype=np.uint64))) % 2**64
        self.mixed = (self.mixed + int(_mix(words.copy()).sum(dtype=np.uint64))) % 2**64


def fill(array: Any, progress: Progress) -> None:
    """Writes the records into array."""
    words = array.view("<u8")
    for start, stop in chunks(len(words)):
        words[start:stop] = records(start, stop)
        progress("fill", stop, len(words))


def group(array: Any, progress: Progress) -> tuple[Summary, bool]:
    """=> the summary of a sorted array, grouped by runs, and whether it is in order."""
    words = array.view("<u8")
    summary, ordered, last = Summary.empty(), True, np.uint64(0)
    for start, stop in chunks(len(words)):
        piece = words[start:stop]
        ordered = ordered and bool(piece[0] >= last) and bool((piece[1:] >= piece[:-1]).all())
        last = piece[-1]
        groups = (piece >> _GROUP_SHIFT).astype(np.int64)
        begins = np.flatnonzero(np.concatenate(([True], groups[1:] != groups[:-1])))
        values = (piece & np.uint64(0xFFFFFFFF)).astype(np.uint64)
        # Groups come in order, so each is one run of the piece: one addition a run.
        np.add.at(summary.sums, groups[begins], np.add.reduceat(values, begins))
        np.add.at(summary.counts, groups[begins], np.diff(np.append(begins, len(piece))))
        summary._add_checksums(piece)
        progress("group", stop, len(words))
    return summary, ordered


def expected(count: int, progress: Progress) -> Summary:
    """The same summary from the record numbers alone: streaming, unsorted, by another method."""
    summary = Summary.empty()
    for start, stop in chunks(count):
        piece = records(start, stop)
        groups = (piece >> _GROUP_SHIFT).astype(np.int64)
        values = (piece & np.uint64(0xFFFFFFFF)).astype(np.uint64)
        # bincount adds in doubles: halves of 16 bits stay exact.
        low = np.bincount(groups, (values & np.uint64(0xFFFF)).astype(float), GROUPS)
        high = np.bincount(groups, (values >> np.uint64(16)).astype(float), GROUPS)
        summary.sums += low.astype(np.uint64) + (high.astype(np.uint64) << np.uint64(16))
        summary.counts += np.bincount(groups, minlength=GROUPS)
        summary._add_checksums(piece)
        progress("check", stop, count)
    return summary
