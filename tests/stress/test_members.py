"""Members of a named pool write, check and are killed at random: what the others own stays right, and at the end
every frame and slot is accounted for. USWAP_STRESS_SECONDS makes it longer."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import pytest
from _support.crowd import pool_of_members

SECONDS = float(os.environ.get("USWAP_STRESS_SECONDS", "6"))


def _nothing_left(runtime: Path) -> None:
    left = [path for path in runtime.rglob("*") if path.is_socket() or path.is_dir()]
    assert not left, left


@pytest.mark.timeout(120 + 3 * SECONDS)
@pytest.mark.parametrize(("places", "map_for_peers"), [(2, True), (4, True), (4, False), (8, True)])
def test_members_are_killed_and_replaced(
    places: int, map_for_peers: bool, tmp_path: Path, swap_directory: Path
) -> None:
    chance = random.Random(places)
    runtime = tmp_path / "run"
    with pool_of_members(
        runtime,
        swap_directory,
        places=places,
        limit="48MiB",
        size="64MiB",
        private="8MiB",
        seed=1000 * places,
        map_for_peers=map_for_peers,
    ) as members:
        deadline, killed = time.monotonic() + SECONDS, 0
        while time.monotonic() < deadline:
            time.sleep(chance.uniform(0.1, 1.0))  # the time between two deaths, not a wait for anything
            place = chance.randrange(places)
            members.at[place].kill()
            killed += 1
            members.at[(place + 1) % places].check()  # while they work, and mend what the dead one left
            members.start(place)
        for member in members.at.values():
            member.await_turns()
        members.stop()
        assert killed > 0
    _nothing_left(runtime)


def test_all_are_killed_and_the_next_pool_starts_clean(tmp_path: Path, swap_directory: Path) -> None:
    runtime = tmp_path / "run"
    for _ in range(2):
        with pool_of_members(runtime, swap_directory, places=3, limit="32MiB", size="48MiB") as members:
            for member in list(members.at.values()):
                member.await_turns()
            for member in list(members.at.values()):
                member.kill()
    with pool_of_members(runtime, swap_directory, places=2, limit="32MiB", size="48MiB") as members:
        members.stop()
    _nothing_left(runtime)
