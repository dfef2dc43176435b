"""S3Fifo: what is new leaves soon, what is used stays."""

from __future__ import annotations

import random
from array import array

from uswap.policy import NEVER, Batch, Need, S3Fifo, make_policy
from uswap.trace import simulate

CAPACITY = 1000


class All:
    """A View to which nothing is out of date but what it is told."""

    capacity = CAPACITY

    def __init__(self) -> None:
        self.gone: set[int] = set()

    def regions(self) -> dict[int, object]:
        return {}

    def current(self, stays: array[int]) -> array[int]:
        return array("Q", [stay for stay in stays if stay not in self.gone])


def need(frames: int, prepared: int = 0) -> Need:
    return Need(frames, CAPACITY, CAPACITY, 0, 0, 0, prepared)


def came(first: int, count: int, distance: int = NEVER) -> Batch:
    stays = memoryview(array("Q", [page << 28 for page in range(first, first + count)]))
    nothing = memoryview(array("B", bytes(count)))
    return Batch(faulted=stays, distances=memoryview(array("I", [distance] * count)), marks=nothing)


def pages(stays: array[int]) -> list[int]:
    return [stay >> 28 for stay in stays]


def started() -> tuple[S3Fifo, All]:
    policy, view = S3Fifo(), All()
    policy.start(view)  # type: ignore[arg-type]
    return policy, view


def test_it_has_a_name() -> None:
    assert isinstance(make_policy("s3-fifo"), S3Fifo)


def test_new_pages_are_put_on_trial_and_leave_first() -> None:
    policy, _ = started()
    answer = policy.decide(came(0, 200), need(0))
    assert pages(answer.age) == list(range(15, 150 + 3))  # type: ignore[arg-type]
    answer = policy.decide(came(200, 800, distance=5), need(40, prepared=15))
    assert pages(answer.evict) == list(range(15, 55))  # type: ignore[arg-type]


def test_what_comes_back_soon_or_is_rescued_stays_while_new_ones_go() -> None:
    policy, view = started()
    policy.decide(came(0, 300, distance=5), need(0))
    aged = policy.decide(came(300, 700), need(0)).age
    rescued = array("Q", [stay for stay in aged if stay >> 28 >= 300][:100])
    view.gone |= set(rescued)
    again = array("Q", [stay + 1 for stay in rescued])
    zeroes = memoryview(array("B", bytes(len(again))))
    answer = policy.decide(Batch(rescued=memoryview(again), rescued_marks=zeroes), need(300))
    assert all(page >= 300 for page in pages(answer.evict))  # type: ignore[arg-type]
    assert not set(answer.evict) & set(again)


def test_a_hot_set_outlives_a_scan() -> None:
    chooser = random.Random(3)
    touches = list[int]()
    for scanned in range(40_000):
        touches += [chooser.randrange(1000), 1000 + scanned % 8000]
    cold = simulate(touches, "fifo", 2048).misses
    missed = simulate(touches, "s3-fifo", 2048).misses
    # all of the scan, and of the hot set nearly nothing
    assert missed < 32_000 + 0.05 * 40_000 < cold
