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
from uswap.trace.shadow import coarse

SMALL = Frames(capacity=9, low=2, high=4, inactive=3, events=6)

# What a batch says of a page beside its stay.
BESIDE = {"distances": "I", "marks": "B", "rescued_marks": "B"}


class Recorder(Policy):
    """Writes down what it sees; answers with random stays it has seen, out of date ones among them."""

    wants = frozenset({"aged", "written", "evicted"})

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.seen: list[int] = []
        self.log: list[Any] = []

    def decide(self, seen: Batch, need: Need) -> Answer | None:
        self.log.append((*(list(field) for field in seen[: seen._fields.index("lost")]), seen.lost, need))
        self.seen += [*seen.faulted, *seen.rescued]
        picks = [
            array("Q", self.random.choices(self.seen[-16:] or [0], k=self.random.randrange(3))) for _ in range(4)
        ]
        return self.random.choice([None, Answer(*picks), Answer(evict=picks[0])])


class Plain:
    """The pool in lists: pages in their order of arrival, each with its generation. Orders are fewer than a core
    carries out at a time."""

    def __init__(self, frames: Frames, policy: Recorder | None, stores: bool) -> None:
        self.frames, self.policy, self.stores = frames, policy, stores
        self.mapped: list[int] = []
        self.inactive: list[int] = []
        self.marked: set[int] = set()
        self.prepared: list[int] = []  # stays, as in the next three
        self.waiting: list[int] = []
        self.waiting_marked: list[int] = []  # these leave last
        self.leaving: list[int] = []
        self.listed: set[int] = set()
        self.generation: dict[int, int] = {}
        self.left: dict[int, int] = {}
        self.misses = self.first = self.rescues = self.evictions = self.resting = 0
        self.clear()

    def clear(self) -> None:
        self.told: dict[str, list[int]] = {name: [] for name in Batch._fields if name != "lost"}

    def stay(self, page: int) -> int:
        return page << 10 | self.generation[page] % 1024

    @property
    def free(self) -> int:
        return self.frames.capacity - len(self.mapped) - len(self.inactive) - self.resting

    def is_there(self, stay: int, pages: list[int]) -> bool:
        return stay >> 10 in pages and self.stay(stay >> 10) == stay

    def is_sealed(self, stay: int) -> bool:
        return self.generation[stay >> 10] > 0 and not self.stores

    def evict(self, page: int) -> int:
        if page in self.mapped:
            self.mapped.remove(page)
        else:
            self.inactive.remove(page)
            self.resting += self.is_sealed(self.stay(page)) and self.resting < self.frames.resting
        self.listed.discard(self.stay(page))
        self.evictions += 1
        self.left[page] = self.evictions
        self.told["evicted"].append(self.stay(page))
        return 1

    def age(self, stay: int, written: bool, mark: bool = False) -> None:
        if not self.is_there(stay, self.mapped):
            return
        self.mapped.remove(stay >> 10)
        self.resting -= self.is_sealed(stay) and self.resting > 0
        self.inactive.append(stay >> 10)
        (self.waiting_marked if mark else self.waiting).append(stay)
        self.listed.discard(stay)
        self.marked |= {stay >> 10} if mark else set()
        self.told["aged"].append(stay)
        if written:
            self.told["written"].append(stay)

    def clean(self, stay: int) -> None:
        if not self.is_there(stay, self.mapped) or not self.is_sealed(stay):
            self.age(stay, written=True)
        elif stay not in self.listed:
            self.listed.add(stay)
            self.waiting.append(stay)

    def drop(self, count: int, *, prepared_only: bool = False) -> int:
        freed = 0
        while self.prepared and freed < count:
            stay = self.prepared.pop(0)
            if self.is_there(stay, self.inactive) or (self.is_there(stay, self.mapped) and self.is_sealed(stay)):
                freed += self.evict(stay >> 10)
            elif self.is_there(stay, self.mapped):
                self.leaving.append(stay)
        while (self.waiting or self.waiting_marked) and freed < count and not prepared_only:
            stay = (self.waiting or self.waiting_marked).pop(0)
            if self.is_there(stay, self.inactive) or stay in self.listed:
                freed += self.evict(stay >> 10)
        return freed

    def write_out(self) -> int:
        freed = sum(
            self.evict(stay >> 10) for stay in self.leaving if self.is_there(stay, self.mapped + self.inactive)
        )
        self.leaving.clear()
        return freed

    def by_age(self, count: int) -> None:
        count -= self.drop(count)
        if count > 0:
            count -= self.write_out()
        while count > 0 and self.mapped:
            count -= self.evict(self.mapped[0])

    def decide(self) -> None:
        short = max(0, self.frames.high - self.free)
        need = Need(
            short,
            self.frames.capacity,
            len(self.mapped),
            len(self.inactive) + len(self.listed),
            self.frames.inactive,
            self.evictions,
            len(self.prepared),
        )
        batch = Batch(**{name: memoryview(array(BESIDE.get(name, "Q"), told)) for name, told in self.told.items()})
        self.clear()
        assert self.policy
        answer = self.policy.decide(batch, need) or Answer()
        self.prepared += answer.evict
        for carry_out, stays in (
            (self.clean, answer.clean),
            (lambda stay: self.age(stay, written=False), answer.age),
            (lambda stay: self.age(stay, written=False, mark=True), answer.age_marked),
        ):
            if stays:
                short -= self.drop(short)
                self.write_out()
            for stay in stays:
                carry_out(stay)
        short -= self.drop(short)
        self.write_out()
        if self.free < self.frames.low:
            self.by_age(min(short, self.frames.high - self.free))

    def reclaim(self) -> None:
        short = self.frames.high - self.free
        if self.policy:
            if len(self.prepared) < short or self.drop(short, prepared_only=True) < short:
                self.decide()
            return
        self.by_age(self.frames.high - self.free)
        for page in [page for page in self.mapped if self.stay(page) not in self.listed]:
            if len(self.waiting) + max(0, self.free - self.frames.high) >= self.frames.inactive:
                break
            self.clean(self.stay(page))

    def touch(self, page: int) -> None:
        if page in self.mapped:
            return
        new, rescued, marked = page not in self.generation, page in self.inactive, page in self.marked
        self.generation[page] = self.generation.get(page, -1) + 1
        self.marked.discard(page)
        if rescued:
            self.rescues += 1
            self.inactive.remove(page)
            self.told["rescued"].append(self.stay(page))
            self.told["rescued_marks"].append(marked)
        else:
            self.first += new
            self.misses += not new
            distance = NEVER if new else coarse(self.evictions - self.left[page])
            if self.free == 0:
                if not self.resting and not self.drop(64):
                    self.by_age(1)
                self.resting -= self.free == 0 and self.resting > 0
            self.told["faulted"].append(self.stay(page))
            self.told["distances"].append(distance)
            self.told["marks"].append(marked)
        self.mapped.append(page)
        untold = sum(len(told) for name, told in self.told.items() if name not in BESIDE)
        if not rescued and self.free < self.frames.low:
            self.reclaim()
        elif self.policy and untold >= self.frames.events:
            self.decide()


