"""Connection: a policy at work on a live pool, by the core's uswap_policy_* calls."""

from __future__ import annotations

import threading
from array import array
from collections.abc import Mapping
from typing import Any, Literal, Protocol

from uswap._core import Core, check_error, ffi, lib, new_error
from uswap._stats import RegionInfo
from uswap.policy.interface import Answer, Batch, Need, Policy, SharedBatch, Stays
from uswap.policy.queue import as_array
from uswap.region import region_infos

_ALWAYS = ("FAULTED", "RESCUED", "READ_AHEAD", "KEPT")
_ACTIONS = ("evict", "clean", "age", "age_marked", "read_ahead")  # in the order of uswap_action


class Watcher(Protocol):
    """Makes pages inactive beside the policy, so that touches are seen (uswap.trace)."""

    every: int
    at_work: threading.Event  # set when its first pages have become inactive

    def beyond(self, seen: Batch) -> array[int]: ...


class Connection:
    """Between a policy and its pool. For one thread, the reclaimer's; it is a View for the policy.

    Raises (all methods): what the policy raises; TypeError, ValueError for answers that are none; UswapError.
    """

    def __init__(self, core: Core, pointer: Any, policy: Policy) -> None:
        if not isinstance(policy, Policy):
            raise TypeError(f"a policy is an instance of uswap.Policy, not {type(policy).__name__}")
        self._core = core
        self._pointer = pointer
        self._policy = policy
        self._events = ffi.new("uswap_events *")
        self._need = ffi.new("uswap_need *")
        self._shared = ffi.new("uswap_shared_events *")
        self._wants = policy.wants - {"shared"}
        self.asking = False  # the policy is at work, or its answer is being read
        self.capacity = 0
        self.window: Watcher | None = None  # set by anybody; in use after the next look
        self._watched: Watcher | None = None

    def attach(self) -> None:
        """From now on the core notes what happens, and pages leave by the policy's orders."""
        self._listen(self._policy.every)
        self.asking = True
        self._policy.start(self)
        self.asking = False

    def _listen(self, every: int) -> None:
        """The first events are all pages there are."""
        names = [*_ALWAYS, *(name.upper() for name in self._wants)]
        wanted = 0
        for name in names:
            wanted |= 1 << int(getattr(lib, f"USWAP_EVENT_{name}"))
        error = new_error()
        check_error(lib.uswap_policy_attach(self._pointer, wanted, every, error), error)
        if "shared" in self._policy.wants:
            check_error(lib.uswap_policy_shared_listen(self._pointer, every, error), error)
        stats = ffi.new("uswap_stats *")
        check_error(lib.uswap_pool_stats(self._pointer, stats, error), error)
        self.capacity = int(stats.capacity_frames)

    def detach(self, failed: bool) -> None:
        """The core goes on by itself."""
        lib.uswap_policy_detach(self._pointer, failed, new_error())

    def step(self) -> int:
        """One decision, carried out; => how many pages have left or are leaving."""
        error, more = new_error(), True
        if self._watched is not self.window:
            self._watched = self.window
            self._listen(self._watched.every if self._watched else self._policy.every)
        while more:
            check_error(lib.uswap_policy_events(self._pointer, self._events, self._need, error), error)
            more = bool(self._events.more)
            seen = self._batch()
            self.asking = True
            self._order(self._policy.decide(seen, self._needed()))
            self.asking = False
            if self._watched is not None:
                self._order(Answer(age=self._watched.beyond(seen)))
        left = check_error(lib.uswap_policy_step(self._pointer, error), error)
        if self._watched is not None:
            self._watched.at_work.set()
        return left

    def _batch(self) -> Batch:
        events = self._events
        fields = {name.lower(): self._stays(getattr(lib, f"USWAP_EVENT_{name}")) for name in _ALWAYS}
        wanted = {name: self._stays(getattr(lib, f"USWAP_EVENT_{name.upper()}")) for name in self._wants}
        faulted, rescued = len(fields["faulted"]), len(fields["rescued"])
        return Batch(
            **fields,
            **wanted,
            distances=_view(events.distances, faulted, "I"),
            marks=_view(events.marks, faulted, "B"),
            rescued_marks=_view(events.rescued_marks, rescued, "B"),
            lost=bool(events.lost),
            shared=self._shared_batch(),
        )

    def _shared_batch(self) -> SharedBatch:
        if "shared" not in self._policy.wants:
            return SharedBatch()
        events, error = self._shared, new_error()
        check_error(lib.uswap_policy_shared_events(self._pointer, events, error), error)
        count = int(events.count)
        return SharedBatch(
            _view(events.stays, count, "Q"),
            _view(events.distances, count, "I"),
            _view(events.users, count, "B"),
            bool(events.lost),
            int(events.short_frames),
            int(events.capacity_frames),
            int(events.prepared_frames),
        )

    def _stays(self, kind: int) -> memoryview:
        return _view(self._events.stays[kind], int(self._events.counts[kind]), "Q")

    def _needed(self) -> Need:
        need = self._need
        self.capacity = int(need.capacity_frames)
        return Need(
            int(need.short_frames),
            self.capacity,
            int(need.mapped_frames),
            int(need.inactive_frames),
            int(need.target_frames),
            int(need.evictions),
            int(need.prepared_frames),
            int(need.filled),
        )

    def _order(self, answer: Answer | None) -> None:
        if answer is None:
            return
        if not isinstance(answer, Answer):
            raise TypeError(f"decide() must return an Answer or None, not {type(answer).__name__}")
        error = new_error()
        for action, name in enumerate(_ACTIONS):
            stays = as_array(getattr(answer, name))
            if stays:
                buffer = ffi.from_buffer("uint64_t *", stays)
                check_error(lib.uswap_policy_order(self._pointer, action, buffer, len(stays), error), error)
        shared = as_array(answer.evict_shared)
        if shared:
            buffer = ffi.from_buffer("uint64_t *", shared)
            check_error(lib.uswap_policy_shared_order(self._pointer, buffer, len(shared), error), error)

    # ---- what a policy may ask (View) ------------------------------------------------------------------------

    def regions(self) -> Mapping[int, RegionInfo]:
        """Key -> what is known of the region."""
        return {info.key: info for info in region_infos(self._core)}

    def current(self, stays: Stays) -> array[int]:
        """Those that are not out of date."""
        copied = as_array(stays)
        if not copied:
            return copied
        error = new_error()
        with ffi.from_buffer("uint64_t *", copied, require_writable=True) as buffer:
            kept = check_error(lib.uswap_policy_current(self._pointer, buffer, len(copied), error), error)
        del copied[kept:]
        return copied


def _view(pointer: Any, count: int, code: Literal["B", "I", "Q"]) -> memoryview:
    """A memoryview of so many numbers of the core's own."""
    size = array(code).itemsize
    if count == 0:
        return memoryview(array(code))
    return memoryview(ffi.buffer(pointer, count * size)).cast(code).toreadonly()
