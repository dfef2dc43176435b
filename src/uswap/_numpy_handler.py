"""NumPy's data handlers (NEP 49), without a line of C that knows Python or NumPy.

What NumPy wants is a capsule named "mem_handler" around a plain structure of function pointers, which the core
fills in (csrc/heap/numpy_handler.c); and two functions of NumPy's C API, which it publishes as a table of pointers.
Their places in it are part of NumPy's ABI, the same from 1.22 to 2.5. docs/numpy.md says why the package
numpy-allocator is not used.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

from uswap._core import ffi
from uswap.arrays import import_numpy

_NAME = b"mem_handler"
# Indexes of the table PyArray_API.
_SET_HANDLER, _GET_HANDLER, _DEFAULT_HANDLER = 304, 305, 306

_pointer_in = ctypes.pythonapi.PyCapsule_GetPointer
_pointer_in.argtypes, _pointer_in.restype = [ctypes.py_object, ctypes.c_char_p], ctypes.c_void_p
# The same function for a capsule that is just ending, which must not be referred to again.
_pointer_in_ending = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)
_Destructor = ctypes.PYFUNCTYPE(None, ctypes.c_void_p)
_new_capsule = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, _Destructor)(
    ("PyCapsule_New", ctypes.pythonapi)
)

# Address of a handler -> what to do when the last array, context and name that refer to its capsule is gone.
_at_end: dict[int, Callable[[], None]] = {}


def _end_of_capsule(
    capsule: int, _pointer: Any = _pointer_in_ending, _take: Any = _at_end.pop, _name: bytes = _NAME
) -> None:
    at_end = _take(_pointer(capsule, _name), None)
    if at_end is not None:
        at_end()


_capsule_ends = _Destructor(_end_of_capsule)


class _NumpyApi(NamedTuple):
    """Attributes:
    set_handler: makes a capsule the handler of this context; => the one before.
    get_handler: => the capsule that this context has.
    default: the address of the structure behind the default handler.
    """

    set_handler: Callable[[Any], Any]
    get_handler: Callable[[], Any]
    default: int


@functools.cache
def numpy_api() -> _NumpyApi:
    """What is used of NumPy's C API. Raises NumpyMissingError."""
    numpy = import_numpy()
    core = getattr(numpy, "_core", None) or numpy.core
    table = ctypes.cast(_pointer_in(core._multiarray_umath._ARRAY_API, None), ctypes.POINTER(ctypes.c_void_p))
    default = ctypes.cast(table[_DEFAULT_HANDLER], ctypes.POINTER(ctypes.py_object))[0]
    return _NumpyApi(
        ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.py_object)(table[_SET_HANDLER]),
        ctypes.PYFUNCTYPE(ctypes.py_object)(table[_GET_HANDLER]),
        int(_pointer_in(default, _NAME)),
    )


def make_capsule(handler: Any, at_end: Callable[[], None]) -> Any:
    """A capsule for handler (a void * of the core). at_end is called, with the GIL, when nothing refers to the
    capsule any more: each array made by the handler does."""
    address = int(ffi.cast("uintptr_t", handler))
    _at_end[address] = at_end
    return _new_capsule(address, _NAME, _capsule_ends)
