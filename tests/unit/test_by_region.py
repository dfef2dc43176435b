"""Weights by region: the split of batches, and who gives how much. Batches are made by hand."""

from __future__ import annotations

import dataclasses
import time
from array import array
from collections.abc import Callable

import pytest

import uswap
from uswap.policy import Batch, ByRegion, Need, Policy, by_region, page_of, region_of, weight_of

MIB = 1 << 20

Split = Callable[[object], list[tuple[int, list[int]]]]


def stay(key: int, page: int, arrival: int = 0) -> int:
    return page << 28 | key << 10 | arrival


def batch(*stays: int) -> Batch:
    return Batch(faulted=memoryview(array("Q", stays)))


def need(frames: int, capacity: int = 1 << 20, inactive: int = 0, target: int = 0) -> Need:
    return Need(frames, capacity, capacity, inactive, target, 0, 0)


def info(key: int, priority: int = 0, name: str = "") -> uswap.RegionInfo:
    return uswap.RegionInfo(name, 0, MIB, 0, 0, 0, 0, 0, "thread", key, priority)


class FakeView:
    """Regions by hand; what is in stale is out of date."""

    capacity = 1 << 20

    def __init__(self, *infos: uswap.RegionInfo) -> None:
        self.infos = {one.key: one for one in infos}
        self.stale: set[int] = set()

    def regions(self) -> dict[int, uswap.RegionInfo]:
        return dict(self.infos)

    def current(self, stays: object) -> array[int]:
        return array("Q", [one for one in stays if one not in self.stale])  # type: ignore[attr-defined]


def started(*infos: uswap.RegionInfo) -> tuple[ByRegion, FakeView]:
    policy, view = ByRegion(), FakeView(*infos)
    policy.start(view)
    return policy, view


def given(policy: Policy, seen: Batch, wanted: Need) -> list[int]:
    answer = policy.decide(seen, wanted)
    assert answer is not None
    assert not answer.age
    assert not answer.evict
    return list(answer.clean)


def count_by_key(stays: list[int]) -> dict[int, int]:
    return {key: sum(region_of(one) == key for one in stays) for key in sorted({region_of(one) for one in stays})}


def pages(key: int, count: int) -> list[int]:
    return [stay(key, page) for page in range(count)]


# ---- the split


