"""What a policy is: it sees batches of pages that have come, and answers with batches of pages that are to go.

A policy never sees a single fault, and never stands in the way of one: the core moves pages (csrc/README.md,
Policy), and what the policy has not named in time leaves in the order in which it came.

Pages of shared regions (Pool.region(shared=True)) leave in an order of their own, one for all processes;
SharedRegion.priority counts there. A policy that wants to (Policy.wants) is told of those that its process has
brought in, with how many processes have them (Batch.shared), and can say which of them go first
(Answer.evict_shared). All other pages of a batch are private ones: one process has each.

Pages are named by *stays*. A stay is a 64-bit number for one page from its arrival in memory to its next arrival:

    bits 28-63 page of the region    10-27 key of the region (Region.key)    0-9 which arrival it was

So a stay that lies somewhere in a queue goes out of date by itself when its page has come back meanwhile; the core
passes over it. Nobody has to take it out of the middle of anything.
"""

from __future__ import annotations

import abc
from array import array
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol, TypeAlias

if TYPE_CHECKING:
    from uswap._stats import RegionInfo

NEVER = 0xFFFFFFFF
"""The refault distance of a page that was never evicted, or not within memory of it."""

Stays: TypeAlias = "memoryview | array[int] | Sequence[int] | Any"
"""Any buffer of unsigned 64-bit integers (array('Q'), memoryview, numpy.uint64), or a list of integers."""

_NOTHING = memoryview(array("Q"))
_NO_DISTANCES = memoryview(array("I"))
_NO_MARKS = memoryview(array("B"))


def page_of(stay: int) -> int:
    """The page of its region that a stay names, from 0. Works on numpy arrays of them too.

    Example:
        >>> page_of(5 << 28 | 3 << 10 | 1), region_of(5 << 28 | 3 << 10 | 1)
        (5, 3)
    """
    return stay >> 28


def region_of(stay: int) -> int:
    """The key of its region (Region.key). Works on numpy arrays too."""
    return (stay >> 10) & 0x3FFFF


class SharedBatch(NamedTuple):
    """Shared pages that this process has brought in since the last batch, and how all shared pages of the pool
    stand; empty unless the policy asks for it ("shared" in Policy.wants). As in Batch, the first three are
    memoryviews valid until decide() returns.

    Stays of shared pages are numbers of their own: page_of and region_of read them; the key is SharedRegion.key.

    Attributes:
        stays: pages that came in: first touches, and pages read back, those read ahead with them.
        distances: one 32-bit number for each: how many shared pages the pool evicted between its own eviction and
            its return (NEVER: a first touch).
        users: one byte for each: how many processes have the page's region, and see that page of it, now.
        lost: True if more came in than the buffer could hold; what was not told of leaves in the pool's own order.
        frames: how many frames for shared pages must come free, by the pool's own rule.
        capacity: how many there are for shared pages, in all processes.
        prepared: of earlier answers, what this process has not looked at yet.
    """

    stays: memoryview = _NOTHING
    distances: memoryview = _NO_DISTANCES
    users: memoryview = _NO_MARKS
    lost: bool = False
    frames: int = 0
    capacity: int = 0
    prepared: int = 0


class Batch(NamedTuple):
    """What has happened since the last batch. Each field is a memoryview over the runtime's own buffer, in the
    order in which it happened, valid until decide() returns; numpy.asarray(field) copies nothing.

    Attributes:
        faulted: stays of pages that came in: first touches, and pages read back. What came in beside the touched
            page is here too.
        distances: one 32-bit number for each of faulted, its refault distance: how many pages the pool evicted
            between the page's own eviction and its return (NEVER: a first touch). It is how many frames more
            would have kept it; coarse, at most a quarter off.
        marks: one byte for each of faulted: 1 if it had been aged with a mark (Answer.age_marked) before it was
            evicted.
        rescued: stays of pages that were inactive, and were touched.
        rescued_marks: one byte for each of rescued: 1 if it had been aged with a mark.
        read_ahead: stays of pages that were read before anybody wanted them, and are in the swap cache.
        kept: stays of pages that should have left and could not (the kernel had pinned them), or that are
            not locked any more. Treat them as come just now.
        aged, written, evicted: stays of pages that became inactive, were written ahead of need, lost their frames;
            empty unless the policy asks for them (Policy.wants).
        lost: True if more has happened than the buffer could hold. Then faulted begins with all pages that are in
            memory, also those the policy knows of.
        shared: shared pages; empty unless the policy asks for it.
    """

    faulted: memoryview = _NOTHING
    distances: memoryview = _NO_DISTANCES
    marks: memoryview = _NO_MARKS
    rescued: memoryview = _NOTHING
    rescued_marks: memoryview = _NO_MARKS
    read_ahead: memoryview = _NOTHING
    kept: memoryview = _NOTHING
    aged: memoryview = _NOTHING
    written: memoryview = _NOTHING
    evicted: memoryview = _NOTHING
    lost: bool = False
    shared: SharedBatch = SharedBatch()


