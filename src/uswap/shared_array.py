"""SharedArray: a NumPy array on a shared region, pickled by reference. Imported where arrays are made: it needs
NumPy."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from uswap._errors import ArgumentError
from uswap.shared_region import SharedRegion, checked_reference


class SharedArray(np.ndarray[Any, Any]):
    """An array on a SharedRegion; Pool.zeros(shared=True) and SharedRegion.array make it, and unpickling does.

    It is pickled by reference, and so are views and slices of it: another process of the pool, or one that can join
    it, gets the same memory. What is computed from it is an ordinary array, and copies of it are pickled by value;
    so is a view as another class (np.asarray(a)).

    Example:
        >>> import pickle, uswap
        >>> with uswap.Pool(limit="32MiB", name="shared-array-example") as pool:
        ...     a = pool.zeros((1000, 1000), shared=True)
        ...     row = pickle.loads(pickle.dumps(a[7]))
        ...     row[:] = 1
        ...     print(a.sum(), type(a + 1).__name__)
        ...     del a, row
        1000.0 ndarray
    """

    _region: SharedRegion | None

    def __array_finalize__(self, obj: Any) -> None:
        region = getattr(obj, "_region", None)
        self._region = region if region is not None and np.may_share_memory(self, obj) else None

    def __array_wrap__(self, array: Any, context: Any = None, return_scalar: bool = False) -> Any:
        # As numpy.memmap: what is computed is no part of the region, unless it was the output.
        array = super().__array_wrap__(array, context)
        if self is array or type(array) is not SharedArray or array._region is not None:
            return array
        return array[()] if return_scalar else array.view(np.ndarray)

    def __getitem__(self, index: Any) -> Any:
        result = super().__getitem__(index)
        if type(result) is SharedArray and result._region is None:
            return result.view(np.ndarray)
        return result

    @property
    def region(self) -> SharedRegion | None:
        """Where its memory is; None: it is a copy, on ordinary memory."""
        return self._region

    def __reduce_ex__(self, protocol: Any) -> Any:
        if self._region is None:
            return self.view(np.ndarray).__reduce_ex__(protocol)
        from uswap.sharing import open_array

        return open_array, (checked_reference(self._region._reference), place_of(self, self._region))


class Place(NamedTuple):
    """Which part of a region an array is.

    Attributes:
        offset, strides: bytes.
        writeable: whether stores are allowed through it.
    """

    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    strides: tuple[int, ...]
    writeable: bool


def place_of(array: SharedArray, region: SharedRegion) -> Place:
    """Of the array in its region. The memory is not touched: in a forked child it is not there."""
    offset = int(array.__array_interface__["data"][0]) - region._address
    return Place(offset, array.shape, array.dtype, array.strides, array.flags.writeable)


def end_of(place: Place) -> int:
    """Where its last byte ends in the region; 0: it has none."""
    if 0 in place.shape:
        return 0
    steps = zip(place.shape, place.strides, strict=True)
    return place.offset + place.dtype.itemsize + sum((count - 1) * max(step, 0) for count, step in steps)


def array_on(region: SharedRegion, shape: Any, dtype: np.dtype[Any], order: Any, offset: int) -> SharedArray:
    """A fresh one from byte offset on. Raises ValueError: it does not fit."""
    try:
        extents = tuple(map(operator.index, shape if isinstance(shape, Iterable) else (shape,)))
        offset = operator.index(offset)
    except TypeError:
        raise TypeError(f"shape and offset must be whole numbers, not {shape!r} and {offset!r}") from None
    bytes_ = math.prod(extents) * dtype.itemsize
    if offset < 0 or any(extent < 0 for extent in extents) or offset + bytes_ > len(region):
        raise ArgumentError(
            f"an array of shape {shape} ({bytes_} bytes) at offset {offset} does not fit into a region of"
            f" {len(region)} bytes"
        )
    memory = np.frombuffer(region, np.uint8)  # unlike ndarray, it exports the region's buffer as long as it lives
    array: SharedArray = np.ndarray.__new__(SharedArray, shape, dtype, buffer=memory, offset=offset, order=order)
    array._region = region
    return array


def array_at(region: SharedRegion, place: Place) -> SharedArray:
    """What place_of was taken from. Raises ValueError: it does not fit."""
    memory = np.frombuffer(region, np.uint8)
    array: SharedArray = np.ndarray.__new__(
        SharedArray, place.shape, place.dtype, buffer=memory, offset=place.offset, strides=place.strides
    )
    array.flags.writeable = place.writeable
    array._region = region
    return array