@pytest.fixture(params=["numpy", "plain"])
def split(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Split:
    """by_region as lists, with NumPy and without it."""
    if request.param == "plain":
        monkeypatch.setattr(by_region, "imported_numpy", lambda: None)
    return lambda stays: [(key, [int(one) for one in some]) for key, some in by_region.by_region(stays)]


def test_each_region_gets_its_stays_in_their_order(split: Split) -> None:
    mixed = [stay(3, 9), stay(1, 5), stay(3, 2), stay(0x3FFFF, 7), stay(1, 1, 1023)]
    expected = [(1, [mixed[1], mixed[4]]), (3, [mixed[0], mixed[2]]), (0x3FFFF, [mixed[3]])]
    for kind in (list, lambda stays: array("Q", stays), lambda stays: memoryview(array("Q", stays))):
        assert split(kind(mixed)) == expected
    assert split(mixed[:1]) == [(3, mixed[:1])]
    assert split([mixed[0], mixed[2]]) == [(3, [mixed[0], mixed[2]])]
    assert split([]) == []


def test_with_numpy_a_large_batch_costs_no_object_a_page() -> None:
    numpy = pytest.importorskip("numpy")
    draw = numpy.random.default_rng(1)
    page, key = (draw.integers(0, most, 1 << 20, dtype=numpy.uint64) for most in (1 << 36, 8))
    stays = page << 28 | key << 10
    policy, _ = started(*map(info, range(8)))
    began = time.process_time()
    answer = policy.decide(Batch(faulted=memoryview(stays)), need(1 << 19))
    # 1.1 us for an object and its turn in a loop would be more than a second; this takes 0.1.
    assert time.process_time() - began < 0.6
    assert len(answer.clean) == 1 << 19


# ---- who gives


def test_equal_regions_give_in_proportion_to_what_they_have() -> None:
    policy, _ = started(info(1), info(2))
    gone = given(policy, batch(*pages(1, 300), *pages(2, 100)), need(40))
    assert count_by_key(gone) == {1: 30, 2: 10}
    assert [page_of(one) for one in gone] == [*range(30), *range(10)]


def test_a_higher_priority_gives_less() -> None:
    policy, _ = started(info(1, priority=0), info(2, priority=10))
    assert weight_of(info(2, priority=10)) == pytest.approx(9.3, abs=0.1)
    gone = given(policy, batch(*pages(1, 1000), *pages(2, 1000)), need(103))
    assert count_by_key(gone) == {1: 93, 2: 10}


def test_regions_that_fault_alike_share_memory_by_their_weights() -> None:
    policy = ByRegion(lambda one: {1: 1.0, 2: 3.0}[one.key])
    policy.start(FakeView(info(1), info(2)))
    capacity, resident, page = 4000, {1: 0, 2: 0}, 0
    for _ in range(400):
        come = [stay(key, page + i) for key in (1, 2) for i in range(50)]
        page += 50
        over = max(sum(resident.values()) + 100 - capacity, 0)
        gone = count_by_key(given(policy, batch(*come), need(over, capacity)))
        for key in (1, 2):
            resident[key] += 50 - gone.get(key, 0)
    assert sum(resident.values()) == capacity
    assert resident[2] / resident[1] == pytest.approx(3, rel=0.05)


def test_what_a_small_region_cannot_give_the_others_do() -> None:
    policy, _ = started(info(1, priority=-20), info(2, priority=19), info(3, priority=19))
    gone = given(policy, batch(*pages(1, 10), *pages(2, 200), *pages(3, 200)), need(110))
    assert count_by_key(gone) == {1: 10, 2: 50, 3: 50}


def test_single_pages_come_from_all_regions_in_turn() -> None:
    policy, _ = started(info(1), info(2), info(3))
    gone = given(policy, batch(*pages(1, 200), *pages(2, 100), *pages(3, 100)), need(1))
    for _ in range(79):
        gone += given(policy, batch(), need(1))
    assert len(gone) == 80
    counts = count_by_key(gone)
    assert counts[1] == pytest.approx(40, abs=2)
    assert counts[2] == pytest.approx(20, abs=2)


@pytest.mark.parametrize("frames", [0, 1, 7, 64, 399, 400, 1000])
def test_exactly_as_many_go_as_are_needed_or_all(frames: int) -> None:
    policy, _ = started(*(info(key, priority=key * 3 - 6) for key in range(1, 5)))
    assert len(given(policy, batch(*(one for key in range(1, 5) for one in pages(key, 100))), need(frames))) == min(
        frames, 400
    )
    assert len(given(policy, batch(), need(1000))) == 400 - min(frames, 400)


def test_inactive_pages_count_against_the_need() -> None:
    policy, _ = started(info(1))
    assert len(given(policy, batch(*pages(1, 100)), need(10, inactive=20, target=30))) == 20
    assert given(policy, batch(), need(10, inactive=50, target=30)) == []


# ---- regions that come and go


def test_a_region_that_appears_is_weighed_at_once() -> None:
    policy, view = started(info(1))
    given(policy, batch(*pages(1, 100)), need(0))
    view.infos[2] = info(2, priority=19)
    gone = given(policy, batch(*pages(2, 100)), need(50))
    assert count_by_key(gone)[1] >= 49


def test_a_region_that_is_gone_is_forgotten() -> None:
    policy, view = started(info(1), info(2))
    given(policy, batch(*pages(1, 100), *pages(2, 100)), need(0))
    del view.infos[1]
    for _ in range(16):
        given(policy, batch(), need(0))
    assert count_by_key(given(policy, batch(), need(200))) == {2: 100}


def test_pages_of_a_region_gone_already_are_no_error() -> None:
    policy, _ = started(info(1))
    assert count_by_key(given(policy, batch(*pages(1, 10), *pages(9, 10)), need(20))) == {1: 10}


def test_a_new_priority_counts_soon() -> None:
    policy, view = started(info(1), info(2))
    given(policy, batch(*pages(1, 1000), *pages(2, 1000)), need(0))
    view.infos[2] = dataclasses.replace(view.infos[2], priority=19)
    for _ in range(16):
        given(policy, batch(), need(0))
    counts = count_by_key(given(policy, batch(), need(100)))
    assert counts[1] > 95


def test_after_a_loss_everything_is_learned_anew() -> None:
    policy, _ = started(info(1))
    given(policy, batch(*pages(1, 100)), need(0))
    assert len(given(policy, batch(*pages(1, 60))._replace(lost=True), need(1000))) == 60


def test_what_is_out_of_date_does_not_pile_up() -> None:
    policy, view = started(info(1), info(2))
    view.stale = set(pages(1, 300))
    given(policy, batch(*pages(1, 300), *pages(2, 100)), need(0, capacity=200))
    assert count_by_key(given(policy, batch(), need(1000))) == {2: 100}


# ---- priority and key of regions


def test_priority_is_kept_told_and_may_be_changed(pool: uswap.Pool) -> None:
    region, other = pool.region("1MiB", priority=5), pool.region("1MiB")
    assert (region.priority, region.info().priority, other.priority) == (5, 5, 0)
    region.priority = -20
    assert [one.priority for one in pool.regions()] == [-20, 0]
    for action in (lambda: setattr(region, "priority", 20), lambda: pool.region("1MiB", priority=-21)):
        with pytest.raises(ValueError, match="priority must be from -20 to 19"):
            action()
    with pytest.raises(TypeError, match="priority must be an integer"):
        pool.region("1MiB", priority=True)
    region.close()
    with pytest.raises(uswap.ClosedError):
        region.priority = 1
    other.close()


def test_arrays_have_a_priority_and_then_a_region_of_their_own(pool: uswap.Pool) -> None:
    pytest.importorskip("numpy")
    a = pool.zeros(10, name="a", priority=3)
    b = pool.full(10, 1.0, priority=-4)
    assert [(one.name, one.priority) for one in pool.regions()] == [("a", 3), ("", -4)]
    del a, b


def test_the_key_is_what_stays_name_the_region_by(pool: uswap.Pool) -> None:
    region = pool.region("1MiB")
    generation, index = region.id >> 16, region.id & 0xFFFF
    assert region.key == region.info().key == (generation & 15) << 14 | index & 0x3FFF
    assert region_of(5 << 28 | region.key << 10 | 3) == region.key
    region.close()
