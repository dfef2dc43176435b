"""Where regions lie, and things that are put in their way."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator

import uswap
from uswap import _mapping
from uswap._sizes import PAGE_BYTES, round_to_pages
from uswap.testing.memory import occupy


def address_of(region: uswap.Region) -> int:
    """The address of its first byte."""
    return _mapping.address_of(region)


@contextlib.contextmanager
def something_at(address: int) -> Iterator[None]:
    """A page of somebody else's there meanwhile, if nothing is."""
    ours = occupy(address)
    yield
    if ours:
        assert ctypes.CDLL(None).munmap(ctypes.c_void_p(address), ctypes.c_size_t(PAGE_BYTES)) == 0


def hem_in(region: uswap.Region) -> None:
    """Something of somebody else's behind the region, for good: without a reserve it cannot grow in place."""
    occupy(address_of(region) + round_to_pages(len(region)))
