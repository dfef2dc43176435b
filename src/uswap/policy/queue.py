"""Queue: stays in order, oldest first."""

from __future__ import annotations

from array import array
from collections import deque
from typing import cast

from uswap.policy.interface import Stays, View


class Queue:
    """First in, first out, by arrays: push and pop cost a copy of memory, whatever they hold. Not thread-safe.

    Example:
        >>> queue = Queue()
        >>> queue.push([7, 8, 9])
        >>> list(queue.pop(2)), len(queue)
        ([7, 8], 1)
    """

    __slots__ = ("_chunks", "_length", "_taken")

    def __init__(self) -> None:
        self._chunks: deque[tuple[array[int], int]] = deque()
        self._taken = 0  # of the first chunk
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def push(self, stays: Stays, tag: int = 0) -> None:
        """At the young end, copied, with a number that pop_tagged gives back. Raises TypeError, OverflowError for
        what is no stay."""
        chunk = as_array(stays)
        if chunk:
            self._chunks.append((chunk, tag))
            self._length += len(chunk)

    def pop(self, count: int) -> array[int]:
        """The oldest, count of them or all there are."""
        popped = array("Q")
        for part, _ in self.pop_tagged(count):
            popped = popped + part if popped else part
        return popped

    def pop_tagged(self, count: int) -> list[tuple[array[int], int]]:
        """The same, by the tags they were pushed with, oldest first."""
        parts = []
        while count > 0 and self._chunks:
            first, tag = self._chunks[0]
            part = first[self._taken : self._taken + count] if self._taken or count < len(first) else first
            self._taken += len(part)
            if self._taken == len(first):
                self._chunks.popleft()
                self._taken = 0
            parts.append((part, tag))
            count -= len(part)
            self._length -= len(part)
        return parts

    def tidy(self, view: View) -> None:
        """Throws away what is out of date."""
        chunks, taken = self._chunks, self._taken
        self._chunks, self._taken, self._length = deque(), 0, 0
        for chunk, tag in chunks:
            self.push(view.current(chunk[taken:] if taken else chunk), tag)
            taken = 0


def as_array(stays: Stays) -> array[int]:
    """A copy as array('Q'). Raises TypeError, OverflowError."""
    if isinstance(stays, array) and stays.typecode == "Q":
        return stays[:]
    try:
        view = memoryview(cast("array[int]", stays))
    except TypeError:
        return array("Q", stays)
    copied = array("Q")
    if view.itemsize != 8 or view.format not in ("Q", "L", "@Q", "<Q", "@L", "<L") or view.ndim != 1:
        raise TypeError(f"stays are a one-dimensional buffer of unsigned 64-bit integers, not of {view.format!r}")
    copied.frombytes(view.tobytes())
    return copied
