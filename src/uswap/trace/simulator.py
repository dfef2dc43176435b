"""simulate: what a policy makes of a trace, in so many frames."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from itertools import filterfalse
from typing import Any

from uswap._errors import PolicyError
from uswap.policy.interface import Policy
from uswap.policy.names import by_name
from uswap.trace.frames import Frames, frames_of
from uswap.trace.pool_model import PoolModel
from uswap.trace.reader import Trace
from uswap.trace.source import Source

CORE = "core"
"""The policy's name for what the core does without one."""


@dataclass(frozen=True, slots=True)
class Simulated:
    """What happened. Counts are those of the sample: the pool has sample times as many of each.

    Attributes:
        policy: its name.
        limit_frames: the limit, pages of 4 KiB, for all pages; the capacity, where the sizes themselves were given.
        sample: the share of pages that was simulated.
        touches: of all pages, as far as the trace has them.
        accesses: touches of the sample.
        first_touches: of pages without contents: there was nothing to read.
        misses: a page had to be read.
        sequential_misses: of misses, those beside the region's miss before: read-ahead hides most of their time.
        rescues: touches of inactive pages.
        evictions: pages that lost their frames.
        core_evictions: of evictions, those of mapped pages that the core chose, not the policy.
        decisions: calls of decide().
    """

    policy: str
    limit_frames: int
    sample: float
    touches: float
    accesses: int
    first_touches: int
    misses: int
    sequential_misses: int
    rescues: int
    evictions: int
    core_evictions: int
    decisions: int

    @property
    def miss_ratio(self) -> float:
        """Misses of all touches; those of a thinned-out sample are held against what was left out (SHARDS-adj)."""
        return self.misses / self.sample / self.touches if self.touches else 0.0

    def as_dict(self) -> dict[str, Any]:
        """For JSON and the like."""
        return asdict(self) | {"miss_ratio": self.miss_ratio}


def simulate(
    touches: Trace | Iterable[int],
    policy: Policy | str | None,
    frames: int | Frames,
    *,
    sample: float | None = None,
    stores: bool | None = None,
) -> Simulated:
    """Runs a policy, as a pool would, over the touches of a trace.

    Args:
        touches: a trace; or page keys (page << 18 | key of the region; any numbers below 2**54 will do).
        policy: an object that has not been used before, or a name for policy.by_name; None or "core": what the core
            does without one.
        frames: the limit in pages of 4 KiB, for all pages; or the sizes themselves, for the sample.
        sample: simulate only so large a share of the pages, with so large a share of the frames.
        stores: pages that were read back are written again. None: by what the trace says; not, where there is none.

    Raises:
        PolicyError: the policy raised, or answered nonsense; the message has its name.
        ArgumentError: no such policy; a limit of 64 frames or fewer; a sample that is not in (0, 1].
        TraceError: the trace is damaged.

    Example:
        >>> loop = list(range(2000)) * 3
        >>> simulated = simulate(loop, "fifo", frames=1024)
        >>> simulated.accesses, simulated.first_touches, simulated.misses
        (6000, 2000, 4000)
        >>> simulate(loop, "core", frames=4096).misses
        0
    """
    source = Source(touches, sample)
    name = policy if isinstance(policy, str) else type(policy).__name__ if policy else CORE
    chosen = _policy_named(policy) if isinstance(policy, str) else policy
    sizes = frames if isinstance(frames, Frames) else frames_of(frames, source.sample)
    pool = PoolModel(sizes, chosen, name, source.regions, source.reach, source.stores if stores is None else stores)
    accesses = 0
    is_hit, fault = pool.mapped.generations.__contains__, pool.fault
    for chunk in source.chunks():
        accesses += len(chunk)
        for touch in filterfalse(is_hit, chunk):
            fault(touch)
    return Simulated(
        policy=name,
        limit_frames=frames.capacity if isinstance(frames, Frames) else frames,
        sample=source.sample,
        touches=source.passed,
        accesses=accesses,
        first_touches=pool.first_touches,
        misses=pool.misses,
        sequential_misses=pool.sequential_misses,
        rescues=pool.rescues,
        evictions=pool.evictions,
        core_evictions=pool.core_evictions,
        decisions=pool.decisions,
    )


def _policy_named(name: str) -> Policy | None:
    if name == CORE:
        return None
    kind = by_name(name)
    try:
        return kind()
    except Exception as error:
        raise PolicyError(f"the policy {name} cannot be made: {type(error).__name__}: {error}") from error
