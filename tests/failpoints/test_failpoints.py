"""Each failpoint is hit while a byte-checked workload runs: what fails is done again or in another way, and nothing
is lost."""

from __future__ import annotations

import errno
import signal
import threading
from pathlib import Path

import pytest
from _support.failpoints import Action, armed, await_stopped, hits, names, release
from _support.policies import eventually
from _support.program import run_program
from _support.workload import PAGE, Pages, in_threads
from conftest import PoolFactory, directory_on_disk

import uswap
from uswap._core import lib
from uswap.policy import Answer, Batch, Need, View
from uswap.testing import pool_steps

pytestmark = pytest.mark.skipif(not lib.uswap_failpoints_built(), reason="the core was built without failpoints")

# name -> an errno that the step can really meet; the fuzzer's others are another test's subject
FAILURES = {
    name: pool_steps.FAILURES[name]
    for name in (
        "page_in.read", "io.submit", "page_out.slot", "page_out.written", "uffd.move", "uffd.copy", "uffd.zeropage",
        "page_in.map",
    )
}  # fmt: skip
# Steps whose failure is another test's subject, or that cannot fail.
PASSED_BY = {
    "fault.message", "fault.locked", "fault.park", "page_in.claimed", "page_out.isolated", "page_out.published",
    "page_out.drop", "discard.locked", "region.destroy", "reclaimer.late",
}  # fmt: skip
OTHERS = {
    "fault.inline",
    "poison.touched",
    "bring_in.wait",
    "page_in.chosen",
    "page_out.copied",
    "verify.slot",
    "page_in.right",
    "block.populate",
    "page_in.one",
    "page_in.hash",
    "page_out.one",
    "resize.move",
    "swapoff.step",
    "drop.mapped",
    "sealed.copy",
    "area.fallocate",
    "area.direct",
    "file.nameless",
    "file.named",
    "codec.encode",
    "codec.decode",
    "codec.slot",
    "key.wiped",
    "hold.passed",
    "fork.child",
    "fork.half",
    "fork.placed",
    "fork.quiet",
    "fork.endow",
    "fork.lent",
    "fork.parent",
    "fork.claimed",
    "fork.mapped",
    "fork.area",
    "fork.ready",
    "fork.released",
    "life.lock",
}


# What members of a named pool share: test_member_failpoints.py, test_shared_tables.py.
OF_MEMBERS = ("frame.", "slot.", "chunk.", "member.", "repair.", "shared.", "object.", "group.", "peer.", "grant.")


def test_every_failpoint_has_a_test() -> None:
    of_members = {name for name in names() if name.startswith(OF_MEMBERS)}
    assert set(FAILURES) | PASSED_BY | OTHERS == set(names()) - of_members


def workload(pool: uswap.Pool) -> None:
    """Threads fill, check, discard and close, at a quarter of what they use."""
    region = pool.region("16MiB")
    pages = Pages(region)
    in_threads(4, lambda number: _assert_none(pages.stress(number + 1, 1500)))
    assert pages.wrong_after_stress() == 0
    region.advise(uswap.Advice.PAGEOUT)
    assert pages.wrong_after_stress() == 0
    region.advise(uswap.Advice.DONTNEED)
    assert pages.wrong(0) == 0


def _assert_none(wrong: int) -> None:
    assert wrong == 0


@pytest.mark.parametrize("name", sorted(FAILURES))
@pytest.mark.parametrize("nth", [1, 7])
def test_a_step_that_fails_once_loses_nothing(pool_factory: PoolFactory, name: str, nth: int) -> None:
    pool = pool_factory("4MiB")
    with armed(name, Action.ERROR, FAILURES[name], nth=nth):
        workload(pool)
        passed = hits(name)
    only_of = {"uffd.move": "move", "uffd.copy": "copy"}
    ring_only = name == "io.submit" and pool.stats().io_kind != "uring"
    if only_of.get(name) in (None, pool.stats().transport) and not ring_only:
        assert passed >= nth, f"{name} was not hit"
    pool.check()


