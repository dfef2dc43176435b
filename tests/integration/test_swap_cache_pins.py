"""A fault that copies a page from the frame of a write in flight keeps that frame when the write ends meanwhile."""

from __future__ import annotations

import threading

from _support.failpoints import Action, armed, await_stopped, release
from _support.workload import Pages
from conftest import PoolFactory

import uswap


def test_a_write_that_ends_leaves_the_frame_to_who_copies_from_it(pool_factory: PoolFactory) -> None:
    """The fault stands still in the middle of its copy; it alone gives the frame back, once."""
    pool = pool_factory(read_ahead=0, background=False, write_ahead=False)
    region = pool.region("1MiB")
    pages = Pages(region)
    pages.fill(1)
    with armed("page_out.written", Action.STOP):
        evictor = threading.Thread(target=region.advise, args=(uswap.Advice.PAGEOUT, 0, 4096))
        evictor.start()
        await_stopped("page_out.written")
        with armed("uffd.copy", Action.STOP):
            reader = threading.Thread(target=pages.touch, args=([0],))
            reader.start()
            await_stopped("uffd.copy")
            release("page_out.written")
            evictor.join()
            release("uffd.copy")
            reader.join()
    assert pages.wrong(1) == 0
    pool.check()
    region.advise(uswap.Advice.PAGEOUT)
    assert pages.wrong(1) == 0
