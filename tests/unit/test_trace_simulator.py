"""The simulator against a model that is too simple to be wrong, and what it says of policies that are."""

from __future__ import annotations

import random
from array import array
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import uswap
from uswap.policy import NEVER, Answer, Batch, Fifo, Need, Policy, View, by_name
from uswap.trace import Frames, Header, Kind, Trace, TraceWriter, frames_of, simulate

SMALL = Frames(capacity=9, low=2, high=4, inactive=3, events=6)


class Recorder(Policy):
    """Writes down what it sees; answers with random stays it has seen, out of date ones among them."""

    wants = frozenset({"aged", "written", "evicted"})

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.seen: list[int] = []
        self.log: list[Any] = []

    def decide(self, seen: Batch, need: Need) -> Answer | None:
        self.log.append((*(list(field) for field in seen[:-1]), seen.lost, need))
        self.seen += [*seen.faulted, *seen.rescued]
        picks = [array("Q", self.random.choices(self.seen or [0], k=self.random.randrange(3))) for _ in range(3)]
        return self.random.choice([None, Answer(*picks), Answer(evict=picks[0])])


class Plain:
    """The pool in lists: pages in their order of arrival, each with its generation."""

    def __init__(self, frames: Frames, policy: Recorder | None) -> None:
        self.frames, self.policy = frames, policy
        self.mapped: list[int] = []
        self.inactive: list[int] = []
        self.generation: dict[int, int] = {}
        self.left: dict[int, int] = {}
        self.misses = self.first = self.rescues = self.evictions = 0
        self.clear()

    def clear(self) -> None:
        self.told: dict[str, list[int]] = {
            name: [] for name in (*Batch._fields[:2], "rescued", "aged", "written", "evicted")
        }

    def stay(self, page: int) -> int:
        return page << 10 | self.generation[page] % 1024

    @property
    def free(self) -> int:
        return self.frames.capacity - len(self.mapped) - len(self.inactive)

    def evict(self, page: int) -> None:
        (self.mapped if page in self.mapped else self.inactive).remove(page)
        self.evictions += 1
        self.left[page] = self.evictions
        self.told["evicted"].append(self.stay(page))

    def rest(self, page: int, written: bool) -> None:
        self.mapped.remove(page)
        self.inactive.append(page)
        self.told["aged"].append(self.stay(page))
        if written:
            self.told["written"].append(self.stay(page))

    def drop_inactive(self) -> None:
        while self.free < self.frames.high and self.inactive:
            self.evict(self.inactive[0])

    def decide(self) -> None:
        told, need = (
            self.told,
            Need(
                max(0, self.frames.high - self.free),
                self.frames.capacity,
                len(self.mapped),
                len(self.inactive),
                self.frames.inactive,
                self.evictions,
            ),
        )
        self.clear()
        batch = Batch(**{name: memoryview(array("I" if name == "distances" else "Q", told[name])) for name in told})
        assert self.policy
        answer = self.policy.decide(batch, need) or Answer()
        for stay in answer.evict:
            if stay >> 10 in self.mapped + self.inactive and self.stay(stay >> 10) == stay:
                self.evict(stay >> 10)
        for stays, written in ((answer.clean, True), (answer.age, False)):
            for stay in stays:
                if stay >> 10 in self.mapped and self.stay(stay >> 10) == stay:
                    self.rest(stay >> 10, written)

    def reclaim(self) -> None:
        while self.policy:
            before = self.free
            self.decide()
            self.drop_inactive()
            if self.free >= self.frames.high or self.free <= before:
                break
        if self.policy and self.free >= self.frames.low:
            return
        self.drop_inactive()
        while self.free < self.frames.high and self.mapped:
            self.evict(self.mapped[0])
        while len(self.inactive) < self.frames.inactive and self.mapped:
            self.rest(self.mapped[0], True)

    def touch(self, page: int) -> None:
        if page in self.mapped:
            return
        new, rescued = page not in self.generation, page in self.inactive
        self.generation[page] = self.generation.get(page, -1) + 1
        if rescued:
            self.rescues += 1
            self.inactive.remove(page)
            self.told["rescued"].append(self.stay(page))
        else:
            self.first += new
            self.misses += not new
            distance = NEVER if new else self.evictions - self.left[page]
            if self.free == 0:
                self.evict((self.inactive or self.mapped)[0])
            self.told["faulted"].append(self.stay(page))
            self.told["distances"].append(distance)
        self.mapped.append(page)
        if not rescued and self.free < self.frames.low:
            self.reclaim()
        elif self.policy and sum(map(len, self.told.values())) - len(self.told["distances"]) >= self.frames.events:
            self.decide()


