"""Signals, KeyboardInterrupt, the end of the interpreter, the collector and subprocesses: no hang, no crash."""

import signal
from pathlib import Path

import pytest
from _support.program import run_program


def test_a_timer_of_1_khz_during_faults(transport: str, swap_directory: Path) -> None:
    run_program(
        f"""
        import os, signal
        from _support.workload import Pages
        ticks = 0
        def tick(*_):
            global ticks
            ticks += 1
        signal.signal(signal.SIGALRM, tick)
        pool = uswap.Pool("8MiB", swap=SWAP, transport={transport!r})
        pages = Pages(pool.region("32MiB"))
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
        rounds = 0
        while ticks < 200 or rounds < 1:
            pages.fill(rounds + 1)
            assert pages.wrong(rounds + 1) == 0
            with open(os.devnull, "wb", buffering=0) as null, open("/dev/zero", "rb", buffering=0) as zero:
                zero.readinto(pages.view[: 1 << 20])                       # faults inside a system call
                null.write(pages.view)
            rounds += 1
        signal.setitimer(signal.ITIMER_REAL, 0)
        pool.check()
        """,
        swap_directory,
    )


def test_keyboard_interrupts_in_the_middle_of_faults(swap_directory: Path) -> None:
    run_program(
        """
        import os, signal, threading
        pool = uswap.Pool("8MiB", swap=SWAP)
        region = pool.region("32MiB")
        main = threading.main_thread().ident
        stop = threading.Event()
        armed = False
        def once(number, frame):  # a second one, within the except clause, would end the program
            global armed
            if armed:
                armed = False
                raise KeyboardInterrupt
        signal.signal(signal.SIGINT, once)  # it is ignored where this runs in a shell's background
        def interrupt():
            while not stop.wait(0.002):
                signal.pthread_kill(main, signal.SIGINT)
        sender = threading.Thread(target=interrupt)
        caught = 0
        sender.start()
        while caught < 100:
            try:
                armed = True
                for start in range(0, len(region), 4096):
                    region[start] = 1
            except KeyboardInterrupt:
                caught += 1
        armed = False
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        stop.set()
        sender.join()
        pool.check()
        region.close()
        pool.close()
        """,
        swap_directory,
    )


def test_the_interpreter_ends_with_arrays_threads_and_atexit_functions_at_work(swap_directory: Path) -> None:
    result = run_program(
        """
        import atexit, threading
        import numpy as np
        pool = uswap.Pool("8MiB", swap=SWAP)
        a = pool.zeros(1 << 22)
        a[:] = 7.0
        small = pool.full(3, 5.0)
        @atexit.register
        def late():
            assert (a == 7.0).all() and small.sum() == 15.0
            a[:] = 8.0
            print("late", a.sum() == 8.0 * len(a), flush=True)
        class AtTheVeryEnd:
            def __init__(self, array):
                self.array = array
            def __del__(self):
                self.array[0] += 1
        keep = AtTheVeryEnd(a)
        def busy():
            while True:
                a.sum()
        for _ in range(3):
            threading.Thread(target=busy, daemon=True).start()
        blocked = threading.Thread(target=threading.Lock().__enter__, daemon=True)
        blocked.start()
        """,
        swap_directory,
    )
    assert result.stdout == "late True\n"


def test_an_exit_by_an_exception_with_everything_alive(swap_directory: Path) -> None:
    result = run_program(
        """
        pool = uswap.Pool("8MiB", swap=SWAP)
        region = pool.region("32MiB")
        view = memoryview(region)
        region[:] = bytes(range(256)) * (len(region) // 256)
        raise SystemExit(3)
        """,
        swap_directory,
        check=False,
    )
    assert result.returncode == 3, result.stderr
    assert result.stderr == ""


def test_the_collector_in_odd_orders(swap_directory: Path) -> None:
    run_program(
        """
        import gc, random
        import numpy as np
        gc.set_threshold(7)
        random.seed(1)
        pool = uswap.Pool("8MiB", swap=SWAP)
        class Node:
            pass
        for round_ in range(60):
            nodes = []
            for _ in range(8):
                node = Node()
                node.array = pool.full(random.choice([3, 1000, 100_000]), float(round_))
                node.view = memoryview(node.array)
                node.other, node.self = random.choice(nodes or [node]), node
                nodes.append(node)
            random.shuffle(nodes)
            kept = nodes[0].array[1:]
            del nodes, node
            if round_ % 3 == 0:
                gc.collect()
            assert (kept == round_).all()
        del kept
        gc.collect()
        pool.check()
        pool.close()
        """,
        swap_directory,
    )


