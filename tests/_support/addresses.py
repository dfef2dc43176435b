"""Where regions lie, and what lies beside them."""

from __future__ import annotations

import ctypes
import errno

import uswap
from uswap import _mapping
from uswap._sizes import round_to_pages

_PRIVATE_ANONYMOUS_NOREPLACE = 0x100022
_PAGE = 4096

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long)


def address_of(region: uswap.Region) -> int:
    """The address of its first byte."""
    return _mapping.address_of(region)


def hem_in(region: uswap.Region) -> None:
    """Something of somebody else's behind the region, for good: without a reserve it cannot grow in place."""
    end = address_of(region) + round_to_pages(len(region))
    got = _libc.mmap(end, _PAGE, 0, _PRIVATE_ANONYMOUS_NOREPLACE, -1, 0)
    assert got == end or ctypes.get_errno() == errno.EEXIST
