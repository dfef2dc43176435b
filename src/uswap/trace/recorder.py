"""Recording: a live pool's touches on their way into a file; and the window that makes all of them visible."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
import time
from array import array
from pathlib import Path
from types import TracebackType
from typing import Any

from uswap._core import Core, check_error, ffi, lib, new_error
from uswap._errors import ArgumentError, ClosedError, UswapError
from uswap._sizes import PAGE_BYTES, parse_size
from uswap._stats import Stats, stats_from_core
from uswap.policy.interface import Batch
from uswap.policy.queue import Queue
from uswap.reclaimer import Reclaimer
from uswap.region import region_infos
from uswap.trace.format import KIND_SHIFT, MAGIC, VERSION, Header, Kind

# How long the thread waits for half a buffer of records before it writes what there is.
_WAIT_NS = 500_000_000
# A reclaimer that fails does not say so to who waits for it.
_CHECK_SECONDS = 0.1
# The reclaimer is called when so large a part of the window has come.
_PARTS_OF_WINDOW = 8


class Window:
    """Keeps no more than so many pages of a sample mapped: the others are made inactive: a touch of one is seen.

    It works beside the pool's policy, in the reclaimer's thread.
    """

    def __init__(self, pages: int, sample: float) -> None:
        self._mapped = Queue()
        self._pages = max(int(pages * sample), 1)
        self._sample = sample
        self.every = max(self._pages // _PARTS_OF_WINDOW, 1)
        self.at_work = threading.Event()  # all that was mapped before has been made inactive

    def beyond(self, seen: Batch) -> array[int]:
        """Stays of pages that are to be made inactive."""
        for arrived in (seen.kept, seen.read_ahead, seen.faulted, seen.rescued):
            self._mapped.push(_sampled(arrived, self._sample))
        return self._mapped.pop(len(self._mapped) - self._pages)


def _sampled(stays: memoryview, sample: float) -> array[int]:
    copied = array("Q", stays)
    if sample < 1 and copied:
        with ffi.from_buffer("uint64_t *", copied, require_writable=True) as buffer:
            kept = int(lib.uswap_trace_sampled(buffer, len(copied), sample))
        del copied[kept:]
    return copied


class Recording:
    """A trace that is being recorded; Pool.trace makes it. stop(), or the end of the with block, ends it.

    Attributes:
        path: the file.
        records: how many are in it so far.
        error: what ended it early (a full disk, say), or None.
    """

    def __init__(
        self,
        core: Core,
        reclaimer: Reclaimer | None,
        path: str | os.PathLike[str],
        sample: float,
        window: int | str | None,
    ) -> None:
        pages = 0 if window is None else max(parse_size(window, "window") // PAGE_BYTES, 1)
        if not 0 < sample <= 1:
            raise ArgumentError(f"sample must be above 0 and at most 1, not {sample}")
        if pages and (reclaimer is None or reclaimer.policy is None or not reclaimer.running):
            raise ArgumentError("window= needs a pool with a policy: its reclaimer makes pages inactive")
        self.path = Path(path)
        self.records = 0
        self.error: BaseException | None = None
        self._core = core
        self._reclaimer = reclaimer if pages else None
        self._first = _stats(core)
        self._file = self.path.open("wb", buffering=0)
        try:
            self._file.write(_head(core, self._first, sample, pages))
            core.call(lib.uswap_trace_start, sample, int(pages > 0))
        except BaseException:
            self._file.close()
            raise
        self._begun = time.monotonic_ns()
        self._thread = threading.Thread(target=self._run, name="uswap-trace", daemon=True)
        self._thread.start()
        if self._reclaimer is not None:
            self._watch(self._reclaimer, Window(pages, sample))

    @staticmethod
    def _watch(reclaimer: Reclaimer, window: Window) -> None:
        """Returns when touches are seen, or the reclaimer has failed."""
        reclaimer.watch(window)
        while not window.at_work.wait(_CHECK_SECONDS) and reclaimer.running:
            pass

    def __repr__(self) -> str:
        state = "ended" if self._file.closed else "running"
        return f"<uswap trace {os.fspath(self.path)!r} {state}, {self.records} records>"

    def __enter__(self) -> Recording:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Ends the trace and closes the file. Twice does nothing.

        Raises:
            OSError: what kept records from being written (also in error); the file has those before.
        """
        if self._reclaimer is not None:
            self._reclaimer.watch(None)
        with contextlib.suppress(ClosedError):
            self._core.call(lib.uswap_trace_stop)
        self._thread.join()
        if self.error is not None:
            raise self.error

    def _run(self) -> None:
        error = new_error()
        try:
            call = self._core.enter()
        except UswapError as closed:
            self.error = closed
            return
        try:
            self._write(call.pointer, error)
        except BaseException as failure:
            self.error = failure
            lib.uswap_trace_stop(call.pointer, new_error())
        finally:
            self._file.close()
            self._core.leave(call)

    def _write(self, pointer: Any, error: Any) -> None:
        while True:
            written = check_error(lib.uswap_trace_write(pointer, self._file.fileno(), _WAIT_NS, error), error)
            self.records += written
            if self._core.closing and not self._core.regions:
                lib.uswap_trace_stop(pointer, new_error())
            if not written and not lib.uswap_trace_running(pointer):
                break
        elapsed = time.monotonic_ns() - self._begun
        last = _stats_at(pointer)
        report = {"elapsed_ns": elapsed, "stats": _difference(self._first, last)}
        end = (Kind.END << KIND_SHIFT).to_bytes(8, sys.byteorder)
        self._file.write(end + json.dumps(report).encode())


def _stats_at(pointer: Any) -> Stats:
    raw, error = ffi.new("uswap_stats *"), new_error()
    check_error(lib.uswap_pool_stats(pointer, raw, error), error)
    return stats_from_core(ffi, lib, raw)


def _stats(core: Core) -> Stats:
    call = core.enter()
    try:
        return _stats_at(call.pointer)
    finally:
        core.leave(call)


def _difference(first: Stats, last: Stats) -> dict[str, Any]:
    """Counters and gauges as they have changed, and the names as they are."""
    before = first.as_dict()
    difference: dict[str, Any] = {}
    for name, value in last.as_dict().items():
        earlier = before[name]
        if isinstance(value, int) and isinstance(earlier, int):
            value -= earlier
        difference[name] = value
    return difference


def _head(core: Core, stats: Stats, sample: float, pages: int) -> bytes:
    regions = {info.key: {"name": info.name, "size_bytes": info.size} for info in region_infos(core)}
    header = Header(
        sample=sample,
        window_pages=pages,
        limit_bytes=stats.limit_bytes,
        capacity_frames=stats.capacity_frames,
        program=tuple(sys.argv),
        regions=regions,
        started=time.time(),
    ).to_json()
    return MAGIC + VERSION.to_bytes(4, "little") + len(header).to_bytes(4, "little") + header
