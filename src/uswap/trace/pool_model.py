"""PoolModel: what a pool does with its frames, without the memory.

A page is mapped, inactive or out, and each arrival gives it a new stay. The model differs from a live pool in what
time does: reclaim and writes end at once, so a policy is never late; nothing is pinned; nothing comes in but what
was touched.
"""

from __future__ import annotations

import dataclasses
from array import array
from collections import Counter, deque
from collections.abc import Mapping
from typing import Any

from uswap._errors import PolicyError
from uswap._stats import RegionInfo
from uswap.policy.interface import NEVER, Answer, Batch, Need, Policy, Stays
from uswap.policy.queue import as_array
from uswap.trace.format import REGION_BITS, REGION_MASK
from uswap.trace.frames import EVENTS_MAX, Frames
from uswap.trace.shadow import coarse
from uswap.trace.stay_list import GENERATION_BITS, GENERATION_MASK, StayList

# The core's own, in pages: what a fault without a frame drops, and what is carried out before the next are dropped
# (reclaim_batch_pages in csrc/pool.c, ORDERS_STEP in csrc/reclaim/reclaimer.c).
_FAULT_STEP = 64
_ORDERS_STEP = 128


class Events:
    """What a policy has not been told yet: the fields of Batch that are ever filled here."""

    __slots__ = ("aged", "distances", "evicted", "faulted", "marks", "rescued", "rescued_marks", "written")

    def __init__(self) -> None:
        self.faulted, self.rescued = array("Q"), array("Q")
        self.aged, self.written, self.evicted = array("Q"), array("Q"), array("Q")
        self.distances = array("I")
        self.marks, self.rescued_marks = array("B"), array("B")

    def as_batch(self) -> Batch:
        """Without copying."""
        return Batch(
            faulted=memoryview(self.faulted),
            distances=memoryview(self.distances),
            marks=memoryview(self.marks),
            rescued=memoryview(self.rescued),
            rescued_marks=memoryview(self.rescued_marks),
            aged=memoryview(self.aged),
            written=memoryview(self.written),
            evicted=memoryview(self.evicted),
        )


# Read-ahead follows so many streams in a region (csrc/swap/read_ahead.c), and passes over pages in memory: a miss
# so many pages from the last one of a stream goes on with it.
_STREAMS = 8
_STREAM_GAP = 64


