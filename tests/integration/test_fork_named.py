"""A member of a named pool forks: both sides have its private regions as they were, and go on as two members under
the pool's one limit. What is shared is not inherited."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
from _support.program import run_program

HEAD = """
    import os, signal, sys, warnings
    import multiprocessing as mp
    warnings.simplefilter("ignore", DeprecationWarning)       # of forks beside threads
    from _support.forks import await_true, child, end_of
    from _support.named_forks import await_members, busy, check, members, stranger
    from _support.workload import Pages
    LIMIT = {limit!r}
    pool = uswap.Pool(LIMIT, name="jobs", **{{'swap': SWAP, **dict({options})}})
    region = pool.region("32MiB", name="data")
    pages = Pages(region)
    pages.fill(1)
    shared = pool.region("4MiB", shared=True, name="shared")
    shared[:] = b"s" * len(shared)
"""

# 1000 for a long run.
FORKS = int(os.environ.get("USWAP_FORKS", "9"))
NESTED_DEEP = 3
LONG = 100 + 10 * FORKS

pytestmark = pytest.mark.usefixtures("runtime_folder")


def run(program: str, swap_directory: Path, options: str = "", limit: str = "32MiB", timeout: float = 100) -> str:
    head = HEAD.format(limit=limit, options=options)
    return run_program(head + program, swap_directory, timeout=timeout).stdout


@pytest.mark.parametrize("options", ["", "transport='copy', io='sync'", "faults='inline', reclaimer=False"])
def test_both_sides_have_the_data_and_write_everything(options: str, swap_directory: Path) -> None:
    run(
        """
    def work():
        assert pages.wrong(1) == 0
        pages.fill(2)
        assert pages.wrong(2) == 0
        assert {os.getpid(), os.getppid()} < members(pool)
        fresh = pool.region("16MiB")
        fresh[:] = b"f" * len(fresh)
        assert fresh[:] == b"f" * len(fresh)
        check(pool)
    with stranger("jobs", "shared"):
        pid = child(work)
        pages.fill(3)
        assert pages.wrong(3) == 0
        assert end_of(pid) == 0
        assert pages.wrong(3) == 0
    assert shared[:] == b"s" * len(shared)
    await_members(pool, 1)
    """,
        swap_directory,
        options,
    )


def test_what_is_shared_is_opened_anew(swap_directory: Path) -> None:
    run(
        """
    import pickle
    a = pool.zeros(1000, shared=True)
    a[:] = 7
    private = pool.zeros(100_000)
    private[:] = 5
    def work():
        for call in (shared.info, shared.close, lambda: shared.users(0), lambda: shared.resize("8MiB"),
                     lambda: shared.advise(uswap.Advice.PAGEOUT), lambda: shared.priority, shared.refresh):
            try:
                call()
            except uswap.ForkError as error:
                assert "uswap.reopen" in str(error)
                continue
            raise AssertionError(call)
        assert len(pool.members()) == 2
        again = pool.open_region("shared")
        assert again[:] == b"s" * len(again)
        b, c = uswap.reopen(a), pickle.loads(pickle.dumps(a))
        assert b.region is c.region and b.region._core is pool._core     # no other member is made for it
        assert len(pool.members()) == 2 and (b == 7).all()
        b += 1
        assert (private == 5).all()
        private[:] = 6
        made = pool.region("1MiB", shared=True, name="made in the child")
        made[:5] = b"child"
        wait.recv()
        again.close()
        check(pool)
    wait, tell = mp.Pipe()
    pid = child(work)
    await_true(lambda: (a == 8).all(), "the child writes to the shared array")
    await_true(lambda: any(r.name == "made in the child" for r in pool.shared_regions()), "it makes a region")
    made = pool.open_region("made in the child")
    await_true(lambda: made[:5] == b"child", "it writes to that")
    tell.send(1)
    assert end_of(pid) == 0
    assert made[:5] == b"child" and (private == 5).all() and shared[:] == b"s" * len(shared)
    await_members(pool, 1)
    """,
        swap_directory,
    )


@pytest.mark.parametrize("options", ["", "snapshots=False"])
def test_a_touch_of_the_parents_shared_region_ends_the_child_with_one_line(
    options: str, swap_directory: Path
) -> None:
    program = HEAD.format(limit="32MiB", options=options) + "    print(end_of(child(lambda: shared[5000])))"
    result = run_program(program, swap_directory)
    assert result.stdout == f"{-signal.SIGSEGV}\n"
    (line,) = result.stderr.splitlines()
    assert "was forked" in line
    assert "offset 0x1388" in line
    assert "uswap.reopen" in line


@pytest.mark.timeout(LONG)
def test_forks_in_a_loop_under_load_nested_three_deep(swap_directory: Path) -> None:
    """As in test_fork_snapshots.py, beside a member that is no relative, with a shared region that all read and
    write: the one limit holds through every fork."""
    rounds = -(-FORKS // NESTED_DEEP)
    out = run(
        f"""
    from _support.named_forks import SLACK_EACH, dump, own_bytes
    from _support.pss_watch import Watch
    common = Pages(pool.region("16MiB", shared=True, name="common"))
    loaded = Pages(pool.region("16MiB", name="busy"))
    half = pages.count // 2
    def fill(version):
        pages.fill(version, 0, half)
    def right(version):
        return pages.wrong(version, 0, half) == 0
    def generation(depth, found):
        region.info()                                         # ForkError says why there is no snapshot
        assert right(found)
        fill(found + 1)
        mine = uswap.reopen(region_of_common)
        mine.advise(uswap.Advice.WILLNEED)
        Pages(mine).fill(found, depth * 1024, 1024)
        if depth < {NESTED_DEEP}:
            pid = child(lambda: generation(depth + 1, found + 1))
            fill(found + 5)
            assert right(found + 5)
            assert end_of(pid) == 0
        else:
            assert right(found + 1)
        assert Pages(mine).wrong(found, depth * 1024, 1024) == 0
        check(pool)
    region_of_common = pool.open_region("common")
    with stranger("jobs", "shared"):
        watch = Watch(own_bytes(pool), (48 << 20) * 101 // 100, SLACK_EACH)
        with busy(lambda seed: loaded.stress(seed, 50), 2):
            for number in range({rounds}):
                generation(0, 8 * number + 1)
                assert right(8 * number + 6)
                fill(8 * number + 9)
                await_members(pool, 2)
        seen = watch.end()
    assert loaded.wrong_after_stress() == 0
    assert pages.wrong(1, half) == 0  # nobody has touched these: slots that all processes had in common
    await_members(pool, 1)
    dump(seen)
    """,
        swap_directory,
        limit="48MiB",
        timeout=LONG,
    )
    print(out)
    seen = json.loads(out)
    assert seen["over"] <= 0
    assert seen["processes"] == 2 + NESTED_DEEP
    assert seen["shared"] > rounds


def test_a_stranger_may_bury_a_child_before_its_relatives_do(swap_directory: Path) -> None:
    """Its place in the pool is another's then; the slots that it had of its parent come free all the same, and none
    is given out while somebody uses it."""
    run(
        """
    import subprocess
    script = '''
    import os, signal, sys, uswap
    from _support.forks import await_true
    from _support.named_forks import members
    parent, victim = map(int, sys.argv[1:])
    pool = uswap.attach("jobs")
    os.kill(parent, signal.SIGSTOP)
    os.kill(victim, signal.SIGKILL)
    await_true(lambda: victim not in members(pool), "the stranger buries it", 5)
    with uswap.attach("jobs") as next_one:                    # takes a place, and has pages of its own
        r = next_one.region("8MiB")
        r[:] = b"n" * len(r)
        os.kill(parent, signal.SIGCONT)
        assert r[:] == b"n" * len(r)
        r.close()
    '''
    import textwrap
    def work():
        pages.fill(2, 0, 2048)
        tell.send(1)
        signal.pause()
    for number in range(2):
        wait, tell = mp.Pipe()
        pid = child(work)
        assert wait.poll(60)
        code = [sys.executable, "-c", textwrap.dedent(script), str(os.getpid()), str(pid)]
        other = subprocess.Popen(code)
        assert end_of(pid) == -signal.SIGKILL
        assert other.wait(60) == 0
        pages.fill(number + 2)
        assert pages.wrong(number + 2) == 0
        await_members(pool, 1)
    """,
        swap_directory,
    )


def test_what_a_killed_child_had_comes_back(swap_directory: Path) -> None:
    run(
        """
    def work():
        pages.fill(2)
        again = uswap.reopen(shared)
        while True:
            assert again[:] == b"s" * len(again)
    with stranger("jobs", "shared"):
        for number in range(5):
            pid = child(work)
            pages.fill(3 + number)
            os.kill(pid, signal.SIGKILL)
            end_of(pid)
        assert pages.wrong(7) == 0
        await_members(pool, 2)
    """,
        swap_directory,
    )


def test_children_go_on_when_their_parent_is_killed(swap_directory: Path) -> None:
    out = run(
        """
    read, write = os.pipe()
    def grandchild():
        os.close(read)
        await_true(lambda: os.getppid() != parent, "the parent is dead")
        await_true(lambda: parent not in members(pool), "it is buried")
        assert pages.wrong(5) == 0
        pages.fill(6)
        assert pages.wrong(6) == 0
        check(pool)
        os.write(write, b"fine")
    def work():
        global parent
        parent = os.getpid()
        pages.fill(5)
        child(grandchild)
        os.kill(parent, signal.SIGKILL)
    with stranger("jobs", "shared"):
        assert end_of(child(work)) == -signal.SIGKILL
        os.close(write)
        print(os.read(read, 10).decode())
        assert pages.wrong(1) == 0
        await_members(pool, 2)
    """,
        swap_directory,
    )
    assert out == "fine\n"


def test_a_child_that_becomes_another_program_has_nothing_any_more(swap_directory: Path) -> None:
    run(
        """
    with stranger("jobs", "shared"):
        pid = child(lambda: os.execv("/bin/sleep", ["sleep", "1000"]))
        pages.fill(3)
        await_members(pool, 2)
        os.kill(pid, signal.SIGKILL)
        end_of(pid)
    """,
        swap_directory,
    )


@pytest.mark.parametrize("end", ["leave", "exit", "_exit"])
def test_a_child_goes_on_where_its_parent_ends_at_once(end: str, swap_directory: Path) -> None:
    """A daemon. Beside it is a member that sees the parent go, or nobody."""
    out = run(
        f"""
    read, write = os.pipe()
    def work():
        os.close(read)
        await_true(lambda: len(pool.members()) == 1, "it is the only member")
        assert pages.wrong(1) == 0
        pages.fill(2)
        assert pages.wrong(2) == 0
        again = pool.region("1MiB", shared=True, name="again")
        again[:5] = b"alone"
        check(pool)
        os.write(write, b"fine")
        again.close()
        globals().pop("pages")
        region.close()
        pool.close()
    pid = os.fork()
    if pid == 0:
        child(work)
        if "{end}" == "leave":
            del pages
            region.close()
            pool.close()
        elif "{end}" == "exit":
            sys.exit(0)
        os._exit(0)
    os.close(write)
    del pages
    shared.close(), region.close(), pool.close()
    assert end_of(pid) == 0
    print(os.read(read, 10).decode())
    """,
        swap_directory,
    )
    assert out == "fine\n"


def test_where_there_is_no_room_for_one_more_the_child_is_told(swap_directory: Path) -> None:
    out = run(
        """
    def generation(depth):
        try:
            region.info()
        except uswap.ForkError as error:
            print(depth, error, flush=True)
            return
        assert end_of(child(lambda: generation(depth + 1))) == 0
        assert pages.wrong(1) == 0
        pages.fill(2)
        assert pages.wrong(2) == 0
        check(pool)
    assert end_of(child(lambda: generation(1))) == 0
    assert pages.wrong(1) == 0
    await_members(pool, 1)
    """,
        swap_directory,
        limit="16MiB",
    )
    depth, _, why = out.partition(" ")
    assert int(depth) > 1
    assert "limit is too low" in why


def test_where_all_places_are_taken_the_child_is_told(swap_directory: Path) -> None:
    out = run(
        """
    children = []
    def wait():
        region.info()                                         # ForkError says why there is no snapshot
        os.close(write)
        os.read(read, 1)
        assert pages.wrong(1, 0, 16) == 0
    def told():
        try:
            region.info()
        except uswap.ForkError as error:
            print(error, flush=True)
    read, write = os.pipe()
    for _ in range(62):
        children.append(child(wait))
    assert end_of(child(told)) == 0
    assert pages.wrong(1) == 0
    check(pool)
    os.close(write)
    assert [end_of(pid) for pid in children] == [0] * 62
    pages.fill(2)
    assert pages.wrong(2) == 0
    await_members(pool, 1)
    """,
        swap_directory,
        limit="1300MiB",  # room for so many floors
    )
    assert "too many processes" in out


def test_without_snapshots_a_fork_costs_nothing_and_the_child_is_told(swap_directory: Path) -> None:
    run(
        """
    region.advise(uswap.Advice.WILLNEED, 0, 1 << 20)
    await_true(lambda: pool.stats().mapped_bytes >= 1 << 20, "pages are there")
    def work():
        try:
            region.info()
        except uswap.ForkError as error:
            assert "snapshots=False" in str(error)
            again = uswap.reopen(shared)                      # by a member of its own
            assert again[:] == b"s" * len(again)
            return
        raise AssertionError
    pid = child(work)
    assert pool.stats().mapped_bytes >= 1 << 20
    assert end_of(pid) == 0
    await_members(pool, 1)
    """,
        swap_directory,
        "snapshots=False",
    )


def test_the_limit_can_be_changed(swap_directory: Path) -> None:
    run(
        """
    wait, tell = mp.Pipe()
    def work():
        pages.fill(2)
        assert wait.recv() == 1
        pool.limit = "24MiB"
        pages.fill(3)
        assert pages.wrong(3) == 0
        check(pool)
    pid = child(work)
    pages.fill(4)
    pool.limit = "48MiB"
    tell.send(1)
    pages.fill(5)
    assert end_of(pid) == 0
    assert pool.limit == 24 << 20
    assert pages.wrong(5) == 0
    await_members(pool, 1)
    """,
        swap_directory,
    )


def test_a_process_that_is_a_member_twice(swap_directory: Path) -> None:
    """With room for both children: while it forks, neither of the two gives the other's child anything."""
    run(
        """
    other = uswap.attach("jobs", swap=SWAP)
    theirs = other.region("8MiB")
    theirs[:] = b"o" * len(theirs)
    def work():
        assert pages.wrong(1) == 0 and theirs[:] == b"o" * len(theirs)
        pages.fill(2)
        theirs[:] = b"c" * len(theirs)
        assert pages.wrong(2) == 0 and theirs[:] == b"c" * len(theirs)
        assert len(pool.members()) == 4
        check(pool), check(other)
    assert end_of(child(work)) == 0
    assert pages.wrong(1) == 0 and theirs[:] == b"o" * len(theirs)
    await_members(pool, 2)
    check(other)
    theirs.close(), other.close()
    await_members(pool, 1)
    """,
        swap_directory,
        limit="160MiB",
    )


def test_multiprocessing_workers_have_the_data(swap_directory: Path) -> None:
    run(
        """
    a = pool.zeros(1 << 20, dtype="u1", shared=True)
    def job(number):
        assert pages.wrong(1, number * 256, 256) == 0
        pages.fill(2, number * 256, 256)
        assert pages.wrong(2, number * 256, 256) == 0
        return os.getpid() in members(pool)
    def shared_job(number_and_array):
        number, array = number_and_array
        array[number] = 1
        assert array.region._core is pool._core
        return number
    with mp.get_context("fork").Pool(3) as workers:
        assert all(workers.map(job, range(16), chunksize=1))
        assert workers.map(shared_job, [(n, a) for n in range(16)], chunksize=1) == list(range(16))
        assert len(pool.members()) == 4
    assert a.sum() == 16
    assert pages.wrong(1) == 0
    await_members(pool, 1)
    """,
        swap_directory,
        limit="48MiB",
    )