@pytest.mark.parametrize("name", ["io.submit", "uffd.move", "page_out.slot", "page_out.written", "page_in.read"])
def test_a_step_that_always_fails_loses_nothing(make_pool: PoolFactory, name: str) -> None:
    pool = make_pool("4MiB", transport="move")
    region = pool.region("2MiB")
    pages = Pages(region)
    pages.fill(1)
    argument = errno.EINVAL if name == "uffd.move" else FAILURES[name]
    with armed(name, Action.ERROR, argument, every=True):
        region.advise(uswap.Advice.PAGEOUT)
        assert pages.wrong(1) == 0
        pages.fill(2)
        region.advise(uswap.Advice.PAGEOUT)
        assert pages.wrong(2) == 0
        assert hits(name) > 0
    assert pages.wrong(2) == 0


def test_uffd_copy_failing_is_hit_by_a_fault_on_a_page_being_written(make_pool: PoolFactory) -> None:
    pool = make_pool("4MiB", background=False)
    region = pool.region("1MiB")
    pages = Pages(region)
    pages.fill(1)
    with armed("page_out.written", Action.STOP), armed("uffd.copy", Action.ERROR, errno.EAGAIN):
        evictor = threading.Thread(target=region.advise, args=(uswap.Advice.PAGEOUT, 0, PAGE))
        evictor.start()
        await_stopped("page_out.written")
        assert pages.wrong(1, 0, 1) == 0
        assert hits("uffd.copy") >= 2
        release("page_out.written")
        evictor.join()


@pytest.mark.parametrize("name", sorted(PASSED_BY))
def test_a_step_that_is_slow_loses_nothing(make_pool: PoolFactory, name: str) -> None:
    pool = make_pool("4MiB", background=name == "reclaimer.late")
    with armed(name, Action.DELAY, 2000, nth=3):
        workload(pool)
        workload(pool)
        workload(pool)
        assert hits(name) > 0, f"{name} was not hit"
    pool.check()


def test_a_disk_that_refuses_writes_goes_over_the_limit_and_recovers(pool_factory: PoolFactory) -> None:
    pool = pool_factory("4MiB")
    pages = Pages(pool.region("6MiB"))
    with (
        armed("page_out.written", Action.ERROR, errno.EIO, every=True),
        armed("page_out.one", Action.ERROR, errno.EIO, every=True),
    ):
        pages.fill(1)
        assert pages.wrong(1) == 0
        stats = pool.stats()
        assert stats.write_errors > 0
        assert 0 < stats.bad_slots <= stats.write_errors  # some have been tried again
        assert stats.over_limit_events > 0
        assert hits("page_out.one") > 0
    assert pages.wrong(1) == 0
    pool.check()


@pytest.mark.parametrize("faults", ["thread", "inline"])
@pytest.mark.parametrize("cause", ["damaged", "unreadable"])
def test_a_lost_page_is_found_without_a_touch_and_only_it_is_lost(
    pool_factory: PoolFactory, cause: str, faults: str
) -> None:
    pool = pool_factory("4MiB", read_ahead=0, faults=faults)
    region = pool.region("1MiB", name="data")
    pages = Pages(region)
    pages.fill(1)
    region.advise(uswap.Advice.PAGEOUT)
    with (
        lose_pages(cause),
        pytest.raises(uswap.SwapError, match="'data', offset 20480") as lost,
        region.resident(5 * PAGE, PAGE),
    ):
        pass
    assert lost.value.offset == 5 * PAGE
    with pytest.raises(uswap.SwapError, match="offset 20480"):
        region.verify()
    assert region.page_classes(5 * PAGE, PAGE) == bytes([uswap.PageClass.POISONED])
    assert pool.stats().poisoned_pages == 1
    assert pages.wrong(1, 0, 5) + pages.wrong(1, 6) == 0
    pool.check()
    region.advise(uswap.Advice.DONTNEED, 5 * PAGE, PAGE)
    assert pages.wrong(0, 5, 1) == 0
    assert pool.stats().poisoned_pages == 0


def lose_pages(cause: str) -> object:
    if cause == "damaged":
        return armed("page_in.hash", Action.FLIP, 12345, every=True)
    from contextlib import ExitStack

    stack = ExitStack()
    stack.enter_context(armed("page_in.read", Action.ERROR, errno.EIO, every=True))
    stack.enter_context(armed("page_in.one", Action.ERROR, errno.EIO, every=True))
    return stack


