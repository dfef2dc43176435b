"""Reclaimer: the Python thread that steers reclaim."""

from __future__ import annotations

import atexit
import contextlib
import math
import os
import threading
import time
import warnings
from collections import deque
from typing import Any, ClassVar

from uswap._core import Core, check_error, ffi, lib, live_cores, logger, new_error
from uswap._errors import ClosedError, UswapError, UswapWarning
from uswap.policy.connection import Connection, Watcher
from uswap.policy.interface import Policy

# Pages a call, at most. A call ends when the high watermark is reached and its writes have ended.
BATCH_PAGES = 65536
# How long one wait lasts at most; it ends at once when there is something to do.
_WAIT_NS = 1_000_000_000
# After a batch in which nothing could be evicted: pages are pinned or locked, or swap is full.
_PAUSE_NS = 10_000_000
# How long a policy that is being asked holds up who closes the pool; and between two looks whether it still is.
_POLICY_JOIN_SECONDS = 1.0
_JOIN_STEP_SECONDS = 0.05


class Reclaimer:
    """A daemon thread that evicts pages whenever free frames fall below the low watermark. Pool makes it.

    Which pages leave is asked of its policy (uswap.Policy); without one they leave in the order in which they came.
    All work is done by the core with the GIL released. When this thread is late (it needs the GIL for an
    instant between batches), has failed or has stopped, the native reclaimer does the work. Thread-safe.

    Attributes:
        policy: the Policy that it asks, or None.
        error: what made it stop, or None: also what its policy raised.
        trouble: the counters of Stats that it has warned of, such as "swap_full_events".
    """

    def __init__(self, core: Core, policy: Policy | None = None) -> None:
        self._core = core
        self.policy = policy
        # Not a threading.Event: request_stop also runs in finalizers, which may interrupt a thread inside the
        # Event's lock.
        self._work: deque[None] = deque([None])
        self.error: BaseException | None = None
        self.trouble: set[str] = set()
        self._connection: Connection | None = None
        self._window: Watcher | None = None
        core.call(lib.uswap_reclaimer_attach)
        self._thread = threading.Thread(target=self._run, name="uswap-reclaimer", daemon=True)
        core.reclaimer = self
        try:
            self._thread.start()
        except BaseException:
            self.request_stop()
            raise

    def __repr__(self) -> str:
        state = "running" if self.running else f"failed: {self.error}" if self.error else "stopped"
        return f"<uswap.Reclaimer {state}>"

    @property
    def running(self) -> bool:
        """True as long as this thread steers reclaim."""
        return bool(self._work) and self._thread.is_alive()

    def watch(self, window: Watcher | None) -> None:
        """From now on pages beyond the window are made inactive; None: no more. For a trace."""
        self._window = window
        if self._connection is not None:
            self._connection.window = window
        with contextlib.suppress(ClosedError):
            self._core.call(lib.uswap_policy_wake)

    def request_stop(self) -> None:
        """Hands reclaim to the native reclaimer and lets the thread end. Does not wait."""
        try:
            self._work.pop()
        except IndexError:
            return
        with contextlib.suppress(UswapError):
            self._core.call(lib.uswap_reclaimer_detach)

    def join(self, timeout: float | None = None) -> None:
        """Waits, up to timeout seconds, until the thread has ended; not from the thread itself. A policy that is
        asked and does not answer is waited for no longer than a second: the thread ends when it does, and frees
        the core then."""
        if threading.current_thread() is self._thread:
            return
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        asked_longest = time.monotonic() + _POLICY_JOIN_SECONDS
        while self._thread.is_alive() and time.monotonic() < deadline:
            self._thread.join(min(_JOIN_STEP_SECONDS, max(deadline - time.monotonic(), 0)))
            if self._connection is None or not self._connection.asking:
                asked_longest = time.monotonic() + _POLICY_JOIN_SECONDS
            elif time.monotonic() > asked_longest:
                logger.warning("the policy %r does not come back: its thread is left to itself", self.policy)
                return

    def _run(self) -> None:
        core = self._core
        try:
            call = core.enter()
        except ClosedError:
            return
        try:
            if self.policy is None:
                self._steer(call.pointer)
            else:
                self._steer_by(self.policy, call.pointer)
        except BaseException as error:
            self.error = error
            logger.exception("the Python reclaimer has failed; the native one goes on")
        finally:
            self.request_stop()
            core.leave(call)

    def _steer(self, pointer: Any) -> None:
        error = new_error()
        pressure = ffi.new("uswap_pressure *")
        trouble = Trouble(pointer, self.trouble)
        while self._work:
            check_error(lib.uswap_reclaimer_wait(pointer, _WAIT_NS, pressure, error), error)
            trouble.look()
            reclaiming = pressure.free_frames < pressure.low_frames
            while reclaiming and self._work and not pressure.stopping:
                evicted = check_error(lib.uswap_reclaimer_evict(pointer, BATCH_PAGES, error), error)
                if not evicted:
                    trouble.look()
                # When nothing could leave, the core lets a while pass: pins end without a sign.
                check_error(lib.uswap_reclaimer_wait(pointer, 0 if evicted else _PAUSE_NS, pressure, error), error)
                reclaiming = pressure.free_frames < pressure.high_frames
            if pressure.stopping:
                return

    def _steer_by(self, policy: Policy, pointer: Any) -> None:
        error = new_error()
        pressure = ffi.new("uswap_pressure *")
        trouble = Trouble(pointer, self.trouble)
        core = self._core
        connection = self._connection = Connection(core, pointer, policy)
        connection.window = self._window
        failed = True
        try:
            connection.attach()
            while self._work:
                check_error(lib.uswap_reclaimer_wait(pointer, _WAIT_NS, pressure, error), error)
                if pressure.stopping or not self._work:
                    break
                trouble.look()
                if not connection.step() and pressure.free_frames < pressure.low_frames:
                    trouble.look()
                    check_error(lib.uswap_reclaimer_wait(pointer, _PAUSE_NS, pressure, error), error)
            failed = False
        except ClosedError:
            failed = False
        finally:
            connection.detach(failed)


