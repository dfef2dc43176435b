"""pandas: group-by and merge on frames whose columns lie in managed arrays.

What pandas makes on the way (codes of the groups, hash tables, results) is its own ordinary memory. So that it
stays small, frames are worked on by slices of rows, and the merge by partitions of the right frame: each partition
meets all of the left frame.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd

from workloads.base import Allocate, Program, checksum

_LEFT = ("key", "day", "amount", "weight")
_RIGHT = ("key", "price")
# Bytes: 32 a row of the left frame, 16 one of the right, of which there is one for every sixteen.
_LEFT_ROWS_A_RIGHT = 16
_BYTES_A_LEFT_ROW = 8 * len(_LEFT) + 8 * len(_RIGHT) // _LEFT_ROWS_A_RIGHT
_SLICE_ROWS = 1 << 16
_PARTITIONS = 4
_DAYS = 365
_SEED = 13


def managed_frame(allocate: Allocate, columns: tuple[str, ...], rows: int) -> tuple[pd.DataFrame, Any]:
    """A frame of int64 columns, and the array it lies in, a line a column: both see the same memory."""
    values = allocate((len(columns), rows), np.int64)
    return pd.DataFrame(values.T, columns=list(columns), copy=False), values


def _slices(rows: int) -> Iterator[slice]:
    for first in range(0, rows, _SLICE_ROWS):
        yield slice(first, min(first + _SLICE_ROWS, rows))


def _fill(left: Any, right: Any) -> None:
    """Few keys are most of the left frame's rows; the right frame has each key once, by partitions."""
    random = np.random.default_rng(_SEED)
    keys = right.shape[1]
    for rows in _slices(left.shape[1]):
        count = rows.stop - rows.start
        left[0, rows] = (keys * random.random(count) ** 3).astype(np.int64)
        left[1, rows] = random.integers(0, _DAYS, count)
        left[2, rows] = random.integers(1, 100, count)
        left[3, rows] = random.integers(1, 10, count)
    for rows in _slices(keys):
        right[0, rows] = np.arange(rows.start, rows.stop)
        right[1, rows] = random.integers(1, 1000, rows.stop - rows.start)


def _grouped(left: pd.DataFrame, totals: Any) -> None:
    """Adds up amounts by key: by slices, whose sums are added to totals."""
    for rows in _slices(len(left)):
        sums = left.iloc[rows].groupby("key", sort=True)["amount"].sum()
        totals[sums.index.to_numpy()] += sums.to_numpy()


def _merged(left: pd.DataFrame, right: pd.DataFrame) -> int:
    """Turnover by day, over the left rows joined with the price of their key; => a checksum."""
    turnover = np.zeros(_DAYS, dtype=np.int64)
    bounds = [len(right) * part // _PARTITIONS for part in range(_PARTITIONS + 1)]
    for first, end in itertools.pairwise(bounds):
        prices = right.iloc[first:end]
        for rows in _slices(len(left)):
            some = left.iloc[rows]
            some = some[(some["key"] >= first) & (some["key"] < end)]
            joined = some.merge(prices, on="key")
            by_day = (joined["amount"] * joined["price"]).groupby(joined["day"]).sum()
            turnover[by_day.index.to_numpy()] += by_day.to_numpy()
    return checksum(turnover)


def prepare(allocate: Allocate, size: int) -> Callable[[], int]:
    """The frames; the work groups the left one by key, and joins it with the right one."""
    rows = size // _BYTES_A_LEFT_ROW
    left, left_values = managed_frame(allocate, _LEFT, rows)
    right, right_values = managed_frame(allocate, _RIGHT, rows // _LEFT_ROWS_A_RIGHT)
    totals = allocate(rows // _LEFT_ROWS_A_RIGHT, np.int64)
    _fill(left_values, right_values)

    def work() -> int:
        totals[:] = 0
        _grouped(left, totals)
        return checksum(totals, _merged(left, right))

    return work


PROGRAM = Program(prepare)
