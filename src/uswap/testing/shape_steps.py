"""Steps that change how long the shared region is, in this process and in its peers.

Each process has a view: the first pages of the region, as many as it has asked for last. Nothing is cut off that
another one sees. Mapped.model is what this process sees; what the region has beyond that nobody touches here, so it
is zeroes (Mapped.beyond)."""

from __future__ import annotations

import uswap
from uswap.testing.engine import step
from uswap.testing.memory import PAGE
from uswap.testing.model import Access, Kind, Mapped
from uswap.testing.peer import PeerDied
from uswap.testing.process_steps import ProcessSteps

_REFUSED = (uswap.OutOfSpaceError, uswap.BusyError)


class ShapeSteps(ProcessSteps):
    """What processes may do to the size of what they share."""

    @step
    def resize_shared(self, *, pages: int) -> None:
        """The shared region has so many pages, and this process sees all of them. Refused if a peer sees more. Not
        while steps are held."""
        mapped = self.shared
        if mapped is None or not self.quiet:
            return
        size = max(1, min(pages, self.region_pages_max)) * PAGE
        if any(page * PAGE >= size for page in mapped.locked):
            return
        access = Access(Kind.SHAPE, mapped, 0, len(mapped.model))
        if self.ledger.clash(access):
            return
        try:
            self.call("SharedRegion.resize", lambda: mapped.region.resize(size))
        except _REFUSED as error:
            self._check_refusal(mapped, size, error)
            return
        self._check_cut(mapped, size)
        _see(mapped, size, size)

    @step
    def refresh_shared(self) -> None:
        """This process sees all of the shared region. Not while steps are held."""
        mapped = self.shared
        if mapped is None or not self.quiet or self.ledger.clash(Access(Kind.SHAPE, mapped, 0, len(mapped.model))):
            return
        self.call("SharedRegion.refresh", mapped.region.refresh)
        size = mapped.whole
        if len(mapped.region) != size:
            raise AssertionError(f"the shared region has {len(mapped.region)} bytes, not {size}")
        _see(mapped, size, size)

    @step
    def peer_resizes(self, *, peer: int, pages: int) -> None:
        """The same in a peer; one that is to die may die of it: then the size is the old or the new one."""
        found, mapped = self._peer(peer), self.shared
        if found is None or mapped is None or found.dead or found.busy or found.stopping or not self.quiet:
            return
        if self.ledger.clash(Access(Kind.SHAPE, mapped, 0, len(mapped.model))):
            return
        size, before = max(1, min(pages, self.region_pages_max)) * PAGE, mapped.whole
        try:
            refused, seen = self.call(f"process {found.pid}: resize", lambda: found("resize", size))
        except PeerDied:
            if not found.doomed:
                raise
            self._learn(mapped, {before, size})
            return
        if refused:
            self._check_refusal(mapped, size, refused, found.pid)
        else:
            self._check_cut(mapped, size, found.pid)
            _see(mapped, size, min(size, len(mapped.model)))
            found.seen = size
        if seen != found.seen:
            raise AssertionError(f"process {found.pid} sees {seen} bytes of the shared region, not {found.seen}")

    @step
    def peer_refreshes(self, *, peer: int) -> None:
        """A peer sees all of the shared region."""
        found, mapped = self._peer(peer), self.shared
        if found is None or mapped is None or found.dead or found.busy or found.stopping or not self.quiet:
            return
        try:
            _, found.seen = self.call(f"process {found.pid}: refresh", lambda: found("resize", 0))
        except PeerDied:
            if not found.doomed:
                raise
            return
        if found.seen != mapped.whole:
            raise AssertionError(f"process {found.pid} sees {found.seen} bytes of {mapped.whole}")

    # ---- what must come of it ----------------------------------------------------------------------------------

    def _views(self, mapped: Mapped, by: int, sure: bool) -> list[int]:
        """Of all others than the process by; 0: this one. sure: of those that are there for certain."""
        views = [peer.seen for peer in self.peers if peer.pid != by and not (sure and peer.doomed)]
        return views if by == 0 else [*views, len(mapped.model)]

    def _check_cut(self, mapped: Mapped, size: int, by: int = 0) -> None:
        """It was done. Raises AssertionError: somebody sees more."""
        if any(view > size for view in self._views(mapped, by, sure=True)):
            raise AssertionError(f"the shared region was cut to {size} bytes, and somebody sees more")

    def _check_refusal(self, mapped: Mapped, size: int, why: object, by: int = 0) -> None:
        """It was not done. Raises AssertionError: for no reason."""
        longer = size > mapped.whole
        if not longer and not self.failed and all(view <= size for view in self._views(mapped, by, sure=False)):
            raise AssertionError(f"the shared region could not be cut to {size} bytes: {why}")
        if longer and "OutOfSpace" not in f"{type(why).__name__} {why}" and not self.failed:
            raise AssertionError(f"the shared region could not grow to {size} bytes: {why}")

    def _learn(self, mapped: Mapped, sizes: set[int]) -> None:
        """Who has changed the size has died of it. Raises AssertionError: neither the one nor the other."""
        self.call("SharedRegion.refresh", mapped.region.refresh)
        size = len(mapped.region)
        if size not in sizes:
            raise AssertionError(f"after a death the shared region has {size} bytes, not one of {sizes}")
        _see(mapped, size, size)


def _see(mapped: Mapped, whole: int, seen: int) -> None:
    """The region has so many bytes, of which this process sees so many."""
    mapped.model = mapped.model[:seen] + bytearray(max(0, seen - len(mapped.model)))
    mapped.beyond = whole - seen
    for pages in (mapped.read_only, mapped.no_access):
        pages.intersection_update(range(mapped.pages))
