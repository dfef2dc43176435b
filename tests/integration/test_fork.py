"""Where a forked child cannot go on with a pool (here: snapshots=False) it is told so, and a touch ends it with one
line. What a child of an ordinary pool has: test_fork_snapshots.py."""

import signal
from pathlib import Path

from _support.program import run_program

HEAD = """
    import os, sys, warnings
    warnings.simplefilter("ignore", uswap.UswapWarning)
    warnings.simplefilter("ignore", DeprecationWarning)
    pool = uswap.Pool("8MiB", swap=SWAP, snapshots=False)
    region = pool.region("16MiB", name="data")
    region[:] = b"x" * len(region)
    def child(work):
        pid = os.fork()
        if pid == 0:
            work()
            os._exit(0)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
"""


def test_a_fork_warns_of_a_pool_that_the_child_will_not_have(swap_directory: Path) -> None:
    result = run_program(
        """
        import os, warnings
        pools = [uswap.Pool("8MiB", swap=SWAP, snapshots=snapshots) for snapshots in (False, True)]
        for pool in pools:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                if os.fork() == 0:
                    os._exit(0)
                os.wait()
            print(len([w for w in caught if w.category is uswap.UswapWarning]))
            pool.close()
        """,
        swap_directory,
    )
    assert result.stdout.split() == ["1", "0"]


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


def test_in_a_child_every_method_says_why_and_its_end_harms_nobody(swap_directory: Path) -> None:
    result = run_program(
        HEAD
        + """
    def work():
        for call in (pool.stats, pool.close, region.close, region.info, lambda: pool.region(4096)):
            try:
                call()
            except uswap.ForkError as error:
                if "snapshots=False" in str(error):
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


def test_a_fork_evicts_nothing(swap_directory: Path) -> None:
    result = run_program(
        HEAD
        + """
    region.advise(uswap.Advice.WILLNEED, 0, 1 << 20)
    before = pool.stats().mapped_bytes
    assert before > 0
    print(child(lambda: None), pool.stats().mapped_bytes > before // 2)
    """,
        swap_directory,
    )
    assert result.stdout == "0 True\n"


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