@given(
    touches=st.lists(st.integers(0, 24), max_size=400),
    seed=st.none() | st.integers(0, 1000),
    frames=st.builds(
        lambda capacity, low, high, inactive, events: Frames(
            capacity, min(low, capacity), min(low + high, capacity), min(inactive, capacity), events
        ),
        *(st.integers(1, 12), st.integers(0, 4), st.integers(0, 4), st.integers(0, 5), st.integers(1, 20)),
    ),
)
@settings(deadline=None, max_examples=300)
def test_the_simulator_does_what_the_plain_model_does(touches: list[int], seed: int | None, frames: Frames) -> None:
    policy, twin = (None, None) if seed is None else (Recorder(seed), Recorder(seed))
    plain = Plain(frames, twin)
    for page in touches:
        plain.touch(page)
    simulated = simulate(touches, policy, frames)
    counts = simulated.first_touches, simulated.misses, simulated.rescues, simulated.evictions
    assert counts == (plain.first, plain.misses, plain.rescues, plain.evictions)
    assert simulated.accesses == len(touches)
    if policy and twin:
        assert simulated.decisions == len(policy.log)
        assert policy.log == twin.log


def test_a_page_may_arrive_more_often_than_there_are_generations() -> None:
    touches = [0, 1] * 1500
    simulated = simulate(touches, None, Frames(1, 0, 0, 0, 100))
    assert (simulated.misses, simulated.first_touches) == (2998, 2)


def test_a_policy_may_ask_which_stays_are_current() -> None:
    class Asking(Fifo):
        def start(self, view: View) -> None:
            self.view = view

        def decide(self, seen: Batch, need: Need) -> Answer:
            answered = super().decide(seen, need)
            asked = [*seen.faulted, *(stay + 1 for stay in seen.faulted)]
            current = self.view.current(asked)
            assert set(seen.faulted[-1:]) <= set(current) <= set(seen.faulted)
            assert self.view.regions()[3].resident == (need.mapped + need.inactive) * 4096
            assert self.view.capacity == need.capacity
            return answered

    assert simulate([page << 18 | 3 for page in range(50)] * 3, Asking(), SMALL).evictions > 0


def test_regions_have_what_the_trace_knows(tmp_path: Path) -> None:
    regions: dict[int, Any] = {}

    class Looking(Fifo):
        def start(self, view: View) -> None:
            regions.update(view.regions())

    header = Header(window_pages=1, regions={5: {"name": "table", "size_bytes": 8192}})
    with TraceWriter(tmp_path / "t", header) as writer:
        writer.touch(0, 5)
    simulate(Trace.open(tmp_path / "t"), Looking(), 100)
    assert (regions[5].name, regions[5].size, regions[5].resident, regions[5].id) == ("table", 8192, 0, 5)


def test_a_page_that_is_zero_again_is_no_miss(tmp_path: Path) -> None:
    with TraceWriter(tmp_path / "t") as writer:
        for kind in (Kind.FIRST, Kind.FIRST, Kind.READ, Kind.EVICTED, Kind.AROUND):
            for page in range(20):
                writer.touch(page, kind=kind)
    simulated = simulate(Trace.open(tmp_path / "t"), None, Frames(10, 0, 0, 0, 100))
    assert (simulated.first_touches, simulated.misses) == (40, 20)
    assert simulated.sequential_misses == 19


