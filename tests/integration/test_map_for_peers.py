"""Pool(map_for_peers=): who has a page mapped when another process has brought it in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from _support.members import Member
from _support.pagemap import PAGE, mapped
from _support.waiting import await_that

import uswap

MIB = 1 << 20
ALL = list(range(MIB // PAGE))
FILL, READ = "r[::4096] = bytes([7]) * 256", "assert bytes(r[::4096]) == bytes([7]) * 256"
# Who has just come may not have the others' descriptors yet, and maps for those that it knows. Who takes a page
# away that was stored to must know all.
KNOW_ALL = "r[0] = 7\nwhile r.info().resident: r.advise(uswap.Advice.PAGEOUT)"
JOIN = "pool = uswap.attach('mapped', swap=swap); r = pool.open_region('r')"
# The child has the option from its parent: it does the same with the same memory. It stays until that has ended: a
# toucher has the page before the peers have.
IN_CHILD = """
import os, warnings
warnings.simplefilter("ignore")  # that there are other threads: they are the pool's
end, stay = os.pipe()
pid = os.fork()
if pid == 0:
    try:
        os.close(stay)
        r = pool.open_region("r")
        exec({work!r})
        os.read(end, 1)
        os._exit(0)
    finally:
        os._exit(1)
"""
END_OF_CHILD = "os.close(stay); assert os.waitpid(pid, 0)[1] == 0; os.close(end)"


def pool_of(folder: Path, **options: bool) -> uswap.Pool:
    return uswap.Pool("64MiB", name="mapped", swap=uswap.SwapArea(folder, size="256MiB"), **options)


@pytest.fixture
def other(runtime_folder: Path, swap_directory: Path) -> Iterator[Member]:
    """A process that is not in the pool yet."""
    with Member() as process:
        process(f"swap = uswap.SwapArea({str(swap_directory)!r}, size='256MiB')")
        yield process


def evict(region: uswap.SharedRegion) -> None:
    """All of it: what somebody's read-ahead was about to map may stay for a moment."""
    while region.info().resident:
        region.advise(uswap.Advice.PAGEOUT)


@pytest.mark.parametrize("options", [{}, {"map_for_peers": False}])
def test_each_maps_what_it_touches_and_no_more(
    options: dict[str, bool], other: Member, swap_directory: Path
) -> None:
    with pool_of(swap_directory, **options) as pool, pool.region(MIB, shared=True, name="r") as region:
        other(JOIN)
        for work in (FILL, READ):
            other(work)
            assert mapped(region) == []
            faults = pool.group_info().soft_faults
            assert region[::PAGE] == bytes([7]) * len(ALL)
            assert mapped(region) == ALL
            assert pool.group_info().soft_faults > faults
            evict(region)
        assert pool.group_info().mapped_for_peers == 0


@pytest.mark.parametrize("readers", [1, 2, 8])
def test_who_goes_on_maps_more_at_a_time(readers: int, other: Member, swap_directory: Path) -> None:
    """Each of several readers in turn, as threads are."""
    with pool_of(swap_directory) as pool, pool.region(32 * MIB, shared=True, name="r") as region:
        other(JOIN)
        other("r[::4096] = bytes([7]) * (len(r) // 4096)")
        part = len(region) // readers
        faults = pool.group_info().soft_faults
        for offset in range(0, part, PAGE):
            for reader in range(readers):
                assert region[reader * part + offset] == 7
        assert pool.group_info().soft_faults - faults < 16 * (1 + readers)


@pytest.mark.parametrize("in_child", [False, True])
def test_what_one_brings_in_is_mapped_for_all_if_the_pool_was_made_so(
    in_child: bool, other: Member, swap_directory: Path
) -> None:
    """Whoever it is: the option is the pool's, not that of the process that has made it."""
    with (
        pool_of(swap_directory, map_for_peers=True) as pool,
        pool.region(MIB, shared=True, name="r") as region,
    ):
        other(JOIN)
        for touch in (FILL, READ):  # brought in by a first touch, and from swap
            before = pool.group_info()
            work = f"{KNOW_ALL}\n{touch}"
            other(IN_CHILD.format(work=work) if in_child else work)
            await_that(lambda: mapped(region) == ALL)
            if in_child:
                other(END_OF_CHILD)
            after = pool.group_info()
            assert after.mapped_for_peers - before.mapped_for_peers >= len(ALL)
            assert region[::PAGE] == bytes([7]) * len(ALL)
            assert pool.group_info().faults == after.faults  # nothing was left to be done
            evict(region)
