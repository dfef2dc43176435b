"""Swap areas that cannot be used, and disks that are full: a clear exception or warning, and nothing is lost."""

import contextlib
import fcntl
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from _support.failpoints import Action, armed
from _support.program import run_program
from _support.workload import Pages
from conftest import PoolFactory

import uswap

MIB = 1 << 20


@contextlib.contextmanager
def mounted(source: Path, target: Path, *options: str) -> Iterator[Path]:
    """source mounted at target; skips where that is not allowed."""
    target.mkdir()
    done = subprocess.run(["mount", *options, str(source), str(target)], capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"mounting is not allowed here: {done.stderr.strip()}")
    try:
        yield target
    finally:
        subprocess.run(["umount", "--lazy", str(target)], check=True)


@pytest.fixture
def small_disk(swap_directory: Path) -> Iterator[Path]:
    """An ext4 file system of 48 MiB on a loop device."""
    if os.getuid() != 0:
        pytest.skip("only root can mount")
    image = swap_directory / "disk"
    with open(image, "wb") as file:
        file.truncate(48 * MIB)
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", str(image)], check=True, capture_output=True)
    with mounted(image, swap_directory / "mnt", "-o", "loop") as place:
        yield place


def test_a_full_disk_refuses_new_regions_and_loses_nothing(
    make_pool: PoolFactory, small_disk: Path, transport: str
) -> None:
    pool = make_pool("4MiB", swap=uswap.SwapArea(small_disk), transport=transport)
    region = pool.region("16MiB")
    pages = Pages(region)
    pages.fill(1)
    before = pool.stats()
    with pytest.raises(MemoryError, match="no swap space") as refused:
        pool.region("64MiB")
    assert isinstance(refused.value, uswap.UswapError)
    with pytest.raises(MemoryError):
        pool.zeros((64 * MIB,), dtype="u1")
    after = pool.stats()
    assert (after.regions, after.managed_bytes) == (before.regions, before.managed_bytes)
    assert after.swap_reserved_bytes == before.swap_reserved_bytes
    assert pages.wrong(1) == 0
    assert pool.region("1MiB")[:10] == bytes(10)


def test_others_may_fill_the_disk_once_a_region_is_made(make_pool: PoolFactory, small_disk: Path) -> None:
    pool = make_pool("4MiB", swap=uswap.SwapArea(small_disk, size="24MiB"))
    pages = Pages(pool.region("16MiB"))
    with open(small_disk / "hog", "wb", buffering=0) as hog, contextlib.suppress(OSError):
        while hog.write(bytes(MIB)):
            pass
    pages.fill(1)
    assert pages.wrong(1) == 0
    stats = pool.stats()
    assert (stats.write_errors, stats.swap_full_events, stats.over_limit_events) == (0, 0, 0)
    assert stats.peak_resident_bytes <= pool.limit


def test_overcommitted_swap_that_fills_up_goes_over_the_limit_says_so_and_loses_nothing(
    make_pool: PoolFactory, small_disk: Path, transport: str
) -> None:
    pool = make_pool("4MiB", swap=uswap.SwapArea(small_disk), transport=transport, overcommit=True)
    region = pool.region("128MiB")
    pages = Pages(region)
    pages.fill(1, 0, 12288)
    stats = pool.stats()
    assert stats.swap_full_events > 0
    assert stats.over_limit_events > 0
    assert stats.over_limit_frames > 0
    assert pages.wrong(1, 0, 12288) == 0
    pool.check()
    region.advise(uswap.Advice.DONTNEED, 0, 60 * MIB)
    pages.fill(2, 0, 1024)
    assert pages.wrong(2, 0, 1024) == 0
    # What was over is given back first.
    assert pool.stats().over_limit_frames == 0


def test_a_program_is_warned_when_swap_is_full(small_disk: Path) -> None:
    result = run_program(
        """
        import logging, sys, warnings
        logging.basicConfig(stream=sys.stdout, format="%(message)s")
        pool = uswap.Pool("4MiB", swap=uswap.SwapArea(SWAP.path), overcommit=True)
        region = pool.region("128MiB")
        import os
        data = os.urandom(1 << 20)
        for start in range(0, 64 << 20, 1 << 20):
            region[start:start + (1 << 20)] = data
        while "swap_full_events" not in pool.reclaimer.trouble:
            region[:1]
        """,
        small_disk,
    )
    assert "swap is full" in result.stdout


def test_swap_on_a_file_in_use_is_refused(make_pool: PoolFactory, swap_directory: Path) -> None:
    path = swap_directory / "one.swap"
    first = make_pool("4MiB", swap=path)
    pages = Pages(first.region("8MiB"))
    pages.fill(1)
    with pytest.raises(uswap.SwapAreaError, match="used by another pool"):
        uswap.Pool("4MiB", swap=path)
    program = (
        f"import uswap\ntry:\n    uswap.Pool('4MiB', swap={str(path)!r})\nexcept uswap.SwapAreaError as e: print(e)"
    )
    other = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert "used by another pool" in other.stdout, other.stderr
    assert pages.wrong(1) == 0


