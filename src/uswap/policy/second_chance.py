"""SecondChance: pages on trial, out of sight but in memory, and two sides that compete by how their trials end.

No processor tells user space which pages are used. So the oldest mapped pages are put on trial: taken out of
the region, kept in memory, inactive. A touch rescues such a page for the price of a soft fault; what nobody
touches leaves. (VAX/VMS and 4BSD did so: Babaoglu and Joy, "Converting a swap-based system to do paging in an
architecture lacking page-referenced bits", SOSP 1981.)

New pages and pages that were rescued once are on two *sides*, each with a queue of mapped and one of inactive
pages (S3-FIFO's small and main queue: Yang et al., "FIFO queues are all you need for cache eviction", SOSP
2023). The side gives way whose pages on trial are touched less often, for each page and eviction; when neither
is clearly better, the new ones, so that a scan passes without harm. Pages that come back soon after their
eviction (Linux: mm/workingset.c) have a long trial, among the active ones; but as soon as evictions of active
pages are regretted, only some of them do (Qureshi et al., "Adaptive insertion policies", ISCA 2007): then a
loop larger than memory keeps a part of itself, where least recently used would keep nothing.
"""

from __future__ import annotations

from array import array
from collections import deque
from itertools import compress
from operator import not_
from typing import Final

from uswap.policy._numpy import imported_numpy
from uswap.policy.interface import Answer, Batch, Need, Policy, Stays, View
from uswap.policy.queue import Queue, as_array

# Share of a side that is on trial. All that is seen of the new ones is seen there; of the active ones a sample is
# enough, and each touch on trial costs a soft fault.
_NEW_ON_TRIAL: Final = 5 / 8
_ACTIVE_ON_TRIAL: Final = 1 / 8
# Shares of memory: so little and so much may be new. Whoever reads faster than decisions are made has his frames
# from the new ones meanwhile: of these there are as many as were evicted between two decisions of late beyond
# what was prepared, up to a share.
_NEW_LEAST: Final = 1 / 20
_NEW_MOST: Final = 9 / 10
_NEW_FOR_FAST: Final = 1 / 4
# Evictions, as a share of memory, after which the fast estimate has forgotten half: a new phase of the program is
# noticed within a twentieth of memory.
_WINDOW: Final = 1 / 32
# One in so many of the pages that come back has a long trial: of those that come soon, once active ones have been
# missed, while none of these has to leave for it, and while some do; of those that come late; and of those where
# all come late, as in a loop.
_LUCKY_IF_ROOM: Final = 2
_LUCKY_SOON: Final = 8
_LUCKY_LATE: Final = 32
_LUCKY_STREAMS: Final = 16
# More than one in so many of the pages evicted of late were active: some have to leave.
_CROWDED: Final = 16
# Evictions, as a share of memory, after which others are lucky: of those that come soon (in a whole round of their
# loop the lucky ones would all be in memory, and nobody else would have a chance; and half of which pages left is
# forgotten then), and of those that come late (their round is longer).
_ROUND: Final = 1 / 16
_LONG_ROUND: Final = 2
# Active pages are missed when more than one in so many of those that were evicted comes back.
_REGRET: Final = 16
# What is prepared to leave beyond what must, as a share of memory: it is taken while nobody decides. Early
# decisions are worse ones (simulated, Zipf 0.8: 4 % more misses with 1/16), but not for streams, where all pages
# are alike, and many.
_PREPARED: Final = 1 / 64
_PREPARED_FOR_STREAMS: Final = 1 / 4
# Pages put on trial by one decision: so many for each evicted, and this share of memory: the disk is to follow.
_AGED_PER_EVICTED: Final = 4
_AGED_SHARE: Final = 1 / 64
# Touches on trial that say nothing.
_CHANCE: Final = 2
# Pages that one decision lets leave, or puts on trial: until they have, nothing is decided, and nothing forgotten
# that happens meanwhile (csrc/reclaim/events.h: EVENTS_MAX).
_MOST: Final = 1 << 14
# Between two looks at which side gives way, as a share of memory.
_LOOK: Final = 1 / 256

# Evictions, as a share of memory, in which what was read ahead is to be wanted: before, it is on no side. Eight
# windows of the largest size (csrc/swap/page_in_ahead.c: WINDOW_SHARE).
_AHEAD: Final = 1 / 2

# Refault distances beyond this are NEVER.
_FIRST_TOUCH: Final = 1 << 31

