"""The rules of the auto limit: samples of a pool in, its next limit out. No clock, no thread, no pool.

As senpai does it for cgroups (https://github.com/facebookincubator/senpai, and its successor in oomd): lower the
limit by little while the program hardly waits, raise it by much as soon as it waits. What differs:

- A stall counts only while pages leave for lack of frames. Where frames are free, pages are coming in for the first
  time or again, and no limit would make that faster.
- Which pages are idle is only learned by taking pages away, and those that were not come back at once. So a stall
  just after a step is waited out for a moment, unless the level is known to hurt; one that stays means too little.
  How long pages take to come back is the disk's and the machine's affair: as long as less has been read than the
  step took away, the stall may be the step's.
- What hurt is remembered. The limit stays above it, and is tried again after a while that doubles each time.
- Stall beyond the target is a debt, and no step is taken before it is paid. So the mean keeps to the target too,
  and not only the moments between steps.
- A program that sleeps says nothing about what it needs: the less it runs, the smaller the steps.
- The disk is spared: a pool that reads back much is left as it is, even if nobody has to wait for that.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

_MIB = 1024 * 1024

# The least limit that is tried. What could be saved below is less than what an interpreter takes.
LEAST_BYTES = 16 * _MIB
# Of what is resident, taken away by one step at most; and in bytes, for large pools.
STEP_SHARE = 1 / 32
STEP_BYTES = 64 * _MIB
# Where a level that hurt is tried again, steps are smaller by this factor: a program that goes round slowly misses
# its pages late.
_CAREFUL = 4
# Left free above what is resident: the reclaimers keep up to an eighth free (frame_pool.c, LOW_SHARE).
_ROOM_SHARE = 1 / 8
_ROOM_BYTES = 4 * _MIB
# What a pool reads back in one period, of what is resident, up to which its limit may still be lowered.
_READ_SHARE = 1 / 64
# A pool that has grown by more than this within the samples looked at is being filled.
_GROWTH_SHARE = 1 / 32
# Samples looked at: how far back a step can have hurt, and how long resident memory is taken for needed.
RECENT = 8
# The limit goes up by these shares of itself, as long as it hurts in one sample after the other.
_BACK_OFF = (1 / 8, 1 / 4, 1 / 2, 1.0)
# How far above the level that hurt it stays, until it is tried again.
_ABOVE_HURT = 1 / 8
# A program that runs for this share of the time is awake: less of it makes smaller steps. Not 1, for it may have to
# share its processor.
_AWAKE_SHARE = 1 / 4
# A level as near as this to the last one that hurt is taken for the same.
_SAME_LEVEL = 1 / 4
# Seconds after which it goes down again: to a level that did not hurt; below that one, at first and at most.
SETTLE_SECONDS = 2.0
# After a step, a stall is waited out for so long; and for so long at most, if not all is back that it took away.
GRACE_SECONDS = 1.0
RETURN_SECONDS = 5.0
PATIENCE_SECONDS = 10.0
PATIENCE_SECONDS_MAX = 600.0
# Debts of stall are forgotten beyond what so many seconds at the target pay; and what so many seconds have left
# over may be spent later. It pays for the first round, when pages that are in use have to leave once to be known.
_DEBT_SECONDS_MAX = 120.0
_SAVED_SECONDS_MAX = 10.0
_PAGE = 4096


class Sample(NamedTuple):
    """What a pool was like for a while, a quarter of a second as a rule.

    Attributes:
        seconds: how long that was.
        limit: the pool's limit in bytes, at its end.
        resident: bytes of the pool that were in memory, at its end.
        held: of these, bytes that are locked or pinned.
        other: bytes of the process that are resident and not the pool's, at its end.
        stall: share (0 to 1) of the program's run time that it waited for pages; first touches do not count.
        running: how many threads of the process ran or waited for pages, on average.
        evicted: bytes that left regions for lack of frames.
        read: bytes that were read back.
    """

    seconds: float
    limit: int
    resident: int
    held: int = 0
    other: int = 0
    stall: float = 0.0
    running: float = 1.0
    evicted: int = 0
    read: int = 0

    @property
    def needed(self) -> int:
        """Bytes: the limit, or what is resident and some room, whichever is less."""
        return min(self.limit, with_room(self.resident))


class Rules:
    """The state between samples. Not thread-safe.

    Args:
        target: the share of run time that the program may wait, above 0 and below 1.
        most: the largest limit in bytes. least: the smallest.

    Attributes:
        hurt: the limit in bytes at which the program last waited too long, or None.
        patience: seconds from then until that limit is tried again.
        debt: seconds waited beyond the target and not yet made up for; below 0: what may be spent.

    Example:
        >>> rules = Rules(target=0.02, most=1 << 30)
        >>> limit = 1 << 30
        >>> for _ in range(40):                      # 256 MiB, of which nothing is missed
        ...     limit = rules.next_limit(Sample(0.25, limit, min(limit, 256 << 20)))
        >>> limit < 128 << 20
        True
        >>> missed = Sample(0.25, limit, limit, stall=0.5, evicted=1 << 20, read=1 << 20)
        >>> [rules.next_limit(missed) > limit for _ in range(5)]
        [False, False, False, True, True]
    """

    def __init__(self, target: float, most: int, least: int = LEAST_BYTES) -> None:
        self.target = target
        self.most = most
        self.least = least
        self.hurt: int | None = None
        self.patience = PATIENCE_SECONDS
        self.debt = 0.0
        self._since_hurt = SETTLE_SECONDS
        self._since_step = RETURN_SECONDS
        self._missing = 0  # bytes that the last step took away, less what was read since
        self._streak = 0  # samples in a row that hurt
        self._recent: deque[Sample] = deque(maxlen=RECENT)

    def next_limit(self, sample: Sample) -> int:
        """The limit in bytes from here on."""
        self._recent.append(sample)
        self._since_hurt += sample.seconds
        if self._since_step < GRACE_SECONDS:
            self._missing += sample.evicted
        self._missing -= sample.read
        self._since_step += sample.seconds
        self._count_debt(sample)
        if sample.evicted > 0 and sample.stall > self.target:
            return sample.limit if self._may_pass(sample) else self._raised(sample)
        self._streak = 0
        if self.hurt is not None and sample.limit < self.hurt * (1 - _ABOVE_HURT):
            self.hurt, self.patience = None, PATIENCE_SECONDS  # it does not hurt any more
        limit = self._lowered(sample) if self._may_lower(sample) else sample.limit
        if limit < sample.limit:
            self._since_step, self._missing = 0.0, 0
        return limit

    def refused(self) -> None:
        """The pool could not be lowered to the last answer (swap is full, or pages are pinned): not for a while."""
        self._since_hurt = 0.0

    # ---- up ------------------------------------------------------------------------------------------------

    def _is_known(self, limit: int) -> bool:
        return self.hurt is not None and limit <= self.hurt * (1 + _SAME_LEVEL)

    def _may_pass(self, sample: Sample) -> bool:
        """The stall may be that of the last step only."""
        seconds = RETURN_SECONDS if self._missing > 0 else GRACE_SECONDS
        return self._streak == 0 and self._since_step < seconds and not self._is_known(sample.limit)

    def _count_debt(self, sample: Sample) -> None:
        if sample.limit >= self.most and sample.stall > self.target:
            return  # more cannot be done
        waited = sample.stall if sample.evicted > 0 else min(sample.stall, self.target)
        debt = self.debt + (waited - self.target) * sample.seconds
        self.debt = min(max(debt, -_SAVED_SECONDS_MAX * self.target), _DEBT_SECONDS_MAX * self.target)

    def _raised(self, sample: Sample) -> int:
        limit = sample.limit
        if self._streak == 0:
            known = self._is_known(limit)
            self.patience = min(self.patience * 2, PATIENCE_SECONDS_MAX) if known else PATIENCE_SECONDS
            self.hurt = limit
        growth = _BACK_OFF[min(self._streak, len(_BACK_OFF) - 1)]
        raised = limit + int(limit * growth)
        if self._streak == 0:  # to where it was before the steps that may have hurt
            raised = max(raised, *(recent.needed for recent in self._recent))
        self._streak += 1
        self._since_hurt = 0.0
        return max(limit, min(_whole_pages(raised), self.most))

    # ---- down ----------------------------------------------------------------------------------------------

    def _may_lower(self, sample: Sample) -> bool:
        if self._since_hurt < SETTLE_SECONDS or len(self._recent) < RECENT:
            return False
        first = self._recent[0].resident
        return sample.resident <= first + int(first * _GROWTH_SHARE)

    def _lowered(self, sample: Sample) -> int:
        resident = max(recent.resident for recent in self._recent)
        if resident <= self.least:
            return sample.limit  # nothing to gain
        room = with_room(resident)
        if sample.limit > room:
            limit = room  # what is not there leaves without any cost
        elif self.debt > 0 or sample.read > sample.resident * _READ_SHARE:
            limit = sample.limit
        else:
            limit = sample.limit - self._step(sample)
        return min(sample.limit, _whole_pages(max(limit, self._floor(sample))))

    def _step(self, sample: Sample) -> int:
        most = min(int(sample.resident * STEP_SHARE), STEP_BYTES)
        if self.hurt is not None and sample.limit <= self._above_hurt(self.hurt):
            most //= _CAREFUL
        return int(most * max(1 - sample.stall / self.target, 0.0) * min(sample.running / _AWAKE_SHARE, 1.0))

    def _floor(self, sample: Sample) -> int:
        floor = max(self.least, with_room(sample.held) if sample.held else 0)
        if self.hurt is not None and self._since_hurt < self.patience:
            floor = max(floor, self._above_hurt(self.hurt))
        return floor

    @staticmethod
    def _above_hurt(hurt: int) -> int:
        return _whole_pages(hurt + int(hurt * _ABOVE_HURT))


def with_room(size: int) -> int:
    """size bytes and what should be free above them."""
    return _whole_pages(size + max(int(size * _ROOM_SHARE), _ROOM_BYTES))


def _whole_pages(size: int) -> int:
    return -(-size // _PAGE) * _PAGE
