"""A member dies, or is stopped, at every step of every protocol that members share: the others go on, with every
byte right, and when it is over every frame and slot is accounted for."""

from __future__ import annotations

from pathlib import Path

import pytest
from _support.crowd import Members, pool_of_members
from _support.failpoints import Action, names

from uswap._core import lib

pytestmark = pytest.mark.skipif(not lib.uswap_failpoints_built(), reason="the core was built without failpoints")

SHARED = ("frame.", "slot.", "chunk.", "member.", "repair.", "shared.", "object.", "group.", "peer.", "grant.")
# Steps of coming (they are passed before a member is ready), of repairing after another, and of leaving.
COMING = ("member.", "group.", "peer.", "object.")
REPAIRING = ("repair.", "peer.death")


def shared_names() -> list[str]:
    """The failpoints of what members share."""
    return [name for name in names() if name.startswith(SHARED)] if lib.uswap_failpoints_built() else []


def _victim(members: Members, name: str, action: Action, nth: int) -> None:
    """A member that is to meet the failpoint, in place 2, and a death for it to repair after."""
    coming = name.startswith(COMING) and name not in REPAIRING
    victim = members.begin(2, failpoint=[name, int(action), nth], arm_first=coming)
    if not coming:
        victim.await_line("ready")
    if name.startswith(REPAIRING):
        members.at[1].kill()
        members.start(1)


def _met(members: Members, turns: int) -> bool:
    """Whether the victim has met its failpoint within so many turns of the others."""
    victim = members.at[2]
    for _ in range(turns):
        if not victim.alive or victim.stopped:
            return True
        members.at[0].await_turns()
    return not victim.alive or victim.stopped


@pytest.mark.timeout(180)
@pytest.mark.parametrize("nth", [1, 3])
@pytest.mark.parametrize("name", shared_names())
def test_a_member_is_killed_there(name: str, nth: int, tmp_path: Path, swap_directory: Path) -> None:
    with pool_of_members(
        tmp_path / "run", swap_directory, places=3, taken=2, limit="16MiB", size="24MiB"
    ) as members:
        _victim(members, name, Action.KILL, nth)
        met = _met(members, 8)
        if members.at[2].alive:
            members.at[2].kill()
        for place in (0, 1):
            members.at[place].await_turns()
        del members.at[2]
        members.stop()
    assert met or nth > 1 or name in NOT_MET_HERE


@pytest.mark.timeout(180)
@pytest.mark.parametrize("name", shared_names())
def test_a_member_is_stopped_there(name: str, tmp_path: Path, swap_directory: Path) -> None:
    with pool_of_members(
        tmp_path / "run", swap_directory, places=3, taken=2, limit="16MiB", size="24MiB"
    ) as members:
        _victim(members, name, Action.FREEZE, 1)
        met = _met(members, 8)
        seconds = [members.at[place].await_turns() for place in (0, 1)]
        members.at[2].resume()
        members.at[2].kill()
        del members.at[2]
        for place in (0, 1):
            members.at[place].await_turns()
        members.stop()
    assert met or name in NOT_MET_HERE
    assert seconds


# What these members do not do: another test's subject.
NOT_MET_HERE: set[str] = {
    "grant.give",
    "grant.lower",
    "group.leaving",
    "group.made",
    "object.ending",
    "object.made",
    "object.unmapped",
    "peer.hello",
    "peer.joined",
    "shared.discard",
    "shared.fallocate",
    "shared.one",
}
