"""Pool(compress=...): copies of pages that have left answer reads; contents and limit hold as ever."""

import os
import random
from pathlib import Path

import numpy as np
import pytest
from _support.workload import PAGE, in_threads
from conftest import PoolFactory

import uswap
from uswap import Advice
from uswap._core import ffi, lib

MIB = 1 << 20
WORDS = PAGE // 8
pytestmark = pytest.mark.skipif(
    b"no LZ4" in ffi.string(lib.uswap_build_info()), reason="uswap was built without liblz4.a"
)


def words_of(region: uswap.Region) -> "np.ndarray[tuple[int, int], np.dtype[np.uint64]]":
    """A row of 512 words a page."""
    return np.frombuffer(region, dtype=np.uint64).reshape(-1, WORDS)


def small_numbers(page: int, version: int = 0) -> "np.ndarray[tuple[int], np.dtype[np.uint64]]":
    """A page of small numbers, about 3 times as large as its copy; each is another."""
    made = np.arange(WORDS, dtype=np.uint64) // np.uint64(3) % np.uint64(97)
    made[0], made[1] = page, version
    return made


def fill(words: "np.ndarray[tuple[int, int], np.dtype[np.uint64]]") -> None:
    for page in range(len(words)):
        words[page] = small_numbers(page)


def is_right(words: "np.ndarray[tuple[int, int], np.dtype[np.uint64]]", page: int, version: int = 0) -> bool:
    return bool((words[page] == small_numbers(page, version)).all())


def check_at_random(words: "np.ndarray[tuple[int, int], np.dtype[np.uint64]]", count: int, seed: int = 1) -> None:
    draw = random.Random(seed)
    for _ in range(count):
        assert is_right(words, draw.randrange(len(words)))


# ---- contents ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("faults", ["thread", "inline"])
def test_pages_come_back_from_copies(pool_factory: PoolFactory, faults: str) -> None:
    pool = pool_factory("16MiB", compress=0.5, read_ahead=0)
    words = words_of(pool.region("32MiB", faults=faults))
    fill(words)
    check_at_random(words, 12000)
    before = pool.stats()
    check_at_random(words, 6000, seed=2)
    stats = pool.stats()
    assert stats.compressed_hits > before.compressed_hits
    assert 0 < stats.compressed_bytes <= pool.limit / 2
    assert stats.peak_resident_bytes <= stats.limit_bytes
    # 8 MiB of pages and as much for copies, a quarter as large, hold nearly all of the 32 MiB.
    assert stats.compressed_hits - before.compressed_hits > 2 * (stats.pages_in - before.pages_in)
    del words


def test_newest_contents_come_back(pool_factory: PoolFactory) -> None:
    """A slot is written again and again, also by other pages: what copies there are of it is of no use then."""
    pool = pool_factory("8MiB", compress=0.4, read_ahead=0, overcommit=True)
    words = words_of(pool.region("24MiB"))
    fill(words)

    def work(number: int) -> None:
        mine, draw = range(number, len(words), 4), random.Random(number)
        version = dict.fromkeys(mine, 0)
        for _ in range(4000):
            page = draw.choice(mine)
            assert is_right(words, page, version[page])
            if draw.random() < 0.5:
                version[page] += 1
                words[page, 1] = version[page]
        assert all(is_right(words, page, version[page]) for page in mine)

    in_threads(4, work)
    assert pool.stats().compressed_hits > 0
    pool.check()


def test_without_the_check_of_contents_too(pool_factory: PoolFactory) -> None:
    pool = pool_factory("8MiB", compress=0.4, read_ahead=0, verify=False)
    words = words_of(pool.region("24MiB"))
    fill(words)
    for turn in range(1, 4):
        for page in random.Random(turn).sample(range(len(words)), len(words)):
            assert is_right(words, page, turn - 1)
            words[page, 1] = turn
    assert pool.stats().compressed_hits > 0
    del words


def test_a_window_is_read_from_copies_if_all_its_pages_have_one(pool_factory: PoolFactory) -> None:
    pool = pool_factory("32MiB", compress=0.5)
    region = pool.region("1MiB")
    words = words_of(region)
    fill(words)
    region.advise(Advice.PAGEOUT)
    before = pool.stats()
    region.advise(Advice.WILLNEED)
    assert all(is_right(words, page) for page in range(len(words)))
    stats = pool.stats()
    assert stats.compressed_hits - before.compressed_hits == len(words)
    assert stats.pages_in == before.pages_in
    del words


def test_what_does_not_compress_leaves_no_copy(pool_factory: PoolFactory) -> None:
    pool = pool_factory("8MiB", compress=0.4, read_ahead=0)
    words = words_of(pool.region("16MiB"))
    words[:] = np.random.default_rng(1).integers(0, 1 << 63, words.shape, dtype=np.uint64)
    expected = words[:, 7].copy()
    draw = random.Random(1)
    for page in (draw.randrange(len(words)) for _ in range(2000)):
        assert words[page, 7] == expected[page]
    stats = pool.stats()
    assert stats.compressed_refused > 0
    assert stats.compressed_hits == stats.compressed_bytes == 0
    del words


