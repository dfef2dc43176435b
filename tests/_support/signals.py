"""Native signal handlers (signals.c), and memory whose touch is a SIGBUS of somebody else."""

from __future__ import annotations

import ctypes
import functools
import mmap
import tempfile
from pathlib import Path
from typing import Any

from _support.native import shared_object


@functools.cache
def native() -> Any:
    """The functions of signals.c; they run without the GIL."""
    library = ctypes.CDLL(shared_object(Path(__file__).with_name("signals.c")))
    library.looks.restype = library.last_look.restype = ctypes.c_uint64
    library.load_or_jump.argtypes = [ctypes.c_void_p]
    library.look_on_signal.argtypes = [ctypes.c_int, ctypes.c_void_p]
    library.add_from_small_stack.argtypes = [ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint64]
    return library


@functools.cache
def foreign_address() -> int:
    """An address beyond the end of a truncated file: a load from it is a SIGBUS that is not ours."""
    with tempfile.TemporaryFile() as file:
        file.truncate(4096)
        mapping = mmap.mmap(file.fileno(), 4096)
        file.truncate(0)
    address = ctypes.addressof(ctypes.c_char.from_buffer(mapping))
    _kept.append(mapping)
    return address


def touch_foreign() -> int:
    """Loads from foreign_address."""
    return int(ctypes.c_uint64.from_address(foreign_address()).value)


_kept: list[mmap.mmap] = []
