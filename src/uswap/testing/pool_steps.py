"""Steps on the pool as a whole: pressure, its limit, swap areas, and what goes wrong beneath it."""

from __future__ import annotations

import contextlib
import errno
import tempfile
import warnings
from typing import Any

import uswap
from uswap.testing import failpoints, memory
from uswap.testing.engine import step
from uswap.testing.failpoints import Action
from uswap.testing.memory import PAGE
from uswap.testing.memory_steps import MemorySteps
from uswap.testing.model import Access, Kind, Mapped, pages_of
from uswap.testing.policy import Watched

_MEBIBYTE = 1 << 20
# Beside the limit's frames, so that not all of it fits.
_MORE_PAGES = 400
_AREAS_MAX = 2
_AREAS_MADE_MAX = 20  # a pool can have 32 in its life

# Steps that can fail, and the errno that each can really meet (tests/failpoints).
FAILURES = {
    "page_in.read": errno.EIO,
    "io.submit": errno.EBUSY,
    "page_out.slot": errno.ENOSPC,
    "page_out.written": errno.EIO,
    "uffd.move": errno.EBUSY,
    "uffd.copy": errno.EAGAIN,
    "uffd.zeropage": errno.EAGAIN,
    "page_in.map": errno.EAGAIN,
    "drop.mapped": errno.EAGAIN,
    "sealed.copy": errno.EIO,
    "block.populate": errno.ENOMEM,
    "page_out.one": errno.EIO,
}
# What is come to only when another step has failed.
AFTER = {"page_out.one": "page_out.written"}
# Sync points of what one process does by itself.
HOLDS = (
    "fault.message", "fault.locked", "fault.inline", "bring_in.wait", "page_in.chosen", "page_in.claimed",
    "page_in.read", "page_in.right", "page_in.map", "page_out.copied", "page_out.isolated", "page_out.published",
    "page_out.written", "page_out.drop", "verify.slot", "discard.locked", "region.destroy", "swapoff.step",
    "reclaimer.late", "uffd.copy",
)  # fmt: skip
# How a page can be lost: what is armed for it alone while it is read. Others that are read with it, or ahead, must
# come all the same.
LOSSES = {
    "unreadable": ("page_in.one", Action.ERROR, errno.EIO),
    "damaged": ("page_in.hash", Action.FLIP, 12345),
}


