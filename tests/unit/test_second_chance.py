"""The default policy on batches made by hand: what it counts of pages on trial may differ from what there is."""

from __future__ import annotations

from array import array

from uswap.policy import Batch, Need, SecondChance

CAPACITY = 640


class View:
    """Nothing is ever out of date."""

    capacity = CAPACITY

    def regions(self) -> dict[int, object]:
        return {}

    def current(self, stays: object) -> array[int]:
        return array("Q", stays)  # type: ignore[call-overload,no-any-return]


def need(frames: int, inactive: int) -> Need:
    return Need(frames, CAPACITY, CAPACITY - inactive, inactive, 80, 0, 0)


def test_more_pages_on_trial_than_were_counted_end_nothing() -> None:
    """Once it has taken those on trial for gone (the core says that few are inactive), they leave after all, one by
    one: less than nothing is nothing. Rates of a negative count ended the policy by a division by zero."""
    policy = SecondChance()
    policy.start(View())  # type: ignore[arg-type]
    pages = [page << 28 for page in range(CAPACITY)]
    first_touches = Batch(
        faulted=memoryview(array("Q", pages)),
        distances=memoryview(array("I", [0xFFFFFFFF] * CAPACITY)),
        marks=memoryview(bytes(CAPACITY)),
    )
    policy.decide(first_touches, need(64, 0))
    left: list[int] = []
    for _ in range(200):
        answer = policy.decide(Batch(), need(1, 0))
        assert answer is not None
        left += answer.evict
        assert policy.new.exposed >= 0
        assert policy.active.exposed >= 0
    assert len(left) > 100
