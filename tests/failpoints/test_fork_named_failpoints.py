"""Each step of a fork of a named pool's member fails, or one of the three dies there: the child, its parent, a
member that is no relative. The others go on, and every slot, frame and chunk is accounted for."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from _support.program import run_program

from uswap._core import lib

pytestmark = [
    pytest.mark.skipif(not lib.uswap_failpoints_built(), reason="the core was built without failpoints"),
    pytest.mark.usefixtures("runtime_folder"),
]

HEAD = """
    import os, signal, sys, warnings
    warnings.simplefilter("ignore", DeprecationWarning)
    from _support.failpoints import Action, armed, hits, set_failpoint
    from _support.forks import await_true, child, end_of
    from _support.named_forks import await_members, begin_stranger, check, members, stranger
    from _support.workload import Pages
    pool = uswap.Pool("32MiB", name="jobs", swap=SWAP)
    region = pool.region("16MiB", name="data")
    pages = Pages(region)
    pages.fill(1)
    shared = pool.region("1MiB", shared=True, name="shared")
    shared[:] = b"s" * len(shared)
    def good():
        region.info()                                          # ForkError says why there is no snapshot
        assert pages.wrong(1) == 0
        pages.fill(2)
        assert pages.wrong(2) == 0
        again = uswap.reopen(shared)
        assert again[:] == b"s" * len(again)
        check(pool)
    def is_stopped(pid):
        return open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[0] == "T"
    def afterwards(others):
        assert pages.wrong(1) == 0
        await_members(pool, 1 + others)
        assert end_of(child(good)) == 0
        await_members(pool, 1 + others)
"""

# Steps that can fail, and what they can fail of.
FAILURES = {
    "fork.endow": errno.EBUSY,
    "fork.lent": errno.EIO,
    "fork.mapped": errno.ENOMEM,
    "fork.area": errno.ENOSPC,
    "group.joining": errno.EMFILE,
}
IN_PARENT = ["fork.placed", "fork.quiet", "fork.endow", "fork.lent", "fork.parent"]
IN_CHILD = [
    "fork.child", "fork.half", "fork.claimed", "fork.mapped", "fork.area", "group.joining", "fork.ready",
]  # fmt: skip
# Once it is the parent's last word, nobody knows of a child that has not claimed its places.
UNCLAIMED = ["fork.child", "fork.half"]


def run(program: str, swap_directory: Path) -> str:
    return run_program(HEAD + program, swap_directory).stdout


def test_where_a_step_fails_the_child_is_told(swap_directory: Path) -> None:
    out = run(
        f"""
    def told():
        for call in (pool.stats, pool.members, region.info):
            try:
                call()
            except uswap.ForkError as error:
                print(error, flush=True)
        again = uswap.reopen(shared)                           # by a member of its own
        assert again[:] == b"s" * len(again)
    with stranger("jobs", "shared"):
        for name, number in {FAILURES!r}.items():
            with armed(name, Action.ERROR, number):
                pid = child(told)
            assert end_of(pid) == 0
            await_members(pool, 2)
        afterwards(1)
    """,
        swap_directory,
    )
    assert out.count("without its memory, because") == 3 * len(FAILURES)


def test_a_child_that_dies_there_leaves_nothing(swap_directory: Path) -> None:
    run(
        f"""
    with stranger("jobs", "shared"):
        for name in {IN_CHILD!r}:
            with armed(name, Action.KILL):
                pid = child(good)
            assert end_of(pid) == -signal.SIGKILL
            await_members(pool, 2)
        afterwards(1)
    """,
        swap_directory,
    )


def test_a_parent_that_dies_there_leaves_nothing(swap_directory: Path) -> None:
    """It is a child itself; its own child, if there is one by then, goes on."""
    run(
        f"""
    read, write = os.pipe()
    def last():
        good()
        os.write(write, b"x")
    def work():
        set_failpoint(name, Action.KILL)
        child(last)
    with stranger("jobs", "shared"):
        for name in {IN_PARENT!r}:
            assert end_of(child(work)) == -signal.SIGKILL
            if name == "fork.parent":
                assert os.read(read, 1) == b"x"
            await_members(pool, 2)
        afterwards(1)
    """,
        swap_directory,
    )


def test_a_parent_dies_while_its_child_is_stopped(swap_directory: Path) -> None:
    """What the child has not claimed by then is another's when it goes on, and it is told so; else it goes on."""
    run(
        f"""
    read, write = os.pipe()
    def last():
        try:
            good()
            os.write(write, b"good")
        except uswap.ForkError as error:
            os.write(write, b"told" if "died before it could go on" in str(error) else b"????")
    def work():
        set_failpoint(name, Action.FREEZE)
        pid = child(last)
        os.write(write, pid.to_bytes(4, "little"))
        signal.pause()
    with stranger("jobs", "shared"):
        for name in {IN_CHILD!r}:
            parent = child(work)
            pid = int.from_bytes(os.read(read, 4), "little")
            await_true(lambda: is_stopped(pid), "the child is stopped")
            os.kill(parent, signal.SIGKILL)
            end_of(parent)
            claimed = name not in {UNCLAIMED!r}
            await_true(lambda: len(pool.members()) == 2 + claimed, "the dead are buried")
            with uswap.attach("jobs") as other:                # it may have the child's place
                r = other.region("8MiB")
                r[:] = b"n" * len(r)
                os.kill(pid, signal.SIGCONT)
                assert os.read(read, 4) == (b"good" if claimed else b"told"), name
                assert r[:] == b"n" * len(r)
                r.close()
            await_members(pool, 2)
        afterwards(1)
    """,
        swap_directory,
    )


