"""How many shared frames are in use: a member that dies takes its changes of the count with it, and the others put
it right, whatever they do meanwhile."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from _support.failpoints import Action, armed, await_stopped, hits, release
from _support.members import Member
from _support.policies import eventually

import uswap
from uswap._core import lib

pytestmark = pytest.mark.skipif(not lib.uswap_failpoints_built(), reason="the core was built without failpoints")

MIB = 1 << 20
PAGE = 4096


@pytest.fixture
def pool(runtime_folder: Path, swap_directory: Path) -> Iterator[uswap.Pool]:
    with uswap.Pool("32MiB", name="count", swap=uswap.SwapArea(swap_directory, size="256MiB")) as pool:
        yield pool


def excess(pool: uswap.Pool) -> int:
    """By how many bytes the count is too high, if nothing is under way."""
    return pool.group_info().shared_resident_bytes - sum(region.resident for region in pool.shared_regions())


def die_while_reading(swap_directory: Path) -> None:
    """A member is killed: who mends gives back the frames of what it reads, and takes them off no count."""
    with Member() as member:
        member(f"pool = uswap.attach('count', swap=uswap.SwapArea({str(swap_directory)!r}, size='256MiB'))")
        member("from _support.failpoints import Action, set_failpoint")
        member("r = pool.open_region('r'); set_failpoint('shared.claimed', Action.KILL)")
        member.send("r[:] == b''")
        eventually(lambda: not member.alive)
        assert member.end() == -signal.SIGKILL


def test_it_is_put_right_while_pages_come_and_go(pool: uswap.Pool, swap_directory: Path) -> None:
    r, fresh = pool.region(4 * MIB, shared=True, name="r"), pool.region(MIB, shared=True)
    r[:] = b"x" * len(r)
    r.advise(uswap.Advice.PAGEOUT)
    eventually(lambda: excess(pool) == 0)
    with armed("shared.counted", Action.STOP, every=True):
        await_stopped("shared.counted")  # nobody else counts
        die_while_reading(swap_directory)
        eventually(lambda: len(pool.members()) == 1)
        assert excess(pool) > 0, "the count is right"
        for page in (200, 100, 50):  # the first was counted before that death
            fresh[page * PAGE] = 1
            seen = hits("shared.counted")
            release("shared.counted")
            eventually(lambda seen=seen: hits("shared.counted") > seen)
            await_stopped("shared.counted")
        assert excess(pool) == 0
    pool.check()
    r.close()
    fresh.close()


def die_at(failpoint: str, job: str, nth: int, swap_directory: Path) -> None:
    """A member is killed there while it does the job on region r."""
    with Member() as member:
        member(f"pool = uswap.attach('count', swap=uswap.SwapArea({str(swap_directory)!r}, size='256MiB'))")
        member("from _support.failpoints import Action, set_failpoint")
        member(f"r = pool.open_region('r'); set_failpoint({failpoint!r}, Action.KILL, nth={nth})")
        member.send(job)
        eventually(lambda: not member.alive)
        assert member.end() == -signal.SIGKILL


@pytest.mark.parametrize(
    ("failpoint", "job"),
    [
        ("slot.freed", f"r.advise(uswap.Advice.DONTNEED, 0, {64 * PAGE})"),
        ("slot.claimed", f"r[:{64 * PAGE}] = b'y' * {64 * PAGE}; r.advise(uswap.Advice.PAGEOUT, 0, {64 * PAGE})"),
    ],
)
@pytest.mark.parametrize("nth", [1, 5])
def test_slots_are_counted_right_after_a_death_between_a_slot_and_its_clusters_count(
    pool: uswap.Pool, swap_directory: Path, failpoint: str, job: str, nth: int
) -> None:
    """A death there once left group_info() one slot wrong for good: it added up the clusters' hints."""
    r = pool.region(4 * MIB, shared=True, name="r")
    r[:] = bytes(range(1, 256)) * (len(r) // 255) + b"z" * (len(r) % 255)

    def all_are_out() -> bool:
        r.advise(uswap.Advice.PAGEOUT)  # passes over what the evictor just has in hand
        return pool.group_info().shared_swap_used_bytes == len(r)

    eventually(all_are_out)
    die_at(failpoint, job, nth, swap_directory)
    eventually(lambda: len(pool.members()) == 1)
    r.advise(uswap.Advice.PAGEOUT)
    (info,) = pool.shared_regions()
    eventually(lambda: pool.group_info().shared_swap_used_bytes == info.swapped)
    pool.check()
    r.advise(uswap.Advice.DONTNEED)
    assert pool.group_info().shared_swap_used_bytes == 0
    r.close()
