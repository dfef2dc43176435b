"""Processes are stopped (SIGSTOP) at any instant, and go on."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from _support.members import Member

import uswap

# After so long a disk counts as one that does not answer.
STALL_SECONDS = 5.0
# USWAP_STOPS=200 for more of them.
STOPS = int(os.environ.get("USWAP_STOPS", "12"))
# Against hangs only: the point is that it ends while the other one is stopped.
DEADLINE_SECONDS = 30.0


def test_a_disk_is_not_said_to_be_silent_by_who_was_stopped_himself(
    swap_directory: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """What the disk had answered meanwhile he could not take."""
    with Member() as process:
        process("import threading")
        process(f"pool = uswap.Pool('8MiB', swap=uswap.SwapArea({str(swap_directory)!r}, size='128MiB'))")
        process("r = pool.region('32MiB'); r[::4096] = bytes([1]) * (len(r) // 4096)")
        process(
            "def scan():\n"
            " while going: bytes(r[::4096])"
        )  # fmt: skip
        process("going = True; thread = threading.Thread(target=scan); thread.start()")
        time.sleep(0.2)  # into the midst of it; if a read is under way then, no more can be asked
        process.stop()
        time.sleep(STALL_SECONDS + 0.3)
        process.go_on()
        process("before = pool.stats().pages_in")
        while process("pool.stats().pages_in - before") < 10000:
            pass
        time.sleep(1.5)  # the watch looks once a second
        stalls = process("pool.stats().disk_stalls")
        process("going = False; thread.join(); r.close(); pool.close()")
    assert stalls == 0
    assert "has not answered" not in capfd.readouterr().err


@pytest.fixture
def pool(runtime_folder: Path, swap_directory: Path) -> Iterator[uswap.Pool]:
    with uswap.Pool("32MiB", name="any", swap=uswap.SwapArea(swap_directory, size="256MiB")) as pool:
        yield pool
        pool.check()


def joined(swap_directory: Path) -> Member:
    """Another process of it, with the words of the region as `a`."""
    process = Member()
    process("import numpy as np")
    process(f"swap = uswap.SwapArea({str(swap_directory)!r}, size='256MiB')")
    process("pool = uswap.attach('any', swap=swap); r = pool.open_region('r'); a = np.frombuffer(r, dtype='u8')")
    process("numbers = np.arange(a.size, dtype='u8')")
    return process


@pytest.mark.timeout(300 + 10 * STOPS)
@pytest.mark.parametrize("turn", ["a[::512].sum()", "a[::512] = numbers[::512]"], ids=["loads", "stores"])
def test_others_go_on_whenever_one_is_stopped(turn: str, pool: uswap.Pool, swap_directory: Path) -> None:
    """64 MiB under 32: whatever the stopped one is at, the other one comes to it, and loads and stores there."""
    region = pool.region("64MiB", shared=True, name="r")
    words = np.frombuffer(region, dtype="u8")
    words[:] = np.arange(words.size, dtype="u8")
    instants = random.Random(20261127)
    with joined(swap_directory) as stopped, joined(swap_directory) as other:
        stopped.send(f"while True: {turn}")
        for _ in range(STOPS):
            time.sleep(instants.uniform(0.01, 0.1))  # an instant: of whatever the other one does
            stopped.stop()
            for each in ("a[256::512] = numbers[256::512]", "bool((a == numbers).all())"):
                other.send(each)
                found = other.answer(DEADLINE_SECONDS)
            assert found
            stopped.go_on()
        other("del a; r.close(); pool.close()")
        stopped.kill()
    assert (words == np.arange(words.size, dtype="u8")).all()
    del words
    region.close()