def test_damage_in_swap_is_not_seen_while_there_is_a_copy(make_pool: PoolFactory, swap_directory: Path) -> None:
    """And it is, as ever, when there is none."""
    file = swap_directory / "named"
    pool = make_pool("32MiB", swap=uswap.SwapArea(file, "64MiB"), compress=0.5)
    region = pool.region("1MiB")
    words = words_of(region)
    fill(words)
    region.advise(Advice.PAGEOUT)
    with file.open("r+b") as swap:
        swap.write(os.urandom(swap.seek(0, 2)))
        swap.flush()
        os.fsync(swap.fileno())
    assert all(is_right(words, page) for page in range(len(words)))
    region.verify()
    del words


# ---- memory ------------------------------------------------------------------------------------------------


def test_a_lowered_limit_and_locks_come_first(make_pool: PoolFactory) -> None:
    pool = make_pool("32MiB", compress=0.75, read_ahead=0)
    region = pool.region("64MiB")
    words = words_of(region)
    fill(words)
    check_at_random(words, 20000)
    assert pool.stats().compressed_bytes > 16 * MIB
    pool.limit = "12MiB"
    stats = pool.stats()
    assert stats.resident_bytes <= stats.limit_bytes == 12 * MIB
    assert stats.compressed_bytes <= 9 * MIB
    pool.check()
    pool.limit = "32MiB"
    check_at_random(words, 20000)
    assert pool.stats().compressed_bytes > 9 * MIB
    region.lock(0, 24 * MIB)  # of 32
    assert pool.stats().locked_bytes == 24 * MIB
    check_at_random(words, 4000, seed=2)
    stats = pool.stats()
    assert stats.peak_resident_bytes <= stats.limit_bytes
    assert stats.compressed_bytes < 8 * MIB
    pool.check()
    del words


def test_random_reads_get_copies_and_streams_do_not(make_pool: PoolFactory) -> None:
    """Pool(compress=True) weighs it."""
    pool = make_pool("16MiB", compress=True)
    words = words_of(pool.region("48MiB"))
    fill(words)
    for _ in range(3):
        assert all(is_right(words, page) for page in range(len(words)))
    in_stream = pool.stats().compressed_bytes
    for seed in range(40):
        check_at_random(words, 2000, seed)
        if pool.stats().compressed_bytes >= 6 * MIB:
            break
    at_random = pool.stats()
    assert in_stream == 0
    assert at_random.compressed_bytes >= 6 * MIB
    assert at_random.compressed_hits > 0
    assert at_random.peak_resident_bytes <= at_random.limit_bytes
    del words


def test_an_area_goes_with_its_copies(make_pool: PoolFactory, swap_directory: Path) -> None:
    first, second = swap_directory / "first", swap_directory / "second"
    pool = make_pool("16MiB", swap=uswap.SwapArea(first, "64MiB"), compress=0.5, read_ahead=0)
    words = words_of(pool.region("32MiB"))
    fill(words)
    for folder, former in ((second, first), (first, second)):
        pool.swapon(folder, size="64MiB")
        pool.swapoff(former)
        check_at_random(words, 3000)
        pool.check()
    assert pool.stats().compressed_hits > 0
    del words


# ---- others ------------------------------------------------------------------------------------------------


def test_a_forked_child_starts_without_copies(make_pool: PoolFactory) -> None:
    pool = make_pool("32MiB", compress=0.4, read_ahead=0)
    words = words_of(pool.region("48MiB"))
    fill(words)
    assert pool.stats().compressed_bytes > 0
    child = os.fork()
    if child == 0:
        status = 1
        try:
            first = pool.stats().compressed_bytes
            words[:, 1] = 5
            good = all(is_right(words, page, 5) for page in range(len(words)))
            status = 0 if good and first == 0 and pool.stats().compressed_bytes > 0 else 2
            pool.check()
        finally:
            os._exit(status)
    check_at_random(words, 3000)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert all(is_right(words, page) for page in range(len(words)))
    del words


def test_members_of_a_named_pool_keep_copies_of_their_own_pages(make_pool: PoolFactory) -> None:
    pool = make_pool("64MiB", name=f"copies-{os.getpid()}", compress=0.4, read_ahead=0)
    words = words_of(pool.region("96MiB"))
    shared = words_of(pool.region("32MiB", shared=True, name="shared"))
    fill(words)
    fill(shared)
    check_at_random(words, 3000)
    check_at_random(shared, 3000)
    assert pool.stats().compressed_hits > 0
    pool.check()
    del words, shared


def test_an_unmodified_program() -> None:
    done = uswap.run(
        ["python3", "-c", "print(len({str(i): [i] for i in range(400000)}), sum(range(10)))"],
        limit="16MiB",
        compress=True,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (0, "400000 45\n"), done.stderr


@pytest.mark.parametrize(
    ("value", "error"),
    [(0.0, ValueError), (0.8, ValueError), (-1.0, ValueError), ("yes", TypeError), (2, TypeError)],
)
def test_a_part_of_the_limit(value: object, error: type[Exception]) -> None:
    with pytest.raises(error, match="compress"):
        uswap.Pool("16MiB", compress=value)  # type: ignore[arg-type]