def test_a_swap_file_can_be_used_again_after_its_pool(make_pool: PoolFactory, swap_directory: Path) -> None:
    path = swap_directory / "one.swap"
    for version in (1, 2):
        pool = make_pool("4MiB", swap=path)
        region = pool.region("8MiB")
        pages = Pages(region)
        assert pages.wrong(0) == 0
        pages.fill(version)
        assert pages.wrong(version) == 0
        del pages
        region.close()
        pool.close()
        assert path.stat().st_size == 4096
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_link_is_not_followed(swap_directory: Path) -> None:
    target = swap_directory / "target"
    target.write_bytes(b"")
    link = swap_directory / "link"
    link.symlink_to(target)
    with pytest.raises(uswap.SwapAreaError, match="symbolic link"):
        uswap.Pool("4MiB", swap=link)


def test_a_block_device_with_a_file_system_is_refused(swap_directory: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can make loop devices")
    image = swap_directory / "disk"
    with open(image, "wb") as file:
        file.truncate(16 * MIB)
    subprocess.run(["mkfs.ext4", "-q", str(image)], check=True, capture_output=True)
    made = subprocess.run(["losetup", "--find", "--show", str(image)], capture_output=True, text=True)
    if made.returncode != 0:
        pytest.skip(f"no loop device: {made.stderr.strip()}")
    device = made.stdout.strip()
    try:
        before = image.read_bytes()
        with pytest.raises(uswap.SwapAreaError, match="not uswap's"):
            uswap.Pool("4MiB", swap=device)
        assert image.read_bytes() == before
        with open(device, "wb", buffering=0) as raw:
            raw.write(bytes(16 * MIB))
        with uswap.Pool("4MiB", swap=device) as pool:
            region = pool.region("6MiB")
            Pages(region).fill(1)
            assert Pages(region).wrong(1) == 0
            assert pool.areas()[0].size == 16 * MIB
            region.close()
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)


def test_a_file_system_without_direct_io_is_used_with_a_warning(swap_directory: Path) -> None:
    # Most file systems take O_DIRECT; where none here refuses it, the step that asks for it is made to fail.
    place = directory_without_direct_io(swap_directory)
    if place is None:
        with armed("area.direct", Action.ERROR, 22):
            check_buffered_pool(swap_directory)
    else:
        check_buffered_pool(place)


def directory_without_direct_io(swap_directory: Path) -> Path | None:
    for place in (swap_directory, Path("/dev/shm"), Path("/run")):
        with contextlib.suppress(OSError):
            descriptor = os.open(place, os.O_TMPFILE | os.O_RDWR, 0o600)
            try:
                fcntl.fcntl(descriptor, fcntl.F_SETFL, os.O_DIRECT)
            except OSError:
                return place
            finally:
                os.close(descriptor)
    return None


def check_buffered_pool(place: Path) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        pool = uswap.Pool("4MiB", swap=uswap.SwapArea(place, size="64MiB"))
    assert any("O_DIRECT" in str(warning.message) for warning in caught)
    region = pool.region("16MiB")
    Pages(region).fill(1)
    assert Pages(region).wrong(1) == 0
    pool.check()
    region.close()
    pool.close()


def test_an_unwritable_directory_is_named(swap_directory: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can become another user")
    program = """
        import os, pwd
        from uswap._options import swap_areas
        os.setgroups([]); os.setgid(65534); os.setuid(65534)
        try:
            swap_areas(os.environ["PLACE"])
        except uswap.SwapAreaError as error:
            print(error)
    """
    result = run_program(program, swap_directory, PLACE="/etc/x.swap")
    assert "not writable" in result.stdout


@pytest.mark.parametrize("size", [-1, 0, "0", "-1MiB", "12XB", float("nan"), True])
def test_bad_sizes_leave_the_pool_as_it_was(pool: uswap.Pool, size: object) -> None:
    before = pool.stats()
    with pytest.raises((ValueError, TypeError)):
        pool.region(size)  # type: ignore[arg-type]
    with pytest.raises((ValueError, TypeError)):
        pool.limit = size
    after = pool.stats()
    assert (after.regions, after.limit_bytes) == (before.regions, before.limit_bytes)


def test_an_array_too_large_for_swap_is_a_memory_error(make_pool: PoolFactory, swap_directory: Path) -> None:
    pool = make_pool("4MiB", swap=uswap.SwapArea(swap_directory, size="64MiB"))
    with pytest.raises(MemoryError):
        pool.zeros(1 << 40)
    array = pool.zeros(1 << 10)
    assert (array == np.zeros(1 << 10)).all()


def test_an_empty_file_of_loose_mode_is_made_private(make_pool: PoolFactory, swap_directory: Path) -> None:
    path = swap_directory / "one.swap"
    path.touch()
    path.chmod(0o666)
    make_pool("4MiB", swap=path)
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_file_with_two_names_is_refused(swap_directory: Path) -> None:
    path = swap_directory / "one.swap"
    path.touch()
    os.link(path, swap_directory / "two.swap")
    with pytest.raises(uswap.SwapAreaError, match="another name"):
        uswap.Pool("4MiB", swap=path)