class Trouble:
    """Says aloud, once each, what the core can only count: faults go on, so nothing raises."""

    KINDS: ClassVar[dict[str, str]] = {
        "swap_full_events": "swap is full: pages stay in memory; add a swap area (Pool.swapon) or free memory",
        "over_limit_events": "the limit is exceeded: nothing can be evicted (swap is full, or all is locked)",
        "write_errors": "the swap disk refused a write: the page stays in memory and the slot is not used again",
        "read_errors": "the swap disk refused a read: a page is lost; region.verify() says which",
        "hash_errors": "a page came back from the swap disk changed and is lost; region.verify() says which",
    }

    def __init__(self, pointer: Any, said: set[str]) -> None:
        self._pointer = pointer
        self._said = said
        self._stats = ffi.new("uswap_stats *")

    def look(self) -> None:
        """Compares the counters with what was said."""
        error = new_error()
        check_error(lib.uswap_pool_stats(self._pointer, self._stats, error), error)
        for kind, text in self.KINDS.items():
            if kind not in self._said and getattr(self._stats, kind) > 0:
                self._said.add(kind)
                try:
                    warnings.warn(text, UswapWarning, stacklevel=2)
                except UswapWarning:  # warnings are errors: this one would end the reclaimer, and reach nobody
                    logger.warning(text)


@atexit.register
def _stop_all() -> None:
    """At exit the threads end; the pools stay, for arrays are used until the very end."""
    reclaimers = [core.reclaimer for core in live_cores if core.owner_pid == os.getpid() and not core.freed]
    for reclaimer in reclaimers:
        if isinstance(reclaimer, Reclaimer):
            reclaimer.request_stop()
            reclaimer.join(timeout=5)
