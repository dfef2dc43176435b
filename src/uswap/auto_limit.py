"""AutoLimit: the thread that keeps a pool's limit as low as its program does not mind."""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

import psutil

from uswap._auto_rules import Rules, Sample
from uswap._core import Core, ffi, lib, live_cores, logger
from uswap._errors import BusyError, ClosedError, LimitError
from uswap._options import spare_memory
from uswap._sizes import PAGE_BYTES

_MIB = 1024 * 1024
DEFAULT_STALL = 0.02
# Between two samples; while the limit goes up, a part of it.
PERIOD_SECONDS = 0.25
_HURRY = 4
# Evicting for a lower limit may take up to a tenth of the time; the next step waits as long as that needs.
_EVICTING_SHARE = 10
# By one call into the core, which keeps others from making regions meanwhile.
_CHUNK_BYTES = 16 * _MIB
# Samples kept; and for how many seconds back the largest limit is the recommended one.
HISTORY = 960
STEADY_SECONDS = 10.0


class AutoLimit:
    """A daemon thread that adjusts the limit of a pool; Pool(limit="auto") makes it. Thread-safe.

    It lowers the limit, first to what is resident, then by up to 3 % four times a second, while the program waits
    for pages for less than the target share of its run time. It raises the limit at once when the program waits
    longer, and stays above the level that hurt; that one is tried again after 10 seconds, 20, and so on up to 10
    minutes.

    *Share of run time* is the time that threads waited for pages (Stats.stall_ns), first touches aside, by the time
    that they ran or waited; but never by less than the time that went by. So with one thread that is always busy it
    is the share of that thread's time, with eight the mean of their shares, and a program that mostly sleeps is not
    judged by the few moments in which it does not. The pool's other threads count as running.

    Attributes:
        stall: the target.
        limit_max: the largest limit in bytes. It starts there, and stays below if the machine or container cannot
            give as much by then.
        history: the last 960 samples (four minutes), oldest first; see Sample.
        error: what made it stop, or None. The limit is then the largest.

    Example:
        >>> import uswap
        >>> with uswap.Pool(limit="auto", stall=0.01, limit_max="1GiB") as pool:
        ...     pool.auto_limit.stall, pool.limit == pool.auto_limit.limit_max
        (0.01, True)
    """

    def __init__(self, core: Core, stall: float, limit_max: int) -> None:
        self.stall = stall
        self.limit_max = limit_max
        self.history: deque[Sample] = deque(maxlen=HISTORY)
        self.error: BaseException | None = None
        self._core = core
        self._rules = Rules(stall, limit_max)
        self._meter = Meter(_counters(core))
        # request_stop runs in finalizers too, which may interrupt a thread at any point: who pops this may release
        # the lock, and nobody but our own thread ever waits for it.
        self._work: deque[None] = deque([None])
        self._stopped = threading.Lock()
        self._stopped.acquire()
        self._thread = threading.Thread(target=self._run, name="uswap-auto-limit", daemon=True)
        core.auto_limit = self
        try:
            self._thread.start()
        except BaseException:
            self.request_stop()
            raise

    def __repr__(self) -> str:
        state = "running" if self.running else f"failed: {self.error}" if self.error else "stopped"
        return f"<uswap.AutoLimit stall={self.stall:g} {state}>"

    @property
    def running(self) -> bool:
        """True as long as it adjusts the limit."""
        return bool(self._work) and self._thread.is_alive()

    @property
    def recommended(self) -> int:
        """Bytes, whole MiB: the number for a container's memory request.

        It is the largest limit of the last ten seconds, or what was resident and some room where that was less,
        plus the most that the process had resident besides the pool within the history. The longer the program has
        done its usual work, the better it is.
        """
        return recommended(list(self.history) or [self._meter.last_as_sample()])

    def request_stop(self) -> None:
        """Lets the thread end; the limit stays as it is. Does not wait."""
        with contextlib.suppress(IndexError):
            self._work.pop()
            self._stopped.release()

    def join(self, timeout: float | None = None) -> None:
        """Waits, up to timeout seconds, until the thread has ended; not from the thread itself."""
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join(timeout)

    # ---- its thread ----------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            pause = PERIOD_SECONDS
            while not self._stopped.acquire(timeout=pause):
                pause = self._adjust()
        except ClosedError:
            pass
        except BaseException as error:
            self.error = error
            logger.exception("the auto limit has failed: the limit is now the largest")
            with contextlib.suppress(Exception):
                self._set(self.limit_max)
        finally:
            self.request_stop()

    def _adjust(self) -> float:
        """One sample and what follows from it; => seconds until the next."""
        # What this thread itself takes is no run time of the program: steps would make a sleeping one seem awake.
        sample = self._meter.sample(_counters(self._core, time.thread_time_ns()))
        self.history.append(sample)
        limit = self._rules.next_limit(sample)
        began = time.monotonic()
        if limit > sample.limit:
            self._raise_to(limit, sample)
        elif limit < sample.limit:
            self._lower_to(limit, sample)
        took = time.monotonic() - began
        if limit > sample.limit:
            return PERIOD_SECONDS / _HURRY
        return max(PERIOD_SECONDS, took * _EVICTING_SHARE)

    def _raise_to(self, limit: int, sample: Sample) -> None:
        given = sample.resident + spare_memory()
        if min(limit, given) > sample.limit:
            self._set(min(limit, given) // PAGE_BYTES * PAGE_BYTES)

    def _lower_to(self, limit: int, sample: Sample) -> None:
        now = min(sample.limit, max(limit, sample.resident))
        try:
            while self._work:
                self._set(now)
                if now == limit:
                    return
                now = max(limit, now - _CHUNK_BYTES)
        except (BusyError, LimitError):  # pinned or locked meanwhile, or swap is full; the limit is as before
            self._rules.refused()

    def _set(self, limit: int) -> None:
        self._core.call(lib.uswap_pool_set_limit, limit)


def recommended(samples: Sequence[Sample]) -> int:
    """AutoLimit.recommended after these samples, of which there is at least one.

    Example:
        >>> old, new = Sample(9.0, 900 << 20, 900 << 20, other=50 << 20), Sample(10.0, 64 << 20, 60 << 20)
        >>> recommended([old, new]) >> 20
        114
    """
    needed, seconds = 0, 0.0
    for sample in reversed(samples):
        needed = max(needed, sample.needed)
        seconds += sample.seconds
        if seconds >= STEADY_SECONDS:
            break
    total = needed + max(sample.other for sample in samples)
    return -(-total // _MIB) * _MIB


class Counters(NamedTuple):
    """What a sample is made from; see Stats. Times are in ns, and all but the last four only ever grow."""

    time_ns: int
    cpu_ns: int
    stall_ns: int
    faults: int
    zero_fills: int
    pages_in: int
    evictions: int
    limit: int
    resident: int
    held: int
    process: int


class Meter:
    """Makes samples of counters. Not thread-safe.

    A first touch takes time which no limit saves, and stall_ns contains it. What one takes is learned in periods in
    which there was nothing else, and taken off in the others.

    Example:
        >>> zero = Counters(*[0] * 11)
        >>> meter = Meter(zero)
        >>> meter.sample(zero._replace(time_ns=10**9, cpu_ns=10**9, stall_ns=10**8)).stall
        0.09090909090909091
    """

    # Fewer first touches than this say nothing about what one takes.
    _LEAST_TOUCHES = 64

    def __init__(self, start: Counters) -> None:
        self._last = start
        self.first_touch_ns = 0.0

    def last_as_sample(self) -> Sample:
        """The state of the last counters, as if nothing had happened."""
        last = self._last
        other = max(last.process - last.resident, 0)
        return Sample(0.0, last.limit, last.resident, last.held, other)

    def sample(self, now: Counters) -> Sample:
        """What was between the last counters and these."""
        last, self._last = self._last, now
        elapsed = max(now.time_ns - last.time_ns, 1)
        evicted = now.evictions - last.evictions
        stall = self._stall_ns(last, now, evicted)
        run_time = now.cpu_ns - last.cpu_ns + stall
        return self.last_as_sample()._replace(
            seconds=elapsed / 1e9,
            stall=min(stall / max(elapsed, run_time), 1.0),
            running=run_time / elapsed,
            evicted=evicted * PAGE_BYTES,
            read=(now.pages_in - last.pages_in) * PAGE_BYTES,
        )

    def _stall_ns(self, last: Counters, now: Counters, evicted: int) -> float:
        stall, touches = now.stall_ns - last.stall_ns, now.zero_fills - last.zero_fills
        if evicted == 0 and touches >= self._LEAST_TOUCHES and touches == now.faults - last.faults:
            mean = stall / touches
            self.first_touch_ns = (self.first_touch_ns + mean) / 2 if self.first_touch_ns else mean
        return max(stall - touches * self.first_touch_ns, 0.0)


def _counters(core: Core, own_cpu_ns: int = 0) -> Counters:
    raw: Any = ffi.new("uswap_stats *")
    core.call(lib.uswap_pool_stats, raw)
    return Counters(
        time_ns=time.monotonic_ns(),
        cpu_ns=time.process_time_ns() - own_cpu_ns,
        stall_ns=raw.stall_ns,
        faults=raw.faults,
        zero_fills=raw.zero_fills,
        pages_in=raw.pages_in,
        evictions=raw.evictions - raw.evictions_api,
        limit=raw.limit_bytes,
        resident=raw.resident_bytes,
        held=raw.locked_bytes + raw.pinned_bytes,
        process=psutil.Process().memory_info().rss,
    )


def checked_stall(stall: float) -> float:
    """stall, if it is a share above 0 and below 1. Raises ValueError, TypeError."""
    if isinstance(stall, bool) or not isinstance(stall, (int, float)):
        raise TypeError(f"stall must be a number, not {type(stall).__name__}")
    if not 0 < stall < 1:
        raise ValueError(f"stall must be a share of run time above 0 and below 1, not {stall}")
    return float(stall)


@atexit.register
def _stop_all() -> None:
    """At exit the threads end; the pools stay, for arrays are used until the very end."""
    running = [core.auto_limit for core in live_cores if core.owner_pid == os.getpid() and not core.freed]
    for auto_limit in running:
        if isinstance(auto_limit, AutoLimit):
            auto_limit.request_stop()
            auto_limit.join(timeout=5)
