"""One order for all pages of a named pool: private, shared and read-ahead ones are under one limit, and what is
used again and again survives a scan of whatever kind that is larger than the limit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import uswap

MIB = 1 << 20
PAGE = 4096
LIMIT, HOT, SCAN = 64 * MIB, 16 * MIB, 192 * MIB
# Of the looks at hot pages, so many may find one that is out: what is tried out now and then.
OUT = 0.06
# While parts of the limit change hands, private and shared pages do not share one order yet: scans in which the
# shared part changes by more than this are not judged. They are few.
AT_REST = LIMIT // 16
SCANS_MOST = 12


@pytest.fixture
def pool(runtime_folder: Path, swap_directory: Path) -> Iterator[uswap.Pool]:
    """The only process of a named pool."""
    with uswap.Pool(LIMIT, name="order", swap=uswap.SwapArea(swap_directory, size="1GiB")) as pool:
        yield pool


def region_of(pool: uswap.Pool, kind: str, size: int, name: str) -> uswap.Region:
    """Private or shared."""
    return pool.region(size, shared=True, name=name) if kind == "shared" else pool.region(size, name=name)


def words(region: uswap.Region) -> NDArray[np.uint64]:
    """The first word of each page."""
    return np.frombuffer(region, dtype="u8").reshape(-1, PAGE // 8)[:, 0]


def pages_out(region: uswap.Region) -> int:
    """Pages whose contents are on the disk alone."""
    return region.page_classes().count(int(uswap.PageClass.SWAPPED))


# step: the scan goes on by so much between two looks at the hot set. With that set it is below the limit: whoever
# throws hot pages away has the order wrong. Use of shared pages is told by returns alone: few looks are hard.
@pytest.mark.parametrize(
    ("hot", "scan", "step"),
    [
        (("private",), "shared", 4 * MIB),
        (("shared",), "private", 4 * MIB),
        (("shared",), "shared", 4 * MIB),
        (("shared",), "shared", 16 * MIB),
        (("private", "shared"), "shared", 4 * MIB),
        (("private", "shared"), "private", 4 * MIB),
    ],
    ids=str,
)
def test_a_hot_set_survives_a_scan(hot: tuple[str, ...], scan: str, step: int, pool: uswap.Pool) -> None:
    hot_regions = [region_of(pool, kind, HOT // len(hot), f"hot-{kind}") for kind in hot]
    scanned = region_of(pool, scan, SCAN, "scan")
    scan_words, hot_words = words(scanned), [words(region) for region in hot_regions]
    scan_words[:] = np.arange(len(scan_words))
    for each in hot_words:
        each[:] = 7
    shares, scans, step_pages = [], 0, step // PAGE
    while len(shares) < 2:
        out = looks = 0
        limit_before = pool.group_info().shared_limit_bytes
        for start in range(0, len(scan_words), step_pages):
            expected = np.arange(start, start + step_pages).sum()
            assert scan_words[start : start + step_pages].sum() == expected
            out += sum(pages_out(region) for region in hot_regions)
            looks += HOT // PAGE
            assert all((each == 7).all() for each in hot_words)
        scans += 1
        assert scans <= SCANS_MOST, "parts of the limit never come to rest"
        if scans > 1 and abs(pool.group_info().shared_limit_bytes - limit_before) <= AT_REST:
            shares.append(out / looks)
    assert max(shares) < OUT, shares
    del scan_words, hot_words
