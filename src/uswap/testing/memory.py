"""Loads and stores in managed memory by plain address, without the GIL: a thread that waits for a page keeps no
other one from running."""

from __future__ import annotations

import ctypes
import errno
import os
import random
import threading

PAGE = 4096
_NOISE_BYTES = 1 << 20
_NOISE = random.Random(1998).randbytes(_NOISE_BYTES)
# Contents below these are one byte repeated, all through or page by page, which the core keeps in no slot; the
# others are of a kind that it must.
_PLAIN = 8
_STRIPED = 16

_PRIVATE_ANONYMOUS_NOREPLACE = 0x100022

_libc = ctypes.CDLL(None, use_errno=True)
for _name in ("pread", "pwrite"):
    _function = getattr(_libc, _name)
    _function.restype = ctypes.c_ssize_t
    _function.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_longlong]
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]


def contents(value: int, length: int) -> bytes:
    """length bytes named by a small number: 0 are zeroes, 1 to 7 one byte repeated, 8 to 15 another byte for each
    page, others noise.

    Example:
        >>> contents(0, 4), contents(3, 4), len(contents(100, 5000))
        (b'\\x00\\x00\\x00\\x00', b'\\x03\\x03\\x03\\x03', 5000)
    """
    if value < _PLAIN:
        return bytes([value]) * length
    if value < _STRIPED:
        stripes = b"".join(bytes([(value + page) % _PLAIN]) * PAGE for page in range(-(-length // PAGE)))
        return stripes[:length]
    start = value * 997 % _NOISE_BYTES
    piece = _NOISE[start : start + length]
    while len(piece) < length:
        piece += _NOISE[: length - len(piece)]
    return piece


def load(address: int, length: int) -> bytes:
    """The bytes there."""
    into = ctypes.create_string_buffer(length)
    ctypes.memmove(into, ctypes.c_void_p(address), length)
    return into.raw


def store(address: int, data: bytes) -> None:
    """Writes them there."""
    ctypes.memmove(ctypes.c_void_p(address), data, len(data))


def touch(address: int, pages: int, step: int = 1) -> None:
    """Reads the first byte of every step-th of so many pages."""
    byte = ctypes.create_string_buffer(1)
    for page in range(0, pages, step):
        ctypes.memmove(byte, ctypes.c_void_p(address + page * PAGE), 1)


def occupy(address: int) -> bool:
    """A page of somebody else's there, for good, if nothing is; => whether there was nothing."""
    got = _libc.mmap(address, PAGE, 0, _PRIVATE_ANONYMOUS_NOREPLACE, -1, 0)
    assert got == address or ctypes.get_errno() == errno.EEXIST
    return bool(got == address)


class Kernel:
    """The same by system calls: the kernel touches the pages, through a file in memory, of which each thread has
    its own. Thread-safe."""

    _files = threading.local()

    @property
    def _file(self) -> int:
        found: int | None = getattr(self._files, "file", None)
        if found is None:
            found = self._files.file = os.memfd_create("uswap-fuzz")
        return found

    def load(self, address: int, length: int) -> bytes:
        """The bytes there. Raises OSError."""
        done = _libc.pwrite(self._file, ctypes.c_void_p(address), length, 0)
        _check(done, length)
        return os.pread(self._file, length, 0)

    def store(self, address: int, data: bytes) -> None:
        """Writes them there. Raises OSError."""
        os.pwrite(self._file, data, 0)
        done = _libc.pread(self._file, ctypes.c_void_p(address), len(data), 0)
        _check(done, len(data))


def _check(done: int, length: int) -> None:
    if done != length:
        number = ctypes.get_errno() if done < 0 else 0
        raise OSError(number, f"{done} of {length} bytes: {os.strerror(number)}")