@given(
    touches=st.lists(st.integers(0, 24), max_size=400)
    | st.builds(lambda seed: random.Random(seed).choices(range(20), k=300), st.integers(0, 1000)),
    seed=st.none() | st.integers(0, 1000),
    stores=st.booleans(),
    frames=st.builds(
        lambda capacity, low, high, inactive, events, resting: Frames(
            capacity, min(low, capacity), min(low + high, capacity), min(inactive, capacity), events, resting
        ),
        *(st.integers(1, 12), st.integers(0, 4), st.integers(0, 4), st.integers(0, 5), st.integers(1, 20)),
        st.integers(0, 3),
    ),
)
@settings(deadline=None, max_examples=300)
def test_the_simulator_does_what_the_plain_model_does(
    touches: list[int], seed: int | None, stores: bool, frames: Frames
) -> None:
    policy, twin = (None, None) if seed is None else (Recorder(seed), Recorder(seed))
    plain = Plain(frames, twin, stores)
    for page in touches:
        plain.touch(page)
    simulated = simulate(touches, policy, frames, stores=stores)
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

    assert simulate([page << 18 | 3 for page in range(50)] * 3, Asking(), SMALL, stores=True).evictions > 0


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
    assert frames_of(1 << 20) == Frames((1 << 20) - 64, 4096, 8192, 16384, 16384, 256)
    assert frames_of(1024) == Frames(960, 64, 128, 128, 16384, 8)
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