@pytest.mark.parametrize("touch", ["load", "system call"])
def test_a_touch_of_a_lost_page_ends_the_process_after_one_line(swap_directory: Path, touch: str) -> None:
    use = "print(region[5 * 4096])" if touch == "load" else "os.write(1, memoryview(region)[5 * 4096:5 * 4096 + 1])"
    result = run_program(
        f"""
        import os
        from _support.failpoints import Action, armed
        pool = uswap.Pool("4MiB", swap=SWAP, read_ahead=0)
        region = pool.region("1MiB", name="data")
        region[:] = bytes(range(256)) * (len(region) // 256)
        region.advise(uswap.Advice.PAGEOUT)
        with armed("page_in.hash", Action.FLIP, 7, every=True):
            try:
                {use}
            except OSError as error:
                print(error.errno)
        """,
        swap_directory,
        check=False,
    )
    if touch == "load":
        assert result.returncode == -signal.SIGBUS, result.stderr
        (line,) = result.stderr.strip().splitlines()
        assert "lost page: region 'data' at offset 0x5000" in line
    else:
        assert result.stdout.strip() == str(errno.EFAULT), result.stderr


def test_a_lost_page_that_is_discarded_under_a_touch_is_no_end_of_the_handler(swap_directory: Path) -> None:
    """The touch is tried again, and finds zeroes; the next lost page is still told of."""
    result = run_program(
        """
        import os, threading
        from _support.failpoints import Action, armed, await_stopped, release, set_failpoint
        pool = uswap.Pool("4MiB", swap=SWAP, read_ahead=0)
        region = pool.region("1MiB", name="data")
        region[:] = bytes(range(256)) * (len(region) // 256)
        region.advise(uswap.Advice.PAGEOUT)
        set_failpoint("page_in.hash", Action.FLIP, 7, every=True)
        set_failpoint("poison.touched", Action.STOP)
        found = []
        thread = threading.Thread(target=lambda: found.append(touch(5 * 4096)))
        # A load without the GIL, so that this thread can go on.
        import ctypes
        libc = ctypes.CDLL(None)
        libc.memchr.restype = ctypes.c_void_p
        base = ctypes.addressof(ctypes.c_char.from_buffer(region))
        touch = lambda offset: libc.memchr(ctypes.c_void_p(base + offset), 0, ctypes.c_size_t(1))
        thread.start()
        await_stopped("poison.touched")
        region.advise(uswap.Advice.DONTNEED, 5 * 4096, 4096)
        release("poison.touched")
        thread.join()
        print(found == [base + 5 * 4096], flush=True)
        touch(9 * 4096)
        """,
        swap_directory,
        check=False,
    )
    assert result.stdout.strip() == "True", result.stderr
    assert result.returncode == -signal.SIGBUS
    (line,) = result.stderr.strip().splitlines()
    assert "lost page: region 'data' at offset 0x9000" in line


def test_damage_on_the_disk_itself_is_found(make_pool: PoolFactory, swap_directory: Path) -> None:
    path = swap_directory / "swap"
    pool = make_pool("4MiB", swap=path, read_ahead=0)
    region = pool.region("1MiB")
    pages = Pages(region)
    pages.fill(1)
    region.advise(uswap.Advice.PAGEOUT)
    region.verify()
    with open(path, "r+b", buffering=0) as file:
        for slot in range(1, 1 + 2 * 256):  # the header is not a slot
            file.seek(slot * PAGE + 100)
            file.write(b"damage")
    with pytest.raises(uswap.SwapError):
        region.verify()
    with pytest.raises(uswap.SwapError), region.resident(0, PAGE):
        pass
    assert pool.stats().hash_errors > 0
    region.advise(uswap.Advice.DONTNEED)


def test_a_full_disk_at_the_making_of_a_region_changes_nothing(make_pool: PoolFactory) -> None:
    pool = make_pool("4MiB")
    with armed("area.fallocate", Action.ERROR, errno.ENOSPC, every=True):
        before = pool.stats()
        with pytest.raises(MemoryError):
            pool.region("16MiB")
        assert pool.stats().swap_reserved_bytes == before.swap_reserved_bytes
    assert pool.region("16MiB")[:3] == bytes(3)


