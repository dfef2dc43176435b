"""The swap areas of a Pool: swapon, swapoff, areas."""

from __future__ import annotations

import contextlib
import os

from uswap._core import Core, ffi, lib
from uswap._errors import UswapError
from uswap._options import SwapArea, SwapPath, swap_areas
from uswap._pool_checks import warn_about_area
from uswap._stats import SwapAreaInfo, area_info_from_core

_AREAS_MAX = 64


class PoolAreas:
    """A base of Pool."""

    _core: Core

    def swapon(self, path: SwapPath, *, size: int | str | None = None, priority: int = 0) -> SwapAreaInfo:
        """Adds a swap area: a file, a block device, a directory, or a SwapArea (size and priority are then
        its own).

        Raises:
            SwapAreaError: its directory is missing or not writable, another pool uses it, or it holds
                somebody's data.
            SystemCallError: the system refuses it.
            ValueError: a bad size, or the pool has had 32 areas already (those of swapoff included).
        """
        area = path if isinstance(path, SwapArea) else SwapArea(path, size, priority)
        if isinstance(path, SwapArea) and (size is not None or priority != 0):
            raise ValueError("a SwapArea has its own size and priority")
        self._core.check_process()
        return self._swapon(swap_areas(area)[0])

    def _swapon(self, area: SwapArea) -> SwapAreaInfo:
        raw = ffi.new("uswap_area_info *")
        self._core.call(
            lib.uswap_pool_swapon,
            os.fsencode(area.path),
            int(area.is_directory),
            area.size_bytes,
            area.priority,
            raw,
        )
        info = area_info_from_core(ffi, lib, raw)
        warn_about_area(info, int(raw.notes))
        return info

    def swapoff(self, path: SwapPath | SwapAreaInfo) -> None:
        """Takes a swap area out of use while the pool goes on: its pages come into memory or move to other
        areas. Then its file is cut down to the header and unlocked. That may take as long as reading it does;
        an exception from a signal handler meanwhile (KeyboardInterrupt) leaves the area in use.

        path is what swapon was given, or the SwapAreaInfo that it returned, which is needed where several
        areas lie in one directory.

        Raises:
            OutOfSpaceError: the other areas have no room for what regions hold or were promised.
            BlockingIOError: no page can leave memory for those that must come in (locked, or swap is full).
            ValueError: no such area, or more than one.

        Example:
            >>> import os, uswap
            >>> with uswap.Pool(limit="16MiB") as pool:
            ...     area = pool.swapon(os.curdir, size="64MiB", priority=9)
            ...     a = pool.full(1 << 22, 7.0)
            ...     pool.swapoff(area)
            ...     print(len(pool.areas()), a.sum() == 7.0 * (1 << 22))
            1 True
        """
        index = self._area_index(path)
        with self._core.swapoff_lock:
            try:
                while self._core.call(lib.uswap_pool_swapoff, index) > 0:
                    pass  # between two steps the interpreter looks for signals
            except BaseException:
                with contextlib.suppress(UswapError, ValueError):  # in use already, or closed by the last step
                    self._core.call(lib.uswap_pool_swapoff_cancel, index)
                raise

    def _area_index(self, path: SwapPath | SwapAreaInfo) -> int:
        if isinstance(path, SwapAreaInfo):
            return path.index
        wanted = os.fsdecode(path.path if isinstance(path, SwapArea) else path)
        found = [info.index for info in self.areas() if info.path == wanted]
        if len(found) != 1:
            raise ValueError(
                f"no swap area of the pool has the path {wanted!r}"
                if not found
                else f"{len(found)} swap areas lie in {wanted!r}: pass the SwapAreaInfo that swapon returned"
            )
        return found[0]

    def areas(self) -> list[SwapAreaInfo]:
        """The swap areas as they are now."""
        raw = ffi.new("uswap_area_info[]", _AREAS_MAX)
        count = self._core.call(lib.uswap_pool_areas, raw, _AREAS_MAX)
        return [area_info_from_core(ffi, lib, raw[i]) for i in range(count)]
