"""System calls into managed memory work, whatever is swapped out at that moment."""

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from _support.workload import PAGE, Pages
from conftest import PoolFactory

import uswap

SIZE = 8 << 20


@pytest.fixture
def region(pool_factory: PoolFactory) -> Iterator[uswap.Region]:
    """A region twice the limit, filled, most of it swapped out."""
    pool = pool_factory("4MiB")
    region = pool.region(SIZE)
    Pages(region).fill(1)
    region.advise(uswap.Advice.PAGEOUT)
    yield region
    region.close()


def contents_of_version(version: int) -> bytes:
    memory = bytearray(SIZE)
    Pages(memory).fill(version)
    return bytes(memory)


def test_write_and_read_of_a_file(region: uswap.Region, tmp_path: Path) -> None:
    expected = contents_of_version(1)
    path = tmp_path / "file"
    with open(path, "wb", buffering=0) as file:
        assert file.write(region) == SIZE
    assert path.read_bytes() == expected
    path.write_bytes(contents_of_version(2))
    region.advise(uswap.Advice.PAGEOUT)
    with open(path, "rb", buffering=0) as file, memoryview(region) as view:
        assert file.readinto(view) == SIZE
    assert region[:] == contents_of_version(2)


def test_pread_into_a_memoryview(region: uswap.Region, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(contents_of_version(2))
    descriptor = os.open(path, os.O_RDONLY)
    with memoryview(region) as view:
        assert os.preadv(descriptor, [view[: SIZE // 2], view[SIZE // 2 :]], 0) == SIZE
    os.close(descriptor)
    assert region[:] == contents_of_version(2)


def test_send_and_recv(region: uswap.Region) -> None:
    ours, theirs = socket.socketpair()
    received = bytearray()

    def drain() -> None:
        while piece := theirs.recv(1 << 16):
            received.extend(piece)

    reader = threading.Thread(target=drain)
    reader.start()
    with memoryview(region) as view:
        ours.sendall(view)
    ours.close()
    reader.join()
    theirs.close()
    assert received == contents_of_version(1)
    ours, theirs = socket.socketpair()
    sent = contents_of_version(2)
    writer = threading.Thread(target=lambda: (ours.sendall(sent), ours.close()))
    region.advise(uswap.Advice.PAGEOUT)
    writer.start()
    with memoryview(region) as view:
        done = 0
        while count := theirs.recv_into(view[done:]):
            done += count
    writer.join()
    theirs.close()
    assert done == SIZE
    assert region[:] == sent


def test_sendfile_of_a_file_written_from_the_region(region: uswap.Region, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(region)
    ours, theirs = socket.socketpair()
    received = bytearray()

    def drain() -> None:
        while piece := theirs.recv(1 << 16):
            received.extend(piece)

    reader = threading.Thread(target=drain)
    reader.start()
    with open(path, "rb") as file:
        ours.sendfile(file)
    ours.close()
    reader.join()
    theirs.close()
    assert received == contents_of_version(1)


def test_numpy_saves_and_loads(pool_factory: PoolFactory, tmp_path: Path) -> None:
    pool = pool_factory("4MiB")
    array = pool.empty(1 << 20, dtype="<u8")
    array[:] = np.arange(1 << 20)
    np.save(tmp_path / "a.npy", array)
    assert (np.load(tmp_path / "a.npy", mmap_mode="r") == array).all()
    again = pool.load(tmp_path / "a.npy")
    assert (again == np.arange(1 << 20)).all()
    array.tofile(tmp_path / "a.bin")
    assert (pool.fromfile(tmp_path / "a.bin", dtype="<u8") == array).all()


def test_pipes_to_a_subprocess(region: uswap.Region) -> None:
    with memoryview(region) as view:
        result = subprocess.run(
            [sys.executable, "-c", "import sys; sys.stdout.buffer.write(sys.stdin.buffer.read()[::-1])"],
            input=view,
            capture_output=True,
            check=True,
            timeout=60,
        )
    assert result.stdout == contents_of_version(1)[::-1]


DIRECT_CHUNK = 1 << 20


def direct_reads_lose_nothing(region: uswap.Region, path: Path, *, hold: bool) -> None:
    """O_DIRECT reads into pages that another thread evicts all the time."""
    path.write_bytes(contents_of_version(3))
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECT)
    except OSError as error:
        pytest.skip(f"O_DIRECT is refused in {path.parent}: {error}")
    done = threading.Event()

    def evict() -> None:
        while not done.is_set():
            region.advise(uswap.Advice.PAGEOUT)

    evictor = threading.Thread(target=evict)
    evictor.start()
    try:
        with memoryview(region) as view:
            for round_ in range(10):
                region.advise(uswap.Advice.DONTNEED)
                for start in range(0, SIZE, DIRECT_CHUNK):
                    piece = view[start : start + DIRECT_CHUNK]
                    if hold:
                        with region.resident(start, DIRECT_CHUNK):
                            assert os.preadv(descriptor, [piece], start) == DIRECT_CHUNK
                    else:
                        assert os.preadv(descriptor, [piece], start) == DIRECT_CHUNK
                assert Pages(region).wrong(3) == 0, f"round {round_}"
    finally:
        done.set()
        evictor.join()
        os.close(descriptor)


@pytest.mark.parametrize("io", ["uring", "sync"])
def test_direct_reads_into_memory_being_evicted_by_move(
    make_pool: PoolFactory, swap_directory: Path, io: str
) -> None:
    pool = make_pool("4MiB", transport="move", io=io)
    direct_reads_lose_nothing(pool.region(SIZE), swap_directory / "direct", hold=False)


def test_direct_reads_inside_resident(pool_factory: PoolFactory, swap_directory: Path) -> None:
    pool = pool_factory("4MiB")
    direct_reads_lose_nothing(pool.region(SIZE), swap_directory / "direct", hold=True)


def test_a_system_call_on_protected_memory_fails_as_it_should(pool_factory: PoolFactory) -> None:
    region = pool_factory("4MiB").region(16 * PAGE)
    Pages(region).fill(1)
    region.protect(uswap.Protection.READ)
    region.advise(uswap.Advice.PAGEOUT)
    assert Pages(bytearray(region)).wrong(1) == 0
    ends = os.pipe()
    os.write(ends[1], b"new")
    with memoryview(region) as view, pytest.raises(OSError, match="Bad address"):
        os.readv(ends[0], [view[:3]])
    region.protect(uswap.Protection.READ | uswap.Protection.WRITE)
    with memoryview(region) as view:
        assert os.readv(ends[0], [view[:3]]) == 3
    assert region[:3] == b"new"
    for end in ends:
        os.close(end)