def test_a_sample_of_the_pages_gives_the_miss_ratio_of_all() -> None:
    chooser = random.Random(5)
    touches = [int(chooser.paretovariate(0.8)) % 20000 << 18 for _ in range(150_000)]
    whole = simulate(touches, "core", 3000)
    part = simulate(touches, "core", 3000, sample=0.25)
    assert part.accesses < whole.accesses
    assert part.touches == whole.touches == len(touches)
    assert part.miss_ratio == pytest.approx(whole.miss_ratio, rel=0.1)


def test_the_sizes_are_those_of_the_core() -> None:
    assert frames_of(1 << 20) == Frames((1 << 20) - 64, 4096, 8192, 16384, 32768)
    assert frames_of(1024) == Frames(960, 64, 128, 128, 32768)
    with pytest.raises(uswap.ArgumentError, match="64 are reserved"):
        frames_of(64)


class Raising(Policy):
    def decide(self, seen: Batch, need: Need) -> Answer:
        raise ZeroDivisionError("oh dear")


class RaisingAtStart(Fifo):
    def start(self, view: View) -> None:
        raise KeyError(1)


def answering(answer: Any) -> Policy:
    class Answering(Policy):
        def decide(self, seen: Batch, need: Need) -> Answer:
            return answer  # type: ignore[no-any-return]

    return Answering()


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        (Raising(), r"the policy Raising raised in decide\(\): ZeroDivisionError: oh dear"),
        (RaisingAtStart(), r"the policy RaisingAtStart raised in start\(\): KeyError"),
        (answering(5), "the policy Answering answered 5, not an Answer or None"),
        (answering([1, 2]), "the policy Answering answered"),
        (answering(Answer(evict=["a"])), "the policy Answering answered with no stays in 'evict'"),
        (answering(Answer(clean=[-1])), "the policy Answering answered with no stays in 'clean'"),
        (answering(Answer(age=array("d", [1.0]))), "the policy Answering answered with no stays in 'age'"),
        (answering(Answer(read_ahead=7)), "the policy Answering answered with no stays in 'read_ahead'"),
    ],
)
def test_a_policy_that_fails_is_named(policy: Policy, said: str) -> None:
    with pytest.raises(uswap.PolicyError, match=said):
        simulate(range(100), policy, SMALL)


def test_a_policy_that_answers_nothing_leaves_it_to_the_core() -> None:
    touches = [random.Random(1).randrange(40) for _ in range(2000)]
    idle, core = simulate(touches, answering(None), SMALL), simulate(touches, None, SMALL)
    assert (idle.misses, idle.evictions, idle.rescues) == (core.misses, core.evictions, core.rescues)
    assert simulate(touches, answering(Answer(evict=[12345 << 28])), SMALL).misses == core.misses


def test_stays_may_be_of_numpy() -> None:
    numpy = pytest.importorskip("numpy")

    class Newest(Policy):
        def decide(self, seen: Batch, need: Need) -> Answer:
            return Answer(evict=numpy.asarray(seen.faulted)[::-1][: need.frames].copy())

    touches = list(range(30)) * 5
    assert simulate(numpy.array(touches), Newest(), SMALL).misses < simulate(touches, "fifo", SMALL).misses


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("lifo", "there is no policy 'lifo': one of .*fifo.*module:Class"),
        ("no.such.module:Lifo", "no.such.module"),
        ("uswap.policy:Lifo", "Lifo"),
        ("uswap.policy:Queue", "is no policy"),
        (":", "there is no policy ':'"),
    ],
)
def test_a_name_that_is_no_policy_is_told_which_there_are(name: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        by_name(name)
    with pytest.raises(uswap.ArgumentError):
        simulate([1], name, 100)


def test_samples_are_shares() -> None:
    with pytest.raises(uswap.ArgumentError, match="share"):
        simulate([1], None, 100, sample=2)
