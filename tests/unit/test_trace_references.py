"""LRU by stack distances against a plain stack, the export read back, and libCacheSim's policies."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import uswap
from uswap.trace import Kind, Trace, TraceWriter, frames_of
from uswap.trace.oracle_general import RECORD, Exported, write_oracle_general
from uswap.trace.reference import REFERENCES, check_references, run_reference
from uswap.trace.stack_distance import LruStack, lru_curve


def skewed(count: int, pages: int, seed: int = 1) -> list[int]:
    chooser = random.Random(seed)
    return [(int(chooser.paretovariate(0.7)) % pages) << 18 | 1 for _ in range(count)]


def lru_misses(touches: list[int], frames: int) -> int:
    """Plainly."""
    stack: list[int] = []
    seen: set[int] = set()
    misses = 0
    for page in touches:
        if page in stack:
            stack.remove(page)
        else:
            misses += page in seen
        seen.add(page)
        stack.append(page)
        del stack[:-frames]
    return misses


def belady_misses(touches: list[int], frames: int) -> int:
    """Plainly: out goes the page that is wanted latest."""
    following, last = [len(touches) * 2] * len(touches), dict[int, int]()
    for number, page in enumerate(touches):
        if page in last:
            following[last[page]] = number
        last[page] = number
    inside: dict[int, int] = {}
    misses = 0
    for number, page in enumerate(touches):
        if page not in inside:
            misses += 1
            if len(inside) == frames:
                del inside[max(inside, key=inside.__getitem__)]
        inside[page] = following[number]
    return misses - len(set(touches))


@given(st.lists(st.integers(0, 15), max_size=200))
@settings(deadline=None)
def test_stack_distances_are_those_of_a_stack(touches: list[int]) -> None:
    curve = lru_curve(touches)
    assert [curve.misses(frames) for frames in range(1, 18)] == [lru_misses(touches, n) for n in range(1, 18)]
    assert curve.first_touches == len(set(touches))


def test_times_are_numbered_anew_when_they_run_out() -> None:
    pages, stack, plain = skewed(30_000, 3000), LruStack(), list[int]()
    for page in pages:
        expected = len(plain) - 1 - plain.index(page) if page in plain else -1
        assert stack.distance(page) == expected
        if expected >= 0:
            plain.remove(page)
        plain.append(page)


def test_a_sampled_curve_is_that_of_all_pages() -> None:
    touches = skewed(200_000, 20_000)
    whole, part = lru_curve(touches), lru_curve(touches, sample=0.25)
    for frames in (400, 1000, 4000):
        assert part.miss_ratio(frames // 4) == pytest.approx(whole.miss_ratio(frames), rel=0.15)


def test_the_export_says_what_comes_next(tmp_path: Path) -> None:
    with TraceWriter(tmp_path / "t") as writer:
        writer.touch(1, kind=Kind.FIRST)
        writer.touch(2, kind=Kind.FIRST)
        writer.time(3_000_000_000)
        writer.touch(1, kind=Kind.READ)
        writer.touch(1, kind=Kind.FIRST)  # discarded in between
        writer.touch(1, kind=Kind.SOFT)
    exported = write_oracle_general(Trace.open(tmp_path / "t"), tmp_path / "x")
    assert exported == Exported(touches=5, objects=3, sample=1.0, total=5)
    one, two = 1 << 18, 2 << 18
    assert list(RECORD.iter_unpack((tmp_path / "x").read_bytes())) == [
        (3, one, 4096, 3),
        (3, two, 4096, -1),
        (3, one, 4096, -1),
        (3, one | 1 << 54, 4096, 5),
        (3, one | 1 << 54, 4096, -1),
    ]


def test_the_export_of_many_chunks_is_that_of_one(tmp_path: Path) -> None:
    touches = skewed(150_000, 500)
    write_oracle_general(touches, tmp_path / "one")
    write_oracle_general(iter(touches), tmp_path / "many")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "many").read_bytes()
    following = {}
    for number, (_, name, _, after) in enumerate(RECORD.iter_unpack((tmp_path / "one").read_bytes()), start=1):
        assert following.get(name, number) == number
        following[name] = after


def test_reference_policies_agree_with_what_is_known_of_them(tmp_path: Path) -> None:
    pytest.importorskip("libcachesim")
    touches = skewed(60_000, 8000)
    exported = write_oracle_general(touches, tmp_path / "x")
    curve = lru_curve(touches)
    for limit in (164, 464):
        frames = frames_of(limit)
        misses = {
            name: run_reference(tmp_path / "x", exported, name, limit, frames).misses
            for name in check_references(list(REFERENCES))
        }
        assert misses["lru"] == curve.misses(frames.capacity)
        assert misses["belady"] == belady_misses(touches, frames.capacity) == min(misses.values())
    loop = [page for _ in range(5) for page in range(1000)]
    exported = write_oracle_general(loop, tmp_path / "x")
    assert run_reference(tmp_path / "x", exported, "lru", 564, frames_of(564)).misses == 4000
    assert run_reference(tmp_path / "x", exported, "lru", 1064, frames_of(1064)).misses == 0


def test_references_that_cannot_be_are_refused_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(uswap.ArgumentError, match="no reference policy 'mru': one of lru"):
        check_references(["mru"])
    monkeypatch.setitem(__import__("sys").modules, "libcachesim", None)
    with pytest.raises(uswap.UnsupportedError, match=r"pip install 'uswap\[simulate\]'"):
        check_references(["lru"])
    check_references([])


def test_a_cache_that_is_too_small_for_libcachesim_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("libcachesim")
    with pytest.raises(uswap.ArgumentError, match="32 frames"):
        run_reference(tmp_path / "x", Exported(1, 1, 1.0, 1), "s3fifo", 80, frames_of(80))
