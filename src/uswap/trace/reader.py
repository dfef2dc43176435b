"""Trace: reads a trace file, a part at a time."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

from uswap._errors import TraceError
from uswap.trace.format import (
    HEADER_BYTES_MAX,
    KIND_SHIFT,
    MAGIC,
    PAYLOAD_MASK,
    PREFIX_BYTES,
    RECORD_BYTES,
    VERSION,
    End,
    Header,
    Kind,
    header_from_json,
)
from uswap.trace.records import Records, records_from_bytes

# At once: 1 MiB of the file.
CHUNK_RECORDS = 1 << 17


class Trace:
    """A trace file. Memory does not grow with its length; each pass reads the file anew. Trace.open makes it.

    Attributes:
        path: the file.
        header: what the recorder said at the start.

    Example:
        >>> import tempfile
        >>> from uswap.trace import Kind, TraceWriter
        >>> path = tempfile.mktemp(suffix=".trace")
        >>> with TraceWriter(path) as writer:
        ...     writer.touch(7, kind=Kind.FIRST)
        ...     writer.touch(7, kind=Kind.SOFT)
        >>> trace = Trace.open(path)
        >>> [records.pages.tolist() for records in trace.records()], trace.pages_touched, trace.end.complete
        ([[7, 7]], 1, True)
    """

    def __init__(self, path: str, header: Header, begin: int) -> None:
        self.path = path
        self.header = header
        self._begin = begin

    def __repr__(self) -> str:
        return f"<uswap.trace.Trace {self.path}>"

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Trace:
        """Reads the header.

        Raises:
            TraceError: this is no trace, or one of another version, or its header is damaged.
            OSError: the file cannot be read.
        """
        path = os.fspath(path)
        with Path(path).open("rb") as file:
            header = _read_header(file, path)
            return cls(path, header, file.tell())

    def records(self, size: int = CHUNK_RECORDS) -> Iterator[Records]:
        """All records up to END, so many at once. Raises TraceError for a record that no recorder writes."""
        for records, _ in self._pass(size):
            if len(records):
                yield records

    def touches(self) -> Iterator[list[int]]:
        """The page keys that were touched, in order, in lists; ~key where the page had no contents (Kind.FIRST)."""
        for records in self.records():
            if touched := records.touches():
                yield touched

    @cached_property
    def end(self) -> End:
        """How it ended; reads the file once."""
        records = lost = elapsed_ns = 0
        tail: bytes | None = None
        for part, rest in self._pass(CHUNK_RECORDS):
            records += len(part)
            lost += sum(part.raw[at] & PAYLOAD_MASK for at in part.special())
            elapsed_ns = int(part.times_ns[-1]) if len(part) else elapsed_ns
            tail = rest
        report, complete = _read_report(tail)
        known = self._begin + RECORD_BYTES * (records + complete) + (len(tail or b"") if report else 0)
        return End(
            complete=complete,
            records=records,
            lost=lost,
            damaged_bytes=max(0, os.path.getsize(self.path) - known),
            elapsed_ns=report["elapsed_ns"] if report else elapsed_ns,
            stats=report["stats"] if report else {},
        )

    @cached_property
    def counted(self) -> tuple[int, int]:
        """Touches, and different pages among them; reads the file once."""
        touched, seen = 0, set[int]()
        for chunk in self.touches():
            touched += len(chunk)
            seen.update(key if key >= 0 else ~key for key in chunk)
        return touched, len(seen)

    @cached_property
    def store_share(self) -> float:
        """Of the touches of pages that had contents, how many were stores; reads the file once."""
        stores = touched = 0
        for records in self.records():
            some, of_them = records.count_stores()
            touched, stores = touched + some, stores + of_them
        return stores / touched if touched else 0.0

    @property
    def pages_touched(self) -> int:
        """Different pages that were touched, those outside the sample estimated."""
        return round(self.counted[1] / self.header.sample)

    def warnings(self) -> list[str]:
        """What whoever reads results from this trace should know."""
        said, end = [], self.end
        if not end.complete:
            said.append("the trace has no end: the process was killed, or is still running")
        if end.damaged_bytes:
            said.append(f"the last {end.damaged_bytes} bytes of the trace cannot be read, and are left out")
        if end.lost:
            said.append(f"{end.lost} records were lost while the trace was recorded")
        if self.header.window_pages == 0:
            said.append(
                "the trace has only the faults of the run itself (no window): touches of mapped pages are missing, "
                "so other limits than its own are guesses"
            )
        return said

    def _pass(self, size: int) -> Iterator[tuple[Records, bytes | None]]:
        """Parts, each with None, the last one with what follows END (None: there is no END)."""
        begin_ns, index = 0, 0
        with Path(self.path).open("rb") as file:
            file.seek(self._begin)
            while data := file.read(size * RECORD_BYTES):
                records = records_from_bytes(data, begin_ns)
                for at in records.special():
                    kind = records.raw[at] >> KIND_SHIFT
                    if kind == Kind.END:
                        rest = data[(at + 1) * RECORD_BYTES :] + file.read(HEADER_BYTES_MAX)
                        yield Records(records.raw[:at], begin_ns), rest
                        return
                    if kind != Kind.LOST:
                        self._refuse(kind, index + at)
                yield records, None
                index += len(records)
                begin_ns = int(records.times_ns[-1]) if len(records) else begin_ns

    def _refuse(self, kind: int, index: int) -> None:
        offset = self._begin + index * RECORD_BYTES
        raise TraceError(
            f"{self.path}: the trace is damaged: a record of kind {kind} at byte {offset}",
            path=self.path,
            offset=offset,
        )


def _read_header(file: BinaryIO, path: str) -> Header:
    prefix = file.read(PREFIX_BYTES)
    if not prefix.startswith(MAGIC):
        raise TraceError(f"{path} is no trace of uswap", path=path, hint="Pool.trace() records one")
    version, length = (int.from_bytes(prefix[at : at + 4], "little") for at in (8, 12))
    if len(prefix) == PREFIX_BYTES and version != VERSION:
        raise TraceError(
            f"{path} is a trace of version {version}; this uswap reads version {VERSION}", path=path, offset=8
        )
    text = file.read(length) if length <= HEADER_BYTES_MAX else b""
    if len(prefix) < PREFIX_BYTES or len(text) < length:
        raise TraceError(f"{path} ends within its header, or its header is damaged", path=path, offset=12)
    if (PREFIX_BYTES + length) % RECORD_BYTES:
        raise TraceError(f"{path}: the header's length is {length}, no multiple of 8", path=path, offset=12)
    return header_from_json(text, path)


def _read_report(tail: bytes | None) -> tuple[Mapping[str, Any], bool]:
    """=> what follows END ({} if it cannot be read), and whether there is an END."""
    if tail is None:
        return {}, False
    try:
        report = json.loads(tail)
        return {"elapsed_ns": int(report["elapsed_ns"]), "stats": dict(report["stats"])}, True
    except (ValueError, TypeError, KeyError):
        return {}, True
