"""Steps on memory: regions come, change and go; loads and stores; what may be said about pages."""

from __future__ import annotations

from typing import Any

import uswap
from uswap.testing import memory
from uswap.testing.engine import Engine, step
from uswap.testing.memory import PAGE
from uswap.testing.model import Access, Kind, Mapped, pages_of

REGIONS_MAX = 4
_RIGHTS = {
    "rw": uswap.Protection.READ | uswap.Protection.WRITE,
    "r": uswap.Protection.READ,
    "none": uswap.Protection.NONE,
}
RIGHTS = tuple(_RIGHTS)
# Advice that loses nothing.
ADVICE = tuple(advice.name for advice in uswap.Advice if advice is not uswap.Advice.DONTNEED)
_NO_SPACE = (uswap.OutOfSpaceError,)
# Locked pages, and those that a held thread has in its hands, are not had for a lock; a limit has its floor.
_NO_LOCK = (uswap.LimitError, uswap.BusyError)


class MemorySteps(Engine):
    """What a program may do with regions."""

    pool: Any
    regions: list[Mapped]
    kernel: memory.Kernel
    system_calls: bool  # the kernel may touch managed memory
    region_pages_max: int
    _regions_made = 0

    def pick(self, region: int, *, private: bool = False) -> Mapped | None:
        """The region of that number, counted round; None: there is none."""
        found = [each for each in self.regions if not (private and each.shared)]
        return found[region % len(found)] if found else None

    def address(self, mapped: Mapped) -> int:
        """Of its first byte."""
        return int(mapped.region._address)

    @step
    def map(self, *, thread: int = 0, pages: int, reserve: int = 0) -> None:
        """A region of so many pages, with addresses for reserve more."""
        if len(self.regions) >= REGIONS_MAX:
            return
        pages = min(pages, self.region_pages_max)
        room = (pages + reserve) * PAGE if reserve else None

        def mapped(region: Any) -> None:
            self._regions_made += 1
            self.regions.append(Mapped(region, self._regions_made, model=bytearray(pages * PAGE)))

        def job() -> Any:
            return self.pool.region(pages * PAGE, reserve=room)

        self.start(thread, "Pool.region", job, finish=mapped, may_raise=_NO_SPACE)

    @step
    def unmap(self, *, thread: int = 0, region: int) -> None:
        """A region is closed."""
        mapped = self.pick(region, private=True)
        if mapped is None:
            return
        access = Access(Kind.SHAPE, mapped, 0, len(mapped.model))
        if self.start(thread, "Region.close", mapped.region.close, access=access):
            self.regions.remove(mapped)

    @step
    def write(
        self, *, thread: int = 0, region: int, start: int, length: int, value: int, system_call: bool = False
    ) -> None:
        """Bytes of a region are stored: contents(value)."""
        mapped = self.pick(region)
        if mapped is None:
            return
        start, length = mapped.span(start, length)
        if not mapped.may_store(start, length):
            return
        data = memory.contents(value, length)
        address = self.address(mapped) + start
        store = self.kernel.store if system_call and self.system_calls else memory.store
        access = Access(Kind.STORE, mapped, start, length, after=data)
        self.start(thread, f"a store of {length} bytes", lambda: store(address, data), access=access)

    @step
    def read(self, *, thread: int = 0, region: int, start: int, length: int, system_call: bool = False) -> None:
        """Bytes of a region are loaded, and must be what they were."""
        mapped = self.pick(region)
        if mapped is None:
            return
        start, length = mapped.span(start, length)
        if mapped.may_load(start, length):
            self.load(thread, mapped, start, length, system_call and self.system_calls)

    def load(self, thread: int, mapped: Mapped, start: int, length: int, system_call: bool = False) -> bool:
        """Starts a load that is compared. => whether it could be started."""
        address = self.address(mapped) + start
        access = Access(Kind.LOAD, mapped, start, length)
        load = self.kernel.load if system_call else memory.load
        return self.start(
            thread,
            f"a load of {length} bytes",
            lambda: load(address, length),
            access=access,
            finish=lambda found: self.ledger.check(access, found),
        )

    @step
    def read_all(self, *, thread: int = 0, region: int) -> None:
        """A whole region is loaded."""
        mapped = self.pick(region)
        if mapped is not None and mapped.may_load(0, len(mapped.model)):
            self.load(thread, mapped, 0, len(mapped.model))

    @step
    def advise(self, *, thread: int = 0, region: int, advice: str, page: int, count: int) -> None:
        """Region.advise, of all that loses nothing."""
        mapped = self.pick(region)
        if mapped is None:
            return
        span = mapped.page_span(page, count)
        self.start(
            thread,
            f"Region.advise({advice})",
            lambda: mapped.region.advise(uswap.Advice[advice], *span),
            access=Access(Kind.USE, mapped, *span),
            may_raise=(uswap.BusyError,) if mapped.shared else (),
        )

    @step
    def discard(self, *, thread: int = 0, region: int, page: int, count: int) -> None:
        """Pages are thrown away: they are zeroes. A locked one among them is asked for alone, and is refused."""
        mapped = self.pick(region)
        if mapped is None:
            return
        start, length = mapped.page_span(page, count)
        held = mapped.locked.intersection(pages_of(start, length))
        if held:
            self._discard_locked(thread, mapped, min(held))
            return
        access = Access(Kind.DISCARD, mapped, start, length, after=bytes(length))

        def job() -> None:
            mapped.region.advise(uswap.Advice.DONTNEED, start, length)

        self.start(thread, "Region.advise(DONTNEED)", job, access=access)

    def _discard_locked(self, thread: int, mapped: Mapped, page: int) -> None:
        length = min(PAGE, len(mapped.model) - page * PAGE)

        def job() -> bool:
            try:
                mapped.region.advise(uswap.Advice.DONTNEED, page * PAGE, length)
            except uswap.BusyError:
                return True
            return False

        def finish(refused: bool) -> None:
            assert refused or length < PAGE, f"page {page} is locked, and is thrown away"

        access = Access(Kind.HOLD, mapped, 0, len(mapped.model))
        self.start(thread, "Region.advise(DONTNEED)", job, access=access, finish=finish)

    @step
    def lock(self, *, thread: int = 0, region: int, page: int, count: int) -> None:
        """Pages are locked, and then are in memory."""
        mapped = self.pick(region, private=True)
        if mapped is None:
            return
        start, length = mapped.page_span(page, count)
        access = Access(Kind.HOLD, mapped, 0, len(mapped.model))

        def job() -> bytes:
            mapped.region.lock(start, length)
            return bytes(mapped.region.page_classes(start, length))

        def finish(classes: bytes) -> None:
            mapped.locked.update(pages_of(start, length))
            assert set(classes) == {uswap.PageClass.RESIDENT}, f"locked pages are of classes {set(classes)}"

        self.start(thread, "Region.lock", job, access=access, finish=finish, may_raise=_NO_LOCK)

    @step
    def unlock(self, *, thread: int = 0, region: int) -> None:
        """No page of the region is locked any more."""
        mapped = self.pick(region, private=True)
        if mapped is None:
            return
        access = Access(Kind.HOLD, mapped, 0, len(mapped.model))
        self.start(
            thread, "Region.unlock", mapped.region.unlock, access=access, finish=lambda _: mapped.locked.clear()
        )

    @step
    def keep_in(self, *, thread: int = 0, region: int, page: int, count: int) -> None:
        """Region.resident, nested: inside it pages are in memory, whatever is evicted."""
        mapped = self.pick(region)
        if mapped is None:
            return
        start, length = mapped.page_span(page, count)
        look = Access(Kind.LOAD, mapped, start, length) if mapped.may_load(start, length) else None
        access = Access(Kind.HOLD, mapped, 0, len(mapped.model), look=look)

        def job() -> tuple[set[int], bytes]:
            with mapped.region.resident(start, length):
                with mapped.region.resident(start, length):
                    pass
                mapped.region.advise(uswap.Advice.PAGEOUT, start, length)
                classes = set(mapped.region.page_classes(start, length))
                return classes, memory.load(self.address(mapped) + start, length) if look is not None else b""

        def finish(found: tuple[set[int], bytes]) -> None:
            assert found[0] == {uswap.PageClass.RESIDENT}, f"resident pages are of classes {found[0]}"
            if look is not None:
                self.ledger.check(look, found[1])

        self.start(thread, "Region.resident", job, access=access, finish=finish, may_raise=_NO_LOCK)

    @step
    def protect(self, *, thread: int = 0, region: int, page: int, count: int, rights: str) -> None:
        """Region.protect."""
        mapped = self.pick(region, private=True)
        if mapped is None:
            return
        start, length = mapped.page_span(page, count)
        pages = set(pages_of(start, length))
        access = Access(Kind.RIGHTS, mapped, start, length)

        def job() -> None:
            mapped.region.protect(_RIGHTS[rights], start, length)

        def finish(_: object) -> None:
            mapped.read_only -= pages
            mapped.no_access -= pages
            if rights == "r":
                mapped.read_only |= pages
            elif rights == "none":
                mapped.no_access |= pages

        self.start(thread, "Region.protect", job, access=access, finish=finish)

    @step
    def resize(self, *, thread: int = 0, region: int, pages: int, cut: int = 0, hem: bool = False) -> None:
        """The region has so many pages, less cut bytes, from now on. hem: something lies behind it, so that it must
        move to grow. Not while steps are held: it holds the GIL. A page that cannot be had just now (an injected
        error) makes it BusyError, and nothing has changed."""
        mapped = self.pick(region, private=True)
        if mapped is None or self.holds:
            return
        size = max(1, min(pages, self.region_pages_max) * PAGE - cut % PAGE)
        if any(page * PAGE >= size for page in mapped.locked):
            return
        if hem:
            memory.occupy(self.address(mapped) + mapped.pages * PAGE)
        access = Access(Kind.SHAPE, mapped, 0, len(mapped.model))

        def finish(_: object) -> None:
            mapped.model = mapped.model[:size] + bytearray(max(0, size - len(mapped.model)))
            for rights in (mapped.read_only, mapped.no_access):
                rights.intersection_update(range(mapped.pages))

        self.start(
            thread, "Region.resize", lambda: mapped.region.resize(size), access=access, finish=finish,
            may_raise=(*_NO_SPACE, uswap.BusyError),
        )  # fmt: skip

    @step
    def verify(self, *, thread: int = 0, region: int) -> None:
        """Region.verify: every slot has what its checksum says."""
        mapped = self.pick(region)
        if mapped is not None:
            access = Access(Kind.USE, mapped, 0, len(mapped.model))
            self.start(thread, "Region.verify", mapped.region.verify, access=access)
