"""Shared pages that are sealed: mapped write-protected in all processes since they were read, so that they can go
again without a look."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from pathlib import Path

import pytest
from _support.members import Member
from _support.pagemap import PAGE, mapped, write_protected
from _support.policies import eventually

import uswap

MIB = 1 << 20
PAGES = MIB // PAGE
FIRST_BYTES = bytes(page % 255 + 1 for page in range(PAGES))
IN_MEMBER = "bytes(r[::4096]).hex()"

pytestmark = pytest.mark.skipif(
    tuple(int(part) for part in platform.release().split(".")[:2]) < (6, 4),
    reason="UFFDIO_CONTINUE_MODE_WP is not there: needs Linux 6.4",
)


@pytest.fixture(params=[False, True], ids=["each_for_itself", "for_peers"])
def pool(runtime_folder: Path, swap_directory: Path, request: pytest.FixtureRequest) -> Iterator[uswap.Pool]:
    swap = uswap.SwapArea(swap_directory, size="256MiB")
    with uswap.Pool("32MiB", name="seals", swap=swap, map_for_peers=request.param) as pool:
        yield pool
        pool.check()


@pytest.fixture
def member(pool: uswap.Pool, swap_directory: Path) -> Iterator[Member]:
    """Another process of it."""
    with Member() as process:
        process("from _support.pagemap import mapped, write_protected")
        process(f"swap = uswap.SwapArea({str(swap_directory)!r}, size='256MiB')")
        process("pool = uswap.attach('seals', swap=swap)")
        yield process


@pytest.fixture
def region(pool: uswap.Pool, member: Member) -> Iterator[uswap.SharedRegion]:
    """Of both, as `r`; each page begins with a byte of its own; all are out."""
    region = pool.region(MIB, shared=True, name="r")
    member("r = pool.open_region('r')")
    for page in range(PAGES):
        region[page * PAGE] = FIRST_BYTES[page]
    evict(region)
    yield region
    member("r.close()")
    region.close()


def evict(region: uswap.SharedRegion) -> None:
    """All of it: what somebody's read-ahead was about to map may stay for a moment."""
    while region.info().resident:
        region.advise(uswap.Advice.PAGEOUT)


def first_bytes(region: uswap.SharedRegion) -> bytes:
    """Read until all of them are mapped here: the pages that read-ahead leaves behind as markers are mapped for a
    moment before, and who reads on just then gets by without a fault, and without a mapping that stays."""
    while True:
        found = region[::PAGE]
        if len(mapped(region)) == PAGES:
            return found


def test_what_was_only_read_leaves_unwritten(pool: uswap.Pool, member: Member, region: uswap.SharedRegion) -> None:
    assert first_bytes(region) == FIRST_BYTES
    assert member(IN_MEMBER) == FIRST_BYTES.hex()
    assert write_protected(region) == mapped(region) == list(range(PAGES))
    assert member("write_protected(r) == mapped(r)")
    before = pool.group_info()
    evict(region)
    after = pool.group_info()
    assert after.clean_drops - before.clean_drops == PAGES
    assert after.pages_written == before.pages_written
    assert first_bytes(region) == FIRST_BYTES


def test_a_store_through_one_mapper_is_seen_by_the_other_and_kept(
    pool: uswap.Pool, member: Member, region: uswap.SharedRegion
) -> None:
    assert first_bytes(region) == FIRST_BYTES
    assert member(IN_MEMBER) == FIRST_BYTES.hex()
    here, there = 7, 100  # too far from each other for one to unseal the other
    region[here * PAGE + 1] = 11
    member(f"r[{there} * 4096 + 1] = 12")
    assert member(f"r[{here} * 4096 + 1]") == 11
    assert region[there * PAGE + 1] == 12
    assert {here, there} & set(write_protected(region)) == {there}  # the others' store faults once more here
    region[there * PAGE + 2] = 13
    member(f"r[{here} * 4096 + 2] = 14")
    assert member(f"list(r[{there} * 4096 : {there} * 4096 + 3])") == [FIRST_BYTES[there], 12, 13]
    before = pool.group_info()
    evict(region)
    assert pool.group_info().pages_written - before.pages_written == 2
    assert list(region[here * PAGE : here * PAGE + 3]) == [FIRST_BYTES[here], 11, 14]
    assert list(region[there * PAGE : there * PAGE + 3]) == [FIRST_BYTES[there], 12, 13]


def test_what_is_held_is_not_sealed_whenever_the_hold_begins(member: Member, region: uswap.SharedRegion) -> None:
    region.lock(0, 8 * PAGE)  # while it is out
    assert first_bytes(region) == FIRST_BYTES
    # The word of a page that is held says that it may be stored to a moment before the protection is off.
    eventually(lambda: set(write_protected(region)) == set(range(8, PAGES)))
    region.lock(16 * PAGE, 8 * PAGE)  # while it is sealed
    eventually(lambda: set(write_protected(region)).isdisjoint([*range(8), *range(16, 24)]))
    member("r.lock(32 * 4096, 4096)")
    assert member("32 in write_protected(r)") is False
    region.unlock(0, 8 * PAGE)
    region.unlock(16 * PAGE, 8 * PAGE)
    member("r.unlock(32 * 4096, 4096)")
    evict(region)
    assert first_bytes(region) == FIRST_BYTES
    assert len(write_protected(region)) == PAGES


def test_what_is_mostly_written_is_sealed_no_more_and_then_again(
    pool: uswap.Pool, member: Member, region: uswap.SharedRegion
) -> None:
    """The score is the object's, whoever stores. Two hundred stores far from each other are more than enough."""
    assert first_bytes(region) == FIRST_BYTES
    assert len(write_protected(region)) == PAGES
    for page in range(PAGES - 1, -1, -1):  # downwards: no store lets the next one go
        member(f"r[{page} * 4096 + 1] = 1")
    evict(region)
    assert first_bytes(region) == FIRST_BYTES
    assert len(write_protected(region)) < PAGES // 4
    rounds = 0
    while len(write_protected(region)) < PAGES:  # a read now and then is sealed, and leaves as it was
        evict(region)
        assert first_bytes(region) == FIRST_BYTES
        rounds += 1
        assert rounds < 2000
