"""What was measured of a pattern or a disk job: throughput, and latencies as a histogram."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from uswap._core import lib


@dataclass
class Figures:
    """Sums over one or more runs.

    Attributes:
        bytes, seconds: moved (or looked at), and how long that took.
        accesses: pages, or requests.
        latency: bucket (csrc/bench/histogram.h) -> accesses.
        counters: of the side, such as faults; differences over the run.
    """

    bytes: int = 0
    seconds: float = 0.0
    accesses: int = 0
    latency: Counter[int] = field(default_factory=Counter)
    counters: dict[str, int] = field(default_factory=dict)

    @property
    def mb_per_second(self) -> float:
        """10^6 bytes a second."""
        return self.bytes / 1e6 / self.seconds if self.seconds else 0.0

    def percentile_us(self, percent: float) -> float:
        """The latency, in us, that so many per cent of the accesses did not exceed (to an eighth)."""
        wanted, seen = percent / 100 * sum(self.latency.values()), 0
        for bucket in sorted(self.latency):
            seen += self.latency[bucket]
            if seen >= wanted:
                return float(lib.uswap_bench_bucket_ns(bucket)) / 1e3
        return 0.0

    def add_result(self, result: Any, bytes_each: int) -> None:
        """Adds a uswap_bench_result of the core."""
        self.bytes += result.accesses * bytes_each
        self.seconds += result.elapsed_ns / 1e9
        self.accesses += result.accesses
        for bucket in range(lib.USWAP_BENCH_BUCKETS):
            if result.latency[bucket]:
                self.latency[bucket] += result.latency[bucket]

    def as_dict(self) -> dict[str, Any]:
        """For JSON: the sums, and what is computed from them."""
        return {
            "bytes": self.bytes,
            "seconds": self.seconds,
            "accesses": self.accesses,
            "mb_per_second": self.mb_per_second,
            "p50_us": self.percentile_us(50),
            "p99_us": self.percentile_us(99),
            "latency": {str(bucket): count for bucket, count in sorted(self.latency.items())},
            "counters": self.counters,
        }

    @staticmethod
    def from_dict(document: dict[str, Any]) -> Figures:
        """What as_dict wrote."""
        return Figures(
            bytes=document["bytes"],
            seconds=document["seconds"],
            accesses=document["accesses"],
            latency=Counter({int(bucket): count for bucket, count in document["latency"].items()}),
            counters=document["counters"],
        )


def merged(runs: list[Figures]) -> Figures:
    """Several runs of the same thing as one: the throughput of the median run, the latencies of all.

    Example:
        >>> runs = [Figures(bytes=10**6, seconds=s) for s in (1.0, 2.0, 4.0)]
        >>> merged(runs).mb_per_second
        0.5
    """
    middle = sorted(runs, key=lambda run: run.mb_per_second)[len(runs) // 2]
    latency: Counter[int] = Counter()
    for run in runs:
        latency += run.latency
    return Figures(middle.bytes, middle.seconds, middle.accesses, latency, middle.counters)
