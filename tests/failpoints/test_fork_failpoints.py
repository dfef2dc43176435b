"""Each step of a fork with a live pool fails, or its process dies there: the other side goes on, and nothing is
lost or left behind."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from _support.program import run_program

from uswap._core import lib

pytestmark = pytest.mark.skipif(not lib.uswap_failpoints_built(), reason="the core was built without failpoints")

HEAD = """
    import os, signal, sys, time, warnings
    warnings.simplefilter("ignore", DeprecationWarning)
    from _support.failpoints import Action, armed, hits, set_failpoint
    from _support.forks import await_alone, await_true, child, end_of
    from _support.workload import Pages
    pool = uswap.Pool("16MiB", swap=SWAP)
    pages = Pages(pool.region("32MiB", name="data"))
    pages.fill(1)
    def good():
        assert pages.wrong(1) == 0
        pages.fill(2)
        assert pages.wrong(2) == 0
        pool.check()
    def afterwards():
        assert end_of(child(good)) == 0
        assert pages.wrong(1) == 0
        await_alone(pool)
        pool.check()
"""

# Steps that can fail, and what they can fail of.
FAILURES = {
    "fork.endow": errno.EBUSY,
    "fork.lent": errno.EIO,
    "fork.mapped": errno.ENOMEM,
    "fork.area": errno.ENOSPC,
}
IN_PARENT = ["fork.placed", "fork.quiet", "fork.endow", "fork.lent", "fork.parent"]
IN_CHILD = ["fork.child", "fork.claimed", "fork.mapped", "fork.area", "fork.ready"]


@pytest.mark.parametrize("name", FAILURES)
def test_where_a_step_fails_the_child_is_told(name: str, swap_directory: Path) -> None:
    out = run_program(
        HEAD
        + f"""
    def told():
        try:
            pool.stats()
        except uswap.ForkError as error:
            print(error, flush=True)
    with armed("{name}", Action.ERROR, {FAILURES[name]}):
        pid = child(told)
    assert end_of(pid) == 0
    afterwards()
    """,
        swap_directory,
    ).stdout
    assert "without its memory, because" in out


@pytest.mark.parametrize("name", ["fork.endow", "fork.mapped"])
def test_where_a_step_fails_a_touch_ends_the_child(name: str, swap_directory: Path) -> None:
    run_program(
        HEAD
        + f"""
    with armed("{name}", Action.ERROR, {FAILURES[name]}):
        pid = child(lambda: pages.wrong(1))
    assert end_of(pid) == -signal.SIGSEGV
    afterwards()
    """,
        swap_directory,
    )


@pytest.mark.parametrize("name", IN_CHILD)
def test_a_child_that_dies_there_leaves_nothing(name: str, swap_directory: Path) -> None:
    run_program(
        HEAD
        + f"""
    with armed("{name}", Action.KILL):
        pid = child(good)
    assert end_of(pid) == -signal.SIGKILL
    afterwards()
    """,
        swap_directory,
    )


@pytest.mark.parametrize("name", IN_PARENT)
def test_a_parent_that_dies_there_leaves_nothing(name: str, swap_directory: Path) -> None:
    """It is a child itself; its own child, if there is one by then, goes on."""
    run_program(
        HEAD
        + f"""
    def work():
        set_failpoint("{name}", Action.KILL)
        child(good)
    assert end_of(child(work)) == -signal.SIGKILL
    afterwards()
    """,
        swap_directory,
    )


@pytest.mark.parametrize("name", ["fork.child", "fork.claimed", "fork.ready"])
def test_nobody_waits_for_a_child_that_is_stopped_there(name: str, swap_directory: Path) -> None:
    run_program(
        HEAD
        + f"""
    with armed("{name}", Action.FREEZE):
        pid = child(good)
    await_true(lambda: open(f"/proc/{{pid}}/stat").read().rpartition(")")[2].split()[0] == "T", "it is stopped")
    assert pages.wrong(1) == 0
    pages.fill(3)
    assert pages.wrong(3) == 0
    os.kill(pid, signal.SIGCONT)
    assert end_of(pid) == 0
    pages.fill(1)
    afterwards()
    """,
        swap_directory,
    )


def test_a_child_that_dies_giving_up_its_last_slot_leaves_it_to_its_parent(swap_directory: Path) -> None:
    """The child does not hold the slot any more, and has not said so: its burial does (model/private_fork.pml)."""
    run_program(
        """
    import os, signal
    from _support.failpoints import Action, hits, set_failpoint
    from _support.forks import await_alone, child, end_of
    pool = uswap.Pool("16MiB", swap=SWAP)
    region = pool.region("4KiB", name="page")
    page = memoryview(region)
    page[:] = os.urandom(4096)
    set_failpoint("fork.released", Action.KILL)  # a parent owns its slots: it does not come there
    go, begin = os.pipe()
    def work():
        os.read(go, 1)
        region.advise(uswap.Advice.DONTNEED)
    pid = child(work)
    page[:] = os.urandom(4096)
    region.advise(uswap.Advice.PAGEOUT)
    assert pool.stats().swap_lent_bytes == 4096
    os.write(begin, b"!")
    assert end_of(pid) == -signal.SIGKILL
    await_alone(pool)
    pool.check()
    """,
        swap_directory,
    )


def test_each_step_is_passed(swap_directory: Path) -> None:
    out = run_program(
        HEAD
        + f"""
    for name in {IN_PARENT!r}:
        set_failpoint(name, Action.DELAY, 1)
    assert end_of(child(good)) == 0
    print(all(hits(name) > 0 for name in {IN_PARENT!r}))
    """,
        swap_directory,
    ).stdout
    assert out == "True\n"


def test_a_child_without_a_life_lock_is_known_by_its_pid(swap_directory: Path) -> None:
    run_program(
        HEAD
        + f"""
    with armed("life.lock", Action.ERROR, {errno.EMFILE}, every=True):
        assert end_of(child(good)) == 0
        pid = child(signal.pause)
        pages.fill(3)
        os.kill(pid, signal.SIGKILL)
        end_of(pid)
        await_alone(pool)
    pages.fill(1)
    afterwards()
    """,
        swap_directory,
    )
