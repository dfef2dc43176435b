"""A fork with a live pool: both sides have the private regions as they were, and go on, under one limit."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from _support.program import run_program

HEAD = """
    import os, signal, sys, threading, time, warnings
    warnings.simplefilter("ignore", DeprecationWarning)       # of forks beside threads
    from _support.forks import await_alone, await_true, child, end_of
    from _support.workload import Pages
    LIMIT = {limit!r}
    pool = uswap.Pool(LIMIT, **{{'swap': SWAP, **dict({options})}})
    region = pool.region("32MiB", name="data")
    pages = Pages(region)
    pages.fill(1)
"""

# 1000 for a long run.
FORKS = int(os.environ.get("USWAP_FORKS", "20"))
NESTED_DEEP = 3
LONG = 100 + 10 * FORKS

WAYS = {
    "move": "",
    "copy": "transport='copy'",
    "sync": "io='sync'",
    "inline": "faults='inline'",
    "recycle": "recycle=True",
    "foreground": "background=False",
    "native": "reclaimer=False",
    "encrypted": "encrypt=True",
    "overcommit": "overcommit=True",
}


def run(program: str, swap_directory: Path, options: str = "", limit: str = "8MiB", timeout: float = 100) -> str:
    head = HEAD.format(limit=limit, options=options)
    return run_program(head + program, swap_directory, timeout=timeout).stdout


@pytest.mark.parametrize("options", WAYS.values(), ids=WAYS.keys())
def test_both_sides_have_the_data_and_write_everything(options: str, swap_directory: Path) -> None:
    run(
        """
    def work():
        assert pages.wrong(1) == 0
        pages.fill(2)
        assert pages.wrong(2) == 0
        assert pool.stats().resident_bytes <= pool.stats().limit_bytes
        pool.check()
    pid = child(work)
    pages.fill(3)
    assert pages.wrong(3) == 0
    assert end_of(pid) == 0
    assert pages.wrong(3) == 0
    pool.check()
    await_alone(pool)
    pool.check()
    pool = None
    """,
        swap_directory,
        options,
        limit="16MiB",
    )


@pytest.mark.parametrize("pages_more", [0, 40])
def test_frames_that_are_kept_for_reuse_are_the_childs(pages_more: int, swap_directory: Path) -> None:
    """All that is counted when everything has left are idle frames, up to the reserve; the limits are no multiples
    of the pieces that change hands."""
    run(
        """
    def look(version):
        assert pages.wrong(version) == 0
    assert end_of(child(lambda: look(1))) == 0
    await_alone(pool)
    pages.fill(2)
    assert end_of(child(lambda: look(2))) == 0
    pool.check()
    pool = None
    """,
        swap_directory,
        "recycle=True, background=False",
        limit=f"{8192 + 4 * pages_more}KiB",
    )


def test_the_limit_is_one_for_all_and_can_be_set(swap_directory: Path) -> None:
    run(
        """
    def work():
        assert pool.limit == 16 << 20
        pool.limit = "24MiB"
        assert pages.wrong(1) == 0
    assert end_of(child(work)) == 0
    assert pool.limit == 24 << 20
    await_true(lambda: (pages.wrong(1), pool.stats().resident_bytes)[1] > 16 << 20, "the parent has all of it")
    """,
        swap_directory,
        limit="16MiB",
    )


def test_a_child_that_only_reads_writes_nothing(swap_directory: Path) -> None:
    run(
        """
    def work():
        assert pages.wrong(1) == 0
        assert pages.wrong(1) == 0
        assert pool.stats().pages_out == 0
    assert end_of(child(work)) == 0
    """,
        swap_directory,
    )


def test_nested_three_deep(swap_directory: Path) -> None:
    run(
        """
    def generation(depth):
        pages.fill(10 + depth)
        if depth < 3:
            pid = child(lambda: generation(depth + 1))
            pages.fill(20 + depth)
            assert end_of(pid) == 0
            assert pages.wrong(20 + depth) == 0
        else:
            assert pages.wrong(10 + depth) == 0
        pool.check()
    generation(0)
    await_alone(pool)
    pool.check()
    """,
        swap_directory,
        limit="32MiB",
    )


@pytest.mark.parametrize("options", [WAYS["move"], WAYS["inline"]], ids=["thread", "inline"])
def test_a_child_has_no_queues_of_its_parents(options: str, swap_directory: Path) -> None:
    """Its own are as many, in each generation."""
    run(
        """
    import contextlib
    def queues():
        count = 0
        for number in os.listdir("/proc/self/fd"):
            with contextlib.suppress(FileNotFoundError):  # closed meanwhile
                count += os.readlink(f"/proc/self/fd/{number}") == "anon_inode:[io_uring]"
        return count
    pages.fill(2)
    most = queues()
    assert most > 0
    def go_on(deep):
        assert pages.wrong(2) == 0
        assert queues() <= most, (queues(), most)
        if deep > 0:
            assert end_of(child(lambda: go_on(deep - 1))) == 0
    assert end_of(child(lambda: go_on(2))) == 0
    await_alone(pool)
    pool = None
    """,
        swap_directory,
        options,
        limit="24MiB",
    )


def test_children_go_on_when_their_parent_is_killed(swap_directory: Path) -> None:
    out = run(
        """
    read, write = os.pipe()
    def grandchild():
        os.close(read)
        await_true(lambda: os.getppid() != parent, "the parent is dead")
        assert pages.wrong(5) == 0
        pages.fill(6)
        assert pages.wrong(6) == 0
        pool.check()
        os.write(write, b"fine")
    def work():
        global parent
        parent = os.getpid()
        pages.fill(5)
        child(grandchild)
        os.kill(parent, signal.SIGKILL)
    assert end_of(child(work)) == -signal.SIGKILL
    os.close(write)
    print(os.read(read, 10).decode())
    assert pages.wrong(1) == 0
    await_alone(pool)
    pool.check()
    """,
        swap_directory,
        limit="16MiB",
    )
    assert out == "fine\n"


def test_slots_that_one_side_gives_up_are_not_used_again_while_the_other_has_them(swap_directory: Path) -> None:
    """The parent writes all of its memory again and again, on an area with little room beyond what both hold; then
    the child looks at what it had at the fork, and the parent at what it has now."""
    run(
        """
    reads, writes = os.pipe()
    def work():
        assert os.read(reads, 1) == b"x"
        assert pages.wrong(1) == 0
    pid = child(work)
    for version in range(2, 6):
        pages.fill(version)
        region.advise(uswap.Advice.PAGEOUT)
    os.write(writes, b"x")
    assert end_of(pid) == 0
    assert pages.wrong(5) == 0
    await_alone(pool)
    pool.check()
    """,
        swap_directory,
        "swap=uswap.SwapArea(SWAP.path, size='80MiB')",
        limit="16MiB",
    )


def test_what_a_killed_child_had_comes_back(swap_directory: Path) -> None:
    run(
        """
    reads, writes = os.pipe()
    def work():
        pages.fill(2, 0, 512)
        os.write(writes, b"x")
        pages.fill(2)
        signal.pause()
    for _ in range(5):
        pid = child(work)
        assert os.read(reads, 1) == b"x"
        pages.fill(3)
        os.kill(pid, signal.SIGKILL)
        end_of(pid)
    assert pages.wrong(3) == 0
    await_alone(pool)
    pool.check()
    """,
        swap_directory,
    )


def test_a_child_that_becomes_another_program_has_nothing_any_more(swap_directory: Path) -> None:
    run(
        """
    def work():
        os.execv("/bin/sleep", ["sleep", "1000"])
    pid = child(work)
    pages.fill(3)
    await_alone(pool)
    os.kill(pid, signal.SIGKILL)
    end_of(pid)
    pool.check()
    """,
        swap_directory,
    )


@pytest.mark.timeout(LONG)
@pytest.mark.parametrize("options", ["", "transport='copy'", "faults='inline'", "io='sync', reclaimer=False"])
def test_forks_while_other_threads_fault(options: str, swap_directory: Path) -> None:
    run(
        f"""
    stop = threading.Event()
    wrong = []
    busy = Pages(pool.region("24MiB", name="busy"))
    scratch = pool.region("4MiB")
    def stress(seed):
        while not stop.is_set():
            wrong.append(busy.stress(seed, 50))
            seed += 3
    def discard():
        while not stop.is_set():
            scratch[:] = b"s" * len(scratch)
            scratch.advise(uswap.Advice.DONTNEED)
            scratch.advise(uswap.Advice.PAGEOUT)
            r = pool.region("1MiB")
            r[:] = b"r" * len(r)
            r.close()
    threads = [threading.Thread(target=stress, args=(n,)) for n in (1, 2, 3)] + [threading.Thread(target=discard)]
    for thread in threads:
        thread.start()
    def work():
        assert pages.wrong_at_random(1, 7, 200) == 0
        pages.fill(2, 0, 256)
        assert pages.wrong(2, 0, 256) == 0
    for number in range({FORKS}):
        assert end_of(child(work)) == 0, number
    stop.set()
    for thread in threads:
        thread.join()
    assert sum(wrong) == 0
    assert busy.wrong_after_stress() == 0
    assert pages.wrong(1) == 0
    pool.check()
    await_alone(pool)
    pool.check()
    """,
        swap_directory,
        options,
        limit="16MiB",
        timeout=LONG,
    )


@pytest.mark.timeout(LONG)
def test_forks_in_a_loop_under_load_nested_three_deep(swap_directory: Path) -> None:
    """Both sides find what was there at the fork, and write everything; other threads fault all the while. Every
    slot is counted after each fork, in every process; the sum of Pss is sampled all the while, from outside."""
    rounds = -(-FORKS // NESTED_DEEP)
    out = run(
        f"""
    import json
    from _support.forks import pss_bytes
    from _support.pss_watch import Watch
    LIMIT_BYTES, SLACK_EACH = 32 << 20, 16 << 20
    region.advise(uswap.Advice.PAGEOUT)
    own = pss_bytes([os.getpid()]) - pool.stats().resident_bytes
    watch = Watch(own, LIMIT_BYTES * 101 // 100, SLACK_EACH)
    stop = threading.Event()
    wrong = []
    busy = Pages(pool.region("16MiB", name="busy"))
    def stress(seed):
        while not stop.is_set():
            wrong.append(busy.stress(seed, 50))
            seed += 2
    threads = [threading.Thread(target=stress, args=(seed,), daemon=True) for seed in (1, 2)]
    half = pages.count // 2
    def fill(version):
        pages.fill(version, 0, half)
    def right(version):
        return pages.wrong(version, 0, half) == 0
    for thread in threads:
        thread.start()
    def generation(depth, found):
        assert right(found)
        fill(found + 1)
        if depth < {NESTED_DEEP}:
            pid = child(lambda: generation(depth + 1, found + 1))
            fill(found + 5)
            assert right(found + 5)
            assert end_of(pid) == 0
        else:
            assert right(found + 1)
        pool.check()
    for number in range({rounds}):
        generation(0, 8 * number + 1)
        assert right(8 * number + 6)
        fill(8 * number + 9)
        await_alone(pool)
        pool.check()
    stop.set()
    for thread in threads:
        thread.join()
    assert sum(wrong) == 0
    assert busy.wrong_after_stress() == 0
    assert pages.wrong(1, half) == 0  # nobody has touched these: slots that all processes had in common
    pool.check()
    seen = watch.end()
    print(json.dumps(dict(seen, forks={rounds * NESTED_DEEP}, evictions=pool.stats().evictions)))
    """,
        swap_directory,
        limit="32MiB",
        timeout=LONG,
    )
    print(out)
    seen = json.loads(out)
    assert seen["over"] <= 0
    assert seen["processes"] == 1 + NESTED_DEEP
    assert seen["shared"] > rounds


def test_locked_and_pinned_pages_are_in_both(swap_directory: Path) -> None:
    run(
        """
    region.lock(0, 1 << 20)
    def work():
        assert pages.wrong(1) == 0
        pages.fill(2)
        region.unlock(0, 1 << 20)
        assert pages.wrong(2) == 0
        pool.check()
    with region.resident(2 << 20, 1 << 20):
        pid = child(work)
        pages.fill(3)
    assert end_of(pid) == 0
    region.unlock(0, 1 << 20)
    region.advise(uswap.Advice.PAGEOUT)
    assert pool.stats().mapped_bytes == 0
    assert pages.wrong(3) == 0
    await_alone(pool)
    pool.check()
    """,
        swap_directory,
        limit="16MiB",
    )


def test_where_the_limit_is_too_low_for_one_more_the_child_is_told(swap_directory: Path) -> None:
    out = run(
        """
    def work():
        def inner():
            try:
                region.info()
            except uswap.ForkError as error:
                print(error, flush=True)
        assert end_of(child(inner)) == 0
        assert pages.wrong(1) == 0
    assert end_of(child(work)) == 0
    """,
        swap_directory,
        limit="8MiB",
    )
    assert "limit is too low" in out


def test_children_of_vfork_and_posix_spawn_cost_nothing(swap_directory: Path) -> None:
    out = run(
        """
    import subprocess
    pages.wrong(1)
    before = pool.stats()
    subprocess.run(["true"], check=True)
    os.waitpid(os.posix_spawn("/bin/true", ["true"], os.environ), 0)
    after = pool.stats()
    print(after.evictions - before.evictions, after.mapped_bytes >= before.mapped_bytes > 0)
    """,
        swap_directory,
        "background=False",
    )
    assert out == "0 True\n"


def test_multiprocessing_workers_have_the_data(swap_directory: Path) -> None:
    out = run(
        """
    import multiprocessing
    import numpy as np
    a = pool.zeros(1 << 18, dtype="i8")
    a[:] = np.arange(1 << 18)
    def total(part):
        return int(a[part::4].sum()) + pages.wrong_at_random(1, part, 100)
    with multiprocessing.get_context("fork").Pool(3) as workers:
        print(sum(workers.map(total, range(4))) == int(a.sum()))
    small = pool.zeros(100)
    small += 1
    def work():
        own = pool.zeros(1 << 18)
        assert float(own.sum()) == 0 and float(small.sum()) == 100
        more = [pool.zeros(10) for _ in range(50)]
        assert sum(float(m.sum()) for m in more) == 0
        pool.check()
    assert end_of(child(work)) == 0
    """,
        swap_directory,
        limit="32MiB",
    )
    assert out == "True\n"


def test_a_child_ends_as_any_process(swap_directory: Path) -> None:
    """Through finalizers, atexit and Pool.close."""
    out = run(
        """
    pid = os.fork()
    if pid == 0:
        assert pool.reclaimer is not None and pool.reclaimer.running
        del pages
        region.close()
        pool.close()
        sys.exit(7)
    pages.fill(2)
    print(end_of(pid))
    assert pages.wrong(2) == 0
    pool.check()
    """,
        swap_directory,
    )
    assert out == "7\n"


def test_several_pools(swap_directory: Path) -> None:
    run(
        """
    other = uswap.Pool("16MiB", swap=SWAP)
    more = Pages(other.region("24MiB"))
    more.fill(4)
    def work():
        assert pages.wrong(1) == 0 and more.wrong(4) == 0
        pages.fill(2)
        more.fill(5)
        assert pages.wrong(2) == 0 and more.wrong(5) == 0
    assert end_of(child(work)) == 0
    assert pages.wrong(1) == 0 and more.wrong(4) == 0
    """,
        swap_directory,
    )