class Need(NamedTuple):
    """How things stand, in frames (pages of 4 KiB).

    Attributes:
        frames: how many must come free for the high watermark, inactive ones included.
        capacity: how many there are for pages.
        mapped: how many are in the regions, where no touch can be seen.
        inactive: how many are out of the regions and in the swap cache: a touch brings one back, a need for frames
            takes the oldest of them.
        target: how many the core would have inactive by itself.
        evictions: how many pages have lost their frames so far: the clock of refault distances.
        prepared: of earlier answers, what was to be evicted and still is there.
        filled: of evictions, how many were of pages full of one value that were only to be cleaned or aged: of such
            a page nothing stays in memory.
    """

    frames: int
    capacity: int
    mapped: int
    inactive: int
    target: int
    evictions: int
    prepared: int = 0
    filled: int = 0


class Answer(NamedTuple):
    """What is to be done, in this order. Stays that are out of date are passed over; pages that are locked too, and
    come again, as kept, when they are unlocked.

    Attributes:
        evict: the next to give their frames up, in this order, behind those named earlier: when frames are needed,
            by whoever needs them, without asking again. What is inactive goes at once; what is not is written
            first.
        clean: written, so that their frames can be had at once. What can be dropped where it is mapped stays
            mapped.
        age: out of the region, and written: a touch is seen, and brings the page back for a soft fault.
        age_marked: the same, with a mark that Batch.marks and Batch.rescued_marks give back with the page. It costs
            nothing to keep, unlike what a policy would have to remember of each page.
        read_ahead: read and mapped, as far as frames that nobody else needs go; told as faulted. The generation is
            not looked at.
        evict_shared: stays of shared pages: the next to leave, in this order, behind those named earlier, when this
            process makes room for shared pages; all others in the pool's own order behind them. Whatever anybody
            holds (lock, resident) stays. At most 32768 at a time.

    Example:
        >>> Answer(age=[5 << 28 | 3 << 10 | 1]).evict
        ()
    """

    evict: Stays = ()
    clean: Stays = ()
    age: Stays = ()
    age_marked: Stays = ()
    read_ahead: Stays = ()
    evict_shared: Stays = ()


class View(Protocol):
    """What a policy may ask about its pool, live or simulated."""

    @property
    def capacity(self) -> int:
        """Frames for pages."""

    def regions(self) -> Mapping[int, RegionInfo]:
        """Key -> what is known of the region, its priority among it."""

    def current(self, stays: Stays) -> array[int]:
        """Those of the stays that are not out of date, in their order."""


class Policy(abc.ABC):
    """Decides which pages leave memory. Subclass it, and give it to Pool(policy=...).

    All methods are called by one thread, the reclaimer's. If one raises, the error is logged once and kept in
    ``pool.reclaimer.error``, and the core goes on without a policy; if one takes long, the core does meanwhile what
    it would do without. No answer can break the limit or lose data.

    Attributes:
        wants: which of Batch's "aged", "written", "evicted" and "shared" are to be filled.
        every: decide is called when so many pages have come (or so many shared ones), if memory does not run
            short before (at most 16384).
    """

    wants: ClassVar[frozenset[str]] = frozenset()
    every: ClassVar[int] = 16384

    def start(self, view: View) -> None:  # noqa: B027 - nothing to do is a fine answer
        """Called once, before the first batch."""

    @abc.abstractmethod
    def decide(self, seen: Batch, need: Need) -> Answer | None:
        """What is to be done now; None: nothing."""
