"""Shared regions come and go while others open them, end them, are stopped or interrupted in that, or fork."""

from __future__ import annotations

import contextlib
import gc
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from _support.failpoints import Action
from _support.members import Member, MemberError
from _support.program import run_program
from _support.waiting import await_that

import uswap
from uswap import _core, _resizing
from uswap._core import lib

MIB = 1 << 20
GENERATIONS = 4095

needs_failpoints = pytest.mark.skipif(
    not lib.uswap_failpoints_built(), reason="the core was built without failpoints"
)


@pytest.fixture
def jobs(jobs: uswap.Pool) -> Iterator[uswap.Pool]:
    """At its end nothing may be left of what was shared."""
    yield jobs
    gc.collect()
    await_that(lambda: jobs.shared_regions() == [])
    jobs.check()
    assert jobs.group_info().shared_resident_bytes == 0


def freeze_at(member: Member, name: str, what: str) -> None:
    """It does that until it is stopped there."""
    member(f"set_failpoint({name!r}, {int(Action.FREEZE)})")
    member.send(what)
    await_that(lambda: _state(member.pid) == "T")


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def indices(pool: uswap.Pool) -> list[int]:
    assert pool._core.group is not None
    return [int(raw.object) for raw in pool._core.group.objects()]


# ---- who opens -------------------------------------------------------------------------------------------------


@needs_failpoints
@pytest.mark.parametrize("turns", [1, GENERATIONS], ids=["next", "same generation"])
def test_while_one_is_stopped_opening_a_region_its_place_gets_no_other(
    turns: int, jobs: uswap.Pool, more: Callable[[], Member]
) -> None:
    """It would have the file of the one and the words of the other: what is stored would be lost in both."""
    opener = more()
    first = jobs.region("64KiB", shared=True, name="x")
    (place,) = indices(jobs)
    freeze_at(opener, "object.mapped", "r = pool.open_region('x')")
    first.close()
    for _ in range(turns - 1):
        jobs.region(4096, shared=True).close()
    second = jobs.region("64KiB", shared=True, name="x")
    assert place not in indices(jobs)
    second[:] = bytes([2]) * len(second)
    opener.go_on()
    opener.answer()  # it has found the second one
    assert opener("bytes(r[:]).count(2)") == len(second)
    opener("r[0] = 3")
    second.advise(uswap.Advice.PAGEOUT)
    assert second[:2] == bytes([3, 2])
    opener("r.close()")
    second.close()
    third = jobs.region("64KiB", shared=True, name="x")
    assert indices(jobs) == [place], "nobody visits it any more"
    third.close()


@needs_failpoints
def test_what_has_ended_while_one_was_stopped_opening_it_is_not_there(
    jobs: uswap.Pool, more: Callable[[], Member]
) -> None:
    opener = more()
    first = jobs.region("64KiB", shared=True, name="x")
    freeze_at(opener, "object.mapped", "r = pool.open_region('x')")
    first.close()
    jobs.region("64KiB", shared=True, name="x").close()
    assert jobs.shared_regions() == []
    opener.go_on()
    with pytest.raises(MemberError, match="there is no shared region"):
        opener.answer()


@needs_failpoints
def test_what_nobody_has_is_not_there_though_who_was_to_end_it_is_stopped(
    jobs: uswap.Pool, more: Callable[[], Member]
) -> None:
    other = more()
    for name in ("object.unmapped", "object.closed"):
        other("r = pool.region('64KiB', shared=True, name='x')")
        freeze_at(other, name, "r.close()")
        begin = time.monotonic()
        with jobs.region("64KiB", shared=True, name="x") as region:
            region[0] = 1
        with pytest.raises(uswap.ArgumentError, match="no shared region"):
            jobs.open_region("x")
        assert time.monotonic() - begin < 5
        other.go_on()
        other.answer()


@needs_failpoints
@pytest.mark.parametrize("name", ["object.taken", "object.made", "object.mapped"])
def test_who_is_killed_making_a_region_leaves_no_name(
    name: str, jobs: uswap.Pool, more: Callable[[], Member]
) -> None:
    maker = more()
    freeze_at(maker, name, "r = pool.region('64KiB', shared=True, name='x')")
    with pytest.raises(uswap.ArgumentError, match="no shared region"):
        jobs.open_region("x")
    os.kill(maker.pid, 9)

    def made() -> bool:
        with contextlib.suppress(uswap.ArgumentError):
            jobs.region("64KiB", shared=True, name="x").close()
            return True
        return False

    await_that(made)
    await_that(lambda: len(jobs.members()) == 1)


