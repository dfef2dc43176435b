"""Orders of steps in which a look that is left out, or a lock, would show: one thread is held between two steps,
while another does what comes between them. mutants/ has the core without each of these looks. Quietly: a second."""

from __future__ import annotations

import errno
import threading
from pathlib import Path

import pytest
from _support.failpoints import Action, armed, await_stopped, hits, release
from _support.policies import eventually
from _support.workload import PAGE, Pages
from conftest import PoolFactory, probe

import uswap
from uswap._core import lib
from uswap.testing import Program
from uswap.testing.failpoints import armed_for_page

pytestmark = pytest.mark.skipif(not lib.uswap_failpoints_built(), reason="the core was built without failpoints")

ALL = 8  # pages
IOS = ["sync", "uring"]


def program(io: str = "sync", **options: object) -> Program:
    """A region of ALL pages whose contents are in slots."""
    if io == "uring" and probe().uring_errno:
        pytest.skip("io_uring is not there")
    made = Program(io=io, background=False, **options)
    made.map(pages=ALL)
    made.write(region=0, start=0, length=ALL * PAGE, value=99)
    made.advise(region=0, advice="PAGEOUT", page=0, count=ALL)
    return made


def goes_on_as_ever(made: Program) -> None:
    """All of it is there, leaves once more, changed, and comes back."""
    made.read_all(region=0)
    made.pool.check()
    made.write(region=0, start=PAGE, length=5 * PAGE, value=120)
    made.advise(region=0, advice="PAGEOUT", page=0, count=ALL)
    made.read_all(region=0)


@pytest.mark.parametrize("io", IOS)
@pytest.mark.parametrize("comes", [True, False])
def test_a_page_that_has_come_or_gone_is_not_read_ahead(io: str, comes: bool) -> None:
    with program(io, faults="inline") as made:  # else the same thread reads ahead and serves faults
        made.hold(at="page_in.chosen")
        made.advise(region=0, advice="WILLNEED", page=2, count=1)
        await_stopped("page_in.chosen")
        if comes:
            made.read(thread=1, region=0, start=2 * PAGE, length=100)
            made.write(thread=1, region=0, start=2 * PAGE, length=100, value=7)
        else:
            made.discard(thread=1, region=0, page=2, count=1)
        made.release()
        goes_on_as_ever(made)


@pytest.mark.parametrize("io", IOS)
@pytest.mark.parametrize("reads", ["WILLNEED", "read"])
def test_a_page_that_is_discarded_while_it_is_read_is_zeroes(io: str, reads: str) -> None:
    with program(io) as made:
        made.hold(at="page_in.right")
        if reads == "read":
            made.read(region=0, start=2 * PAGE, length=100)
        else:
            made.advise(region=0, advice="WILLNEED", page=2, count=1)
            await_stopped("page_in.right")
            made.read(thread=2, region=0, start=2 * PAGE, length=100)
        made.discard(thread=1, region=0, page=2, count=1)
        made.release()
        goes_on_as_ever(made)


@pytest.mark.parametrize("io", IOS)
def test_what_is_stored_between_copy_and_discard_is_kept(io: str) -> None:
    with program(io, transport="copy") as made:
        made.write(region=0, start=0, length=ALL * PAGE, value=100)
        made.hold(at="page_out.copied")
        made.advise(region=0, advice="PAGEOUT", page=0, count=4)
        await_stopped("page_out.copied")
        made.write(thread=1, region=0, start=PAGE, length=2 * PAGE, value=5)
        made.release()
        goes_on_as_ever(made)


def test_a_page_that_is_locked_when_its_turn_comes_has_another_turn() -> None:
    """A late fault stands at a page that is in: who evicts cannot have it now, and must find it again."""
    with Program(io="sync", background=False, faults="inline") as made:
        made.map(pages=1)
        made.hold(at="fault.inline")
        made.read(region=0, start=0, length=100)
        made.write(thread=1, region=0, start=0, length=100, value=9)
        made.hold(at="fault.locked")
        made.release(at="fault.inline")
        await_stopped("fault.locked")
        made.evict(thread=2, pages=1)
        made.release()
        made.write(region=0, start=0, length=100, value=10)
        made.evict(pages=1)
        assert made.regions[0].region.page_classes()[0] != uswap.PageClass.RESIDENT
        made.read_all(region=0)


