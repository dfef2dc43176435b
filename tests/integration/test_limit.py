"""The limit holds: peak resident memory, seen from outside, less that just before the pool was made, stays
within limit + 1 % + 16 MiB."""

from pathlib import Path

import pytest
from _support.program import run_program

NATIVE = """
    from uswap._sampler import ResidentPeak
    from _support.workload import Pages, in_threads
    THREADS, LIMIT = {threads}, 48 << 20
    import threading; in_threads(THREADS, lambda n: None)           # stacks come first
    warm = Pages(bytearray(4 * LIMIT // 64)); warm.fill(1)          # so does the native library
    versions = [0] * THREADS
    with ResidentPeak() as peak:
        pool = uswap.Pool(LIMIT, swap=SWAP, transport={transport!r})
        region = pool.region(4 * LIMIT)
        pages = Pages(region)
        share = pages.count // THREADS
        wrong = []
        filled = threading.Barrier(THREADS)
        def work(number):
            first = number * share
            pages.fill(1, first, share)
            wrong.append(pages.wrong(1, first, share))
            filled.wait()
            wrong.append(pages.wrong_at_random(1, number + 1, 4000 // THREADS))
        in_threads(THREADS, work)
        region.advise(uswap.Advice.DONTNEED)
        in_threads(THREADS, lambda n: wrong.append(pages.stress(n + 1, 8000 // THREADS)))
        stats = pool.stats()
    assert sum(wrong) == 0, wrong
    assert stats.evictions > pages.count, stats
    assert stats.over_limit_events == 0, stats
    assert stats.peak_resident_bytes <= LIMIT, stats
    assert peak.samples > 20, peak
    assert peak.growth_bytes <= LIMIT * 1.01 + (16 << 20), (peak, peak.growth_bytes)
    pool.check()
"""


@pytest.mark.parametrize("threads", [1, 2, 8])
def test_native_threads_stay_within_the_limit(transport: str, threads: int, swap_directory: Path) -> None:
    run_program(NATIVE.format(threads=threads, transport=transport), swap_directory)


NUMPY = """
    import tracemalloc
    import numpy as np
    from uswap._sampler import ResidentPeak
    LIMIT = 48 << 20
    COUNT = 4 * LIMIT // 8 // 2
    np.sort(np.random.default_rng(0).random(1000)); np.dot(np.ones(1000), np.ones(1000))
    tracemalloc.start()
    with ResidentPeak() as peak:
        pool = uswap.Pool(LIMIT, swap=SWAP)
        a = pool.empty(COUNT)
        b = pool.empty(COUNT)
        random = np.random.default_rng(1)
        for start in range(0, COUNT, 1 << 16):
            random.random(out=a[start:start + (1 << 16)])
        total = a.sum()
        np.cumsum(a, out=b)
        assert abs(b[-1] - total) < 1e-6 * total
        a.sort()
        assert all((np.diff(a[s:s + 65537]) >= 0).all() for s in range(0, COUNT - 1, 65536))
        assert abs(a.sum() - total) < 1e-6 * total
        assert abs(np.dot(a, a) - sum(np.dot(a[s:s + 65536], a[s:s + 65536]) for s in range(0, COUNT, 65536))) < 1
        index = pool.array(random.integers(0, COUNT, COUNT // 512))
        picked = pool.empty(index.shape)
        np.take(a, index, out=picked, mode="clip")
        assert (picked == a[index]).all()
        stats = pool.stats()
    own = tracemalloc.get_traced_memory()[1]
    assert stats.peak_resident_bytes <= LIMIT, stats
    assert stats.evictions * 4096 > 2 * LIMIT, stats
    assert peak.growth_bytes - own <= LIMIT * 1.01 + (16 << 20), (peak, own)
"""


def test_numpy_stays_within_the_limit(swap_directory: Path) -> None:
    run_program(NUMPY, swap_directory)
