"""SIGBUS is not ours alone: faulthandler, handlers from before and after, blocked signals, forks, lost pages."""

import signal
from pathlib import Path

import pytest
from _support.program import run_program

from uswap._core import lib

HEAD = """
    import faulthandler, os, signal, sys, threading, warnings
    from _support.signals import foreign_address, native, touch_foreign
    from _support.workload import Pages
    warnings.simplefilter("ignore", DeprecationWarning)
    def make(**options):
        global pool, region, pages
        pool = uswap.Pool("4MiB", swap=SWAP, **options)
        region = pool.region("6MiB", name="data", faults="inline")
        pages = Pages(region)
    def use(version=1):
        pages.fill(version)
        assert pages.wrong(version) == 0
"""


def ends_by_sigbus(program: str, swap_directory: Path) -> str:
    result = run_program(HEAD + program, swap_directory, check=False, timeout=60)
    assert result.returncode == -signal.SIGBUS, result.stdout + result.stderr
    return result.stderr


def test_faulthandler_before_and_after_and_off(swap_directory: Path) -> None:
    result = run_program(
        HEAD
        + """
    faulthandler.enable()
    make()
    use(1)
    faulthandler.disable()
    use(2)
    for version in range(3, 23):
        faulthandler.enable()
        use(version)
        faulthandler.disable()
        use(version + 100)
    assert not faulthandler.is_enabled()
    pool.check()
    """,
        swap_directory,
    )
    assert result.stderr == ""


@pytest.mark.parametrize("when", ["before", "after", "before and after"])
def test_a_foreign_sigbus_still_reaches_faulthandler_and_ends_the_program(swap_directory: Path, when: str) -> None:
    enable = "    faulthandler.enable()\n"
    program = (
        (enable if "before" in when else "")
        + "    make(); use()\n"
        + ("    faulthandler.disable()\n" if when == "before and after" else "")
        + (enable if "after" in when else "")
        + "    use(2)\n    touch_foreign()\n"
    )
    errors = ends_by_sigbus(program, swap_directory)
    assert errors.count("Fatal Python error: Bus error") == 1, errors
    assert "touch_foreign" in errors


def test_a_foreign_sigbus_without_any_other_handler_ends_the_program(swap_directory: Path) -> None:
    assert ends_by_sigbus("    make(); use()\n    touch_foreign()\n", swap_directory) == ""


def test_sigbus_sent_by_a_process_is_chained(swap_directory: Path) -> None:
    assert ends_by_sigbus("    make(); use()\n    os.kill(os.getpid(), signal.SIGBUS)\n", swap_directory) == ""
    run_program(
        HEAD + "    signal.signal(signal.SIGBUS, signal.SIG_IGN)\n    make(); use()\n"
        "    os.kill(os.getpid(), signal.SIGBUS)\n    use(2)\n",
        swap_directory,
    )


def test_a_foreign_sigbus_that_is_ignored_ends_the_program_as_the_kernel_would(swap_directory: Path) -> None:
    program = "    signal.signal(signal.SIGBUS, signal.SIG_IGN)\n    make(); use()\n    touch_foreign()\n"
    assert ends_by_sigbus(program, swap_directory) == ""


@pytest.mark.parametrize("when", ["before", "after", "before and after"])
def test_a_native_handler_that_jumps_gets_its_signals_again_and_again(swap_directory: Path, when: str) -> None:
    install = "    native().jump_on_sigbus()\n"
    run_program(
        HEAD
        + (install if "before" in when else "")
        + "    make(); use()\n"
        + (install + "    pool.stats()\n" if "after" in when else "")
        + """
    for version in range(2, 7):
        assert native().load_or_jump(foreign_address()) == 1
        use(version)
        assert native().load_or_jump(pages.address) == 0
    """,
        swap_directory,
    )


def test_a_native_handler_that_gives_the_signal_back_makes_no_ring(swap_directory: Path) -> None:
    program = """
    make(); use()
    for version in range(2, 12):
        native().give_back_on_sigbus()
        pool.stats()
        use(version)
    touch_foreign()
    """
    assert ends_by_sigbus(program, swap_directory) == ""


def test_a_python_handler_is_found_and_put_under_ours(swap_directory: Path) -> None:
    run_program(
        HEAD
        + """
    make()
    seen = []
    for version in range(1, 21):
        signal.signal(signal.SIGBUS, lambda *_: seen.append(1))
        pool.stats()
        use(version)
    assert not seen
    os.kill(os.getpid(), signal.SIGBUS)
    assert seen == [1]
    """,
        swap_directory,
    )


