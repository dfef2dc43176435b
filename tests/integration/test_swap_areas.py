"""Several swap areas: which is used when, and a block device as one."""

import errno
import gc
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from _support.failpoints import Action, armed
from _support.program import run_program
from _support.workload import Pages, in_threads
from conftest import PoolFactory

import uswap
from uswap import Advice
from uswap._core import lib

MIB = 1 << 20
OPEN = 2 * MIB  # clusters that the fault thread and the reclaimer have open count as used


def used(pool: uswap.Pool) -> list[int]:
    """Bytes of slots in use, by area."""
    return [area.used for area in pool.areas()]


def areas(folder: Path, *sizes_and_priorities: tuple[str, int]) -> list[uswap.SwapArea]:
    """Files in folder."""
    return [
        uswap.SwapArea(folder / f"swap{number}", size, priority)
        for number, (size, priority) in enumerate(sizes_and_priorities)
    ]


def test_the_higher_priority_is_filled_first(pool_factory: PoolFactory, swap_directory: Path) -> None:
    pool = pool_factory(
        "32MiB", swap=areas(swap_directory, ("64MiB", 1), ("32MiB", 5), ("64MiB", -1)), background=False
    )
    region = pool.region("80MiB")
    pages = Pages(region)
    pages.fill(1, 0, 4096)
    region.advise(Advice.PAGEOUT, 0, 16 * MIB)
    assert used(pool) == [0, 16 * MIB, 0]
    pages.fill(1, 4096)
    region.advise(Advice.PAGEOUT)
    low, high, lowest = used(pool)
    assert high == 32 * MIB - 4096  # it has a header, too
    assert 80 * MIB - high <= low <= 80 * MIB - high + OPEN
    assert lowest == 0
    pool.check()
    assert pages.wrong(1) == 0


def test_areas_of_equal_priority_take_turns(pool_factory: PoolFactory, swap_directory: Path) -> None:
    pool = pool_factory("32MiB", swap=areas(swap_directory, ("64MiB", 3), ("64MiB", 3)), background=False)
    region = pool.region("16MiB")
    pages = Pages(region)
    pages.fill(1)
    turns = []
    for start in range(0, len(region), MIB):  # a cluster
        before = used(pool)
        region.advise(Advice.PAGEOUT, start, MIB)
        grown = [after - earlier for earlier, after in zip(before, used(pool), strict=True)]
        assert sorted(grown) == [0, MIB]
        turns.append(grown.index(MIB))
    assert turns in ([0, 1] * 8, [1, 0] * 8)
    pool.check()
    assert pages.wrong(1) == 0


def test_equal_areas_share_what_is_promised(make_pool: PoolFactory, swap_directory: Path) -> None:
    pool = make_pool("16MiB", swap=areas(swap_directory, ("1GiB", 0), ("1GiB", 0), ("80MiB", 0)))
    with pool.region("512MiB"):
        allocated = [area.allocated for area in pool.areas()]
        assert sum(allocated) >= 512 * MIB
        assert max(allocated) <= 320 * MIB  # in steps of 64 MiB
        assert min(allocated) == 80 * MIB
    with pool.region("1900MiB"):
        assert sum(area.allocated for area in pool.areas()) >= 1900 * MIB
    with pytest.raises(uswap.OutOfSpaceError):
        pool.region("3GiB")


@pytest.fixture
def loop_device(swap_directory: Path) -> Iterator[Path]:
    """A block device of 64 MiB."""
    if os.geteuid() != 0:
        pytest.skip("no loop device: that needs root")
    file = swap_directory / "disk"
    file.write_bytes(b"")
    os.truncate(file, 64 * MIB)
    try:
        made = subprocess.run(["losetup", "--find", "--show", file], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("no loop device: losetup is not installed")
    if made.returncode != 0:
        pytest.skip(f"no loop device: {made.stderr.strip()}")
    device = Path(made.stdout.strip())
    try:
        yield device
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)
        file.unlink()


def test_a_block_device_as_an_area(pool_factory: PoolFactory, loop_device: Path) -> None:
    pool = pool_factory("8MiB", swap=loop_device)
    (info,) = pool.areas()
    assert info.size == 64 * MIB
    region = pool.region("32MiB")
    pages = Pages(region)
    pages.fill(1)
    region.advise(Advice.PAGEOUT)
    assert len(region) <= used(pool)[0] <= len(region) + OPEN
    region.verify()
    assert pages.wrong(1) == 0
    pool.check()


def test_a_block_device_with_data_is_refused(loop_device: Path) -> None:
    with loop_device.open("r+b") as device:
        device.write(b"somebody's")
    with pytest.raises(uswap.SwapAreaError, match="holds data"):
        uswap.Pool("8MiB", swap=loop_device)
    with loop_device.open("rb") as device:
        assert device.read(10) == b"somebody's"


