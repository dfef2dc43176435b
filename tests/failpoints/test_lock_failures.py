"""A lock that fails leaves what was locked before as it was."""

import errno

import pytest
from _support.failpoints import Action, armed
from _support.workload import PAGE, Pages
from conftest import PoolFactory

import uswap
from uswap._core import lib

pytestmark = pytest.mark.skipif(not lib.uswap_failpoints_built(), reason="the core was built without failpoints")


def test_a_lock_that_meets_a_lost_page_lets_go_of_its_own_pages_only(pool_factory: PoolFactory) -> None:
    pool = pool_factory("4MiB", read_ahead=0)
    region = pool.region("1MiB")
    Pages(region).fill(1)
    region.lock(PAGE, 2 * PAGE)
    region.advise(uswap.Advice.PAGEOUT)
    with (
        armed("page_in.hash", Action.FLIP, nth=2, every=True),  # page 0 comes back, page 3 does not
        pytest.raises(uswap.SwapError),
    ):
        region.lock(0, 5 * PAGE)
    assert pool.stats().locked_bytes == 2 * PAGE
    region.advise(uswap.Advice.PAGEOUT)
    classes = list(region.page_classes(0, 4 * PAGE))
    assert classes[1:3] == [uswap.PageClass.RESIDENT] * 2, "the first lock is gone"
    assert uswap.PageClass.RESIDENT not in (classes[0], classes[3]), "the failed lock holds pages"
    region.unlock(PAGE, 2 * PAGE)
    assert pool.stats().locked_bytes == 0


def test_a_pin_that_fails_leaves_earlier_pins(pool_factory: PoolFactory) -> None:
    pool = pool_factory("4MiB", read_ahead=0)
    region = pool.region("1MiB")
    Pages(region).fill(1)
    with region.resident(0, PAGE):
        region.advise(uswap.Advice.PAGEOUT)
        with (
            armed("page_in.read", Action.ERROR, errno.EIO, every=True),
            armed("page_in.one", Action.ERROR, errno.EIO, every=True),
            pytest.raises(uswap.SwapError),
            region.resident(0, 2 * PAGE),
        ):
            raise AssertionError("the second page cannot be read")
        assert pool.stats().pinned_bytes == PAGE
    assert pool.stats().pinned_bytes == 0
