"""A signal handler raises, or forks, wherever it can in a call: nothing is lost, nothing stays."""

from pathlib import Path

import pytest
from _support.program import run_program

SWEEP = """
import gc, logging, os, sys
import numpy
from _support.signal_places import each_place
from _support.waiting import await_that
logging.disable(logging.CRITICAL)
sys.unraisablehook = lambda _: None          # the interpreter drops what a finalizer raises
folder = os.environ["USWAP_RUNTIME_DIR"]
def counts():
    return {"threads": len(os.listdir("/proc/self/task")), "files": len(os.listdir("/proc/self/fd"))}
def make(name="jobs"):
    return uswap.Pool("24MiB", swap=SWAP, name=name)
make().close()
await_that(lambda: counts()["threads"] == 1)
files = counts()["files"]
# A descriptor of which only the frame knows: between os.open and the name that it is given.
ONE_FILE = ("_check_ours", "_open_lock")
def check(place):
    global files
    gc.collect()
    gc.collect()
    if place.where.endswith(ONE_FILE) and counts()["files"] == files + 1:
        files += 1
    if os.listdir(folder):  # who makes the next one removes what no process has any more
        make("sweeps").close()
    await_that(lambda: counts()["threads"] == 1)
    assert counts()["files"] == files and os.listdir(folder) == [], (place.where, counts(), os.listdir(folder))
"""

CALLS = {
    "stats": (1, "pool = make()", "pool.stats()"),
    "make": (5, "", 'pool = uswap.Pool("16MiB", swap=SWAP)'),
    "make_named": (5, "", "pool = make()"),
    "attach": (5, "pool = make()", 'other = uswap.attach("jobs", swap=SWAP)'),
    "region": (1, "pool = make()", 'region = pool.region("64KiB", reserve="1MiB")'),
    "shared": (1, "pool = make()", 'region = pool.region("64KiB", shared=True, name="x")'),
    "open": (
        3,
        'pool = make(); other = uswap.attach("jobs", swap=SWAP); one = pool.region(4096, shared=True, name="x")',
        'region = other.open_region("x")',
    ),
    "close": (1, 'pool = make(); region = pool.region("64KiB"); region[0] = 1', "region.close()"),
    "finalizer": (1, 'pool = make(); region = pool.region("64KiB"); region[0] = 1', "region = None"),
    "close_pool": (3, "pool = make()", "pool.close()"),
    "arrays": (2, "pool = make()", "a, b = pool.zeros(100), pool.zeros(100000); a = b = None"),
    "resize": (1, 'pool = make(); region = pool.region("64KiB")', 'region.resize("1MiB")'),
    "limit": (1, "pool = make()", 'pool.limit = "20MiB"'),
}


@pytest.mark.usefixtures("runtime_folder")
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("error", ["KeyboardInterrupt", "Late"])
def test_an_exception_anywhere_in_a_call_leaves_nothing_behind(call: str, error: str, swap_directory: Path) -> None:
    stride, first, what = CALLS[call]
    run_program(
        f"""{SWEEP}
class Late(Exception):
    pass
def stop():
    raise {error}
for place in each_place({stride}, stop):
    pool = other = one = region = a = b = None
    {first}
    try:
        with place:
            {what}
    except {error}:
        pass
    a = b = one = region = None
    gc.collect()
    for each in (other, pool):
        try:
            if each is not None:
                each.close()
        except BufferError as used:
            raise AssertionError(place.where) from used
    pool = other = each = None
    check(place)
""",
        swap_directory,
    )


@pytest.mark.usefixtures("runtime_folder")
@pytest.mark.parametrize("name", [None, "jobs"])
@pytest.mark.parametrize(
    "what",
    [
        "pool.stats()",
        'pool.region("64KiB")[0] = 1',
        'region = pool.region("64KiB"); region[0] = 1; region.close()',
        "a = pool.zeros(100); a = pool.zeros(100000); a = None",
    ],
)
def test_a_signal_handler_may_fork_anywhere_in_a_call(name: str | None, what: str, swap_directory: Path) -> None:
    """Both go on with the call, and with all else."""
    run_program(
        f"""
import gc, os
import numpy
from _support.signal_places import each_place
pool = uswap.Pool("64MiB", swap=SWAP, name={name!r})
keep = pool.zeros(300000)
keep[:] = 4
child = None
def fork():
    global child
    child = os.fork()
for place in each_place(5, fork):
    region = a = None
    with place:
        {what}
    region = a = None
    gc.collect()
    if child == 0:
        status = 2
        try:
            for bytes_wanted in (1 << 16, 1 << 20, 1 << 16):
                with pool.region(bytes_wanted) as fresh:
                    fresh[:] = bytes([7]) * len(fresh)
                    assert fresh[:] == bytes([7]) * len(fresh)
            assert (keep == 4).all() and len(pool.regions()) == 1, pool.regions()
            pool.check()
            keep = None
            pool.close()
            assert pool._core.freed
            status = 0
        finally:
            if status:
                import traceback
                traceback.print_exc()
                print(place.where, flush=True)
            os._exit(status)
    if place.reached:
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert status == 0, (place.where, status)
assert (keep == 4).all() and len(pool.regions()) == 1
pool.check()
""",
        swap_directory,
    )


def test_an_exception_in_what_a_fork_calls_leaves_the_child_its_pool(swap_directory: Path) -> None:
    """The interpreter drops it: nobody would know."""
    run_program(
        """
import itertools, os, sys
import numpy
from _support.signal_places import SignalPlace
sys.unraisablehook = lambda _: None
pool = uswap.Pool("64MiB", swap=SWAP)
keep = pool.zeros(300000)
keep[:] = 4
parent = os.getpid()
def stop():
    if os.getpid() != parent:
        raise KeyboardInterrupt
for number in itertools.count(0, 3):
    with SignalPlace(number, stop) as place:
        child = os.fork()
    if os.getpid() != parent:
        status = 2
        try:
            assert (keep == 4).all()
            pool.zeros(100000)[:] = 1
            pool.check()
            assert pool.reclaimer.running
            status = 0 if place.reached else 100
        finally:
            if status == 2:
                import traceback
                traceback.print_exc()
                print(place.where, flush=True)
            os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status == 100:
        break
    assert status == 0, status
assert number > 100, number
""",
        swap_directory,
    )
