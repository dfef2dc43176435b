"""What tests of named pools begin with: swap space, a pool, and processes that join it."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from _support.members import Member

import uswap


@pytest.fixture
def swap(swap_directory: Path) -> uswap.SwapArea:
    return uswap.SwapArea(swap_directory, size="1GiB")


@pytest.fixture
def jobs(runtime_folder: Path, swap: uswap.SwapArea) -> Iterator[uswap.Pool]:
    """A named pool of 64 MiB."""
    pool = uswap.Pool("64MiB", name="jobs", swap=swap)
    yield pool
    gc.collect()
    if not pool._core.freed:
        pool.check()
        pool.close()


@pytest.fixture
def more(swap_directory: Path) -> Iterator[Callable[[], Member]]:
    """Makes members of it, each with the pool as `pool`."""
    with contextlib.ExitStack() as stack:

        def make() -> Member:
            process = stack.enter_context(Member())
            process("from _support.failpoints import *")
            process(f"swap = uswap.SwapArea({str(swap_directory)!r}, size='1GiB')")
            process("pool = uswap.attach('jobs', swap=swap)")
            return process

        yield make
