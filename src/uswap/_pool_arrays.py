"""The array makers of Pool: zeros, empty, full, array, load, fromfile."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from uswap import arrays
from uswap._pool_checks import checked_name

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from uswap._core import Core
    from uswap._small import SmallMemory
    from uswap.arrays import Array
    from uswap.region import Region


class ArrayMemory(TypedDict, total=False):
    """What every maker takes, by name, about the memory of its array.

    Attributes:
        name: for Pool.regions; the array then has a region of its own, whatever its size.
        priority: see Region.priority; the same.
        shared: all processes of the (named) pool can have it: it is a SharedArray, on a region of its own.
        exportable: see Pool.region.
    """

    name: str | None
    priority: int
    shared: bool
    exportable: bool


class PoolArrays:
    """A base of Pool. The memory of an array ends with the last array or view that uses it."""

    _core: Core
    _small: SmallMemory
    region: Callable[..., Region]

    def zeros(
        self, shape: Any, dtype: Any = float, order: Literal["C", "F"] = "C", **memory: Unpack[ArrayMemory]
    ) -> Array:
        """An array of zeroes, as numpy.zeros. Arrays below 256 KiB share memory, unless they have a name or
        a priority (see Region.priority).

        memory: name=, priority=, shared=, exportable=, as in Pool.region. Pickled, an array goes by value, but a
            shared one (a SharedArray) by reference.

        Raises:
            TypeError: dtype holds Python objects.
            NumpyMissingError: NumPy is not installed.
            OutOfSpaceError, ClosedError, ForkError: as region.
        """
        if memory.get("shared"):
            return self._shared_array(shape, dtype, order, memory)
        name, priority = _checked(**memory)
        return arrays.allocate(self._core, self._small, shape, dtype, order, name, priority)

    def _shared_array(self, shape: Any, dtype: Any, order: str, memory: ArrayMemory) -> Array:
        kind = arrays.checked_dtype(dtype)
        arrays.checked_order(order)
        size = arrays.bytes_of(shape, kind)
        if size == 0:
            return arrays.allocate(self._core, self._small, shape, kind, order, "")
        region: Any = self.region(size, **memory)
        array: Array = region.array(shape, kind, order)
        return array

    def empty(
        self, shape: Any, dtype: Any = float, order: Literal["C", "F"] = "C", **memory: Unpack[ArrayMemory]
    ) -> Array:
        """As zeros: fresh managed memory is zero, and costs nothing until it is touched."""
        return self.zeros(shape, dtype, order, **memory)

    def full(
        self,
        shape: Any,
        fill_value: Any,
        dtype: Any = None,
        order: Literal["C", "F"] = "C",
        **memory: Unpack[ArrayMemory],
    ) -> Array:
        """An array filled with fill_value, as numpy.full. Raises as zeros."""
        if dtype is None:
            dtype = arrays.import_numpy().asarray(fill_value).dtype
        result = self.zeros(shape, dtype, order, **memory)
        result[...] = fill_value
        return result

    def array(
        self, obj: Any, dtype: Any = None, order: Literal["C", "F"] = "C", **memory: Unpack[ArrayMemory]
    ) -> Array:
        """A copy of obj (an array, or what numpy.asarray takes) on managed memory. Raises as zeros."""
        source = arrays.import_numpy().asarray(obj)
        result = self.zeros(source.shape, source.dtype if dtype is None else dtype, order, **memory)
        result[...] = source
        return result

    def load(self, path: str | os.PathLike[str], **memory: Unpack[ArrayMemory]) -> Array:
        """The array in a .npy file, read straight into managed memory.

        Raises:
            ValueError: not a .npy file, or a short one. TypeError: it holds Python objects. OSError: as
            open(). Otherwise as zeros.
        """
        with open(path, "rb") as file:
            shape, fortran_order, dtype = arrays.array_header(file)
            result = self.zeros(shape, dtype, "F" if fortran_order else "C", **memory)
            arrays.read_into(result, file, by_system_calls=not self._core.inline)
        return result

    def fromfile(
        self,
        path: str | os.PathLike[str],
        dtype: Any = float,
        count: int = -1,
        offset: int = 0,
        **memory: Unpack[ArrayMemory],
    ) -> Array:
        """A one-dimensional array of count items (-1: all) of a binary file from byte offset on.

        Raises:
            ValueError: the file has fewer items, or a bad count or offset. OSError: as open(). Otherwise as
                zeros.
        """
        kind = arrays.checked_dtype(dtype)
        with open(path, "rb") as file:
            result = self.zeros(arrays.items_in_file(file, kind, count, offset), kind, **memory)
            file.seek(offset)
            arrays.read_into(result, file, by_system_calls=not self._core.inline)
        return result


def _checked(
    name: str | None = None, priority: int = 0, shared: bool = False, exportable: bool = True
) -> tuple[str, int]:
    return checked_name(name), priority
