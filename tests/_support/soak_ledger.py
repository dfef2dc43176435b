"""What the processes of the soak have done, in files that outlive them: a row a thread, 64-bit counters."""

from __future__ import annotations

from pathlib import Path

import numpy as np

FIELDS = (
    "page_loads",  # pages of which every word was checked
    "page_stores",  # pages of which every word was written
    "words_wrong",
    "pages_lost",  # found lost by who owns them
    "losing_errors_armed",  # injected read errors that lose a page, before they can happen
    "read_errors_injected",  # these and the next ones have happened
    "write_errors_injected",
    "contents_damaged",
    "delays_injected",
    "private_pages_in",
    "private_pages_out",
    "shared_pages_in",  # of the pool, as this member saw it last
    "shared_pages_out",
)
SHARED = ("shared_pages_in", "shared_pages_out")


class Ledger:
    """One row."""

    def __init__(self, row: np.ndarray[tuple[int], np.dtype[np.uint64]]) -> None:
        self._row = row

    def add(self, field: str, count: int) -> None:
        """Counts."""
        self._row[FIELDS.index(field)] += np.uint64(count)

    def put(self, field: str, value: int) -> None:
        """For what is counted elsewhere."""
        self._row[FIELDS.index(field)] = value


def make(path: Path, rows: int) -> list[Ledger]:
    """A new file, with so many rows."""
    table = np.memmap(path, dtype="u8", mode="w+", shape=(rows, len(FIELDS)))
    return [Ledger(table[row]) for row in range(rows)]


def total(folder: Path) -> dict[str, int]:
    """Of all processes that have been there."""
    sums = dict.fromkeys(FIELDS, 0)
    for path in folder.glob("*.ledger"):
        table = np.fromfile(path, dtype="u8").reshape(-1, len(FIELDS))
        for field, column in zip(FIELDS, table.T, strict=True):
            value = int(column.sum())
            sums[field] = max(sums[field], value) if field in SHARED else sums[field] + value
    return sums