def test_the_child_of_a_fork_passes_its_failpoint(swap_directory: Path) -> None:
    run_program(
        """
        import os, warnings
        from _support.failpoints import Action, armed, hits
        warnings.simplefilter("ignore")
        pool = uswap.Pool("4MiB", swap=SWAP)
        with armed("fork.child", Action.DELAY, 1):
            pid = os.fork()
            if pid == 0:
                os._exit(hits("fork.child"))
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1
        """,
        swap_directory,
    )


@pytest.mark.parametrize("name", ["None", "'killed'"], ids=["alone", "named"])
def test_a_file_that_needs_a_name_for_a_moment_keeps_none(
    name: str, swap_directory: Path, tmp_path: Path, runtime_folder: Path
) -> None:
    with directory_on_disk(tmp_path) as folder:
        head = f"""
        import errno, os
        from _support.failpoints import Action, set_failpoint
        def pool():
            return uswap.Pool("32MiB", name={name}, swap=uswap.SwapArea({str(folder)!r}, size="64MiB"))
        set_failpoint("file.nameless", Action.ERROR, errno.EOPNOTSUPP, every=True)
        """
        killed = run_program(
            head + 'set_failpoint("file.named", Action.KILL)\n        pool()', swap_directory, check=False
        )
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        (left,) = folder.glob(".uswap-*")
        (folder / ".uswap-empty").write_text("")
        (folder / ".uswap-filled").write_text("somebody's")
        run_program(
            head
            + f"""
        pool = pool()
        region = pool.region("40MiB")
        region[:] = b"r" * len(region)
        assert not os.path.exists({str(left)!r})
        """,
            swap_directory,
        )
        assert {path.name for path in folder.glob(".uswap-*")} == {".uswap-empty", ".uswap-filled"}


def test_direct_io_that_is_refused_is_done_without(make_pool: PoolFactory) -> None:
    with armed("area.direct", Action.ERROR, errno.EINVAL), pytest.warns(uswap.UswapWarning, match="O_DIRECT"):
        pool = make_pool("4MiB")
    workload(pool)


def test_a_discard_wakes_who_waits_for_the_read_of_what_it_throws_away(pool_factory: PoolFactory) -> None:
    pool = pool_factory("4MiB", read_ahead=0)
    region = pool.region("1MiB")
    pages = Pages(region)
    pages.fill(1)
    region.advise(uswap.Advice.PAGEOUT)
    found: list[int] = []
    with armed("page_in.read", Action.STOP):
        reader = threading.Thread(target=lambda: found.append(pages.wrong(0, 3, 1)), daemon=True)
        reader.start()
        await_stopped("page_in.read")
        region.advise(uswap.Advice.DONTNEED, 3 * PAGE, PAGE)
        release("page_in.read")
        reader.join(timeout=60)
    assert found == [0], "the reader sleeps for ever, or saw what was thrown away"
    pool.check()


class AgesAll(uswap.Policy):
    """Everything is put on trial at once: also what it has heard of while its fault still went on."""

    every = 1

    def start(self, view: View) -> None:
        self.view = view

    def decide(self, seen: Batch, need: Need) -> Answer:
        """Not those that have left since: where it runs late, they are more than may be named at once."""
        return Answer(age=self.view.current([*seen.faulted, *seen.kept]))


@pytest.mark.parametrize("nth", [1, 3])
def test_a_sealed_page_that_cannot_be_copied_is_dropped(pool_factory: PoolFactory, nth: int) -> None:
    pool = pool_factory("8MiB", read_ahead=0, policy=AgesAll)
    region = pool.region("16MiB")
    pages = Pages(region)
    pages.fill(1)
    # Read while memory is short: pages that left empty, before their fill, else keep orders from being followed.
    assert pages.wrong(1) == 0

    def all_are_out() -> bool:
        region.advise(uswap.Advice.PAGEOUT)
        return pool.stats().cached_bytes + region.info().resident == 0  # the reclaimer's writes have ended, too

    eventually(all_are_out)
    written = pool.stats().pages_out
    alone = list(range(5, 4000, 61))  # in no stream: sealed
    with armed("sealed.copy", Action.ERROR, errno.EIO, nth=nth, every=True):
        pages.touch(alone)
        eventually(lambda: hits("sealed.copy") > nth)
    assert pages.wrong(1) == 0
    assert pool.stats().pages_out == written
    assert pool.reclaimer is not None
    assert pool.reclaimer.error is None
    pool.check()
