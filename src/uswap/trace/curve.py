"""miss_curve: misses and time of a program for limits from small to all its pages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from uswap.trace.cost import Costs, work_seconds
from uswap.trace.frames import frames_of, limit_that_holds
from uswap.trace.reader import Trace
from uswap.trace.simulator import simulate
from uswap.trace.stack_distance import lru_curve

# The least limit of a pool: 704 frames for faults, and the reserve.
_LIMIT_FRAMES_MIN = 768
_SMALLEST_SHARE = 1 / 64
# What a sample has at least: touches (a curve then takes some seconds) and pages (1 % of error in the paper of
# Waldspurger et al.). To leave out less than half is not worth the error.
_SAMPLE_TOUCHES, _SAMPLE_PAGES, _SAMPLE_MAX = 250_000, 4096, 0.5
# The limit that is needed is found to so much, in so many simulations more.
_NEEDED_TO, _NEEDED_STEPS = 1.04, 5


@dataclass(frozen=True, slots=True)
class Point:
    """A policy at one limit. Counts are of all pages, estimated from the sample.

    Attributes:
        limit_frames: pages of 4 KiB.
        misses, sequential_misses, miss_ratio: as in Simulated.
        seconds: what the program would take.
    """

    limit_frames: int
    misses: float
    sequential_misses: float
    miss_ratio: float
    seconds: float


@dataclass(frozen=True, slots=True)
class PolicyCurve:
    """A policy at all limits.

    Attributes:
        needed_frames: the least limit with which the program takes at most the time allowed for.
    """

    policy: str
    points: list[Point]
    needed_frames: int


@dataclass(frozen=True, slots=True)
class Curve:
    """What memory is worth to a program.

    Attributes:
        limits: in frames, ascending; the last one holds all pages.
        lru: miss ratio of LRU at each of them.
        curves: of the policies.
        work_seconds: without misses.
        slower: the share more that was allowed for.
        costs: of misses.
        sample: the share of pages that was simulated.
        doubts: what whoever reads it should know.
    """

    limits: list[int]
    lru: list[float]
    curves: list[PolicyCurve]
    work_seconds: float
    slower: float
    costs: Costs
    sample: float
    doubts: list[str]

    def as_dict(self) -> dict[str, Any]:
        """For JSON and the like."""
        return asdict(self)


def sample_for(trace: Trace) -> float:
    """The share of pages that is enough for a curve, at most what the trace has."""
    touches, pages = trace.counted
    enough = max(_SAMPLE_TOUCHES / max(1, touches), _SAMPLE_PAGES / max(1, pages))
    return (enough if enough <= _SAMPLE_MAX else 1.0) * trace.header.sample


def limits_for(pages: int, points: int) -> list[int]:
    """So many limits, in frames, evenly spaced by their logarithms; the last holds so many pages.

    Example:
        >>> limits_for(100_000, 4)
        [1588, 6352, 25411, 101652]
    """
    last = max(limit_that_holds(pages), _LIMIT_FRAMES_MIN)
    first = max(_LIMIT_FRAMES_MIN, round(last * _SMALLEST_SHARE))
    steps = max(1, points - 1)
    return sorted({round(first * (last / first) ** (step / steps)) for step in range(points - 1)} | {last})


def miss_curve(
    trace: Trace,
    policies: Sequence[str],
    costs: Costs,
    *,
    points: int = 16,
    slower: float = 0.1,
    work: float | None = None,
    sample: float | None = None,
    at: Sequence[int] = (),
    progress: Callable[[str], None] = lambda step: None,
) -> Curve:
    """Simulates each policy at each limit.

    Args:
        policies: names, as simulate takes them.
        costs: of misses.
        points: limits, 2 and up.
        slower: the share more time that is allowed for.
        work: seconds that the run takes without misses and without being traced; None: an estimate from the trace,
            rough where tracing made most of its time.
        sample: of the pages; None: what is enough.
        at: more limits, in frames.
        progress: told of each step.

    Raises as simulate.
    """
    chosen = sample_for(trace) if sample is None else min(sample, trace.header.sample)
    limits = sorted({*limits_for(trace.pages_touched, points), *at})
    progress("LRU")
    lru = lru_curve(trace, chosen)
    work, doubts = (work, list[str]()) if work is not None else work_seconds(trace, costs)
    curves = []
    for policy in policies:
        measure = _Measure(trace, policy, costs, work, chosen, progress)
        found = [measure.at(limit) for limit in limits]
        curves.append(PolicyCurve(policy, found, measure.needed(found, work * (1 + slower))))
    return Curve(
        limits=limits,
        lru=[lru.miss_ratio(frames_of(limit, lru.sample).capacity) for limit in limits],
        curves=curves,
        work_seconds=work,
        slower=slower,
        costs=costs,
        sample=lru.sample,
        doubts=[*trace.warnings(), *doubts],
    )


@dataclass(frozen=True, slots=True)
class _Measure:
    trace: Trace
    policy: str
    costs: Costs
    work: float
    sample: float
    progress: Callable[[str], None]

    def at(self, limit: int) -> Point:
        self.progress(f"{self.policy}, {limit} frames")
        simulated = simulate(self.trace, self.policy, limit, sample=self.sample)
        misses, sequential = (count / simulated.sample for count in (simulated.misses, simulated.sequential_misses))
        seconds = self.work + self.costs.seconds(misses, sequential)
        return Point(limit, misses, sequential, simulated.miss_ratio, seconds)

    def needed(self, points: list[Point], seconds: float) -> int:
        """The least limit that is enough, and from which on all are; between two points by halving."""
        enough = points[-1]
        below: Point | None = None
        for point in reversed(points):
            if point.seconds > seconds:
                below = point
                break
            enough = point
        for _ in range(_NEEDED_STEPS):
            if below is None or enough.limit_frames <= below.limit_frames * _NEEDED_TO:
                break
            middle = self.at(round((below.limit_frames * enough.limit_frames) ** 0.5))
            if middle.seconds > seconds:
                below = middle
            else:
                enough = middle
        return enough.limit_frames