_ORDINARY, _LUCKY = 0, 1
_NONE: Final = array("Q")
# 512 pages of a region; and a multiplier that scatters their numbers (Knuth, TAOCP 3, 6.4: the golden ratio).
_BLOCK_SHIFT: Final = 28 + 9
_SCATTER: Final = 0x9E3779B97F4A7C15


class _Side:
    """Pages of one side, and how their trials have ended of late."""

    def __init__(self) -> None:
        self.mapped, self.inactive = Queue(), Queue()
        self.on_trial = 0  # of inactive, those that are still there
        self.rescued = self.exposed = 0.0  # fast: rescues, and pages on trial times evictions
        self.touched = self.watched = 0.0  # slow: the same with short refaults, and evicted pages that could be any
        self.missed = self.evicted = 0.0  # short refaults, evictions

    @property
    def pages(self) -> int:
        return len(self.mapped) + self.on_trial

    def forget(self) -> None:
        """Its pages, not how their trials have ended."""
        self.mapped, self.inactive, self.on_trial = Queue(), Queue(), 0

    def halve(self, *names: str) -> None:
        for name in names:
            setattr(self, name, getattr(self, name) / 2)


class SecondChance(Policy):
    """The default: see the head of this module.

    Example:
        >>> import uswap
        >>> with uswap.Pool(limit="64MiB", policy="second-chance") as pool:
        ...     a = pool.zeros((1 << 25,), dtype="f8")      # 256 MiB
        ...     a += 1
        ...     print(pool.reclaimer.error)
        None
    """

    def __init__(self) -> None:
        self.new, self.active = _Side(), _Side()
        self._ahead: deque[tuple[int, array[int]]] = deque()  # evictions when they came, pages read ahead
        self._capacity = 1
        self._streams = False  # all that comes is new, or comes back late
        self._round = self._long_round = 0  # pages are lucky in one round, or in another
        self._gone = self._gone_active = 0.0  # evictions of late, and those of active pages
        self._since_window = self._since_round = 0
        self._is_begun = False
        self._filled = 0  # pages of one value: these leave when they are aged, too
        self._foreseen = 0  # evictions, when all that is prepared has left
        self._pace = 0  # evictions beyond that until the next decision, the most of late
        self._is_told = False  # of all there is: something was missed

    def start(self, view: View) -> None:
        self._view = view

    def decide(self, seen: Batch, need: Need) -> Answer:
        self._capacity = max(need.capacity, 1)
        self._see(seen)
        self._wait_for(seen.read_ahead, need)
        unasked = self._unasked(need)
        self._agree_with(need)
        self._pace = max(unasked, self._pace * 7 // 8)
        prepared = int((_PREPARED_FOR_STREAMS if self._streams else _PREPARED) * self._capacity)
        evicted = self._evict(min(need.frames - need.prepared, _MOST), inactive_only=False)
        more = need.frames + prepared - need.prepared - len(evicted)
        evicted += self._evict(min(more, _MOST), inactive_only=True)
        self._foreseen = need.evictions + need.prepared + len(evicted)
        room = self._room_on_trial(len(evicted), unasked, need)
        aged, marked = self._age_new(room)
        marked += self._age_active(room)
        return Answer(evict=evicted, age=aged, age_marked=marked)

    # ---- what has come -----------------------------------------------------------------------------------------

    def _see(self, seen: Batch) -> None:
        new, active = self.new, self.active
        of_active = sum(seen.rescued_marks)
        for side, count in ((active, of_active), (new, len(seen.rescued) - of_active)):
            side.rescued += count
            side.touched += count
            side.on_trial -= count
        active.mapped.push(seen.rescued)
        new.mapped.push(seen.kept)
        self._see_faulted(seen)

    def _wait_for(self, read_ahead: Stays, need: Need) -> None:
        """Pages read ahead are not on trial: those the reader has come to have new stays."""
        ahead = self._ahead
        if len(read_ahead):
            ahead.append((need.evictions, as_array(read_ahead)))
        while ahead and need.evictions - ahead[0][0] > _AHEAD * self._capacity:
            self.new.mapped.push(self._view.current(ahead.popleft()[1]))

    def _see_faulted(self, seen: Batch) -> None:
        """New ones, those that have come back soon, and those that have come back late."""
        if not len(seen.faulted):
            return
        if seen.lost:
            self._see_all(seen)
            return
        self._is_told = False
        nearest = min(seen.distances)
        self._streams = nearest >= self._capacity and not len(seen.rescued)
        if nearest > _FIRST_TOUCH:
            self.new.mapped.push(seen.faulted)
        elif nearest >= self._capacity:  # a stream, say: none has to be told from another
            self._admit(as_array(seen.faulted), _LUCKY_STREAMS if self._streams else _LUCKY_LATE)
        else:
            self._see_refaulted(seen)

    def _see_all(self, seen: Batch) -> None:
        """A part of all pages there are: something was missed. Inactive ones are aged again."""
        if not self._is_told:
            self.new.forget()
            self.active.forget()
            self._ahead.clear()
        self._is_told = True
        marked, others = compress(seen.faulted, seen.marks), compress(seen.faulted, map(not_, seen.marks))
        for side, stays in ((self.active, marked), (self.new, others)):
            side.mapped.push(self._view.current(array("Q", stays)))

    def _see_refaulted(self, seen: Batch) -> None:
        soon = list(map(self._capacity.__gt__, seen.distances))
        of_active = sum(compress(seen.marks, soon))
        for side, count in ((self.active, of_active), (self.new, sum(soon) - of_active)):
            side.touched += count
            side.missed += count
        active = self.active
        regretted = _REGRET * active.missed > active.evicted + self._capacity / 64
        one_in = (_LUCKY_SOON if _CROWDED * self._gone_active > self._gone else _LUCKY_IF_ROOM) if regretted else 1
        self._admit(array("Q", compress(seen.faulted, soon)), one_in)
        self._admit(array("Q", compress(seen.faulted, map(not_, soon))), _LUCKY_LATE)

    def _admit(self, stays: array[int], one_in: int) -> None:
        turn = self._long_round if one_in in (_LUCKY_LATE, _LUCKY_STREAMS) else self._round
        lucky, ordinary = (stays, _NONE) if one_in == 1 else _draw(stays, one_in, turn)
        self.new.mapped.push(ordinary, _ORDINARY)
        self.new.mapped.push(lucky, _LUCKY)

    def _unasked(self, need: Need) -> int:
        """How many have left without an order since all that was prepared had: those on trial, ordinary ones first.

        They come back as others of their side do. Were they not counted as gone, new ones would seem to be missed
        often, the more the later decisions are, and pages in use would leave for them.
        """
        filled, self._filled = need.filled - self._filled, need.filled
        unasked = max(need.evictions - self._foreseen - filled, 0) if self._is_begun else 0
        self._is_begun = True
        left = unasked
        for side in (self.new, self.active):
            of_side = min(left, max(side.on_trial, 0))
            self._account(side, of_side)
            side.on_trial -= of_side
            left -= of_side
        self._account(self.new, left)  # from where they were mapped
        return unasked

    def _agree_with(self, need: Need) -> None:
        """Pages are discarded, and evicted by others, without a word."""
        known = self.new.on_trial + self.active.on_trial
        if known > need.inactive + self._capacity / 64:
            for side in (self.new, self.active):
                side.on_trial = side.on_trial * need.inactive // known
        for side in (self.new, self.active):
            side.on_trial = max(side.on_trial, 0)
            for queue in (side.mapped, side.inactive):
                if len(queue) > 2 * self._capacity:
                    queue.tidy(self._view)

    # ---- what is to go -----------------------------------------------------------------------------------------

    def _evict(self, frames: int, *, inactive_only: bool) -> array[int]:
        evicted = array("Q")
        step = max(int(_LOOK * self._capacity), 16)
        while frames > 0:
            part = self._evict_from(self._side(), min(frames, step), inactive_only)
            if not part:
                break
            evicted += part
            frames -= len(part)
        return evicted

    def _evict_from(self, side: _Side, count: int, inactive_only: bool) -> array[int]:
        other = self.active if side is self.new else self.new
        part = self._oldest(side, count, inactive_only)
        if not part and not inactive_only:
            part = self._oldest(other, count, inactive_only)
        self._account(side, len(part))
        return part

    def _oldest(self, side: _Side, count: int, inactive_only: bool) -> array[int]:
        """Pages of the side that are there: on trial, or mapped if there are none."""
        for queue in (side.inactive,) if inactive_only else (side.inactive, side.mapped):
            while queued := queue.pop(count):
                if there := self._view.current(queued):
                    if queue is side.inactive:
                        side.on_trial = max(side.on_trial - len(there), 0)
                    return there
        return array("Q")

    def _account(self, side: _Side, count: int) -> None:
        for each in (self.new, self.active):
            each.exposed += count * each.on_trial
            each.watched += count * each.on_trial / self._capacity
        side.watched += count
        side.evicted += count
        self._since_window += count
        if self._since_window > _WINDOW * self._capacity:
            self._since_window = 0
            self._halve("rescued", "exposed")
        if self.new.watched + self.active.watched > self._capacity:
            self._halve("touched", "watched")
        if self.new.evicted + self.active.evicted > _LONG_ROUND * self._capacity:
            self._halve("missed", "evicted")
            self._long_round += 1
        self._account_round(side, count)

    def _account_round(self, side: _Side, count: int) -> None:
        self._gone += count
        self._gone_active += count if side is self.active else 0
        self._since_round += count
        if self._since_round > _ROUND * self._capacity:
            self._since_round = 0
            self._round += 1
            self._gone, self._gone_active = self._gone / 2, self._gone_active / 2

    def _halve(self, *names: str) -> None:
        self.new.halve(*names)
        self.active.halve(*names)

    def _side(self) -> _Side:
        """Which gives way."""
        new, active = self.new, self.active
        if new.pages <= max(_NEW_LEAST * self._capacity, min(self._pace, _NEW_FOR_FAST * self._capacity)):
            return active
        if new.pages >= _NEW_MOST * self._capacity:
            return new
        if _hotter(new, active):
            return active  # the active ones have gone cold
        if _missed_more(new, active):
            return active
        return new

    # ---- what is to be tried ------------------------------------------------------------------------------------

    def _room_on_trial(self, evicted: int, unasked: int, need: Need) -> int:
        """How many are to be tried now. Where many leave without an order, as many more: when none is left on
        trial, pages leave in the order in which they came, those in use too."""
        if need.frames == 0 and need.mapped + need.inactive < self._capacity * (1 - _AGED_SHARE):
            return 0  # there is memory for more
        # Bounded: pages of one value leave no frame behind that could be on trial.
        room = min(_AGED_PER_EVICTED * evicted, self._capacity // 4) + int(_AGED_SHARE * self._capacity)
        return min(room + min(_AGED_PER_EVICTED * unasked, self._capacity // 2), _MOST)

    def _age_new(self, room: int) -> tuple[array[int], array[int]]:
        """(ordinary ones, lucky ones: their trial is among the active pages)"""
        new = self.new
        count = min(int(_NEW_ON_TRIAL * new.pages) - new.on_trial, room)
        parts = {_ORDINARY: array("Q"), _LUCKY: array("Q")}
        for stays, tag in new.mapped.pop_tagged(count):
            parts[tag] += self._view.current(stays)
        self._try(new, parts[_ORDINARY])
        self._try(self.active, parts[_LUCKY])
        return parts[_ORDINARY], parts[_LUCKY]

    def _age_active(self, room: int) -> array[int]:
        active = self.active
        count = min(int(_ACTIVE_ON_TRIAL * active.pages) - active.on_trial, room)
        aged = self._view.current(active.mapped.pop(count))
        self._try(active, aged)
        return aged

    def _try(self, side: _Side, stays: array[int]) -> None:
        side.inactive.push(stays)
        side.on_trial += len(stays)


def _draw(stays: array[int], one_in: int, turn: int) -> tuple[array[int], array[int]]:
    """(lucky ones, others). Pages of one 2 MiB of addresses share their luck: they are read and written together,
    as one huge page, and that is not to be torn apart."""
    numpy = imported_numpy()
    if numpy is not None:
        blocks = numpy.frombuffer(stays, dtype=numpy.uint64) >> numpy.uint64(_BLOCK_SHIFT)
        chosen = ((blocks + numpy.uint64(turn)) * numpy.uint64(_SCATTER) >> numpy.uint64(40)) % one_in == 0
        selectors = chosen.tolist()
    else:
        selectors = [
            ((((stay >> _BLOCK_SHIFT) + turn) * _SCATTER % (1 << 64)) >> 40) % one_in == 0 for stay in stays
        ]
    return array("Q", compress(stays, selectors)), array("Q", compress(stays, map(not_, selectors)))


def _missed_more(side: _Side, other: _Side) -> bool:
    """Whether its pages are wanted twice as often, those that have left with those on trial."""
    return (side.touched - 2 * _CHANCE) / (side.watched + 1) > 2 * (other.touched + 2 * _CHANCE) / (
        other.watched + 1
    )


def _hotter(side: _Side, other: _Side) -> bool:
    """Whether its pages on trial are touched more often, by more than some touches of chance."""
    rate, other_rate = (
        (side.rescued - _CHANCE) / (side.exposed + 1),
        (other.rescued + _CHANCE) / (other.exposed + 1),
    )
    return rate > other_rate
