"""For programs in which a member of a named pool forks: what is to be exact when all is over, and a member that is
nobody's relative."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uswap
from _support.forks import await_alone, await_true, pss_bytes
from uswap._core import lib

# What each process has beside the pool's memory grows by so much at most (issue 5).
SLACK_EACH = 16 << 20

_STRANGER = """
import signal, uswap
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
from _support.workload import Pages
pool = uswap.attach({name!r})
private = Pages(pool.region("8MiB"))
shared = pool.open_region({shared!r}) if {shared!r} else None
print("ready", flush=True)
version = 0
while signal.sigtimedwait([signal.SIGTERM], 0) is None:
    version += 1
    private.fill(version)
    assert private.wrong(version) == 0
    if shared is not None:
        assert shared[:] == b"s" * len(shared)
pool.check()
pool._core.call(uswap._core.lib.uswap_group_check)
"""


def begin_stranger(name: str, shared: str = "") -> subprocess.Popen[str]:
    """A member that writes its own pages and reads the shared region of that name (all b"s"), until it is killed,
    or told to end by SIGTERM: with 0 if all was right."""
    program = _STRANGER.format(name=name, shared=shared)
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


@contextmanager
def stranger(name: str, shared: str = "") -> Iterator[subprocess.Popen[str]]:
    """Such a one for as long as the block lasts."""
    process = begin_stranger(name, shared)
    try:
        yield process
        process.terminate()
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.communicate()


def check(pool: uswap.Pool) -> None:
    """Pages and slots of this process, and what all share."""
    pool.check()
    pool._core.call(lib.uswap_group_check)


def members(pool: uswap.Pool) -> set[int]:
    return {member.pid for member in pool.members()}


def parts(pool: uswap.Pool) -> int:
    """Bytes of the limit that are handed out, or free. While chunks move, some may be counted twice or never."""
    group = pool.group_info()
    return group.free_bytes + group.shared_limit_bytes + sum(member.limit for member in pool.members())


def await_members(pool: uswap.Pool, count: int) -> None:
    """Returns when so many are left, nothing is lent any more, and all of the limit is somebody's or free."""
    await_true(lambda: len(pool.members()) == count, f"{count} members are left")
    await_alone(pool)
    await_true(lambda: pool.limit - parts(pool) < (64 << 12), "all chunks are accounted for")
    check(pool)


@contextmanager
def busy(work: Callable[[int], int], seeds: int) -> Iterator[None]:
    """Threads that call work(seed) again and again; it returns how much was wrong."""
    stop = threading.Event()
    wrong: list[int] = []

    def run(seed: int) -> None:
        while not stop.is_set():
            wrong.append(work(seed))
            seed += seeds

    threads = [threading.Thread(target=run, args=(seed,), daemon=True) for seed in range(1, seeds + 1)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert wrong
    assert sum(wrong) == 0


def own_bytes(pool: uswap.Pool) -> int:
    """What all members have in memory beside the pool's pages; no less than that, if they rest."""
    counted = sum(member.used for member in pool.members()) + pool.group_info().shared_resident_bytes
    return pss_bytes(members(pool)) - counted


def dump(seen: object) -> None:
    print(json.dumps(seen), flush=True)
