"""NumPy arrays on managed memory. Pool's array methods come here; NumPy is imported at the first of them."""

from __future__ import annotations

import ast
import operator
import os
from typing import IO, TYPE_CHECKING, Any, TypeAlias

from uswap._core import Core
from uswap._errors import NumpyMissingError
from uswap._small import SMALL_BYTES, SmallMemory
from uswap.region import make_region

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Array: TypeAlias = npt.NDArray[Any]

# Files are read in pieces of this size, straight into managed memory.
_CHUNK_BYTES = 8 * 1024 * 1024


def import_numpy() -> Any:
    """The numpy module. Raises NumpyMissingError."""
    try:
        import numpy
    except ImportError as error:
        raise NumpyMissingError(
            "arrays need NumPy, which is not installed",
            hint="pip install 'uswap[numpy]'; regions work without it",
        ) from error
    return numpy


def checked_dtype(dtype: Any) -> np.dtype[Any]:
    """dtype as NumPy's. Raises TypeError for one that holds Python objects, whose references the swap file
    cannot keep."""
    numpy = import_numpy()
    result: np.dtype[Any] = numpy.dtype(dtype)
    if result.hasobject or result.kind == "T":
        raise TypeError(f"dtype {result} holds references to Python objects: these cannot live in managed memory")
    return result


def checked_order(order: str) -> str:
    """order, if it is "C" or "F". Raises ValueError."""
    if order not in ("C", "F"):
        raise ValueError(f"order must be 'C' or 'F', not {order!r}")
    return order


def allocate(
    core: Core, small: SmallMemory, shape: Any, dtype: Any, order: str, name: str, priority: int = 0
) -> Array:
    """An array of zeroes on memory of its own in core.

    Raises:
        TypeError: dtype holds objects.
        ValueError: shape has a negative length, or is more than can be addressed.
        OutOfSpaceError, ClosedError, ForkError: as make_region.
    """
    numpy = import_numpy()
    kind = checked_dtype(dtype)
    checked_order(order)
    core.check_process()
    lengths, size = _lengths(shape), bytes_of(shape, kind)
    if size == 0:
        empty: Array = numpy.zeros(lengths, dtype=kind, order=order)
        return empty
    if size < SMALL_BYTES and not name and not priority:
        owner = numpy.asarray(small.allocate(size))
    else:
        owner = numpy.frombuffer(make_region(core, size, name, priority=priority), dtype=numpy.uint8)
    # The array refers to owner, and that to the memory: the memory ends with the last array or view.
    result: Array = numpy.ndarray(lengths, dtype=kind, buffer=owner, order=order)
    return result


def bytes_of(shape: Any, dtype: np.dtype[Any]) -> int:
    """What an array takes. Raises ValueError: shape has a negative length, or it is more than can be addressed."""
    lengths, size = _lengths(shape), dtype.itemsize
    for length in lengths:
        size *= length
    if size >= 2**63:
        raise ValueError(f"an array of shape {lengths} and dtype {dtype} is more than can be addressed")
    return size


def _lengths(shape: Any) -> tuple[int, ...]:
    try:
        lengths: tuple[int, ...] = (operator.index(shape),)
    except TypeError:
        lengths = tuple(operator.index(length) for length in shape)
    if any(length < 0 for length in lengths):
        raise ValueError(f"shape {lengths} has a negative length")
    return lengths


def array_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """(shape, whether in Fortran order, dtype) from the header of a .npy file; the data follows. Raises
    ValueError."""
    numpy = import_numpy()
    formats = numpy.lib.format
    version = formats.read_magic(file)
    if version == (1, 0):
        header = formats.read_array_header_1_0(file)
    elif version == (2, 0):
        header = formats.read_array_header_2_0(file)
    elif version == (3, 0):  # as 2.0, but in UTF-8
        length = int.from_bytes(_exactly(file, 4), "little")
        fields = ast.literal_eval(_exactly(file, length).decode("utf-8"))
        header = fields["shape"], fields["fortran_order"], formats.descr_to_dtype(fields["descr"])
    else:
        raise ValueError(f".npy files of version {version[0]}.{version[1]} are not known")
    shape, fortran_order, dtype = header
    return tuple(shape), bool(fortran_order), checked_dtype(dtype)


def _exactly(file: IO[bytes], length: int) -> bytes:
    data = file.read(length)
    if len(data) != length:
        raise ValueError("the file ends inside its header")
    return data


def read_into(array: Array, file: IO[bytes], *, by_system_calls: bool) -> None:
    """Fills a fresh array, in the order of its memory, from file. Raises ValueError if the file is too short.

    by_system_calls: the kernel may write to the array; otherwise (inline faults) the data goes through a buffer.
    """
    if array.nbytes == 0:
        return
    numpy = import_numpy()
    target = memoryview(array.reshape(-1, order="A").view(numpy.uint8))
    done = 0
    while done < len(target):
        piece = target[done : done + _CHUNK_BYTES]
        if by_system_calls:
            count = file.readinto(piece)  # type: ignore[attr-defined]
        else:
            data = file.read(len(piece))
            count = len(data)
            piece[:count] = data
        if not count:
            raise ValueError(f"the file ends {len(target) - done} bytes early")
        done += count


def items_in_file(file: IO[bytes], dtype: np.dtype[Any], count: int, offset: int) -> int:
    """How many items of dtype to read from offset on: count, or for -1 as many as there are. Raises
    ValueError."""
    if offset < 0:
        raise ValueError(f"offset must not be negative, but is {offset}")
    if count < -1:
        raise ValueError(f"count must be -1 (all) or more, but is {count}")
    if dtype.itemsize == 0:
        raise ValueError(f"items of dtype {dtype} have no size")
    there = max(os.fstat(file.fileno()).st_size - offset, 0) // dtype.itemsize
    if count > there:
        raise ValueError(f"the file has {there} items of dtype {dtype} from byte {offset} on, not {count}")
    return there if count == -1 else count
