"""The simulator against a live pool: the same touches, the same misses."""

from __future__ import annotations

import random

import pytest
from conftest import PoolFactory

from uswap.trace import frames_of, simulate

PAGE = 4096
PAGES = 10_000
LIMIT = 16 << 20


@pytest.mark.parametrize("kind", ["skewed", "uniform", "loop"])
def test_a_pool_misses_what_its_model_misses(make_pool: PoolFactory, kind: str) -> None:
    chooser = random.Random(4)
    touches = {
        "skewed": lambda: [int(chooser.paretovariate(0.3)) % PAGES for _ in range(60_000)],
        "uniform": lambda: [chooser.randrange(PAGES) for _ in range(30_000)],
        "loop": lambda: list(range(6000)) * 3,
    }[kind]()
    pool = make_pool(LIMIT, read_ahead=0, fault_around=1)
    view = memoryview(pool.region(PAGES * PAGE))
    for page in range(PAGES):  # of its own contents each, or it would need no read
        view[page * PAGE : page * PAGE + 8] = (page + 1).to_bytes(8, "little")
    before = pool.stats()
    for page in touches:
        view[page * PAGE + 16] = 7
    after = pool.stats()
    view.release()
    simulated = simulate([*range(PAGES), *touches], "core", LIMIT // PAGE)
    misses = after.major_faults - before.major_faults
    rescues = after.soft_faults - before.soft_faults
    assert after.capacity_frames == frames_of(LIMIT // PAGE).capacity
    assert simulated.misses == pytest.approx(misses, rel=0.05)
    # Which of the two a touch is depends on when pages leave, by a few pages either way.
    assert simulated.misses + simulated.rescues == pytest.approx(misses + rescues, rel=0.05)
