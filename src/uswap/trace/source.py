"""Source: touches for a simulation, out of a trace or out of any numbers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

from uswap._errors import ArgumentError
from uswap.trace.reader import Trace
from uswap.trace.sampling import thin_out

_CHUNK = 1 << 16
# The share of stores from which the core does not seal a region's pages (WRITTEN_COSTS in csrc/reclaim/sealed.c).
_STORES_MIND = 0.2


class Source:
    """Touches, in order, of all pages or of a sample.

    Args:
        touches: a trace, or page keys (page << 18 | key of the region).
        sample: the share of all pages that is used, at most what the trace has; None: what the trace has.

    Attributes:
        sample: of all pages.
        regions: as in Header.
        passed: touches in the last pass, whether in the sample or not, as if all pages had been recorded.
        now_ns: when the last chunk ended; 0 where there is no time.

    Raises ArgumentError for a sample that is not in (0, 1].
    """

    def __init__(self, touches: Trace | Iterable[int], sample: float | None = None) -> None:
        if sample is not None and not 0 < sample <= 1:
            raise ArgumentError(f"a sample is a share in (0, 1], not {sample}")
        self._touches = touches
        recorded = touches.header.sample if isinstance(touches, Trace) else 1.0
        self._recorded = recorded
        self.sample = min(recorded, sample or 1.0)
        self.regions: Mapping[int, Mapping[str, Any]] = touches.header.regions if isinstance(touches, Trace) else {}
        self.passed = 0.0
        self.now_ns = 0

    @property
    def reach(self) -> int:
        """Of two misses in sequence, in pages: in a sample the neighbour is the next page of it, with gaps that are
        longer than four times their mean once in 50."""
        return 1 if self.sample == 1 else round(4 / self.sample)

    @property
    def stores(self) -> bool:
        """Whether pages of a trace are written after they were read back, as often as the core minds."""
        return isinstance(self._touches, Trace) and self._touches.store_share > _STORES_MIND

    def chunks(self) -> Iterator[list[int]]:
        """Lists of touches, ~key where a page had no contents. An iterator can be passed over once only."""
        if self.sample < self._recorded:
            return thin_out(self._counted(), self.sample)
        return self._counted()

    def _counted(self) -> Iterator[list[int]]:
        touched = 0
        for chunk in self._timed() if isinstance(self._touches, Trace) else _chunks(self._touches):
            touched += len(chunk)
            self.passed = touched / self._recorded
            yield chunk

    def _timed(self) -> Iterator[list[int]]:
        assert isinstance(self._touches, Trace)
        for records in self._touches.records():
            self.now_ns = int(records.times_ns[-1])
            yield records.touches()


def _chunks(keys: Iterable[int]) -> Iterator[list[int]]:
    if isinstance(keys, list):
        yield keys
        return
    # numpy's own numbers are slow to hash
    plain: Any = keys.tolist() if hasattr(keys, "tolist") else keys
    iterator = iter(plain)
    while chunk := list(islice(iterator, _CHUNK)):
        yield chunk
