"""Shared pages are sealed and unsealed by a process that is killed, or stopped, at each step of it, while another
stores to them: nothing that was stored is lost."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from _support.failpoints import Action
from _support.members import Member
from _support.pagemap import PAGE, write_protected

import uswap
from uswap._core import lib

pytestmark = pytest.mark.skipif(not lib.uswap_failpoints_built(), reason="the core was built without failpoints")

MIB = 1 << 20
PAGES = MIB // PAGE
# Read, filled, mapped, unsealed, gone.
STEPS = (
    "shared.claimed", "shared.filled", "shared.before_continue", "shared.mapped_peers", "shared.unsealed",
    "shared.committed", "shared.punched",
)  # fmt: skip
# Taken only where what one brings in is mapped for all.
FOR_PEERS = {"shared.mapped_peers"}
# Few pages are stored to, so that the others keep the region worth sealing.
STORED = range(0, PAGES, 16)


@pytest.fixture(params=[False, True], ids=["each_for_itself", "for_peers"])
def map_for_peers(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
def pool(runtime_folder: Path, swap_directory: Path, map_for_peers: bool) -> Iterator[uswap.Pool]:
    swap = uswap.SwapArea(swap_directory, size="256MiB")
    with uswap.Pool("32MiB", name="steps", swap=swap, map_for_peers=map_for_peers) as pool:
        yield pool


def joined(swap_directory: Path) -> Member:
    """Another process of it, with the region as `r`."""
    process = Member()
    process("import itertools, threading; from _support.failpoints import set_failpoint")
    process(f"swap = uswap.SwapArea({str(swap_directory)!r}, size='256MiB')")
    process("pool = uswap.attach('steps', swap=swap); r = pool.open_region('r')")
    return process


def start_storing(storer: Member) -> None:
    """To some of the pages, over and over: `stored` is what each of them has."""
    storer(f"STORED = range({STORED.start}, {STORED.stop}, {STORED.step}); stored = dict.fromkeys(STORED, 0)")
    storer(
        "def store():\n"
        " for n, page in zip(itertools.count(1), itertools.cycle(STORED)):\n"
        "  if not going: return\n"
        "  assert int.from_bytes(r[page * 4096 + 8 : page * 4096 + 16], 'little') == stored[page]\n"
        "  r[page * 4096 + 8 : page * 4096 + 16] = n.to_bytes(8, 'little'); stored[page] = n"
    )
    storer("failed = []; threading.excepthook = failed.append; going = True")
    storer("thread = threading.Thread(target=store); thread.start()")


def stop_storing(storer: Member) -> dict[int, int]:
    """=> what it has stored, by page."""
    storer("going = False; thread.join()")
    assert storer("[str(one.exc_value) for one in failed]") == []
    return {int(page): value for page, value in storer("stored").items()}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("action", [Action.KILL, Action.FREEZE])
def test_nothing_stored_is_lost(
    action: Action, pool: uswap.Pool, map_for_peers: bool, swap_directory: Path
) -> None:
    region = pool.region(MIB, shared=True, name="r")
    region[::PAGE] = bytes([1]) * PAGES
    steps = [step for step in STEPS if map_for_peers or step not in FOR_PEERS]
    with joined(swap_directory) as storer:
        start_storing(storer)
        for nth, step in enumerate(steps, start=1):
            with joined(swap_directory) as victim:
                victim(f"set_failpoint({step!r}, {int(action)}, nth={nth})")
                victim.send(
                    "while True:\n"
                    " assert bytes(r[::4096]) == bytes([1]) * 256\n"
                    " r[8 * 4096 + 1] = 1\n"
                    " r.advise(uswap.Advice.PAGEOUT)"
                )
                os.waitid(os.P_PID, victim.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
                assert victim.alive == (action == Action.FREEZE), step
                if action == Action.FREEZE:
                    victim.go_on()
                    victim.kill()
        expected = stop_storing(storer)
        for _ in range(2):  # as it is, and as it was written
            found = {page: int.from_bytes(region[page * PAGE + 8 : page * PAGE + 16], "little") for page in STORED}
            assert found == expected
            region.advise(uswap.Advice.PAGEOUT)
        assert region[::PAGE] == bytes([1]) * PAGES
        assert write_protected(region), "nothing was sealed"
        storer("r.close(); pool.close()")
    pool.check()
    region.close()
