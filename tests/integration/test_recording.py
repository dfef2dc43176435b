"""Traces of live pools: what was touched is in them, in order, and nothing else."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

import uswap
from uswap.trace import Kind, Trace

PAGE = 4096
PoolFactory = Callable[..., uswap.Pool]


def records(path: Path) -> list[tuple[int, int]]:
    """(kind, page) of all records of pages."""
    trace = Trace.open(path)
    return [
        (word >> 60, (word & ((1 << 54) - 1)) >> 18)
        for chunk in trace.records()
        for word in chunk.raw
        if Kind.FIRST <= word >> 60 <= Kind.AGED
    ]


def test_faults_are_recorded_in_order(make_pool: PoolFactory, tmp_path: Path) -> None:
    pool = make_pool("16MiB", read_ahead=0, fault_around=1)
    region = pool.region("4MiB")
    path = tmp_path / "t"
    with pool.trace(path) as recording:
        for page in (5, 3, 900):
            region[page * PAGE] = 1
        region.advise(uswap.Advice.PAGEOUT)
        for page in (900, 5):
            assert region[page * PAGE] == 1
    touched = [(kind, page) for kind, page in records(path) if kind <= Kind.HIT_AHEAD]
    assert touched == [(Kind.FIRST, 5), (Kind.FIRST, 3), (Kind.FIRST, 900), (Kind.READ, 900), (Kind.READ, 5)]
    trace = Trace.open(path)
    assert trace.end.complete
    assert trace.end.lost == 0
    assert trace.header.limit_bytes == pool.limit
    assert trace.end.stats["major_faults"] == 2
    assert recording.error is None
    assert region.key in trace.header.regions


def test_with_a_window_every_other_page_is_seen_again(make_pool: PoolFactory, tmp_path: Path) -> None:
    pool = make_pool("32MiB")
    region = pool.region("16MiB")
    pages = 16 * 256
    for page in range(pages):
        region[page * PAGE] = page % 255 + 1
    path = tmp_path / "t"
    with pool.trace(path, window="64KiB"):
        for page in range(pages):
            assert region[page * PAGE] == page % 255 + 1
    seen = [page for kind, page in records(path) if kind <= Kind.HIT_AHEAD]
    # At its start all pages but those of the window were inactive; later pages become so beside the program.
    assert len(set(seen)) >= pages - 16
    assert Trace.open(path).header.window_pages == 16
    assert pool.reclaimer is not None
    assert pool.reclaimer.error is None
    pool.check()


def test_a_sample_has_its_pages_and_no_others(make_pool: PoolFactory, tmp_path: Path) -> None:
    from uswap.trace.sampling import is_sampled

    pool = make_pool("16MiB", read_ahead=0, fault_around=1)
    region = pool.region("8MiB")
    path = tmp_path / "t"
    with pool.trace(path, sample=0.25):
        for page in range(0, 2048, 2):  # no stream: pages beside each other may come together
            region[page * PAGE] = 1
    expected = [page for page in range(0, 2048, 2) if is_sampled(page << 18 | region.key, 0.25)]
    assert [page for kind, page in records(path) if kind == Kind.FIRST] == expected


def test_one_trace_at_a_time_and_bad_arguments(make_pool: PoolFactory, tmp_path: Path) -> None:
    pool = make_pool("16MiB")
    with pool.trace(tmp_path / "a"), pytest.raises(uswap.BusyError, match="is being recorded already"):
        pool.trace(tmp_path / "b")
    for bad in (0, -1, 1.5):
        with pytest.raises(ValueError, match="sample must be"):
            pool.trace(tmp_path / "c", sample=bad)
    with pytest.raises(OSError, match="No such file"):
        pool.trace(tmp_path / "no" / "such")
    plain = make_pool("16MiB", policy=None)
    with pytest.raises(ValueError, match="needs a pool with a policy"):
        plain.trace(tmp_path / "d", window="1MiB")
    with pool.trace(tmp_path / "e"):  # nothing of these is left
        pass


def test_a_full_disk_ends_the_trace_and_not_the_program(make_pool: PoolFactory) -> None:
    pool = make_pool("16MiB", read_ahead=0, fault_around=1)
    region = pool.region("8MiB")
    with pytest.raises(OSError, match=r"No space left|ENOSPC") as raised:
        pool.trace("/dev/full")
    assert raised.value.errno == errno.ENOSPC
    region[0] = 1
    pool.check()


def test_closing_the_pool_ends_the_trace(make_pool: PoolFactory, tmp_path: Path) -> None:
    pool = make_pool("16MiB")
    recording = pool.trace(tmp_path / "t")
    closing = threading.Thread(target=pool.close)
    closing.start()
    closing.join(60)
    assert not closing.is_alive()
    recording.stop()
    assert Trace.open(tmp_path / "t").end.complete
