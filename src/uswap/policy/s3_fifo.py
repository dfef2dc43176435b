"""S3Fifo: a small queue for what is new, and a main one for what has been used again.

Yang et al., "FIFO queues are all you need for cache eviction", SOSP 2023, without their bits of access, which user
space has not: the older part of each queue is on trial, out of the regions and in memory, and a touch there is an
access. Their ghost queue is the refault distance.
"""

from __future__ import annotations

from array import array
from itertools import compress
from operator import not_
from typing import Final

from uswap.policy.interface import Answer, Batch, Need, Policy, View
from uswap.policy.queue import Queue

_SMALL: Final = 1 / 10  # of memory; what is beyond that leaves first
_ON_TRIAL: Final = {"small": 3 / 4, "main": 1 / 8}  # of the queue
_PREPARED: Final = 1 / 64  # of memory: to leave next, while nobody decides


class S3Fifo(Policy):
    """New pages leave soon, unless they are touched on trial or come back soon after; main ones stay for as long as
    they are touched on trial.

    Example:
        >>> from uswap.trace import simulate
        >>> hot = [page for scanned in range(1000, 9000) for page in (scanned % 500, scanned)]
        >>> [simulate([*range(9000), *hot], policy, frames=1024).misses for policy in ("fifo", S3Fifo())]
        [16000, 9000]
    """

    def __init__(self) -> None:
        self.mapped = {name: Queue() for name in _ON_TRIAL}
        self.trial = {name: Queue() for name in _ON_TRIAL}

    def start(self, view: View) -> None:
        self.view = view

    def decide(self, seen: Batch, need: Need) -> Answer:
        soon = list(map(need.capacity.__gt__, seen.distances))
        self.mapped["main"].push(array("Q", compress(seen.faulted, soon)))
        self.mapped["small"].push(array("Q", compress(seen.faulted, map(not_, soon))))
        self.mapped["main"].push(seen.rescued)
        for others in (seen.kept, seen.read_ahead):
            self.mapped["small"].push(others)
        for queue in self.trial.values():
            queue.tidy(self.view)  # what was rescued is not there any more
        wanted = need.frames + int(_PREPARED * need.capacity) - need.prepared
        beyond = len(self.mapped["small"]) + len(self.trial["small"]) - int(_SMALL * need.capacity)
        evicted = self._oldest("small", min(beyond, wanted))
        for name in ("main", "small"):
            evicted += self._oldest(name, wanted - len(evicted))
        return Answer(evict=evicted, age=self._try("small") + self._try("main"))

    def _oldest(self, name: str, count: int) -> array[int]:
        oldest = self.trial[name].pop(count)
        return oldest + self.mapped[name].pop(count - len(oldest))

    def _try(self, name: str) -> array[int]:
        mapped, trial = self.mapped[name], self.trial[name]
        aged = mapped.pop(int(_ON_TRIAL[name] * (len(mapped) + len(trial))) - len(trial))
        trial.push(aged)
        return aged
