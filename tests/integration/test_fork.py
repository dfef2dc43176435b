"""Until forked children can share swap: a fork warns, and a child that touches a region dies with one line."""

import signal
from pathlib import Path

from _support.program import run_program

HEAD = """
    import os, sys, warnings
    warnings.simplefilter("ignore", uswap.UswapWarning)
    warnings.simplefilter("ignore", DeprecationWarning)
    pool = uswap.Pool("8MiB", swap=SWAP)
    region = pool.region("16MiB", name="data")
    region[:] = b"x" * len(region)
    def child(work):
        pid = os.fork()
        if pid == 0:
            work()
            os._exit(0)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
"""


def test_a_fork_with_a_live_pool_warns(swap_directory: Path) -> None:
    result = run_program(
        """
        import os, warnings
        pool = uswap.Pool("8MiB", swap=SWAP)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            if os.fork() == 0:
                os._exit(0)
            os.wait()
        print([str(w.message) for w in caught if w.category is uswap.UswapWarning])
        """,
        swap_directory,
    )
    assert result.stdout.count("os.fork() with a live uswap.Pool") == 1


def test_a_child_that_reads_a_region_dies_with_one_line(swap_directory: Path) -> None:
    result = run_program(HEAD + "    print(child(lambda: region[5000]))", swap_directory)
    assert result.stdout == f"{-signal.SIGSEGV}\n"
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    assert "was forked" in lines[0]
    assert "'data' at offset 0x1388" in lines[0]


def test_a_child_that_writes_an_array_dies_with_one_line(swap_directory: Path) -> None:
    program = HEAD + "    a = pool.zeros(1 << 20)\n    print(child(lambda: a.__setitem__(0, 1.0)))"
    result = run_program(program, swap_directory)
    assert result.stdout == f"{-signal.SIGSEGV}\n"
    assert "was forked" in result.stderr


def test_in_a_child_every_method_says_forked_and_its_end_harms_nobody(swap_directory: Path) -> None:
    result = run_program(
        HEAD
        + """
    def work():
        for call in (pool.stats, pool.close, region.close, region.info, lambda: pool.region(4096)):
            try:
                call()
            except uswap.ForkError:
                continue
            os._exit(1)
        sys.exit(0)                        # through finalizers and atexit
    def run():
        try:
            work()
        except SystemExit:
            pass
    print(child(run))
    assert region[:] == b"x" * len(region)
    pool.check()
    """,
        swap_directory,
    )
    assert result.stdout == "0\n"


def test_the_parent_goes_on_while_children_come_and_go(swap_directory: Path) -> None:
    run_program(
        HEAD
        + """
    from _support.workload import Pages
    import threading
    pages = Pages(pool.region("32MiB"))
    stop = threading.Event()
    wrong = []
    def work(seed):
        while not stop.is_set():
            wrong.append(pages.stress(seed, 50))
            seed += 3
    threads = [threading.Thread(target=work, args=(n,)) for n in (1, 2, 3)]
    for thread in threads:
        thread.start()
    for _ in range(20):
        assert child(lambda: None) == 0
    stop.set()
    for thread in threads:
        thread.join()
    assert sum(wrong) == 0
    pool.check()
    """,
        swap_directory,
    )


def test_a_child_may_make_a_pool_of_its_own(swap_directory: Path) -> None:
    result = run_program(
        HEAD
        + """
    def work():
        own = uswap.Pool("8MiB", swap=SWAP)
        r = own.region("32MiB")
        r[:] = b"y" * len(r)
        assert r[:] == b"y" * len(r)
        own.check()
    print(child(work))
    """,
        swap_directory,
    )
    assert result.stdout == "0\n", result.stderr