class PoolSteps(MemorySteps):
    """What a program, and the machine below it, may do with the pool."""

    watched: Watched | None
    neighbour: Mapped | None = None
    limit_floor: int
    limit_most: int
    swap_folder: str
    failing: tuple[str, ...] = ()
    failed: bool = False  # something was made to fail in this pool's life
    _more_areas: list[tuple[Any, Any]]
    _areas_made = 0

    # ---- pressure ----------------------------------------------------------------------------------------------

    def _neighbour(self) -> Mapped:
        """A region that does not fit beside the others: who goes through it drives them out."""
        if self.neighbour is None:
            size = self.limit_floor + _MORE_PAGES * PAGE
            region = self.pool.region(size, name="neighbour")
            self.neighbour = Mapped(region, 0, model=bytearray(size))
        return self.neighbour

    @step
    def press(self, *, thread: int = 0, page: int, count: int, value: int | None = None) -> None:
        """Goes through pages of another, large region: the first byte of each is compared, or stored. Memory gets
        short, and pages leave as the policy says."""
        if self.neighbour is None and not self.quiet:
            return  # to make it takes a lock that a held thread may have
        try:
            mapped = self._neighbour()
        except uswap.OutOfSpaceError:
            return
        start, length = mapped.page_span(page, count)
        address = self.address(mapped) + start
        pages = range(start, start + length, PAGE)
        access = Access(Kind.SHAPE, mapped, start, length)

        def look() -> bytes:
            return b"".join(memory.load(address + offset, 1) for offset in range(0, length, PAGE))

        def put() -> None:
            for number in range(len(pages)):
                memory.store(address + number * PAGE, bytes([(value or 0) + number & 255]))

        def finish(found: bytes | None) -> None:
            if found is None:
                for number, offset in enumerate(pages):
                    mapped.model[offset] = (value or 0) + number & 255
            else:
                firsts = bytes(mapped.model[offset] for offset in pages)
                assert found == firsts, f"a neighbour's pages: {_first_difference(found, firsts)}"

        job = look if value is None else put
        self.start(thread, "going through memory", job, access=access, finish=finish)
        if self.quiet and self.watched is not None:
            self.watched.settle(self.pool, self.hang_seconds)

    @step
    def evict(self, *, thread: int = 0, pages: int) -> None:
        """Pool.evict."""
        self.start(thread, "Pool.evict", lambda: self.pool.evict(pages * PAGE))

    @step
    def set_limit(self, *, thread: int = 0, pages: int) -> None:
        """The limit becomes so many pages, or the least there can be."""
        limit = min(max(pages * PAGE, self.limit_floor), self.limit_most)

        def job() -> None:
            self.pool.limit = limit

        self.start(thread, "setting Pool.limit", job, may_raise=(uswap.LimitError, uswap.BusyError))

    # ---- swap areas --------------------------------------------------------------------------------------------

    @step
    def swapon(self, *, thread: int = 0, priority: int = 0) -> None:
        """One swap area more."""
        if len(self._more_areas) >= _AREAS_MAX or self._areas_made >= _AREAS_MADE_MAX:
            return
        self._areas_made += 1
        file = tempfile.NamedTemporaryFile(dir=self.swap_folder, prefix="uswap-fuzz-")  # noqa: SIM115 - outlives it

        def finish(info: Any) -> None:
            self._more_areas.append((info, file))

        self.start(
            thread,
            "Pool.swapon",
            lambda: self.pool.swapon(file.name, size=8 * _MEBIBYTE, priority=priority),
            finish=finish,
        )

    @step
    def swapoff(self, *, thread: int = 0) -> None:
        """The oldest of those goes, and what lies in it with it to others."""
        if not self._more_areas:
            return
        info, file = self._more_areas[0]

        def finish(_: object) -> None:
            file.close()

        def job() -> None:
            self.pool.swapoff(info)

        if self.start(
            thread, "Pool.swapoff", job, finish=finish, may_raise=(uswap.OutOfSpaceError, uswap.BusyError)
        ):
            self._more_areas.remove((info, file))

    # ---- faults of the machine ---------------------------------------------------------------------------------

    @step
    def fail(self, *, at: str, nth: int = 1) -> None:
        """The nth time from now on that the core comes to that step it fails, as it can in life; nothing may be
        lost. Nothing, if this build has no failpoints."""
        self.mend()
        failing = (AFTER[at], at) if at in AFTER else (at,)
        if not failpoints.built() or any(name in self.holds for name in failing):
            return
        for name in failing:
            failpoints.set_failpoint(name, Action.ERROR, FAILURES[name], nth=nth if name == failing[0] else 1)
        self.failing, self.failed = failing, True

    def mend(self) -> None:
        """Nothing fails any more."""
        for name in self.failing:
            if name not in self.holds:
                failpoints.clear(name)
        self.failing = ()

    @step
    def lose(self, *, region: int, page: int, how: str = "unreadable") -> None:
        """A page leaves, if it can, and then cannot be read back, if it is in its slot only. It is found without a
        touch, and nothing else is lost; then it is thrown away. Not while steps are held, or run as they come."""
        mapped = self.pick(region, private=True)
        if mapped is None or not self.quiet or not failpoints.built():
            return
        self.mend()
        start, length = mapped.page_span(page, 1)
        mapped.region.advise(uswap.Advice.PAGEOUT, start, length)
        self.failed = True
        name, action, argument = LOSSES[how]
        with contextlib.ExitStack() as stack, warnings.catch_warnings():
            warnings.simplefilter("ignore", uswap.UswapWarning)
            if how == "unreadable":  # as a whole each request fails; then its pages are read one by one
                stack.enter_context(failpoints.armed("page_in.read", Action.ERROR, errno.EIO, every=True))
            stack.enter_context(failpoints.armed_for_page(name, action, argument, mapped.region, start // PAGE))
            self._lose(mapped, start, length)
        self._forget_lost(mapped, start, length)

    def _lose(self, mapped: Mapped, start: int, length: int) -> None:
        with contextlib.suppress(uswap.SwapError, uswap.LimitError), mapped.region.resident(start, length):
            pass

    def _forget_lost(self, mapped: Mapped, start: int, length: int) -> None:
        classes = mapped.region.page_classes()
        lost = {page for page, kind in enumerate(classes) if kind == uswap.PageClass.POISONED}
        assert lost <= set(pages_of(start, length)), f"pages {lost} are lost: only {start // PAGE} was to be read"
        if lost:
            mapped.region.advise(uswap.Advice.DONTNEED, start, length)
            mapped.model[start : start + length] = bytes(length)


def _first_difference(found: bytes, expected: bytes) -> str:
    page = next(index for index, (one, two) in enumerate(zip(found, expected, strict=True)) if one != two)
    return f"page {page} of those gone through holds {found[page]}, not {expected[page]}"