def test_regions_made_and_opened_at_once_are_whole(jobs: uswap.Pool, more: Callable[[], Member]) -> None:
    """One makes, fills and ends a region of that name again and again; the other opens it as often."""
    member = more()
    member(
        """
def make():
    while True:
        try:
            return pool.region("64KiB", shared=True, name="x")
        except uswap.ArgumentError as error:  # the other one has the last one still
            if "exists" not in str(error):
                raise

def work():
    wrong = 0
    for turn in range(200):
        with make() as region:
            region[:] = bytes([7]) * len(region)
            region.advise(uswap.Advice.PAGEOUT)
            wrong += region[:].count(7) != len(region)
    return wrong
"""
    )
    seen: set[int] = set()
    with ThreadPoolExecutor(1) as executor:
        wrong = executor.submit(member, "work()")
        while not wrong.done():
            with contextlib.suppress(uswap.ArgumentError), jobs.open_region("x") as region:
                seen |= set(region[::4096])
    assert wrong.result() == 0
    assert seen <= {0, 7}


# ---- who is interrupted ----------------------------------------------------------------------------------------


class _Interrupted(BaseException):
    pass


@pytest.mark.parametrize("opens", [False, True], ids=["made", "opened"])
def test_an_interruption_right_after_the_core_has_mapped_a_region_leaves_nothing(
    opens: bool, jobs: uswap.Pool, more: Callable[[], Member], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As KeyboardInterrupt may come there."""
    other = more()
    if opens:
        other("r = pool.region('64KiB', shared=True, name='x', reserve='1MiB'); r[0] = 5")
    before = sorted(os.listdir("/proc/self/fd"))

    def interrupt(*_: object) -> int:
        monkeypatch.undo()
        raise _Interrupted

    def then_interrupt(region: uswap.SharedRegion) -> object:
        monkeypatch.setattr(_core, "check_error", interrupt)  # the next call of the core is the one that maps
        return mapping_for_core(region)

    mapping_for_core = _resizing.mapping_for_core
    monkeypatch.setattr(_resizing, "mapping_for_core", then_interrupt)
    with pytest.raises(_Interrupted):
        jobs.open_region("x") if opens else jobs.region("64KiB", shared=True, name="x", reserve="1MiB")
    gc.collect()
    assert sorted(os.listdir("/proc/self/fd")) == before
    assert len(jobs.shared_regions()) == opens
    if opens:
        assert jobs.open_region("x")[0] == 5
        other("r.close()")
    else:
        other("pool.region('64KiB', shared=True, name='x').close()")


def test_an_end_that_was_interrupted_is_not_that_of_the_next_region(
    jobs: uswap.Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is gone on with; by then another one may have its place."""
    first = jobs.region("64KiB", shared=True, name="x")
    place = indices(jobs)
    seen: list[int] = []

    def interrupt(region: uswap.SharedRegion) -> None:
        monkeypatch.undo()
        second = jobs.region("64KiB", shared=True, name="y")  # before it can be gone on with
        second[0] = 7
        seen.extend(indices(jobs))
        kept.append(second)
        raise _Interrupted

    kept: list[uswap.SharedRegion] = []
    monkeypatch.setattr(uswap.SharedRegion, "_forget", interrupt)
    with pytest.raises(_Interrupted):
        first.close()
    assert seen == place, "it has the place of the first"
    (second,) = kept
    second.advise(uswap.Advice.PAGEOUT)
    assert second[0] == 7
    assert [one.name for one in jobs.shared_regions()] == ["y"]
    kept.clear()
    second.close()


def test_the_end_of_a_with_block_beside_a_thread_that_makes_regions_leaves_no_name(
    jobs: uswap.Pool, swap: uswap.SwapArea
) -> None:
    for turn in range(40):
        pool = uswap.attach("jobs", swap=swap, reclaimer=False)
        begun = threading.Event()

        def work(pool: uswap.Pool = pool, begun: threading.Event = begun, name: str = f"n{turn}") -> None:
            with contextlib.suppress(uswap.ClosedError):
                while True:
                    pool.region(4096, shared=True, name=name).close()
                    begun.set()

        thread = threading.Thread(target=work)
        with pool:
            thread.start()
            assert begun.wait(60)
        thread.join()
        jobs.region(4096, shared=True, name=f"n{turn}").close()
    await_that(lambda: len(jobs.members()) == 1)


# ---- who is forked ---------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("runtime_folder")
@pytest.mark.parametrize("snapshots", [True, False])
def test_a_forked_child_keeps_no_memory_of_its_parents_shared_regions(
    snapshots: bool, swap_directory: Path
) -> None:
    """The parent, which alone had it, is killed: nobody is there who could free it, and it is in no limit."""
    out = run_program(
        f"""
        import os, signal, time
        from pathlib import Path
        read_end, write_end = os.pipe()
        parent = os.fork()
        if parent == 0:
            pool = uswap.Pool("64MiB", name="jobs", swap=SWAP, snapshots={snapshots})
            region = pool.region("16MiB", shared=True, name="kept")
            region[:] = os.urandom(len(region))
            names = [os.readlink(entry) for entry in Path("/proc/self/fd").iterdir() if entry.is_symlink()]
            assert any("uswap-region-kept" in name for name in names)
            child = os.fork()
            if child:
                signal.pause()
            mine = []
            for entry in os.listdir("/proc/self/fd"):
                try:
                    mine.append(os.readlink(f"/proc/self/fd/{{entry}}"))
                except OSError:
                    pass
            os.write(write_end, repr([name for name in mine if "uswap-region-kept" in name]).encode() + b"\\n")
            os.kill(os.getppid(), signal.SIGKILL)
            os._exit(0)
        os.close(write_end)
        print(os.read(read_end, 1000).decode(), end="")
        os.waitpid(parent, 0)
        uswap.Pool("64MiB", name="jobs", swap=SWAP).close()  # removes what the dead have left
        """,
        swap_directory,
    ).stdout
    assert out == "[]\n"


@needs_failpoints
@pytest.mark.usefixtures("runtime_folder")
def test_a_child_forked_while_a_thread_opens_a_region_has_no_file_of_it(swap_directory: Path) -> None:
    out = run_program(
        """
        import ctypes, os, threading
        from _support.failpoints import Action, armed, await_stopped, release
        from _support.members import Member
        pool = uswap.Pool("64MiB", name="jobs", swap=SWAP)
        def files():
            return [name for name in map(link, os.listdir("/proc/self/fd")) if "uswap-region-x" in name]
        def link(number):
            try:
                return os.readlink(f"/proc/self/fd/{number}")
            except OSError:
                return ""
        with Member() as owner:
            owner(f"swap = uswap.SwapArea({str(SWAP.path)!r}, size='1GiB')")
            owner("pool = uswap.attach('jobs', swap=swap)")
            owner("r = pool.region('1MiB', shared=True, name='x'); r[0] = 1")
            with armed("object.file", Action.STOP):
                opener = threading.Thread(target=lambda: pool.open_region("x").close())
                opener.start()
                await_stopped("object.file")
                assert files()
                child = ctypes.PyDLL(None).fork()   # os.fork waits until the thread is done
                if child == 0:
                    print(files(), flush=True)
                    os._exit(0)
                os.waitpid(child, 0)
                release("object.file")
                opener.join()
            assert pool.open_region("x")[0] == 1
            owner("r.close()")
        pool.close()
        """,
        swap_directory,
    ).stdout
    assert out == "[]\n"


# ---- who changes the limit -------------------------------------------------------------------------------------


def test_two_that_cannot_have_their_limits_leave_it_as_it_was(
    runtime_folder: Path, swap: uswap.SwapArea, more: Callable[[], Member]
) -> None:
    """Each tries another one beside a stopped process that has too much of it."""
    with uswap.Pool("200MiB", name="jobs", swap=swap) as pool:
        stopped, first, second = more(), more(), more()
        stopped("r = pool.region('140MiB'); r[:] = b'x' * len(r)")
        stopped.stop()
        first.send("pool.limit = '100MiB'")
        await_that(lambda: pool.limit == 100 * MIB)
        second.send("pool.limit = '90MiB'")
        with pytest.raises(MemberError, match="another process of the pool has set the limit"):
            first.answer()
        with pytest.raises(MemberError, match="the limit stays as it was"):
            second.answer()
        assert pool.limit == 200 * MIB
        stopped.go_on()
        pool.limit = "150MiB"
        assert first("pool.limit") == 150 * MIB