def test_nobody_waits_for_a_child_that_is_stopped_there(swap_directory: Path) -> None:
    run(
        f"""
    with stranger("jobs", "shared"):
        for name in {IN_CHILD!r}:
            with armed(name, Action.FREEZE):
                pid = child(good)
            await_true(lambda: is_stopped(pid), "it is stopped")
            assert pages.wrong(1) == 0
            pages.fill(3)
            assert pages.wrong(3) == 0
            os.kill(pid, signal.SIGCONT)
            assert end_of(pid) == 0
            pages.fill(1)
            await_members(pool, 2)
        afterwards(1)
    """,
        swap_directory,
    )


def test_a_stranger_dies_while_a_fork_is_there(swap_directory: Path) -> None:
    """Who forks, or is forked, is stopped at that step meanwhile."""
    run(
        f"""
    from _support.pss_watch import family
    def forks():
        set_failpoint(name, Action.FREEZE)
        assert end_of(child(good)) == 0
    for name in {IN_PARENT + IN_CHILD!r}:
        other = begin_stranger("jobs", "shared")
        pid = child(forks)
        await_true(lambda: any(map(is_stopped, family(pid))), "it is there")
        other.kill()
        other.communicate()
        await_true(lambda: other.pid not in members(pool), "it is buried")
        for stopped in family(pid):
            os.kill(stopped, signal.SIGCONT)
        assert end_of(pid) == 0, name
        await_members(pool, 1)
    afterwards(0)
    """,
        swap_directory,
    )


@pytest.mark.parametrize("meanwhile", ["cleaned up", "made anew"])
def test_a_child_goes_on_where_its_pool_is_gone(meanwhile: str, swap_directory: Path) -> None:
    """It is stopped before it has a socket; all others go, and their folder with them. Another pool of the name is
    not disturbed by it, nor is its folder by the child's end."""
    run(
        f"""
    read, write = os.pipe()
    def last():
        assert pages.wrong(1) == 0
        pages.fill(2)
        assert pages.wrong(2) == 0
        assert members(pool) == {{os.getpid()}}
        own = pool.region("1MiB", shared=True, name="own")
        own[:5] = b"alone"
        check(pool)
        assert end_of(child(lambda: pages.wrong(2) == 0 or sys.exit(1))) == 0
        os.write(write, b"x")
    def work():
        set_failpoint("fork.mapped", Action.FREEZE)
        pid = os.fork()
        if pid == 0:
            last()
            sys.exit(0)                                        # through finalizers and atexit
        os.write(write, pid.to_bytes(4, "little"))
        signal.pause()
    parent = child(work)
    pid = int.from_bytes(os.read(read, 4), "little")
    await_true(lambda: is_stopped(pid), "the child is stopped")
    del pages
    shared.close(), region.close(), pool.close()
    os.kill(parent, signal.SIGKILL)
    end_of(parent)
    if "{meanwhile}" == "made anew":
        again = uswap.Pool("32MiB", name="jobs", swap=SWAP)
        os.kill(pid, signal.SIGCONT)
        assert os.read(read, 1) == b"x"
        await_true(lambda: not os.path.exists(f"/proc/{{pid}}"), "the child has ended")
        with uswap.attach("jobs") as other:
            assert members(other) == members(again) == {{os.getpid()}}
        again.close()
    else:
        uswap.Pool("32MiB", name="sweeps", swap=SWAP).close()
        assert not os.path.exists(os.path.join(os.environ["USWAP_RUNTIME_DIR"], "jobs"))
        os.kill(pid, signal.SIGCONT)
        assert os.read(read, 1) == b"x"
        await_true(lambda: not os.path.exists(f"/proc/{{pid}}"), "the child has ended")
    """,
        swap_directory,
    )


def test_each_step_is_passed(swap_directory: Path) -> None:
    out = run(
        f"""
    for name in {IN_PARENT!r}:
        set_failpoint(name, Action.DELAY, 1)
    assert end_of(child(good)) == 0
    print(all(hits(name) > 0 for name in {IN_PARENT!r}))
    """,
        swap_directory,
    )
    assert out == "True\n"