class PoolModel:
    """A pool of so many frames; fault() is all that happens to it. It is the policy's View. Not thread-safe.

    A page that was read back and has not been written since is *sealed*: it can be dropped where it is mapped, so
    Answer.clean leaves it there, and no touch of it is seen.

    Attributes:
        mapped: pages in the regions, oldest arrival first. A touch of one of them is not seen by anybody.
        inactive: page key -> generation << 1 | mark, of pages that are out of the regions and in memory.
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
        stores: bool = False,
    ) -> None:
        """name: of the policy, for messages. regions: as in Header. reach: misses so far apart are sequential.
        stores: pages that were read back are written again, so that none stays sealed.

        Raises PolicyError if the policy's start() does."""
        self.frames = frames
        self.mapped = StayList()
        self.inactive: dict[int, int] = {}
        self.free = frames.capacity
        self._resting = 0  # frames of copies that wait for the next ones
        self.first_touches = self.misses = self.sequential_misses = self.rescues = 0
        self.evictions = self.core_evictions = self.decisions = 0
        self._policy, self._name, self._reach, self._stores = policy, name, reach, stores
        self._wants = frozenset(policy.wants) if policy else frozenset[str]()
        self._every = max(1, min(policy.every, EVENTS_MAX) * frames.events // EVENTS_MAX) if policy else 0
        self._out: dict[int, int] = {}  # page key -> evictions when it left, mark, generation
        self._waiting = deque[int]()  # stays, to be dropped in this order: inactive and listed ones...
        self._waiting_marked = deque[int]()  # ...and these, when there are no others
        self._listed = set[int]()  # of them, those that are mapped
        self._prepared = deque[int]()  # Answer.evict, what is left of it
        self._leaving = list[int]()  # of these, what has to be written first
        self._events, self._untold = Events(), 0
        self._named_regions = dict(regions or {})
        self._heads: dict[int, deque[int]] = {}  # region -> where its streams were last missed, the latest last
        if policy:
            self._call("start", policy.start, self)

    # ---- what a policy may ask (View) ----

    @property
    def capacity(self) -> int:
        """Frames for pages."""
        return self.frames.capacity

    def regions(self) -> Mapping[int, RegionInfo]:
        """Key -> what the trace says of the region, and its pages in memory and out of it."""
        inside = Counter(key & REGION_MASK for pages in (self.mapped.generations, self.inactive) for key in pages)
        outside = Counter(key & REGION_MASK for key in self._out)
        return {
            region: _region_info(region, self._named_regions.get(region, {}), inside[region], outside[region])
            for region in sorted({*self._named_regions, *inside, *outside})
        }

    def current(self, stays: Stays) -> array[int]:
        """Those of the stays that have not ended, in their order."""
        mapped, inactive, kept = self.mapped.generations, self.inactive, array("Q")
        for stay in as_array(stays):
            key, generation = stay >> GENERATION_BITS, stay & GENERATION_MASK
            if mapped.get(key) == generation or inactive.get(key, -1) >> 1 == generation:
                kept.append(stay)
        return kept

    # ---- faults ----

    def fault(self, touch: int) -> None:
        """A touch of a page that is not mapped: its page key, or ~key if it has no contents that could be read."""
        key = touch
        if touch < 0:
            key = ~touch
            if key in self.mapped.generations:
                return  # discarded and touched again: it keeps its frame
        trial = self.inactive.pop(key, None)
        if trial is not None:
            self._rescue(key << GENERATION_BITS | ((trial >> 1) + 1) & GENERATION_MASK, trial & 1)
            return
        past = self._out.pop(key, None)
        stay, distance, mark = key << GENERATION_BITS, NEVER, 0
        if past is not None:
            stay |= (past + 1) & GENERATION_MASK
        if past is None or touch < 0:
            self.first_touches += 1
        else:
            mark = past >> GENERATION_BITS & 1
            distance = coarse(self.evictions - (past >> GENERATION_BITS + 1))
            self._count_miss(key)
        self._map(stay, distance, mark)

    def _map(self, stay: int, distance: int, mark: int) -> None:
        if self.free <= 0:
            self._take_a_frame()
        self.free -= 1
        self.mapped.add(stay)
        if self._policy:
            events = self._events
            events.faulted.append(stay)
            events.distances.append(distance)
            events.marks.append(mark)
            self._untold += 1
        if self.free < self.frames.low:
            self._reclaim()
        elif self._policy and self._untold >= self._every:
            self._decide()

    def _rescue(self, stay: int, mark: int) -> None:
        self.rescues += 1
        self.mapped.add(stay)
        if self._policy:
            self._events.rescued.append(stay)
            self._events.rescued_marks.append(mark)
            self._untold += 1
            if self._untold >= self._every:
                self._decide()

    def _count_miss(self, key: int) -> None:
        self.misses += 1
        region, page = key & REGION_MASK, key >> REGION_BITS
        heads = self._heads.setdefault(region, deque(maxlen=_STREAMS))
        for head in heads:
            if 0 < abs(page - head) <= self._reach * _STREAM_GAP:
                self.sequential_misses += 1
                heads.remove(head)
                break
        heads.append(page)

    # ---- reclaim ----

    def _reclaim(self) -> None:
        if self._policy:
            if not self._dropped_prepared(self.frames.high - self.free):
                self._decide()
        else:
            self._reclaim_as_core(self.frames.high - self.free)
            self._rest_oldest(self.frames.inactive - len(self._waiting) - max(0, self.free - self.frames.high))

    def _dropped_prepared(self, short: int) -> bool:
        """Whether what is prepared is enough: then the policy is not asked again."""
        return len(self._prepared) >= short and self._drop(short, prepared_only=True) >= short

    def _reclaim_as_core(self, count: int) -> None:
        """What was to leave anyway, then what came first."""
        count -= self._drop(count)
        count -= self._write_out(len(self._leaving)) if count > 0 else 0
        oldest = self.mapped.take_oldest(count)
        self.core_evictions += len(oldest)
        for stay in oldest:
            self._have_left(stay, 0)

    def _rest_oldest(self, count: int) -> None:
        """The next to leave become inactive, or listed if they are sealed."""
        for stay in self.mapped.leave_order(count):
            self._clean(stay)

    def _take_a_frame(self) -> None:
        """For a fault that finds none."""
        if not self._resting and not self._drop(_FAULT_STEP):
            self._reclaim_as_core(1)
        if self.free <= 0:
            self._use_resting()

    def _use_resting(self) -> None:
        if self._resting:
            self._resting -= 1
            self.free += 1

    def _drop(self, count: int, *, prepared_only: bool = False) -> int:
        """What is prepared, then what waits; => frames that came free."""
        freed, mapped = 0, self.mapped
        prepared = self._prepared
        while prepared and freed < count:
            stay = prepared.popleft()
            if self._drop_inactive(stay):
                freed += 1
            elif stay in mapped:
                if self._is_sealed(stay):
                    self._drop_mapped(stay)
                    freed += 1
                else:
                    self._leaving.append(stay)
        for waiting in () if prepared_only else (self._waiting, self._waiting_marked):
            while waiting and freed < count:
                stay = waiting.popleft()
                if stay in self._listed:
                    self._drop_mapped(stay)
                    freed += 1
                else:
                    freed += self._drop_inactive(stay)
        return freed

    def _drop_inactive(self, stay: int) -> bool:
        trial = self.inactive.get(stay >> GENERATION_BITS, -1)
        if trial >> 1 != stay & GENERATION_MASK:
            return False
        del self.inactive[stay >> GENERATION_BITS]
        self._have_left(stay, trial & 1)
        if self._resting < self.frames.resting and self._is_sealed(stay):
            self._resting += 1
            self.free -= 1
        return True

    def _drop_mapped(self, stay: int) -> None:
        self.mapped.take(stay)
        self._have_left(stay, 0)

    def _have_left(self, stay: int, mark: int) -> None:
        self.evictions += 1
        self._out[stay >> GENERATION_BITS] = (
            self.evictions << GENERATION_BITS + 1 | mark << GENERATION_BITS | stay & GENERATION_MASK
        )
        self.free += 1
        self._listed.discard(stay)
        if "evicted" in self._wants:
            self._note(stay, "evicted")

    # ---- the policy ----

    def _note(self, stay: int, *what: str) -> None:
        for kind in what:
            if kind in self._wants:
                getattr(self._events, kind).append(stay)
                self._untold += 1

    def _decide(self) -> None:
        events, self._events, self._untold = self._events, Events(), 0
        self.decisions += 1
        short = max(0, self.frames.high - self.free)
        need = Need(
            frames=short,
            capacity=self.frames.capacity,
            mapped=len(self.mapped),
            inactive=len(self.inactive) + len(self._listed),
            target=self.frames.inactive,
            prepared=len(self._prepared),
            evictions=self.evictions,
        )
        assert self._policy
        answer = self._call("decide", self._policy.decide, events.as_batch(), need)
        self._obey(Answer() if answer is None else answer, short)

    def _call(self, method: str, function: Any, *arguments: Any) -> Any:
        try:
            return function(*arguments)
        except Exception as error:
            raise PolicyError(
                f"the policy {self._name} raised in {method}(): {type(error).__name__}: {error}"
            ) from error

    def _obey(self, answer: Answer, short: int) -> None:
        """Frees frames as far as they are short, and carries out the orders, in turns; there is nothing to read
        ahead of. What that leaves short is the core's."""
        if not isinstance(answer, Answer):
            raise PolicyError(f"the policy {self._name} answered {answer!r:.100}, not an Answer or None")
        self._prepared.extend(self._stays(answer, "evict"))
        orders = (
            (self._clean, self._stays(answer, "clean")),
            (self._age, self._stays(answer, "age")),
            (self._age_marked, self._stays(answer, "age_marked")),
        )
        self._stays(answer, "read_ahead")
        for carry_out, stays in orders:
            for start in range(0, len(stays), _ORDERS_STEP):
                short -= self._drop(min(short, _ORDERS_STEP))
                self._write_out(_ORDERS_STEP)
                for stay in stays[start : start + _ORDERS_STEP]:
                    carry_out(stay)
        short -= self._drop(short)
        self._write_out(len(self._leaving))
        if self.free < self.frames.low:
            self._reclaim_as_core(min(short, self.frames.high - self.free))

    def _write_out(self, count: int) -> int:
        """What is to be evicted and was mapped; => frames that came free."""
        some, before = self._leaving[:count], self.free
        del self._leaving[:count]
        for stay in some:
            if not self._drop_inactive(stay) and stay in self.mapped:
                self._drop_mapped(stay)
        return self.free - before

    def _clean(self, stay: int) -> None:
        if not self._is_sealed(stay):
            self._make_inactive(stay, 0, "aged", "written")
        elif stay in self.mapped and stay not in self._listed:
            self._listed.add(stay)
            self._waiting.append(stay)

    def _age(self, stay: int) -> None:
        self._make_inactive(stay, 0, "aged")

    def _age_marked(self, stay: int) -> None:
        self._make_inactive(stay, 1, "aged")

    def _make_inactive(self, stay: int, mark: int, *what: str) -> None:
        if self.mapped.take(stay):
            if self._is_sealed(stay):
                self._use_resting()  # a copy
            self.inactive[stay >> GENERATION_BITS] = (stay & GENERATION_MASK) << 1 | mark
            waiting = self._waiting_marked if mark else self._waiting
            waiting.append(stay)
            self._listed.discard(stay)
            if len(waiting) > 4 * self.frames.capacity:
                current = self.current(waiting)
                waiting.clear()
                waiting.extend(current)
            if self._wants:
                self._note(stay, *what)

    def _is_sealed(self, stay: int) -> bool:
        """Whether it was read back; the first stay of a page is one in which it was written."""
        return not self._stores and stay & GENERATION_MASK != 0

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
