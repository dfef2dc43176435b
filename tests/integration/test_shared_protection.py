"""Ranges of shared regions that one process may only read, or not touch at all: they leave and come as all others,
and the other processes do with them what they could before."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from _support.members import Member
from _support.pagemap import PAGE, mapped

import uswap
from uswap import Protection

MIB = 1 << 20
BOTH = Protection.READ | Protection.WRITE


@pytest.fixture
def pool(runtime_folder: Path, swap_directory: Path) -> Iterator[uswap.Pool]:
    with uswap.Pool("32MiB", name="protected", swap=uswap.SwapArea(swap_directory, size="256MiB")) as pool:
        yield pool
        pool.check()


@pytest.fixture
def member(pool: uswap.Pool, swap_directory: Path) -> Iterator[Member]:
    """Another process of it."""
    with Member() as process:
        process(f"swap = uswap.SwapArea({str(swap_directory)!r}, size='256MiB')")
        process("pool = uswap.attach('protected', swap=swap); import numpy as np")
        yield process


def evict(region: uswap.Region) -> None:
    while region.info().resident:
        region.advise(uswap.Advice.PAGEOUT)


def test_what_may_only_be_read_leaves_and_follows_the_stores_of_others(pool: uswap.Pool, member: Member) -> None:
    r = pool.region(MIB, shared=True, name="r")
    r[:] = b"x" * MIB
    r.protect(Protection.READ, 8 * PAGE, 16 * PAGE)
    for value in b"yz":
        evict(r)
        assert bytes(r[:]).count(b"x") == len(r) - (value == ord("z"))
        member(f"r = pool.open_region('r'); r[10 * 4096] = {value}")
        assert r[10 * PAGE] == value
    r.protect(BOTH, 8 * PAGE, 16 * PAGE)
    r[10 * PAGE] = 5
    assert member("r[10 * 4096]") == 5
    member("r.close()")
    r.close()


def test_what_may_not_be_touched_is_evicted(pool: uswap.Pool, member: Member) -> None:
    r = pool.region(MIB, shared=True, name="r")
    r[:] = b"x" * MIB
    r.protect(Protection.NONE, 0, 64 * PAGE)
    evict(r)
    member("r = pool.open_region('r'); total = sum(r[::4096])")
    assert member("total") == ord("x") * 256
    member("r[7 * 4096] = 7")
    evict(r)
    r.verify()
    r.protect(Protection.READ, 0, 64 * PAGE)
    assert r[7 * PAGE] == 7
    assert bytes(r[8 * PAGE :]).count(b"x") == len(r) - 8 * PAGE
    member("r.close()")
    r.close()


@pytest.mark.parametrize("access", ["r[0] = 1", "r[4096]"])
def test_a_forbidden_access_ends_the_process_alone(access: str, pool: uswap.Pool, member: Member) -> None:
    r = pool.region(MIB, shared=True, name="r")
    r[:] = b"x" * MIB
    member("r = pool.open_region('r')")
    member("r.protect(uswap.Protection.READ, 0, 4096); r.protect(uswap.Protection.NONE, 4096, 4096)")
    member("assert r[0] == r[8192] == ord('x')")
    member.send(access)
    with pytest.raises(AssertionError, match="has ended: -11"):
        member.answer()
    assert bytes(r[:]).count(b"x") == len(r)
    r[0] = 1
    r.close()


def test_a_mapping_in_pieces_is_filled_and_emptied_as_one_in_one_piece(pool: uswap.Pool, member: Member) -> None:
    """Runs of neighbours, and read-ahead, meet the ends of pieces anywhere; more than the limit goes through."""
    size = 40 * MIB
    r = pool.region(size, shared=True, name="r")
    words = np.frombuffer(r, dtype="u8").reshape(-1, PAGE // 8)
    member("r = pool.open_region('r'); words = np.frombuffer(r, dtype='u8').reshape(-1, 512)")
    words[:, 3] = np.arange(len(words))
    chance = np.random.default_rng(1)
    for page in chance.choice(len(words), 400, replace=False):
        r.protect(Protection.READ, int(page) * PAGE, PAGE)
        member(f"r.protect(uswap.Protection.READ, {(int(page) * 7) % len(words)} * 4096, 4096)")
    for _ in range(3):
        assert member("bool((words[:, 3] == np.arange(len(words))).all())")
        assert (words[:, 3] == np.arange(len(words))).all()
    assert mapped(r), "who read last has pages of it, wherever its pieces end"
    r.protect(BOTH)
    assert pool.group_info().evictions > len(words)
    words[:, 3] += 1
    assert member("bool((words[:, 3] == np.arange(len(words)) + 1).all())")
    member("del words; r.close()")
    del words
    r.close()


def test_bad_ranges_and_protections_are_refused(pool: uswap.Pool) -> None:
    r = pool.region(MIB, shared=True)
    for start, length in ((1, PAGE), (0, MIB + 1), (MIB, PAGE)):
        with pytest.raises(ValueError, match=r"4096|not all in|outside"):
            r.protect(Protection.READ, start, length)
    with pytest.raises(ValueError, match="READ and WRITE"):
        r.protect(8)
    r[:5] = b"hello"
    r.close()
