"""A member is stopped when it is about to punch holes, and others take its order back: what its pages still have in
memory is thrown out later, by itself or by who mends after it (csrc/README.md, A page leaves)."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from _support.failpoints import Action, armed, await_stopped, release
from _support.members import Member
from _support.policies import eventually

import uswap
from uswap._core import lib

pytestmark = pytest.mark.skipif(not lib.uswap_failpoints_built(), reason="the core was built without failpoints")

PAGE = 4096
PAGES = 256
FIRST_BYTES = bytes(page % 255 + 1 for page in range(PAGES))
NAME = "taken-back"
GO_ON_SECONDS = 1.0
# To hold pages that are there takes less; else it waits for them.
HOLD_SECONDS = 0.3


def pages_in_memory() -> int:
    """Of the region's file."""
    for path in Path("/proc/self/fd").iterdir():
        try:
            if os.readlink(path).startswith("/memfd:uswap-region-r "):
                return os.stat(path).st_blocks * 512 // PAGE
        except FileNotFoundError:
            continue
    raise AssertionError("there is no such file")


@pytest.fixture
def pool(runtime_folder: Path, swap_directory: Path) -> Iterator[uswap.Pool]:
    with uswap.Pool("32MiB", name=NAME, swap=uswap.SwapArea(swap_directory, size="256MiB")) as pool:
        yield pool
        pool.check()


@pytest.fixture
def region(pool: uswap.Pool) -> Iterator[uswap.SharedRegion]:
    """Each page begins with a byte of its own."""
    with pool.region(PAGES * PAGE, shared=True, name="r") as region:
        region[::PAGE] = FIRST_BYTES
        yield region


def joined(swap_directory: Path) -> Member:
    process = Member()
    process("from _support.failpoints import set_failpoint")
    process(f"swap = uswap.SwapArea({str(swap_directory)!r}, size='256MiB')")
    process(f"pool = uswap.attach({NAME!r}, swap=swap); r = pool.open_region('r')")
    return process


def stop_at(member: Member, name: str, code: str) -> None:
    """It does that, until it is stopped there."""
    member(f"set_failpoint({name!r}, {int(Action.FREEZE)})")
    member.send(code)
    found = os.waitid(os.P_PID, member.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
    assert found is not None
    assert found.si_code == os.CLD_STOPPED, name


def left_in(region: uswap.SharedRegion) -> int:
    """Pages that are in memory when all have been thrown out."""
    region.advise(uswap.Advice.PAGEOUT)
    return pages_in_memory()


def all_goes(region: uswap.SharedRegion) -> None:
    """At once, but for what is just being read ahead."""
    eventually(lambda: left_in(region) == 0)


@pytest.mark.parametrize("dies", [False, True])
def test_what_one_was_about_to_punch_goes_later(
    dies: bool, region: uswap.SharedRegion, swap_directory: Path
) -> None:
    """One page is wanted; the others were to leave with it."""
    with joined(swap_directory) as victim:
        stop_at(victim, "shared.committed", "r.advise(uswap.Advice.PAGEOUT)")
        begin = time.monotonic()
        region[0] = 255
        assert time.monotonic() - begin < GO_ON_SECONDS
        assert left_in(region) > 1
        if dies:
            victim.kill()
            region[1::PAGE] = bytes(PAGES)  # stores go through everywhere
        else:
            victim.go_on()
            victim.answer()
        all_goes(region)
    assert region[::PAGE] == bytes([255]) + FIRST_BYTES[1:]


def test_what_one_was_about_to_punch_is_discarded(region: uswap.SharedRegion, swap_directory: Path) -> None:
    """It is all zeroes then, and nothing of it comes back."""
    with joined(swap_directory) as victim:
        stop_at(victim, "shared.committed", "r.advise(uswap.Advice.PAGEOUT)")
        begin = time.monotonic()
        region.advise(uswap.Advice.DONTNEED)
        assert time.monotonic() - begin < GO_ON_SECONDS
        region[1] = 1
        victim.go_on()
        victim.answer()
        assert region[:2] == bytes([0, 1])
        assert not any(region[PAGE::PAGE])
        all_goes(region)
    assert region[:2] == bytes([0, 1])


def test_a_page_that_is_held_does_not_leave(
    pool: uswap.Pool, region: uswap.SharedRegion, swap_directory: Path
) -> None:
    """Who evicts it has looked for holders, and not gone on; here nothing takes the page back."""
    with joined(swap_directory) as victim, pool.region(PAGE, shared=True, name="else") as elsewhere:
        stop_at(victim, "frame.going", "r.advise(uswap.Advice.PAGEOUT)")
        with armed("shared.announced", Action.STOP):
            fault = threading.Thread(target=elsewhere.lock)
            fault.start()
            await_stopped("shared.announced")  # this process's thread that could
            hold = threading.Thread(target=region.lock)
            hold.start()
            hold.join(HOLD_SECONDS)
            victim.go_on()
            victim.answer()
            release("shared.announced")
        hold.join()
        fault.join()
        region.advise(uswap.Advice.PAGEOUT)
        assert pages_in_memory() == PAGES
        region.unlock()


def test_who_mends_throws_out_what_nobody_has_wanted_since(
    pool: uswap.Pool, region: uswap.SharedRegion, swap_directory: Path
) -> None:
    """Another one has said that the page has left, and has not read it yet: no word tells of what is in memory."""
    with joined(swap_directory) as victim, joined(swap_directory) as other:
        stop_at(victim, "shared.committed", "r.advise(uswap.Advice.PAGEOUT)")
        stop_at(other, "shared.broken", "r[0] = 255")
        victim.kill()
        eventually(lambda: len(pool.members()) == 2)
        all_goes(region)
        other.go_on()
        other.answer()
    assert region[::PAGE] == bytes([255]) + FIRST_BYTES[1:]


def test_a_kernel_without_such_orders(region: uswap.SharedRegion) -> None:
    """Holes are punched as they are elsewhere: nothing stays, and nothing is lost."""
    with armed("shared.ordered", Action.ERROR, errno.ENOTTY, every=True):
        all_goes(region)
        assert region[::PAGE] == FIRST_BYTES
        all_goes(region)
    assert region[::PAGE] == FIRST_BYTES