def test_an_area_stays_open_for_its_last_page(make_pool: PoolFactory, swap_directory: Path) -> None:
    """The page cannot come in for a while."""
    pool = make_pool("4MiB", transport="copy", background=False)
    region = pool.region(PAGE)
    pages = Pages(region)
    pages.fill(1)
    region.advise(uswap.Advice.PAGEOUT)
    (area,) = pool.areas()
    pool.swapon(swap_directory, size="16MiB")
    leaving = threading.Thread(target=pool.swapoff, args=(area,))
    with armed("uffd.copy", Action.ERROR, errno.EAGAIN, every=True):
        leaving.start()
        eventually(lambda: hits("uffd.copy") >= 10)
    leaving.join()
    assert len(pool.areas()) == 1
    assert pages.wrong(1) == 0
    pool.check()


def test_verify_does_not_judge_a_slot_that_has_changed_hands(make_pool: PoolFactory, swap_directory: Path) -> None:
    """The area is small, so that the slots of pages that are rewritten are soon others'."""
    area = uswap.SwapArea(swap_directory, size="4MiB")
    pool = make_pool("4MiB", swap=area, background=False, overcommit=True)
    region = pool.region("2MiB")
    pages = Pages(region)
    pages.fill(1)
    region.advise(uswap.Advice.PAGEOUT)
    found: list[BaseException] = []

    def look() -> None:
        try:
            region.verify(0, PAGE)
        except uswap.SwapError as error:
            found.append(error)

    with armed("verify.slot", Action.STOP):
        thread = threading.Thread(target=look)
        thread.start()
        await_stopped("verify.slot")
        for version in range(2, 6):
            pages.fill(version)
            region.advise(uswap.Advice.PAGEOUT)
        release("verify.slot")
        thread.join()
    assert not found
    assert pages.wrong(5) == 0
    pool.check()


@pytest.mark.parametrize("name", ["page_in.one", "page_in.hash"])
def test_one_slot_of_a_request_cannot_be_read(make_pool: PoolFactory, name: str) -> None:
    """Its neighbours came with it, and are right."""
    pool = make_pool("4MiB", background=False)
    region = pool.region(ALL * PAGE)
    pages = Pages(region)
    pages.fill(1)
    region.advise(uswap.Advice.PAGEOUT)
    action = (Action.FLIP, 77) if name == "page_in.hash" else (Action.ERROR, errno.EIO)
    with armed("page_in.read", Action.ERROR, errno.EIO, every=True), armed_for_page(name, *action, region, 5):
        region.advise(uswap.Advice.WILLNEED)
        with pytest.raises(uswap.SwapError) as caught, region.resident(5 * PAGE, PAGE):
            pass
    assert caught.value.offset == 5 * PAGE
    assert caught.value.errno == (errno.EBADMSG if name == "page_in.hash" else errno.EIO)
    assert ("checksum" if name == "page_in.hash" else "could not be read") in str(caught.value)
    with pytest.raises(uswap.SwapError) as verified:
        region.verify()
    assert verified.value.errno == caught.value.errno
    assert [page for page, kind in enumerate(region.page_classes()) if kind == uswap.PageClass.POISONED] == [5]
    assert pages.wrong(1, 0, 5) == 0
    assert pages.wrong(1, 6) == 0
    pool.check()


def test_one_slot_of_a_request_cannot_be_written(make_pool: PoolFactory) -> None:
    """Its page stays in memory, the others leave."""
    pool = make_pool("4MiB", background=False, write_ahead=False)
    region = pool.region(ALL * PAGE)
    pages = Pages(region)
    pages.fill(1)
    every = armed("page_out.written", Action.ERROR, errno.EIO, every=True)
    with every, armed_for_page("page_out.one", Action.ERROR, errno.EIO, region, 5):
        region.advise(uswap.Advice.PAGEOUT)
    classes = region.page_classes()
    assert [page for page, kind in enumerate(classes) if kind == uswap.PageClass.RESIDENT] == [5]
    assert pool.stats().write_errors == 1
    assert pages.wrong(1) == 0
    region.advise(uswap.Advice.PAGEOUT)
    assert pages.wrong(1) == 0
    pool.check()
