"""Every process of a named pool is gone without a chance to clean up: nothing of it has a name, but for the pool's
folder, and that goes with the next start of any pool."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from _support.members import Member
from conftest import directory_on_disk


@pytest.fixture
def swap(tmp_path: Path) -> Iterator[Path]:
    """A directory on a disk that nobody else uses."""
    with directory_on_disk(tmp_path) as folder:
        yield folder


def start(member: Member, swap: Path, code: str) -> None:
    member(f"swap = uswap.SwapArea({str(swap)!r}, size='1GiB')")
    member(code)


def at_work(member: Member) -> None:
    """More private and shared pages than the limit: both swap files are in use."""
    member("own = pool.region('24MiB'); own[:] = b'o' * len(own); shared[:] = b's' * len(shared)")


def open_names(pid: int) -> set[str]:
    """Of all files that the process has open or mapped."""
    links = {os.readlink(f"/proc/{pid}/fd/{name}") for name in os.listdir(f"/proc/{pid}/fd")}
    lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    return links | {line.split(maxsplit=5)[5] for line in lines if len(line.split(maxsplit=5)) == 6}


def test_all_are_killed(runtime_folder: Path, swap: Path) -> None:
    with Member() as maker, Member() as other, Member() as third:
        start(maker, swap, "pool = uswap.Pool('32MiB', name='jobs', swap=swap)")
        maker("shared = pool.region('24MiB', shared=True, name='x')")
        for member in (other, third):
            start(member, swap, "pool = uswap.attach('jobs', swap=swap); shared = pool.open_region('x')")
        for member in (maker, other, third):
            at_work(member)
        names = set().union(*(open_names(member.pid) for member in (maker, other, third)))
        assert any("uswap-commons" in name for name in names)
        assert not any(name.startswith(("/dev/shm", "/dev/mqueue")) and "memfd" not in name for name in names)
        assert list(swap.iterdir()) == []
        for member in (maker, other, third):
            member.kill()
    assert list(swap.iterdir()) == []
    assert list((runtime_folder / "jobs").iterdir()) != []  # the sockets of those who were killed last
    with Member() as later:
        start(later, swap, "pool = uswap.Pool('32MiB', name='another', swap=swap)")
        assert {path.name for path in runtime_folder.iterdir()} == {"another", "another.lock"}
        later("pool.close()")
    assert list(runtime_folder.iterdir()) == []


@pytest.mark.parametrize("then", ["uswap.Pool('32MiB', name='another')", "uswap.attach('alive')"])
def test_the_last_one_ends_by_os_exit(then: str, runtime_folder: Path) -> None:
    with Member() as alive:
        alive("pool = uswap.Pool('32MiB', name='alive')")
        with Member() as last:
            last("pool = uswap.Pool('32MiB', name='jobs')")
            last.send("__import__('os')._exit(0)")
            assert last.end() == 0
        assert (runtime_folder / "jobs").is_dir()
        (runtime_folder / "lonely.lock").touch()
        with Member() as later:
            later(f"pool = {then}")
            left = {path.name for path in runtime_folder.iterdir()}
            assert left - {"another", "another.lock"} == {"alive", "alive.lock"}
            later("pool.close()")
        assert alive("len(pool.members())") == 1


def test_what_is_stopped_or_just_being_made_is_no_leftover(runtime_folder: Path) -> None:
    with Member() as stopped, Member() as later:
        stopped("pool = uswap.Pool('32MiB', name='stopped')")
        stopped.stop()
        later("from uswap import _rendezvous")
        later("making = _rendezvous.making('made'); making.__enter__()")
        with Member() as third:
            third("pool = uswap.Pool('32MiB', name='another'); pool.close()")
        assert {path.name for path in runtime_folder.iterdir()} == {"stopped", "stopped.lock", "made", "made.lock"}
        stopped.go_on()
        later("making.__exit__(None, None, None); _rendezvous.clean(_rendezvous.folder_of('made'))")
        stopped("pool.close()")
