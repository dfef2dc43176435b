"""What a policy is told of shared pages, with how many processes have them, and that what it names goes first."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from _support.forks import child, end_of
from _support.members import Member
from _support.pagemap import PAGE
from _support.policies import eventually, reclaimer_of
from _support.workload import Pages

import uswap
from uswap import Advice, PageClass
from uswap.policy import NEVER, Answer, Batch, Need, Policy, page_of, region_of

MIB = 1 << 20


class Noted(Policy):
    """Notes what it is told of shared pages, and names what the test says."""

    wants = frozenset({"shared"})
    every = 1

    def __init__(self) -> None:
        self.users: dict[int, int] = {}
        self.distances: dict[int, int] = {}
        self.prepared, self.capacity, self.rounds = 0, 0, 0
        self.orders: list[int] = []

    def decide(self, seen: Batch, need: Need) -> Answer | None:
        shared = seen.shared
        self.users.update(zip(shared.stays, shared.users, strict=True))
        self.distances.update(zip(shared.stays, shared.distances, strict=True))
        self.prepared, self.capacity = shared.prepared, shared.capacity
        self.rounds += 1
        orders, self.orders = self.orders, []
        return Answer(evict_shared=orders)

    def pages(self, region: uswap.Region) -> set[int]:
        return {page_of(stay) for stay in list(self.users) if region_of(stay) == region.key}


@pytest.fixture
def policy() -> Noted:
    return Noted()


@pytest.fixture
def pool(runtime_folder: Path, swap_directory: Path, policy: Noted) -> Iterator[uswap.Pool]:
    swap = uswap.SwapArea(swap_directory, size="256MiB")
    with uswap.Pool("32MiB", name="told", swap=swap, policy=policy, read_ahead=0) as pool:
        yield pool
        assert reclaimer_of(pool).error is None
        pool.check()


@pytest.fixture
def member(pool: uswap.Pool, swap_directory: Path) -> Iterator[Member]:
    """Another process of it, with the policy that all have by default."""
    with Member() as process:
        process(f"swap = uswap.SwapArea({str(swap_directory)!r}, size='256MiB')")
        process("pool = uswap.attach('told', swap=swap); from _support.workload import Pages")
        yield process


def decide_once(pool: uswap.Pool, policy: Noted) -> None:
    """Two decisions begin and end, so one of them has begun after now."""
    for _ in range(2):
        before = policy.rounds
        pool._core.call(uswap._core.lib.uswap_policy_wake)
        eventually(lambda before=before: policy.rounds > before)


def test_first_touches_and_returns_are_told_with_their_users(
    pool: uswap.Pool, policy: Noted, member: Member
) -> None:
    alone = pool.region(MIB, shared=True, name="alone")
    common = pool.region(MIB, shared=True, name="common", reserve=2 * MIB)
    member("common = pool.open_region('common')")
    assert alone.key != common.key
    assert member("common.key") == common.key
    assert {info.key for info in pool.shared_regions()} == {alone.key, common.key}
    Pages(alone).fill(1)
    Pages(common).fill(1)
    eventually(lambda: policy.pages(alone) == policy.pages(common) == set(range(MIB // PAGE)))
    assert {users for stay, users in policy.users.items() if region_of(stay) == alone.key} == {1}
    assert {users for stay, users in policy.users.items() if region_of(stay) == common.key} == {2}
    assert set(policy.distances.values()) == {NEVER}
    common.resize(2 * MIB)  # the other process does not see what is new
    Pages(common).fill(2)
    eventually(lambda: len(policy.pages(common)) == 512)
    assert {
        users for stay, users in policy.users.items() if region_of(stay) == common.key and page_of(stay) > 255
    } == {1}
    common.advise(Advice.PAGEOUT, 0, 16 * PAGE)
    policy.distances.clear()
    assert Pages(common).wrong(2, 0, 16) == 0
    eventually(lambda: len(policy.distances) == 16)
    assert all(distance < 512 for distance in policy.distances.values())
    member("common.close()")
    alone.close()
    common.close()


def test_what_others_bring_in_is_theirs_to_be_told_of(pool: uswap.Pool, policy: Noted, member: Member) -> None:
    r = pool.region(MIB, shared=True, name="r")
    member("r = pool.open_region('r'); Pages(r).fill(1)")
    Pages(r).fill(1, 0, 1)  # it is there
    decide_once(pool, policy)
    assert policy.pages(r) == set()
    member("r.close()")
    r.close()


def test_what_is_named_goes_first_and_what_is_held_or_gone_stays(pool: uswap.Pool, policy: Noted) -> None:
    """Pages in the middle of the oldest region are named; the hand alone would begin with its first page."""
    first = pool.region(4 * MIB, shared=True, name="first")
    Pages(first).fill(1)
    eventually(lambda: len(policy.pages(first)) == 1024)
    stays = {page_of(stay): stay for stay in policy.users if region_of(stay) == first.key}
    first.lock(600 * PAGE, PAGE)
    first.advise(Advice.PAGEOUT, 601 * PAGE, PAGE)
    assert first[601 * PAGE] == Pages(first).view[601 * PAGE]  # back, in another frame
    passed = pool.stats().policy_passed
    policy.orders = [stays[page] for page in range(500, 700)] + [1 << 62, 7]
    decide_once(pool, policy)
    decide_once(pool, policy)
    assert policy.prepared == 202
    press = pool.region(64 * MIB, shared=True, name="press")
    fill = Pages(press)
    for page in range(press.size() // PAGE):
        fill.fill(1, page, 1)
        if first.info().swapped:
            break
    eventually(lambda: first.info().swapped >= 198 * PAGE)
    gone = [page for page, kind in enumerate(first.page_classes()) if kind != PageClass.RESIDENT]
    assert set(range(500, 700)) - set(gone) <= {600, 601}
    assert 600 not in gone
    assert pool.stats().policy_passed >= passed + 2
    first.unlock()
    assert Pages(first).wrong(1) == 0
    del fill
    press.close()
    first.close()


def test_more_than_there_can_be_ends_the_policy_and_nothing_else(
    runtime_folder: Path, swap_directory: Path
) -> None:
    class Wild(Noted):
        def decide(self, seen: Batch, need: Need) -> Answer | None:
            return Answer(evict_shared=[1] * 40000)

    swap = uswap.SwapArea(swap_directory, size="64MiB")
    with uswap.Pool("32MiB", name="wild", swap=swap, policy=Wild()) as pool:
        r = pool.region(48 * MIB, shared=True)
        Pages(r).fill(1)
        eventually(lambda: reclaimer_of(pool).error is not None)
        assert "32768" in str(reclaimer_of(pool).error)
        assert Pages(r).wrong(1) == 0
        r.close()


def test_who_does_not_ask_is_not_told(runtime_folder: Path, swap_directory: Path) -> None:
    class Deaf(Noted):
        wants = frozenset()

    deaf = Deaf()
    swap = uswap.SwapArea(swap_directory, size="64MiB")
    with uswap.Pool("32MiB", name="deaf", swap=swap, policy=deaf) as pool:
        r = pool.region(MIB, shared=True)
        Pages(r).fill(1)
        decide_once(pool, deaf)
        assert deaf.users == {}
        r.close()


def test_a_forked_child_tells_its_own_policy(pool: uswap.Pool, policy: Noted) -> None:
    """What the parent's was told lies in memory that the child does not have."""
    warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads
    region = pool.region(MIB, shared=True, name="r")
    Pages(region).fill(1)
    eventually(lambda: policy.pages(region) == set(range(MIB // PAGE)))

    def look() -> None:
        fresh = reclaimer_of(pool).policy
        assert isinstance(fresh, Noted)
        eventually(lambda: fresh.rounds > 0)  # it listens
        own = pool.region(MIB, shared=True, name="own")
        Pages(own).fill(1)
        eventually(lambda: fresh.pages(own) == set(range(MIB // PAGE)))
        assert reclaimer_of(pool).error is None

    assert end_of(child(look)) == 0
    eventually(lambda: len(pool.members()) == 1)
    region.close()
