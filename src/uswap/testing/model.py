"""The reference: what each region must hold, as plain bytearrays, also while accesses are outstanding.

An access is *outstanding* from when it is started until it is known to have ended. While a store is outstanding
each of its bytes may still be old or be new already, and a load that overlaps may see either; when it has ended
there is one truth again. Accesses for which this would not do (two stores of one place, a change of a region's
shape beside anything else in it) are not outstanding together: *clash* says so.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Any

from uswap.testing.memory import PAGE

# Most pieces of so many bytes are those of one candidate.
_PIECE_BYTES = 64


class Kind(enum.Enum):
    """What an access does to its range."""

    LOAD = "load"
    STORE = "store"
    HOLD = "hold"  # keeps pages in: lock, resident
    DISCARD = "discard"  # a store of zeroes that nothing may keep in
    USE = "use"  # reads nothing and changes nothing, but needs the region as it is: advise, verify
    RIGHTS = "rights"  # protect
    SHAPE = "shape"  # may not be beside anything else: resize, unmap


# Pairs that may be outstanding together in one place.
_TOGETHER = {
    frozenset({Kind.LOAD}),
    frozenset({Kind.LOAD, Kind.STORE}),
    frozenset({Kind.LOAD, Kind.HOLD}),
    frozenset({Kind.LOAD, Kind.DISCARD}),
    frozenset({Kind.STORE, Kind.HOLD}),
    *(frozenset({Kind.USE, kind}) for kind in Kind if kind is not Kind.SHAPE),
}


@dataclass(eq=False)
class Mapped:
    """A region and what it must hold."""

    region: Any
    number: int
    shared: bool = False
    model: bytearray = field(default_factory=bytearray)
    beyond: int = 0  # bytes that a shared region has, and this process does not see
    read_only: set[int] = field(default_factory=set)  # pages
    no_access: set[int] = field(default_factory=set)
    locked: set[int] = field(default_factory=set)

    @property
    def pages(self) -> int:
        """How many it has; the last one may be a part."""
        return -(-len(self.model) // PAGE)

    @property
    def whole(self) -> int:
        """Bytes of all of the region."""
        return len(self.model) + self.beyond

    def span(self, start: int, length: int, seen: int | None = None) -> tuple[int, int]:
        """The range as far as there is one: (start, length), in bytes. seen: by another process, too."""
        end = len(self.model) if seen is None else min(seen, len(self.model))
        start = start % end
        return start, min(length, end - start)

    def page_span(self, first: int, count: int, seen: int | None = None) -> tuple[int, int]:
        """The same in pages, as bytes: (start, length)."""
        end = len(self.model) if seen is None else min(seen, len(self.model))
        start = first % -(-end // PAGE) * PAGE
        return start, min(count * PAGE, end - start)

    def may_load(self, start: int, length: int) -> bool:
        """Whether a program may."""
        return not self.no_access or self.no_access.isdisjoint(pages_of(start, length))

    def may_store(self, start: int, length: int) -> bool:
        """Whether a program may."""
        pages = pages_of(start, length)
        return self.read_only.isdisjoint(pages) and self.no_access.isdisjoint(pages)


def pages_of(start: int, length: int) -> range:
    """Numbers of the pages that a range touches.

    Example:
        >>> list(pages_of(4095, 2))
        [0, 1]
    """
    return range(start // PAGE, -(-(start + length) // PAGE))


@dataclass(eq=False)
class Access:
    """Something done, or being done, to a range of a region.

    after: what the range holds when a STORE or DISCARD has ended. candidates: what a LOAD may see. look: a LOAD
    that is a part of it and is outstanding as long."""

    kind: Kind
    mapped: Mapped
    start: int
    length: int
    after: bytes = b""
    candidates: list[bytes] = field(default_factory=list)
    look: Access | None = None

    def overlaps(self, other: Access) -> bool:
        """Whether they have a byte in common; what changes a shape has all pages it touches."""
        if self.mapped is not other.mapped:
            return False
        one, two = self._extent(), other._extent()
        return one[0] < two[1] and two[0] < one[1]

    def _extent(self) -> tuple[int, int]:
        if self.kind in (Kind.LOAD, Kind.STORE):
            return self.start, self.start + self.length
        pages = pages_of(self.start, self.length)
        return pages.start * PAGE, pages.stop * PAGE

    def laid_over(self, load: Access, below: bytes) -> bytes:
        """What load sees if it sees all of this store, and below elsewhere."""
        first = max(self.start, load.start)
        last = min(self.start + len(self.after), load.start + load.length)
        if last <= first:
            return below
        piece = self.after[first - self.start : last - self.start]
        return below[: first - load.start] + piece + below[last - load.start :]

    def apply(self) -> None:
        """It has ended: the model has what it did."""
        if self.after:
            self.mapped.model[self.start : self.start + len(self.after)] = self.after


class Ledger:
    """The accesses that are outstanding."""

    def __init__(self) -> None:
        self._open: list[Access] = []
        self.checked = 0  # loads compared
        self.torn: list[
            tuple[Access, Access]
        ] = []  # a store that may have been done in part, and what guards its place

    def clash(self, access: Access) -> bool:
        """Whether it may not begin now."""
        for other in self._open:
            if frozenset({access.kind, other.kind}) in _TOGETHER:
                continue
            if access.overlaps(other):
                return True
        return access.look is not None and self.clash(access.look)

    def begin(self, access: Access) -> None:
        """It is outstanding from here on."""
        if access.kind is Kind.LOAD:
            now = bytes(access.mapped.model[access.start : access.start + access.length])
            access.candidates = [now]
            for other in self._open:
                if other.after and other.overlaps(access):
                    access.candidates.append(other.laid_over(access, now))
        elif access.after:
            for other in self._open:
                if other.kind is Kind.LOAD and other.overlaps(access):
                    other.candidates.append(access.laid_over(other, other.candidates[0]))
        self._open.append(access)
        if access.look is not None:
            self.begin(access.look)

    def end(self, access: Access) -> None:
        """It has ended."""
        self.give_up(access)
        access.apply()

    def give_up(self, access: Access) -> None:
        """It has ended and done nothing."""
        self._open.remove(access)
        if access.look is not None:
            self._open.remove(access.look)

    def tear(self, access: Access) -> None:
        """It has ended somewhere in the middle: until its place is looked at (mended) nobody else has it."""
        guard = Access(Kind.SHAPE, access.mapped, access.start, access.length)
        self._open.append(guard)
        self.torn.append((access, guard))

    def mend(self, access: Access, guard: Access, found: bytes) -> None:
        """What a torn store has left, byte by byte old or new: that is the truth from now on. Raises
        AssertionError."""
        self._open.remove(guard)
        self.torn.remove((access, guard))
        old = bytes(access.mapped.model[access.start : access.start + access.length])
        load = Access(Kind.LOAD, access.mapped, access.start, access.length, candidates=[old, access.after])
        self.check(load, found)
        access.mapped.model[access.start : access.start + access.length] = found

    def check(self, access: Access, found: bytes) -> None:
        """That a load saw what it may. Raises AssertionError."""
        self.checked += 1
        if found in access.candidates:
            return
        for start in range(0, len(found), _PIECE_BYTES):
            piece = slice(start, start + _PIECE_BYTES)
            if all(candidate[piece] != found[piece] for candidate in access.candidates):
                self._check_bytes(access, found, piece)

    @staticmethod
    def _check_bytes(access: Access, found: bytes, piece: slice) -> None:
        """The same, byte by byte."""
        for index, byte in enumerate(found[piece], piece.start):
            if all(candidate[index] != byte for candidate in access.candidates):
                raise AssertionError(_difference(access, found, index))


def _difference(access: Access, found: bytes, index: int) -> str:
    offset = access.start + index
    expected = access.candidates[0]
    wrong = sum(1 for one, two in zip(found, expected, strict=False) if one != two)
    kind = "shared region" if access.mapped.shared else "region"
    seen = found[index : index + 16].hex(" ")
    zeroes = " (zeroes)" if not any(found[index : index + 64]) else ""
    may = " or ".join(dict.fromkeys(candidate[index : index + 16].hex(" ") for candidate in access.candidates))
    return (
        f"lost or stale data: {kind} {access.mapped.number}, byte {offset} (page {offset // PAGE}, {offset % PAGE}"
        f" in it): found {seen}{zeroes}, expected {may}; {wrong} of {len(found)} bytes differ"
    )
