"""PoolModel: what a pool does with its frames, without the memory.

A page is mapped, inactive or out, and each arrival gives it a new stay. The model differs from a live pool in what
time does: reclaim and writes end at once, so a policy is never late; nothing is pinned; nothing comes in but what
was touched.
"""

from __future__ import annotations

import dataclasses
from array import array
from collections import Counter
from collections.abc import Mapping
from typing import Any

from uswap._errors import PolicyError
from uswap._stats import RegionInfo
from uswap.policy.interface import NEVER, Answer, Batch, Need, Policy, Stays
from uswap.policy.queue import as_array
from uswap.trace.format import REGION_BITS, REGION_MASK
from uswap.trace.frames import Frames
from uswap.trace.stay_list import GENERATION_BITS, GENERATION_MASK, StayList

# A policy that frees a frame at a time is asked so often for one high watermark, no more.
_ROUNDS_MAX = 1000


class Events:
    """What a policy has not been told yet: the fields of Batch that are ever filled here."""

    __slots__ = ("aged", "distances", "evicted", "faulted", "rescued", "written")

    def __init__(self) -> None:
        self.faulted, self.rescued = array("Q"), array("Q")
        self.aged, self.written, self.evicted = array("Q"), array("Q"), array("Q")
        self.distances = array("I")

    def as_batch(self) -> Batch:
        """Without copying."""
        return Batch(
            faulted=memoryview(self.faulted),
            distances=memoryview(self.distances),
            rescued=memoryview(self.rescued),
            aged=memoryview(self.aged),
            written=memoryview(self.written),
            evicted=memoryview(self.evicted),
        )


