"""The soak: processes of a named pool, each with threads that check and rewrite pages of a shared and of a private
region, are killed and replaced while errors of the disk are injected. ``make soak SOAK_ARGS='--seconds 3600
--threads 8 --processes 4 --seed 1 --json FILE'``.

What must hold: no word is ever wrong, no page is lost but to an injected error that must lose one, a process that
touches such a page ends after one line on standard error, and at every stop each frame and slot is accounted for.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import re
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from _support import soak_ledger
from _support.crowd import Member, Members, Nursery

LIMIT, SHARED, PRIVATE = "48MiB", "64MiB", "16MiB"
DEATHS_APART_SECONDS = (0.1, 1.0)
STOP_SECONDS = 30.0
# The place of soak_keeper.py, which is no place of those that work.
KEEPER = -1
# Against hangs only.
DEADLINE_SECONDS = 300.0
LAST_WORDS = re.compile(
    r"uswap: lost page: (region '(?P<private>\w+)'|shared region '\w+') at offset 0x[0-9a-f]+: "
    r"(its slot could not be read|what its slot holds is damaged: the checksum is wrong) "
)


@dataclass
class Deaths:
    """How members have ended."""

    kills: int = 0
    by_lost_private_page: int = 0
    by_lost_shared_page: int = 0


class Soak:
    """One run. Raises AssertionError as soon as anything is wrong."""

    def __init__(self, members: Members, folder: Path, processes: int, seed: int) -> None:
        self._members, self._folder, self._processes = members, folder, processes
        self._random = random.Random(seed)
        self.deaths = Deaths()
        self.stops = 0

    def begin(self) -> None:
        """All members are there."""
        self._keeper = self._members.start(KEEPER, program="keeper", limit=LIMIT)
        self._members.at.pop(KEEPER)  # it takes part in nothing
        for place in range(self._processes):
            self._start(place)

    def work(self, seconds: float, say: Callable[[str], None]) -> None:
        """Members are killed and replaced, and stopped now and then to be counted."""
        began = time.monotonic()
        next_stop = began + min(STOP_SECONDS, seconds)
        while (now := time.monotonic()) < began + seconds:
            time.sleep(self._random.uniform(*DEATHS_APART_SECONDS))  # between two deaths, not a wait for anything
            self._replace_the_dead()
            place = self._random.randrange(self._processes)
            member = self._members.at[place]
            if member.alive:
                member.kill()
                self.deaths.kills += 1
                self._start(place)
            if now > next_stop:
                self.stop()
                say(f"{now - began:.0f} s: {json.dumps(self.report())}")
                self._go_on()
                next_stop += STOP_SECONDS
        self.stop()

    def stop(self) -> None:
        """All check what is their own, and rest; then every frame and slot is counted."""
        self._replace_the_dead()
        for member in self._members.at.values():
            member.say("stop")
        for place in range(self._processes):
            while not self._is_right(place):
                self._start(place)
                self._members.at[place].say("stop")
        self._keeper.count(self._processes + 1)
        self.stops += 1

    def _go_on(self) -> None:
        for member in self._members.at.values():
            member.say("go on")
        for place, member in self._members.at.items():
            if not self._says(member, "going"):
                self._start(place)

    def leave(self) -> None:
        """After stop: all end in good order, and the last one counts."""
        for member in self._members.at.values():
            member.leave()
        self._keeper.count(1)
        self._keeper.leave()

    def report(self) -> dict[str, int]:
        """The figures so far."""
        sums, deaths = soak_ledger.total(self._folder), self.deaths
        poisoned = sums.pop("pages_lost") + deaths.by_lost_private_page
        pages_in = sums.pop("private_pages_in") + sums.pop("shared_pages_in")
        pages_out = sums.pop("private_pages_out") + sums.pop("shared_pages_out")
        return {
            **asdict(deaths),
            "stops_counted_exactly": self.stops,
            "pages_in": pages_in,
            "pages_out": pages_out,
            **sums,
            "pages_poisoned_by_injection": min(poisoned, sums["losing_errors_armed"]),
            "pages_lost": max(0, poisoned - sums["losing_errors_armed"]),
        }

    def _start(self, place: int) -> None:
        """A new member at that place, at work."""
        while True:
            with contextlib.suppress(KeyError):
                self._members.forget(place)
            if self._says(self._members.begin(place), "ready"):
                return

    def _is_right(self, place: int) -> bool:
        return self._says(self._members.at[place], "right")

    def _says(self, member: Member, line: str) -> bool:
        """Whether it has said so; else it has touched a lost page and ended."""
        try:
            member.await_line(line, DEADLINE_SECONDS)
        except AssertionError:
            if member.alive:
                raise
            self._bury(member)
            return False
        return True

    def _replace_the_dead(self) -> None:
        for place, member in list(self._members.at.items()):
            if not member.alive:
                self._bury(member)
                self._start(place)

    def _bury(self, member: Member) -> None:
        """Who has ended without being killed must have touched a lost page, and said so in one line."""
        status = member.end_by_itself()
        complaints = member.complaints
        words = LAST_WORDS.match(complaints[0]) if len(complaints) == 1 else None
        assert status == -signal.SIGBUS, member.last_words()
        assert words, member.last_words()
        if words["private"]:
            self.deaths.by_lost_private_page += 1
        else:
            self.deaths.by_lost_shared_page += 1


def run(
    folder: Path, *, seconds: float, threads: int, processes: int, seed: int, say: Callable[[str], None] = print
) -> dict[str, int]:
    """Runs it, with swap in folder; => the figures. Raises AssertionError: something was wrong."""
    with tempfile.TemporaryDirectory(prefix="uswap-soak-") as place:
        ledger, runtime = Path(place, "ledger"), Path(place, "run")
        ledger.mkdir()
        more = {"program": "soak", "threads": threads, "ledger": str(ledger)}
        with (
            Nursery() as nursery,
            Members(nursery, runtime, folder, processes, SHARED, PRIVATE, seed, **more) as members,
        ):
            soak = Soak(members, ledger, processes, seed)
            soak.begin()
            soak.work(seconds, say)
            soak.leave()
        left = [path for path in runtime.rglob("*") if path.is_socket() or path.is_dir()]
        assert not left, left
        return soak.report()


def main() -> int:
    """The command line; => 0, 1 if anything was wrong."""
    parser = argparse.ArgumentParser(prog="make soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--threads", type=int, default=8, help="in each process")
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--directory", type=Path, help="for swap; default: where pools swap to")
    parser.add_argument("--json", type=Path, help="writes the figures there")
    options = parser.parse_args()
    from uswap._options import default_directory

    settings = {name: getattr(options, name) for name in ("seconds", "threads", "processes", "seed")}
    began = time.monotonic()
    figures: dict[str, float] = {}
    try:
        figures = run(
            options.directory or Path(default_directory()), **settings, say=lambda text: print(text, flush=True)
        )
        failure = ""
    except AssertionError as error:
        failure = str(error)
        print(failure, file=sys.stderr)
    report = {**settings, "took_seconds": round(time.monotonic() - began), **figures, "failure": failure}
    print(json.dumps(report, indent=2))
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")
    return 1 if failure or figures["words_wrong"] or figures["pages_lost"] else 0


if __name__ == "__main__":
    sys.exit(main())
