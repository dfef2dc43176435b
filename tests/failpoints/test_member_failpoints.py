"""A member dies, or is stopped, at every step of every protocol that members share: the others go on within a
second, with every byte right, and then every frame, slot and chunk is accounted for.

Members 0 and 1 stay for all of it, made again after a failure; for each failpoint a new member comes, meets it, and
is gone."""

from __future__ import annotations

import contextlib
import errno
import itertools
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from _support.crowd import Member, Members, Nursery
from _support.failpoints import Action, names
from conftest import directory_on_disk

from uswap._core import lib

pytestmark = pytest.mark.skipif(not lib.uswap_failpoints_built(), reason="the core was built without failpoints")

SHARED = ("frame.", "slot.", "chunk.", "member.", "repair.", "shared.", "object.", "group.", "peer.", "grant.")
PLACES, VICTIM, OTHER = 4, 2, 3
GO_ON_SECONDS = 1.0
# The victim meets its failpoint in this time, or never.
MEET_SECONDS = 120.0
# Passed while it joins, and opens what is there; while it leaves.
COMING = {"member.joined", "group.joining", "object.file"}
LEAVING = {"group.leaving"}
# Passed by who makes a pool; by who is alone when somebody comes.
MAKING = {"group.made"}
ASKED_TO_JOIN = {"peer.hello"}
ANSWERING = {"peer.joined"}
REPAIRING = {
    "peer.death", "repair.marked", "repair.barrier", "repair.page", "repair.frames", "repair.slots",
    "repair.sizes", "repair.chunks",
}  # fmt: skip
# A failpoint that is passed only if something else has failed.
AFTER = {"shared.one": ["shared.read", int(Action.ERROR), errno.EIO, 1, True]}
# What one member does for all of them: the first of those that are not stopped.
ALONE = {"chunk.draining", "chunk.filled", "chunk.retired"}
ALONE_SECONDS = 3.0
# Passed by who wants a page that has left, of which only a stopped process could say so.
BREAKING = {"shared.broken"}
# Passed only where objects need more disk than there ever was.
GROWING = {"shared.fallocate"}
_SIZES = itertools.count(64, 128)


def shared_names() -> list[str]:
    """The failpoints of what members share."""
    return [name for name in names() if name.startswith(SHARED)] if lib.uswap_failpoints_built() else []


def in_the_pair() -> list[str]:
    """Those that a third member of a pool can meet."""
    return [name for name in shared_names() if name not in MAKING | ASKED_TO_JOIN]


def deaths() -> list[tuple[str, int]]:
    """Each of them, and the time that it is passed at which the victim dies."""
    once = COMING | LEAVING | ANSWERING | REPAIRING | BREAKING
    return [(name, nth) for name in in_the_pair() for nth in ((1,) if name in once else (1, 3))]


class Pair:
    """Members 0 and 1, for as long as nothing is wrong with them."""

    def __init__(self, nursery: Nursery, folder: Path) -> None:
        self.nursery = nursery
        self._folders = (folder / str(number) for number in itertools.count())
        self._made: contextlib.ExitStack | None = None
        self._members: Members | None = None

    def members(self, **more: Any) -> Members:
        """Nobody yet, in a folder of their own."""
        folder = next(self._folders)
        folder.mkdir()
        return Members(self.nursery, folder / "run", folder, PLACES, "24MiB", threads=1, **more)

    @contextlib.contextmanager
    def lent(self) -> Iterator[Members]:
        """The pair at work. What fails inside ends it."""
        if self._members is None:
            self._made = contextlib.ExitStack()
            self._members = self._made.enter_context(self.members(elsewhere_bytes="4MiB"))
            # Room for four: floors of 4.5 MiB (704 frames for faults, 64 of reserve, 96 held, 256 to bounce, in
            # chunks of 64), and 1 MiB for shared pages; 5 MiB are handed out by need.
            self._members.start(0, limit="24MiB", private_bytes="2MiB")
            self._members.start(1, private_bytes="2MiB")
        try:
            yield self._members
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """They end."""
        if self._made is not None:
            self._made.close()
        self._made = self._members = None


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """One for the module; at the end both leave in good order."""
    with Nursery() as nursery, directory_on_disk(tmp_path_factory.mktemp("pair")) as folder:
        pair = Pair(nursery, folder)
        try:
            yield pair
            if pair._members is not None:
                with pair.lent() as members:
                    members.stop()
        finally:
            pair.close()


def _await_met(victim: Member, name: str) -> None:
    assert victim.await_end_or_stop(MEET_SECONDS), f"{name} was never met"


@contextlib.contextmanager
def _pair_stopped(members: Members) -> Iterator[None]:
    for place in (0, 1):
        members.at[place].halt()
    yield
    for place in (0, 1):
        members.at[place].resume()


def _after_a_death(members: Members, **job: Any) -> Member:
    """A member that mends after another, alone: the pair is stopped meanwhile."""
    victim = members.start(VICTIM, **job)
    other = members.begin(OTHER, failpoints=[["shared.committed", int(Action.FREEZE), 0, 1, False]])
    assert other.await_end_or_stop(MEET_SECONDS), other.last_words()
    assert other.stopped, other.last_words()
    with _pair_stopped(members):
        members.forget(OTHER)
        _await_met(victim, "the death")
    return victim