class PoolModel:
    """A pool of so many frames; fault() is all that happens to it. It is the policy's View. Not thread-safe.

    Attributes:
        mapped: pages in the regions, oldest arrival first. A touch of one of them is not seen by anybody.
        inactive: pages out of the regions, oldest first.
        free: frames without a page.
        first_touches, misses, sequential_misses, rescues, evictions, core_evictions, decisions: as in Simulated.
    """

    def __init__(
        self,
        frames: Frames,
        policy: Policy | None,
        name: str = "",
        regions: Mapping[int, Mapping[str, Any]] | None = None,
        reach: int = 1,
    ) -> None:
        """name: of the policy, for messages. regions: as in Header. reach: misses so far apart are sequential.

        Raises PolicyError if the policy's start() does."""
        self.frames = frames
        self.mapped, self.inactive = StayList(), StayList()
        self.free = frames.capacity
        self.first_touches = self.misses = self.sequential_misses = self.rescues = 0
        self.evictions = self.core_evictions = self.decisions = 0
        self._policy, self._name, self._reach = policy, name, reach
        self._wants = frozenset(policy.wants) if policy else frozenset[str]()
        self._out: dict[int, int] = {}  # page key -> evictions when it left << 10 | generation
        self._events, self._untold = Events(), 0
        self._named_regions = dict(regions or {})
        self._last_miss: dict[int, int] = {}  # region -> page
        if policy:
            self._call("start", policy.start, self)

    # ---- what a policy may ask (View) ----

    @property
    def capacity(self) -> int:
        """Frames for pages."""
        return self.frames.capacity

    def regions(self) -> Mapping[int, RegionInfo]:
        """Key -> what the trace says of the region, and its pages in memory and out of it."""
        inside = Counter(key & REGION_MASK for pages in (self.mapped, self.inactive) for key in pages.generations)
        outside = Counter(key & REGION_MASK for key in self._out)
        return {
            region: _region_info(region, self._named_regions.get(region, {}), inside[region], outside[region])
            for region in sorted({*self._named_regions, *inside, *outside})
        }

    def current(self, stays: Stays) -> array[int]:
        """Those of the stays that are not out of date, in their order."""
        mapped, inactive = self.mapped, self.inactive
        return array("Q", [stay for stay in as_array(stays) if stay in mapped or stay in inactive])

    # ---- faults ----

    def fault(self, touch: int) -> None:
        """A touch of a page that is not mapped: its page key, or ~key if it has no contents that could be read."""
        key = touch
        if touch < 0:
            key = ~touch
            if key in self.mapped.generations:
                return  # discarded and touched again: it keeps its frame
        generation = self.inactive.generations.pop(key, None)
        if generation is not None:
            self._rescue(key << GENERATION_BITS | (generation + 1) & GENERATION_MASK)
            return
        past = self._out.pop(key, None)
        stay, distance = key << GENERATION_BITS, NEVER
        if past is not None:
            stay |= (past + 1) & GENERATION_MASK
        if past is None or touch < 0:
            self.first_touches += 1
        else:
            distance = min(self.evictions - (past >> GENERATION_BITS), NEVER - 1)
            self._count_miss(key)
        self._map(stay, distance)

    def _map(self, stay: int, distance: int) -> None:
        if self.free <= 0:
            self._take_a_frame()
        self.free -= 1
        self.mapped.add(stay)
        if self._policy:
            self._events.faulted.append(stay)
            self._events.distances.append(distance)
            self._untold += 1
        if self.free < self.frames.low:
            self._reclaim()
        elif self._untold >= self.frames.events:
            self._decide()

    def _rescue(self, stay: int) -> None:
        self.rescues += 1
        self.mapped.add(stay)
        if self._policy:
            self._events.rescued.append(stay)
            self._untold += 1
            if self._untold >= self.frames.events:
                self._decide()

    def _count_miss(self, key: int) -> None:
        self.misses += 1
        region, page = key & REGION_MASK, key >> REGION_BITS
        if 0 < abs(page - self._last_miss.get(region, page)) <= self._reach:
            self.sequential_misses += 1
        self._last_miss[region] = page

    # ---- reclaim ----

    def _reclaim(self) -> None:
        """The policy, until the high watermark is reached; the core, if that leaves less than the low one."""
        if self._policy:
            for _ in range(_ROUNDS_MAX):
                before = self.free
                self._decide()
                self._drop_inactive(self.frames.high - self.free)
                if self.free >= self.frames.high or self.free <= before:
                    break
            if self.free >= self.frames.low:
                return
        self._reclaim_as_core()

    def _reclaim_as_core(self) -> None:
        """Oldest inactive ones, then oldest arrivals; and the next ones become inactive."""
        self._drop_inactive(self.frames.high - self.free)
        self._drop_mapped(self.frames.high - self.free)
        for stay in self.mapped.take_oldest(self.frames.inactive - len(self.inactive)):
            self.inactive.add(stay)
            if self._wants:
                self._note(stay, "aged", "written")

    def _take_a_frame(self) -> None:
        """For a fault that finds none."""
        if self.inactive:
            self._drop_inactive(1)
        else:
            self._drop_mapped(1)

    def _drop_inactive(self, count: int) -> None:
        self._have_left(self.inactive.take_oldest(count))

    def _drop_mapped(self, count: int) -> None:
        dropped = self.mapped.take_oldest(count)
        self.core_evictions += len(dropped)
        self._have_left(dropped)

    def _have_left(self, stays: list[int]) -> None:
        out, evictions = self._out, self.evictions
        for stay in stays:
            evictions += 1
            out[stay >> GENERATION_BITS] = evictions << GENERATION_BITS | stay & GENERATION_MASK
        self.evictions = evictions
        self.free += len(stays)
        if "evicted" in self._wants:
            self._events.evicted.extend(stays)
            self._untold += len(stays)

    # ---- the policy ----

    def _note(self, stay: int, *what: str) -> None:
        for kind in what:
            if kind in self._wants:
                getattr(self._events, kind).append(stay)
                self._untold += 1

    def _decide(self) -> None:
        events, self._events, self._untold = self._events, Events(), 0
        self.decisions += 1
        need = Need(
            frames=max(0, self.frames.high - self.free),
            capacity=self.frames.capacity,
            mapped=len(self.mapped),
            inactive=len(self.inactive),
            target=self.frames.inactive,
            evictions=self.evictions,
        )
        assert self._policy
        answer = self._call("decide", self._policy.decide, events.as_batch(), need)
        if answer is not None:
            self._obey(answer)

    def _call(self, method: str, function: Any, *arguments: Any) -> Any:
        try:
            return function(*arguments)
        except Exception as error:
            raise PolicyError(
                f"the policy {self._name} raised in {method}(): {type(error).__name__}: {error}"
            ) from error

    def _obey(self, answer: Answer) -> None:
        """In the order of Answer; there is nothing to read ahead of."""
        if not isinstance(answer, Answer):
            raise PolicyError(f"the policy {self._name} answered {answer!r:.100}, not an Answer or None")
        for stay in self._stays(answer, "evict"):
            if self.mapped.take(stay) or self.inactive.take(stay):
                self._have_left([stay])
        for stay in self._stays(answer, "clean"):
            self._make_inactive(stay, "aged", "written")
        for stay in self._stays(answer, "age"):
            self._make_inactive(stay, "aged")
        self._stays(answer, "read_ahead")

    def _make_inactive(self, stay: int, *what: str) -> None:
        if self.mapped.take(stay):
            self.inactive.add(stay)
            if self._wants:
                self._note(stay, *what)

    def _stays(self, answer: Answer, field: str) -> array[int]:
        try:
            return as_array(getattr(answer, field))
        except (TypeError, ValueError, OverflowError) as error:
            raise PolicyError(f"the policy {self._name} answered with no stays in {field!r}: {error}") from error


def _region_info(region: int, named: Mapping[str, Any], inside: int, outside: int) -> RegionInfo:
    """What a trace does not know is 0, "" or the default of a live region."""
    known = {
        **named,
        "id": region,
        "size": named.get("size_bytes", 0),
        "resident": inside * 4096,
        "swapped": outside * 4096,
    }
    blank = {"name": "", "fault_mode": "thread"}
    fields = [field.name for field in dataclasses.fields(RegionInfo)]
    return RegionInfo(**{name: known.get(name, blank.get(name, 0)) for name in fields})
