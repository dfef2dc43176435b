"""A read of a shared page that somebody else breaks off, because its reader has not looked around for long: whoever
waits for it looks again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from _support.members import Member

import uswap
from uswap._core import lib

pytestmark = pytest.mark.skipif(not lib.uswap_failpoints_built(), reason="the core was built without failpoints")

MIB = 1 << 20
PAGE = 4096
# Only against hangs.
WAIT_SECONDS = 20


@pytest.fixture
def pool(runtime_folder: Path, swap_directory: Path) -> Iterator[uswap.Pool]:
    with uswap.Pool("32MiB", name="vain", swap=uswap.SwapArea(swap_directory, size="256MiB")) as pool:
        yield pool


def join(member: Member, swap_directory: Path) -> None:
    member("from _support.failpoints import Action, await_stopped, release, set_failpoint")
    member("import ctypes, threading; from uswap.testing import memory")
    member(f"swap = uswap.SwapArea({str(swap_directory)!r}, size='256MiB')")
    member("pool = uswap.attach('vain', swap=swap)")


def test_a_page_that_is_discarded_by_another_while_it_is_read_is_zeroes(
    pool: uswap.Pool, swap_directory: Path
) -> None:
    """The thread whose fault began the read was woken by nobody."""
    r = pool.region(MIB, shared=True, name="r")
    r[:] = b"x" * MIB
    with Member() as reader, Member() as newcomer:
        join(reader, swap_directory)
        reader("r = pool.open_region('r'); r.advise(uswap.Advice.SEQUENTIAL)")
        reader("found = []; byte = ctypes.c_char.from_buffer(r)")
        # Without the GIL, which the others need meanwhile.
        reader("load = lambda: found.append(memory.load(ctypes.addressof(byte), 1)[0])")
        reader("thread = threading.Thread(target=load, daemon=True)")
        r.advise(uswap.Advice.PAGEOUT)
        reader("set_failpoint('shared.read', Action.STOP); thread.start(); await_stopped('shared.read')")
        # The thread that says that its process looks around is held up by an answer to a newcomer.
        reader("set_failpoint('peer.joined', Action.STOP)")
        newcomer(f"swap = uswap.SwapArea({str(swap_directory)!r}, size='256MiB')")
        newcomer.send("pool = uswap.attach('vain', swap=swap)")
        reader("await_stopped('peer.joined')")
        r.advise(uswap.Advice.DONTNEED, PAGE, PAGE)  # read ahead: waits until the reader seems to be stopped
        r.advise(uswap.Advice.DONTNEED, 0, PAGE)
        reader("release('shared.read')")
        assert reader(f"thread.join({WAIT_SECONDS}) or found") == [0]
        reader("release('peer.joined')")
        newcomer.answer()
        newcomer("pool.close()")
        assert r[: 3 * PAGE] == bytes(2 * PAGE) + b"x" * PAGE
        reader("del byte; r.close()")
        reader("pool.close()")
    pool.check()
    r.close()
