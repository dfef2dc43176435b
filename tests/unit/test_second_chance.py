"""The default policy, simulated: what it keeps of loops that do not fit, and what a loop leaves behind."""

from __future__ import annotations

import random

import pytest

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