def test_the_fault_thread_finds_a_handler_that_nobody_told_of(swap_directory: Path) -> None:
    """No call of the API: only the fault thread can have put ours back. No page is touched meanwhile."""
    run_program(
        HEAD
        + """
    import ctypes
    make(); use()
    ours = ctypes.create_string_buffer(256)
    now = ctypes.create_string_buffer(256)
    libc = ctypes.CDLL(None)
    native().jump_on_sigbus()
    libc.sigaction(signal.SIGBUS, None, ours)
    while True:
        libc.sigaction(signal.SIGBUS, None, now)
        if now.raw[:8] != ours.raw[:8]:
            break
        os.sched_yield()
    use(2)
    """,
        swap_directory,
    )


def test_a_thread_with_sigbus_blocked_dies_at_the_touch(swap_directory: Path) -> None:
    program = """
    make(); use()
    region.advise(uswap.Advice.PAGEOUT)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGBUS])
    region[0]
    """
    assert ends_by_sigbus(program, swap_directory) == ""


def test_a_child_that_touches_an_inline_region_dies_with_one_line(swap_directory: Path) -> None:
    result = run_program(
        HEAD
        + """
    warnings.simplefilter("ignore", uswap.UswapWarning)
    def child(work):
        pid = os.fork()
        if pid == 0:
            work()
            os._exit(0)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    def own():
        make()
        use()
        pool.check()
    make(); use()
    parents = pages
    print(child(lambda: region[5000]), child(own))
    assert parents.wrong(1) == 0
    """,
        swap_directory,
    )
    assert result.stdout == f"{-signal.SIGSEGV} 0\n", result.stderr
    (line,) = result.stderr.strip().splitlines()
    assert "was forked" in line
    assert "'data' at offset 0x1388" in line


def test_children_come_and_go_while_threads_fault(swap_directory: Path) -> None:
    run_program(
        HEAD
        + """
    warnings.simplefilter("ignore", uswap.UswapWarning)
    make()
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
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    stop.set()
    for thread in threads:
        thread.join()
    assert sum(wrong) == 0
    pool.check()
    """,
        swap_directory,
    )


@pytest.mark.skipif(not lib.uswap_failpoints_built(), reason="the core was built without failpoints")
def test_a_lost_page_ends_the_program_after_one_line(swap_directory: Path) -> None:
    errors = ends_by_sigbus(
        """
    from _support.failpoints import Action, armed
    make(read_ahead=0); use()
    region.advise(uswap.Advice.PAGEOUT)
    with armed("page_in.hash", Action.FLIP, 7, every=True):
        region[5 * 4096]
    """,
        swap_directory,
    )
    (line,) = errors.strip().splitlines()
    assert "lost page: region 'data' at offset 0x5000" in line


def test_arrays_are_used_until_the_very_end_of_the_interpreter(swap_directory: Path) -> None:
    result = run_program(
        HEAD
        + """
    import atexit
    make(); use()
    a = uswap.Pool("4MiB", swap=SWAP, faults="inline").zeros(1 << 20)
    a[:] = 7.0
    @atexit.register
    def late():
        print("late", (a == 7.0).all() and pages.wrong(1) == 0, flush=True)
    def busy():
        while True:
            a.sum()
    for _ in range(3):
        threading.Thread(target=busy, daemon=True).start()
    """,
        swap_directory,
    )
    assert result.stdout == "late True\n"
    assert result.stderr == ""


def test_interrupts_and_timers_during_inline_faults(transport: str, swap_directory: Path) -> None:
    run_program(
        f"""
        import signal
        from _support.workload import Pages
        ticks = 0
        def tick(*_):
            global ticks
            ticks += 1
        signal.signal(signal.SIGALRM, tick)
        pool = uswap.Pool("8MiB", swap=SWAP, transport={transport!r})
        pages = Pages(pool.region("32MiB", faults="inline"))
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
        for version in (1, 2, 3):
            pages.fill(version)
            assert pages.wrong(version) == 0
        while ticks < 20:
            assert pages.wrong_at_random(3, ticks + 1, 10) == 0
        signal.setitimer(signal.ITIMER_REAL, 0)
        pool.check()
        """,
        swap_directory,
    )
