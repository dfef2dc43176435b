"""A member of a named pool may close descriptors that it does not know, as daemons do, and subprocess between
preexec_fn and exec: it loses what it had of the pool, and nobody else does."""

from __future__ import annotations

import os
import time
from pathlib import Path

from _support.members import Member
from _support.policies import eventually

import uswap

MIB = 1 << 20


def await_look(pool: uswap.Pool, pid: int) -> None:
    """Returns when that member has looked around since."""
    begin = time.monotonic()

    def looked() -> bool:
        (silent,) = [member.silent_seconds for member in pool.members() if member.pid == pid]
        return silent < time.monotonic() - begin

    eventually(looked)


def test_who_closes_all_descriptors_takes_nobody_for_dead(runtime_folder: Path, swap_directory: Path) -> None:
    swap = uswap.SwapArea(swap_directory, size="64MiB")
    with uswap.Pool("32MiB", name="jobs", swap=swap) as pool, Member() as other, Member() as member:
        r = pool.region(MIB, shared=True, name="r")
        r[:] = b"r" * MIB
        for each in (other, member):
            each(f"pool = uswap.attach('jobs', swap=uswap.SwapArea({str(swap_directory)!r}, size='64MiB'))")
        await_look(pool, member.pid)  # it knows all of them
        member("import os; os.closerange(4, 1024)")  # the first is what it answers by
        for _ in range(3):
            await_look(pool, member.pid)
        assert [each.state for each in pool.members()] == ["alive"] * 3
        other.kill()  # it sees that, too, by a descriptor of its own or another's
        member.kill()
        eventually(lambda: len(pool.members()) == 1)
        assert [region.name for region in pool.shared_regions()] == ["r"]
        assert r[:] == b"r" * MIB
        pool.check()
        pool.check()
        r.close()


def test_a_forked_child_that_closes_all_of_them_keeps_nothing_of_the_limit(
    runtime_folder: Path, swap_directory: Path
) -> None:
    """It is taken for gone, and lives on (subprocess does so before it executes a program): what it then took anew
    was nobody's."""
    swap = uswap.SwapArea(swap_directory, size="64MiB")
    with uswap.Pool("32MiB", name="jobs", swap=swap) as pool:
        ends, closes = os.pipe()
        child = os.fork()
        if child == 0:
            os.dup2(ends, 3)
            os.closerange(4, 1024)
            os.read(3, 1)
            os._exit(0)
        os.close(ends)
        eventually(lambda: len(pool.members()) == 1)
        for _ in range(5):
            await_look(pool, os.getpid())
            pool.check()
            info = pool.group_info()
            assert info.free_bytes + info.shared_limit_bytes + pool.members()[0].limit == info.limit_bytes
        os.close(closes)
        assert os.waitpid(child, 0)[1] == 0
        pool.check()
