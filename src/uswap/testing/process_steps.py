"""Steps with other processes: forked children with snapshots of the private regions, and members of a named pool
that share a region, are stopped anywhere, and killed."""

from __future__ import annotations

import functools
import signal
from collections.abc import Callable, Iterable
from typing import Any

import uswap
from uswap.testing import failpoints, memory
from uswap.testing.child import Child
from uswap.testing.engine import step
from uswap.testing.failpoints import Action
from uswap.testing.memory import PAGE
from uswap.testing.model import Access, Kind, Mapped
from uswap.testing.nursery import Nursery
from uswap.testing.peer import Peer, PeerDied
from uswap.testing.pool_steps import PoolSteps
from uswap.testing.threads import Task

PEERS_MAX = 2
# A child must have its floor beside the parent's.
_FORK_LIMIT = 8 << 20
# What members of a pool do together.
_SHARED = ("shared.", "frame.", "slot.", "chunk.", "object.", "grant.")
_CONTINUE_SECONDS = 0.05


def shared_points() -> list[str]:
    """The sync points of what members of a named pool do together."""
    return [name for name in failpoints.names() if name.startswith(_SHARED)]


class ProcessSteps(PoolSteps):
    """What other processes may do with the same memory."""

    child: Child | None = None
    peers: list[Peer]
    shared: Mapped | None = None
    _nurseries: list[Nursery] = []  # noqa: RUF012 - one for all programs of a process

    # ---- forked children ---------------------------------------------------------------------------------------

    @step
    def fork(self) -> None:
        """A child gets the private regions as they are. One at a time; not while steps are held, or in a named
        pool."""
        if self.child is not None or self.shared is not None or not self.quiet:
            return
        self.mend()

        self.pool.limit = max(self.pool.limit, _FORK_LIMIT)
        self.child = Child(self._serve)

    def _serve(self, request: dict[str, Any]) -> None:
        """In the child. Raises ForkError: why it could not go on with the pool."""
        self.pool.stats()
        mapped = None if request["region"] is None else self.pick(request["region"])
        if request["what"] == "check":
            for each in [*self.regions, *filter(None, [self.neighbour])]:
                self._compare(each)
            self.pool.check()
        elif request["what"] == "write" and mapped is not None:
            start, length = mapped.span(request["start"], request["length"])
            if mapped.may_store(start, length):
                data = memory.contents(request["value"], length)
                memory.store(self.address(mapped) + start, data)
                mapped.model[start : start + length] = data
        elif request["what"] == "advise" and mapped is not None:
            mapped.region.advise(uswap.Advice[request["advice"]])

    def _compare(self, mapped: Mapped) -> None:
        """All of a region that may be loaded, here and now. Raises AssertionError."""
        parts = [range(mapped.pages)] if not mapped.no_access else [range(n, n + 1) for n in range(mapped.pages)]
        for pages in parts:
            start = pages.start * PAGE
            length = min(pages.stop * PAGE, len(mapped.model)) - start
            if mapped.may_load(start, length):
                access = Access(Kind.LOAD, mapped, start, length)
                access.candidates = [bytes(mapped.model[start : start + length])]
                self.ledger.check(access, memory.load(self.address(mapped) + start, length))

    def _tell_child(self, what: str, **request: Any) -> None:
        child = self.child
        if child is not None and not child.busy:
            self.start(
                0, "a forked child", lambda: child({"what": what, "region": None, **request}, self.hang_seconds)
            )

    @step
    def child_checks(self) -> None:
        """The child compares all regions with what they were at the fork and what it has written since."""
        self._tell_child("check")

    @step
    def child_writes(self, *, region: int, start: int, length: int, value: int) -> None:
        """The child stores; nobody else sees it."""
        self._tell_child("write", region=region, start=start, length=length, value=value)

    @step
    def child_advises(self, *, region: int, advice: str) -> None:
        """Region.advise in the child, for all of a region."""
        self._tell_child("advise", region=region, advice=advice)

    @step
    def child_ends(self, *, killed: bool = False) -> None:
        """The child ends by itself, or is killed."""
        child = self.child
        if child is None or not self.quiet:
            return
        self.child = None
        (child.kill if killed else child.end)(self.hang_seconds)

    # ---- members of a named pool -------------------------------------------------------------------------------

    @property
    def nursery(self) -> Nursery:
        """Where peers come from."""
        if not self._nurseries:
            self._nurseries.append(Nursery("uswap.testing.peer"))
        return self._nurseries[-1]

    def other_processes(self) -> Iterable[int]:
        """The peers."""
        return [peer.pid for peer in self.peers]

    @step
    def peer_joins(self) -> None:
        """One process more joins the pool and opens the shared region. Not while steps are held."""
        if self.shared is None or len(self.peers) >= PEERS_MAX or not self.quiet:
            return
        self.mend()
        peer = Peer(self.nursery, self.pool.name, self.shared.region.name, self.swap_folder)
        self.peers.append(peer)
        peer("join")
        peer.seen = self.shared.whole

    def _peer(self, number: int) -> Peer | None:
        return self.peers[number % len(self.peers)] if self.peers else None

    def _ask_peer(
        self,
        peer: Peer,
        what: str,
        *arguments: Any,
        access: Access | None = None,
        finish: Callable[[Any], None] | None = None,
    ) -> None:
        """A request to a peer, in whichever thread is free; a peer does one thing at a time."""
        if peer.dead or peer.busy:
            return
        may_raise = (PeerDied,) if peer.doomed else ()
        self.start(
            0, f"process {peer.pid}: {what}", lambda: peer(what, *arguments), access=access, finish=finish,
            may_raise=may_raise, torn=True,
        )  # fmt: skip

    @step
    def peer_writes(self, *, peer: int, start: int, length: int, value: int) -> None:
        """A peer stores in the shared region."""
        found, mapped = self._peer(peer), self.shared
        if found is not None and mapped is not None:
            start, length = mapped.span(start, length, found.seen)
            data = memory.contents(value, length)
            self._ask_peer(
                found, "store", start, data, access=Access(Kind.STORE, mapped, start, length, after=data)
            )

    @step
    def peer_reads(self, *, peer: int, start: int, length: int) -> None:
        """A peer loads from it, and it is compared."""
        found, mapped = self._peer(peer), self.shared
        if found is not None and mapped is not None:
            start, length = mapped.span(start, length, found.seen)
            access = Access(Kind.LOAD, mapped, start, length)
            self._ask_peer(
                found, "load", start, length, access=access, finish=lambda data: self.ledger.check(access, data)
            )

    @step
    def peer_advises(self, *, peer: int, advice: str, page: int, count: int) -> None:
        """Region.advise in a peer."""
        found, mapped = self._peer(peer), self.shared
        if found is not None and mapped is not None:
            self._ask_peer(found, "advise", advice, *mapped.page_span(page, count, found.seen))

    @step
    def peer_uses_memory(self, *, peer: int, pages: int) -> None:
        """A peer fills and frees memory of its own, so that parts of the limit change hands."""
        found = self._peer(peer)
        if found is not None:
            self._ask_peer(found, "private", pages)

    @step
    def peer_stops(self, *, peer: int, at: str, nth: int = 1) -> None:
        """A peer is stopped as a whole (as by SIGSTOP) when it passes that point for the nth time; release lets it
        go on. Nothing, if this build has no sync points."""
        found = self._peer(peer)
        if found is None or found.dead or found.busy or found.doomed or self.loose or not failpoints.built():
            return
        if found.stopping is None:
            # A thread of the peer's own may meet it before the peer has answered.
            found.stopping, self.holds[_stopped(found)] = at, nth
            if not self.start(0, f"process {found.pid}: arm", lambda: found("arm", at, int(Action.FREEZE), nth)):
                found.stopping = None
                del self.holds[_stopped(found)]

    @step
    def peer_will_die(self, *, peer: int, at: str, nth: int = 1) -> None:
        """A peer is killed when it passes that point for the nth time. Nothing, if this build has no failpoints."""
        found = self._peer(peer)
        if found is None or found.dead or found.busy or not failpoints.built() or found.stopping is not None:
            return
        found.doomed = True
        # A thread of the peer's own may meet it before the peer has answered.
        self._ask_peer(found, "arm", at, int(Action.KILL), nth)

    @step
    def kill_peer(self, *, peer: int) -> None:
        """SIGKILL to a peer, whatever it is at. What it was storing may be there in part."""
        found = self._peer(peer)
        if found is None:
            return
        found.doomed = True
        for each in self._outstanding:
            if each.task.what.startswith(f"process {found.pid}:"):
                each.may_raise = (PeerDied,)
        found.send_signal(signal.SIGKILL)
        self._bury(found)

    @step
    def peer_leaves(self, *, peer: int) -> None:
        """A peer closes what it has and ends. Not while steps are held."""
        found = self._peer(peer)
        if found is None or not self.quiet or found.doomed:
            return
        found("leave")
        self._bury(found, expected=0)

    def _bury(self, peer: Peer, expected: int = -signal.SIGKILL) -> None:
        self.peers.remove(peer)
        self.holds.pop(_stopped(peer), None)
        status = peer.reap()
        if status != expected:
            raise AssertionError(f"process {peer.pid} ended with status {status}")

    def let_go(self, name: str) -> None:
        """As everywhere; also a peer."""
        for peer in self.peers:
            if name == _stopped(peer):
                peer.send_signal(signal.SIGCONT)
                return
        super().let_go(name)

    def wait_for(self, task: Task) -> None:
        """A peer may meet the point where it stops only after it was to go on."""
        tries = round(self.hang_seconds / _CONTINUE_SECONDS) if self.quiet and self.peers else 0
        while tries and not task.wait_briefly(_CONTINUE_SECONDS):
            tries -= 1
            for peer in self.peers:
                peer.send_signal(signal.SIGCONT)
        super().wait_for(task)

    def settle_peers(self) -> None:
        """When nothing is held: nobody stops any more, who has died is buried, torn stores are looked at."""
        for peer in list(self.peers):
            if peer.doomed and peer.await_end(0):
                self._bury(peer)
            elif peer.stopping is not None:
                point = peer.stopping
                self.call("disarming a peer", functools.partial(peer, "clear", point))
                peer.stopping = None
        for access, guard in list(self.ledger.torn):
            found = memory.load(self.address(access.mapped) + access.start, access.length)
            self.ledger.mend(access, guard, found)

    def end_processes(self) -> None:
        """All of them."""
        if self.child is not None:
            self.child_checks()
            self.child_ends()
        for peer in list(self.peers):
            if peer.doomed:
                self.kill_peer(peer=self.peers.index(peer))
            else:
                self._peer_sees_all(peer)
                self.peer_leaves(peer=self.peers.index(peer))

    def _peer_sees_all(self, peer: Peer) -> None:
        mapped = self.shared
        if mapped is not None:
            start, length = mapped.span(0, len(mapped.model), peer.seen)
            access = Access(Kind.LOAD, mapped, start, length, candidates=[bytes(mapped.model[:length])])
            self.ledger.check(access, peer("load", start, length))
            peer("check")

    def kill_all(self) -> None:
        """After a failure: no process is left."""
        for peer in self.peers:
            peer.send_signal(signal.SIGKILL)
        if self.child is not None:
            self.child.send_kill()


def _stopped(peer: Peer) -> str:
    return f"process {peer.pid}"
