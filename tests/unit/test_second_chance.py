"""The default policy, simulated: what it keeps of loops that do not fit, and what a loop leaves behind."""

from __future__ import annotations

import random
from array import array

import pytest

from uswap.policy import Answer, Batch, Need, SecondChance
from uswap.trace import simulate

FRAMES = 4096


def missed_share(loop: list[int], rounds: int, before: int) -> float:
    """Of the accesses of so many rounds, after those before, how many missed."""
    whole = simulate(loop * (before + rounds), "second-chance", frames=FRAMES)
    first = simulate(loop * before, "second-chance", frames=FRAMES)
    return (whole.misses - first.misses) / (rounds * len(loop))


# Least recently used misses all; who keeps as much of the loop as memory holds misses 1 - 1 / times.
@pytest.mark.parametrize(("times", "most"), [(1.1, 0.35), (1.25, 0.45), (1.5, 0.6), (2.0, 0.75), (3.0, 0.85)])
def test_a_loop_larger_than_memory_keeps_a_part_of_itself(times: float, most: float) -> None:
    assert missed_share(list(range(int(times * FRAMES))), rounds=5, before=4) < most


def test_a_loop_in_any_order_keeps_a_part_of_itself() -> None:
    loop = list(range(int(1.1 * FRAMES)))
    random.Random(1).shuffle(loop)
    assert missed_share(loop, rounds=5, before=3) < 0.5


def test_what_a_loop_has_kept_gives_way_to_what_is_used_afterwards() -> None:
    """Pages that stay because nothing else is better are not kept for ever."""
    loop, other = list(range(2 * FRAMES)), list(range(2 * FRAMES, 2 * FRAMES + FRAMES * 3 // 4))
    after_loop = simulate(loop * 6 + other * 12, "second-chance", frames=FRAMES)
    before = simulate(loop * 6 + other * 8, "second-chance", frames=FRAMES)
    assert after_loop.misses - before.misses < 0.05 * 4 * len(other)


def test_a_stream_that_never_comes_back_leaves_the_pages_in_use() -> None:
    generator = random.Random(2)
    hot = [generator.randrange(FRAMES // 4) for _ in range(60_000)]
    mixed = [page for pair in zip(hot, range(FRAMES, FRAMES + len(hot)), strict=True) for page in pair]
    streamed = simulate(mixed, "second-chance", frames=FRAMES)
    assert streamed.misses + streamed.first_touches < len(hot) + FRAMES // 4 + 0.02 * len(hot)


class Late(SecondChance):
    """Decides when it is called for the so-manieth time, as where nobody gives it the processor: until then pages
    leave in the core's order."""

    def __init__(self, one_in: int) -> None:
        super().__init__()
        self._one_in, self._calls = one_in, 0
        self._untold = [array(kind) for kind in "QIBQB"]

    def decide(self, seen: Batch, need: Need) -> Answer:
        happened = (seen.faulted, seen.distances, seen.marks, seen.rescued, seen.rescued_marks)
        for untold, field in zip(self._untold, happened, strict=True):
            untold.extend(field)
        self._calls += 1
        if self._calls % self._one_in:
            return Answer()
        fields = [memoryview(untold) for untold in self._untold]
        self._untold = [array(kind) for kind in "QIBQB"]
        return super().decide(Batch(*fields), need)


@pytest.fixture(scope="module")
def stream_and_hot_set() -> list[int]:
    """A loop over twice the memory, and after each page of it one of a third of memory, at random."""
    generator, hot = random.Random(1), FRAMES // 3
    return [page for at in range(12 * FRAMES) for page in (hot + at % (2 * FRAMES), generator.randrange(hot))]


@pytest.mark.parametrize("one_in", [4, 8])
def test_late_decisions_do_not_lose_the_pages_in_use(stream_and_hot_set: list[int], one_in: int) -> None:
    """What leaves without an order is mostly new: were only what is ordered counted, new pages would seem to come
    back more often than any other, and the active ones would be evicted for them."""
    in_time = simulate(stream_and_hot_set, "second-chance", frames=FRAMES)
    late = simulate(stream_and_hot_set, Late(one_in), frames=FRAMES)
    assert late.misses < 1.15 * in_time.misses