def test_subprocesses_from_a_program_with_threads_at_work(swap_directory: Path) -> None:
    run_program(
        """
        import subprocess, sys, threading
        from _support.workload import Pages
        pool = uswap.Pool("8MiB", swap=SWAP)
        pages = Pages(pool.region("32MiB"))
        stop = threading.Event()
        wrong = []
        def work(seed):
            while not stop.is_set():
                wrong.append(pages.stress(seed, 100))
                seed += 10
        threads = [threading.Thread(target=work, args=(n + 1,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for n in range(20):
            done = subprocess.run([sys.executable, "-S", "-c", f"print({n})"], capture_output=True, text=True)
            assert done.stdout == f"{n}\\n", done
        stop.set()
        for thread in threads:
            thread.join()
        assert sum(wrong) == 0
        pool.check()
        """,
        swap_directory,
    )


@pytest.mark.parametrize("limit", ["8MiB", "64MiB"])
def test_a_killed_program_leaves_nothing(swap_directory: Path, limit: str) -> None:
    result = run_program(
        f"""
        import os, signal
        pool = uswap.Pool({limit!r}, swap=SWAP)
        region = pool.region("64MiB")
        region[:] = bytes(range(256)) * (len(region) // 256)
        os.kill(os.getpid(), signal.SIGKILL)
        """,
        swap_directory,
        check=False,
    )
    assert result.returncode == -signal.SIGKILL
    assert list(swap_directory.iterdir()) == []


AT_THE_START_OF_A_FINALIZER = """
    import ctypes, mmap, sys
    from uswap.region import Region
    hits = []
    sys.unraisablehook = lambda unraisable: hits.append(unraisable.exc_type)
    def del_interrupted(self, before=Region.__del__, **_):
        Region.__del__ = before
        raise KeyboardInterrupt
    libc = ctypes.CDLL(None)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    MAP_FIXED_NOREPLACE = 0x100000
    pool = uswap.Pool("8MiB", swap=SWAP{name})
    def made():
        return pool.region("16MiB"{shared})
    for turn in range(3):
        region = made()
        region[:] = bytes([turn]) * len(region)
        address, size = region._address, len(region)
        Region.__del__ = del_interrupted
        del region
        assert hits == [KeyboardInterrupt], hits
        hits.clear()
        # Memory of the program's in its place, and then another region.
        other = libc.mmap(address, size, 3, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0)
        assert other == address
        ctypes.memset(other, ord("o"), size)
        region = made()
        region[:] = b"r" * size
        assert region[:].count(b"r") == size
        assert ctypes.string_at(other, size).count(b"o") == size
        libc.munmap(other, size)
        region.close()
        pool.check()
    assert pool.regions() == []
    assert pool.stats().swap_used_bytes == 0
    pool.close()
"""


@pytest.mark.usefixtures("runtime_folder")
@pytest.mark.parametrize(("name", "shared"), [("", ""), (", name='lost'", ", shared=True, name='x'")])
def test_an_interrupt_at_the_start_of_a_finalizer_harms_nobodys_memory(
    name: str, shared: str, swap_directory: Path
) -> None:
    """The mapping goes without a word: the core must not take its addresses for the region's from then on."""
    run_program(AT_THE_START_OF_A_FINALIZER.format(name=name, shared=shared), swap_directory)


def test_an_interrupt_in_a_calculation_whose_result_takes_an_arrays_place(swap_directory: Path) -> None:
    """No bytecode is between the end of the multiplication and the array's finalizer: the interrupt comes there."""
    run_program(
        """
        import mmap, os, signal, sys, threading
        import numpy as np
        signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.unraisablehook = lambda unraisable: None
        pool = uswap.Pool("8MiB", swap=SWAP)
        size = 16 << 20
        for turn in range(20):
            a = pool.zeros(size // 8)
            a += turn
            sender = threading.Timer(0.005, os.kill, (os.getpid(), signal.SIGINT))
            sender.start()
            try:
                a = a * 2.0
                sender.join()
            except KeyboardInterrupt:
                sender.join()
            del a
            others = [mmap.mmap(-1, size) for _ in range(3)]
            for other in others:
                other[:] = b"o" * size
            b = pool.zeros(size // 8)
            b += turn
            assert (b == turn).all()
            assert all(other[:].count(b"o") == size for other in others)
            del b
        pool.check()
        assert not pool.regions()
        pool.close()
        """,
        swap_directory,
    )
