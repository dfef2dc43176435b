"""TraceWriter: writes trace files, for tests and for reference strings that no program made."""

from __future__ import annotations

import json
import os
import sys
from array import array
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from uswap.trace.format import KIND_SHIFT, MAGIC, PAYLOAD_MASK, REGION_BITS, STORE, VERSION, Header, Kind

_BUFFER_RECORDS = 1 << 16


class TraceWriter:
    """A trace file that is being written; close() or the end of the block writes its END.

    Args:
        path: the file; one that exists is overwritten.
        header: None: all pages of one region, recorded with a window of one page.

    Example:
        >>> import tempfile
        >>> path = tempfile.mktemp(suffix=".trace")
        >>> with TraceWriter(path) as writer:
        ...     writer.reference_string([1, 2, 3] * 1000)
        ...     writer.time(5_000_000)
        >>> from uswap.trace import Trace
        >>> Trace.open(path).counted, Trace.open(path).end.elapsed_ns
        ((3000, 3), 5000000)
    """

    def __init__(self, path: str | os.PathLike[str], header: Header | None = None) -> None:
        text = (header or Header(window_pages=1)).to_json()
        self._file = Path(path).open("wb")  # noqa: SIM115 - closed by close()
        self._file.write(MAGIC + VERSION.to_bytes(4, "little") + len(text).to_bytes(4, "little") + text)
        self._buffer = array("Q")
        self._seen: set[int] = set()
        self._now_ns = 0

    def __enter__(self) -> TraceWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def record(self, kind: int, payload: int = 0) -> None:
        """Any record. Raises OverflowError for a payload of more than 60 bits."""
        if not 0 <= payload <= PAYLOAD_MASK:
            raise OverflowError(f"a payload has 60 bits: {payload:#x}")
        self._buffer.append(kind << KIND_SHIFT | payload)
        if len(self._buffer) >= _BUFFER_RECORDS:
            self.flush()

    def time(self, now_ns: int) -> None:
        """ns since the trace began."""
        self._now_ns = now_ns
        self.record(Kind.TIME, now_ns)

    def touch(self, page: int, region: int = 0, *, kind: int = Kind.SOFT, store: bool = False) -> None:
        """A touch, or another event of a page (kind)."""
        self.record(kind, page << REGION_BITS | region | (STORE if store else 0))

    def reference_string(self, page_keys: Iterable[int]) -> None:
        """Touches of page keys (page << 18 | key of the region); the first of each is FIRST, the others SOFT."""
        seen = self._seen
        for key in page_keys:
            self.record(Kind.SOFT if key in seen else Kind.FIRST, key)
            seen.add(key)

    def flush(self) -> None:
        """To the file."""
        if sys.byteorder == "big":
            self._buffer.byteswap()
        self._file.write(self._buffer.tobytes())
        self._file.flush()
        del self._buffer[:]

    def abandon(self) -> None:
        """Closes the file without an END, as it is when a process is killed."""
        if not self._file.closed:
            self.flush()
            self._file.close()

    def close(self, elapsed_ns: int | None = None, stats: Mapping[str, Any] | None = None) -> None:
        """Writes END and what is known then; elapsed_ns: None: the last TIME. Twice does nothing."""
        if self._file.closed:
            return
        self.record(Kind.END)
        self.flush()
        report = {"elapsed_ns": self._now_ns if elapsed_ns is None else elapsed_ns, "stats": dict(stats or {})}
        self._file.write(json.dumps(report).encode())
        self._file.close()
