"""What a workload is."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Pages: TypeAlias = npt.NDArray[np.uint32]

PAGE = 4096


@dataclass(frozen=True)
class Reference:
    """A reference string: which page is touched after which, once all pages have been written in order.

    Attributes:
        parts: name -> pages. Each part is a region of its own; their pages are numbered through, in this order.
        order: the page of each access.
        warm: so many accesses at the start are made and not counted.
        watched: the part whose misses are counted by themselves; "": none.
    """

    parts: dict[str, int]
    order: Pages
    warm: int
    watched: str = ""

    @property
    def pages(self) -> int:
        """Pages of all parts."""
        return sum(self.parts.values())

    @property
    def counted(self) -> int:
        """Accesses that count."""
        return len(self.order) - self.warm

    @property
    def watched_accesses(self) -> int:
        """Counted accesses to the watched part; 0 if there is none."""
        return int(self.is_watched(self.order[self.warm :]).sum()) if self.watched else 0

    def is_watched(self, order: Pages) -> npt.NDArray[np.bool_]:
        """Whether each of these pages is in the watched part, which there is."""
        part = self.part(self.watched)
        return (order >= part.start) & (order < part.stop)

    def part(self, name: str) -> range:
        """The page numbers of a part."""
        names = list(self.parts)
        first = sum(self.parts[other] for other in names[: names.index(name)])
        return range(first, first + self.parts[name])

    def with_fill(self) -> Pages:
        """The string as a simulation needs it: behind the touches of the fill, of which there are `pages`."""
        return np.concatenate([np.arange(self.pages, dtype=np.uint32), self.order])


# (pages the limit has room for, seed) -> the string
StringMaker: TypeAlias = Callable[[int, int], Reference]


# (shape, dtype) -> an array of zeroes
Allocate: TypeAlias = Callable[[Any, Any], npt.NDArray[Any]]


def checksum(array: Any, so_far: int = 0) -> int:
    """CRC-32 of the bytes of a contiguous array, after those of others."""
    return zlib.crc32(memoryview(array).cast("B"), so_far)


@dataclass(frozen=True)
class Program:
    """A program whose data lies in arrays that it is given.

    Attributes:
        prepare: (allocate, bytes of the working set) -> the work, which gives a checksum. It fills the arrays; only
            the work is timed.
    """

    prepare: Callable[[Allocate, int], Callable[[], int]]

    def run(self, allocate: Allocate, size: int) -> int:
        """Prepares and works; => the checksum, the same wherever the arrays lie."""
        return self.prepare(allocate, size)()