def _beside_a_stopped(members: Members, **job: Any) -> Member:
    """A member that wants what another was just throwing out when it was stopped, and nobody else does."""
    victim = members.start(VICTIM, **job)
    other = members.begin(OTHER, failpoints=[["shared.punched", int(Action.FREEZE), 0, 1, False]])
    assert other.await_end_or_stop(MEET_SECONDS), other.last_words()
    assert other.stopped, other.last_words()
    with _pair_stopped(members):
        _await_met(victim, "what has left")
    members.forget(OTHER)
    return victim


def _victim(members: Members, name: str, action: Action, nth: int) -> Member:
    """A member that has met the failpoint."""
    failpoints = [[name, int(action), 0, nth, False]] + ([AFTER[name]] if name in AFTER else [])
    job: dict[str, Any] = {"failpoints": failpoints, "busy": True, "private_bytes": "4MiB"}
    if name in GROWING:
        job["object_mib"] = next(_SIZES)
    if name in REPAIRING:
        victim = _after_a_death(members, **job)
    elif name in BREAKING:
        victim = _beside_a_stopped(members, **job)
    else:
        victim = members.begin(VICTIM, arm_first=name in COMING, **job)
    if name in LEAVING:
        victim.await_line("ready")
        victim.say("leave")
    if name in ANSWERING:
        victim.await_line("ready")
        members.start(OTHER)
    if name in ALONE:
        victim.await_line("joined")
        _await_met_alone(members, victim, name)
    else:
        _await_met(victim, name)
    return victim


def _await_met_alone(members: Members, victim: Member, name: str) -> None:
    """While the pair is stopped. What there is to be moved then depends on what the pair had just now, and may be
    nothing: then the pair goes on for a turn, and is stopped anew."""
    deadline = time.monotonic() + MEET_SECONDS
    while True:
        with _pair_stopped(members):
            if victim.await_end_or_stop(ALONE_SECONDS):
                return
        assert time.monotonic() < deadline, f"{name} was never met"
        _seconds_of_a_turn(members)


def _others_end(members: Members) -> None:
    if OTHER in members.at:
        members.at[OTHER].stop()
        members.at[OTHER].leave()
        members.forget(OTHER)


def _seconds_of_a_turn(members: Members) -> float:
    """While nothing happens: a machine may be busy with something else."""
    return max(members.at[place].await_turns() for place in (0, 1))


def _who_stood_still(members: Members) -> str:
    """Which part of whom: of all parts only those of shared memory wait for others. And what they have said, of a
    disk that does not answer, for one."""
    return "\n".join(f"member {place}: {one.went_on}, {one.complaints}" for place, one in members.at.items())


@pytest.mark.timeout(240)
@pytest.mark.parametrize(("name", "nth"), deaths())
def test_a_member_is_killed_there(name: str, nth: int, pair: Pair) -> None:
    with pair.lent() as members:
        calm = _seconds_of_a_turn(members)
        victim = _victim(members, name, Action.KILL, nth)
        assert victim.end_by_itself() == -signal.SIGKILL, victim.last_words()
        seconds = [members.at[place].await_turns() for place in (0, 1)]
        told = _who_stood_still(members)
        members.forget(VICTIM)
        _others_end(members)
        members.pause()
        members.go_on()
        assert max(seconds) < GO_ON_SECONDS + 2 * calm, told


@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", in_the_pair())
def test_a_member_is_stopped_there(name: str, pair: Pair) -> None:
    with pair.lent() as members:
        calm = _seconds_of_a_turn(members)
        victim = _victim(members, name, Action.FREEZE, 1)
        assert victim.stopped, victim.last_words()
        # All threads of the victim are stopped, each wherever it is.
        seconds = [members.at[place].await_turns() for place in (0, 1)]
        told = _who_stood_still(members)
        victim.resume()
        for place in (0, 1):
            members.at[place].await_turns()
        if name not in LEAVING:
            victim.stop()
            victim.leave()
        assert victim.end_by_itself() == 0
        members.forget(VICTIM)
        _others_end(members)
        members.pause()
        members.go_on()
        assert max(seconds) < GO_ON_SECONDS + 2 * calm, told


@pytest.mark.timeout(120)
@pytest.mark.parametrize("action", [Action.KILL, Action.FREEZE])
@pytest.mark.parametrize("name", sorted(MAKING | ASKED_TO_JOIN))
def test_the_first_member_is_killed_or_stopped_there(name: str, action: Action, pair: Pair) -> None:
    with pair.members() as members:
        first = members.begin(0, limit="16MiB", arm_first=True, failpoints=[[name, int(action), 0, 1, False]])
        if name in ASKED_TO_JOIN:
            first.await_line("ready")
            members.begin(1)
        _await_met(first, name)
        if action == Action.KILL:
            members.forget(0)
            if name in ASKED_TO_JOIN:
                assert members.at[1].end_by_itself() == 1  # nobody is there
                members.forget(1)
            members.start(0, limit="16MiB")
        else:
            first.resume()
        if 1 not in members.at:
            first = members.at[0]
            if action == Action.FREEZE:
                first.await_line("ready")
            members.start(1)
        else:
            members.at[1].await_line("ready")
        for place in (0, 1):
            members.at[place].await_turns()
        members.stop()
