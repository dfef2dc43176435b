"""What is held of shared regions: nothing faults there, whatever an eviction has begun before."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from _support.failpoints import Action, armed, await_stopped, release
from _support.members import Member, MemberError

import uswap
from uswap._core import lib

pytestmark = pytest.mark.skipif(not lib.uswap_failpoints_built(), reason="the core was built without failpoints")

MIB = 1 << 20
PAGE = 4096


@pytest.fixture
def pool(runtime_folder: Path, swap_directory: Path) -> Iterator[uswap.Pool]:
    with uswap.Pool("32MiB", name="held", swap=uswap.SwapArea(swap_directory, size="256MiB")) as pool:
        yield pool


@pytest.fixture
def member(pool: uswap.Pool, swap_directory: Path) -> Iterator[Member]:
    """Another process of it, in which system calls get EFAULT where a program would fault."""
    with Member() as process:
        process("from _support.user_mode import permit_user_mode_faults_only")
        process("from _support.failpoints import Action, await_stopped, release, set_failpoint")
        process("import os, threading")
        process("permit_user_mode_faults_only()")
        process(f"swap = uswap.SwapArea({str(swap_directory)!r}, size='256MiB')")
        process("pool = uswap.attach('held', swap=swap, faults='inline')")
        assert process("pool.stats().user_mode_only")
        yield process


def test_system_calls_get_efault_there_unless_it_is_held(pool: uswap.Pool, member: Member) -> None:
    r = pool.region(MIB, shared=True, name="r")
    r[:] = b"x" * MIB
    member("r = pool.open_region('r'); file = os.open('/dev/zero', os.O_RDONLY)")
    member("with r.resident(): assert os.readv(file, [r]) == len(r)")
    assert r[:] == bytes(MIB)
    r.advise(uswap.Advice.PAGEOUT)
    with pytest.raises(MemberError, match="Bad address"):
        member("os.readv(file, [r])")
    member("r.close()")
    r.close()


def test_an_eviction_that_has_begun_protects_nothing_that_is_held(pool: uswap.Pool, member: Member) -> None:
    """Held on their way out they are taken back; who evicts protects them late, and a system call would fail."""
    r = pool.region(MIB, shared=True, name="r")
    member("r = pool.open_region('r'); file = os.open('/dev/zero', os.O_RDONLY)")
    r[:] = b"x" * MIB
    member("r[:] = b'y' * len(r)")
    member("set_failpoint('hold.passed', Action.STOP)")
    member("def fill():\n with r.resident(): assert os.readv(file, [r]) == len(r)")
    with ThreadPoolExecutor(1) as threads, armed("shared.writing", Action.STOP):
        evicting = threads.submit(r.advise, uswap.Advice.PAGEOUT)
        await_stopped("shared.writing")
        member("thread = threading.Thread(target=fill); failed = []; threading.excepthook = failed.append")
        member("thread.start(); await_stopped('hold.passed')")
        release("shared.writing")
        evicting.result()
    member("release('hold.passed'); thread.join()")
    assert member("[str(one.exc_value) for one in failed]") == []
    assert r[:] == bytes(MIB)
    pool.check()
    member("r.close()")
    r.close()