def test_a_block_device_comes_and_goes(make_pool: PoolFactory, loop_device: Path, swap_directory: Path) -> None:
    pool = make_pool("8MiB", swap=uswap.SwapArea(swap_directory / "file", "128MiB"))
    pages = Pages(pool.region("32MiB"))
    added = pool.swapon(loop_device, priority=1)
    pages.fill(1)
    assert used(pool)[1] > 0
    pool.swapoff(added)
    assert pages.wrong(1) == 0
    fresh = uswap.Pool("8MiB", swap=loop_device)  # its header is still ours, and nobody has locked it
    fresh.close()


def on_disk(path: Path) -> int:
    """Bytes that the file takes."""
    return path.stat().st_blocks * 512


def test_closed_regions_give_the_disk_back(pool_factory: PoolFactory, swap_directory: Path) -> None:
    path = swap_directory / "swap"
    pool = pool_factory("8MiB", swap=uswap.SwapArea(path, "1GiB"), background=False)
    kept, closed = pool.region("16MiB"), pool.region("256MiB")
    for region in (kept, closed):
        Pages(region).fill(1)
        region.advise(Advice.PAGEOUT)
    gc.collect()
    before = pool.stats().swap_allocated_bytes
    assert on_disk(path) >= before >= 272 * MIB
    closed.close()
    after = pool.stats().swap_allocated_bytes
    # What is promised, slack, and less than a step.
    assert 16 * MIB <= after <= 16 * MIB + 4 * MIB + OPEN + 64 * MIB
    assert on_disk(path) <= after + MIB
    pool.check()
    assert Pages(kept).wrong(1) == 0
    again = pool.region("256MiB")  # in the holes, and a little more
    assert on_disk(path) >= pool.stats().swap_allocated_bytes >= 272 * MIB
    assert path.stat().st_size <= before + 64 * MIB
    Pages(again).fill(2)
    again.advise(Advice.PAGEOUT)
    pool.check()
    assert Pages(again).wrong(2) == 0
    assert Pages(kept).wrong(1) == 0


def test_holes_lie_between_what_is_used(make_pool: PoolFactory, swap_directory: Path) -> None:
    path = swap_directory / "swap"
    pool = make_pool("16MiB", swap=uswap.SwapArea(path, "1GiB"))
    regions = [pool.region("8MiB") for _ in range(40)]
    for number, region in enumerate(regions):
        Pages(region).fill(number + 1)
        region.advise(Advice.PAGEOUT)
    gc.collect()
    before = on_disk(path)
    for region in regions[1::2]:
        region.close()
    assert on_disk(path) < before - 64 * MIB
    pool.check()
    left = regions[::2]
    for number, region in enumerate(left):
        assert Pages(region).wrong(2 * number + 1) == 0
        Pages(region).fill(100 + number)
    large = pool.region("200MiB")
    Pages(large).fill(7)
    assert all(Pages(region).wrong(100 + number) == 0 for number, region in enumerate(left))
    assert Pages(large).wrong(7) == 0
    pool.check()


def test_space_comes_back_to_a_busy_pool(pool_factory: PoolFactory, swap_directory: Path) -> None:
    pool = pool_factory("8MiB", swap=areas(swap_directory, ("512MiB", 0), ("512MiB", 0), ("512MiB", -1)))
    pages = Pages(pool.region("32MiB"))

    def work(number: int) -> None:
        if number > 0:
            assert pages.stress(number, 4000) == 0
            return
        for turn in range(12):
            region = pool.region("160MiB")
            Pages(region).fill(1, turn * 1000, 3000)
            gc.collect()
            region.close()

    in_threads(3, work)
    pool.check()
    assert pages.wrong_after_stress() == 0


@pytest.mark.skipif(not lib.uswap_failpoints_built(), reason="the core was built without failpoints")
def test_a_hole_that_cannot_be_filled_stays_one(make_pool: PoolFactory, swap_directory: Path) -> None:
    pool = make_pool("8MiB", swap=uswap.SwapArea(swap_directory / "swap", "1GiB"))
    pool.region("256MiB").close()
    small = pool.stats().swap_allocated_bytes
    with (
        armed("area.fallocate", Action.ERROR, errno.ENOSPC, every=True),
        pytest.raises(uswap.OutOfSpaceError, match="no room on the disk"),
    ):
        pool.region("256MiB")
    assert pool.stats().swap_allocated_bytes == small
    pool.check()
    pages = Pages(pool.region("256MiB"))
    pages.fill(1)
    assert pages.wrong(1) == 0


def test_what_is_amiss_with_an_area_is_said_once(swap_directory: Path) -> None:
    """To a program that has configured neither warnings nor logging both go to standard error."""
    done = run_program(
        """
        import warnings
        warnings.simplefilter("default")
        uswap.Pool("4MiB", swap=uswap.SwapArea("/dev/shm", size="16MiB")).close()
        """,
        swap_directory,
    )
    assert done.stderr.count("lies in memory") == 1
