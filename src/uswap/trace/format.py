"""The file format: a header in JSON, records of 8 bytes, and how the run ended, in JSON again.

    8 bytes b"USWTRACE"    u32 version    u32 length of the JSON    the JSON, padded with spaces to a multiple of 8
    records, u64 little endian: bits 60-63 kind, bits 0-59 payload
    after the record END: {"elapsed_ns": ..., "stats": {...}} up to the end of the file

The payload of a page's record is its *page key* (page << 18 | key of the region, 54 bits: a stay without its
generation), and bit 54 if the touch was a store.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from uswap._errors import TraceError

MAGIC = b"USWTRACE"
VERSION = 1
PREFIX_BYTES = 16
RECORD_BYTES = 8
HEADER_BYTES_MAX = 16 << 20

KIND_SHIFT = 60
PAYLOAD_MASK = (1 << KIND_SHIFT) - 1
REGION_BITS = 18
REGION_MASK = (1 << REGION_BITS) - 1
PAGE_KEY_BITS = 54
PAGE_KEY_MASK = (1 << PAGE_KEY_BITS) - 1
STORE = 1 << PAGE_KEY_BITS


class Kind(enum.IntEnum):
    """What a record says. FIRST to HIT_AHEAD are touches."""

    TIME = 0  # ns since the trace began
    FIRST = 1  # of a page that has no contents
    READ = 2  # waited for a read
    SOFT = 3  # was in memory, but not mapped
    HIT_AHEAD = 4  # had been read ahead
    AROUND = 5  # came in beside a touched page: no touch
    EVICTED = 6
    AGED = 7  # became inactive
    END = 14
    LOST = 15  # payload: so many records


TOUCHES = range(Kind.FIRST, Kind.AROUND)


@dataclass(frozen=True, slots=True)
class Header:
    """What a trace says of itself before its first record.

    Attributes:
        page_bytes: 4096.
        sample: the share of pages that was recorded, in (0, 1].
        window_pages: 0: only faults that happened anyway were recorded. Otherwise the pool kept about so many pages
            mapped, and the trace has every touch but those of the pages touched last.
        limit_bytes: of the pool that was recorded.
        capacity_frames: of the pool that was recorded.
        program: its arguments.
        regions: key of a region -> {"name": ..., "size_bytes": ...}.
        started: unix time, seconds.
    """

    page_bytes: int = 4096
    sample: float = 1.0
    window_pages: int = 0
    limit_bytes: int = 0
    capacity_frames: int = 0
    program: tuple[str, ...] = ()
    regions: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)
    started: float = 0.0

    def to_json(self) -> bytes:
        """As it stands in the file, padded."""
        text = json.dumps(asdict(self)).encode()
        return text + b" " * (-(PREFIX_BYTES + len(text)) % RECORD_BYTES)


@dataclass(frozen=True, slots=True)
class End:
    """How a trace ended.

    Attributes:
        complete: there was an END. A process that was killed leaves none.
        records: in the file, END not counted.
        lost: records that the recorder had no room for.
        damaged_bytes: at the end of the file: half a record, or a report that cannot be read.
        elapsed_ns: from start to end; without an END up to the last TIME.
        stats: uswap.Stats at the end less that of the start; empty without an END.
    """

    complete: bool
    records: int
    lost: int
    damaged_bytes: int
    elapsed_ns: int
    stats: Mapping[str, Any]


def header_from_json(text: bytes, path: str) -> Header:
    """Raises TraceError for what is no header; keys of later versions are passed over."""
    try:
        raw = json.loads(text)
        header = Header(
            page_bytes=int(raw["page_bytes"]),
            sample=float(raw["sample"]),
            window_pages=int(raw.get("window_pages", 0)),
            limit_bytes=int(raw.get("limit_bytes", 0)),
            capacity_frames=int(raw.get("capacity_frames", 0)),
            program=tuple(str(word) for word in raw.get("program", ())),
            regions={int(key): dict(region) for key, region in raw.get("regions", {}).items()},
            started=float(raw.get("started", 0)),
        )
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise TraceError(f"{path}: the trace's header cannot be read: {error!r}", path=path, offset=16) from error
    if header.page_bytes <= 0 or not 0 < header.sample <= 1 or header.window_pages < 0:
        raise TraceError(
            f"{path}: the trace's header is wrong: page_bytes {header.page_bytes}, sample {header.sample}, "
            f"window_pages {header.window_pages}",
            path=path,
            offset=16,
        )
    return header
