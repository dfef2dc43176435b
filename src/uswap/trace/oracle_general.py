"""oracleGeneral: the binary format of libCacheSim that knows the future.

Records of 24 bytes, little endian: u32 seconds, u64 object, u32 size of the object, i64 number of the record (from
1) that wants the object next, -1 if none does.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from uswap.trace.format import PAGE_KEY_BITS
from uswap.trace.reader import Trace
from uswap.trace.source import Source

RECORD = struct.Struct("<IQIq")
_NEXT = struct.Struct("<q")
_NEXT_OFFSET = RECORD.size - _NEXT.size
_INCARNATIONS = 1 << (64 - PAGE_KEY_BITS)
_NEVER = -1


class Exported(NamedTuple):
    """What was written.

    Attributes:
        touches: records. objects: different ones among them. sample: the share of pages they are of.
        total: touches of all pages, as Simulated.touches.
    """

    touches: int
    objects: int
    sample: float
    total: float


def write_oracle_general(
    touches: Trace | Iterable[int],
    path: str | os.PathLike[str],
    *,
    sample: float | None = None,
    object_bytes: int = 4096,
) -> Exported:
    """Writes the touches for libCacheSim. Memory grows with the pages, not with the touches.

    The object is the page key; where a page has lost its contents and is touched again it is another object, with a
    number in the upper 10 bits: to read it would not be needed. Raises OSError.
    """
    source = Source(touches, sample)
    with Path(path).open("wb", buffering=0) as file:
        writer = _Writer(file.fileno(), object_bytes)
        for chunk in source.chunks():
            writer.write(chunk, source.now_ns // 10**9 & 0xFFFFFFFF)
    return Exported(writer.written, len(writer.last) + writer.again, source.sample, source.passed)


class _Writer:
    """Records wait in a chunk; what turns out later about records that are in the file already is written there."""

    def __init__(self, descriptor: int, object_bytes: int) -> None:
        self.descriptor, self.object_bytes = descriptor, object_bytes
        self.last: dict[int, int] = {}  # page key -> its last record
        self.incarnations: dict[int, int] = {}
        self.written = self.again = 0

    def write(self, chunk: list[int], seconds: int) -> None:
        buffer, begin, last = bytearray(len(chunk) * RECORD.size), self.written, self.last
        for number, touch in enumerate(chunk, start=begin):
            key, before = touch, last.get(touch)
            if touch < 0:
                key, before = ~touch, None
                self._begin_again(key)
            if before is not None:
                self._tell(buffer, begin, before, number)
            last[key] = number
            name = key | self.incarnations.get(key, 0) << PAGE_KEY_BITS
            RECORD.pack_into(buffer, (number - begin) * RECORD.size, seconds, name, self.object_bytes, _NEVER)
        os.pwrite(self.descriptor, buffer, begin * RECORD.size)
        self.written += len(chunk)

    def _begin_again(self, key: int) -> None:
        if key in self.last:
            self.incarnations[key] = (self.incarnations.get(key, 0) + 1) % _INCARNATIONS
            self.again += 1

    def _tell(self, buffer: bytearray, begin: int, before: int, number: int) -> None:
        """The record before is followed by this one; records count from 1."""
        if before >= begin:
            _NEXT.pack_into(buffer, (before - begin) * RECORD.size + _NEXT_OFFSET, number + 1)
        else:
            os.pwrite(self.descriptor, _NEXT.pack(number + 1), before * RECORD.size + _NEXT_OFFSET)
