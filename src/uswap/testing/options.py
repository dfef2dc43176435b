"""What is to be fuzzed, and what came of it: plain data, without Hypothesis."""

from __future__ import annotations

import os
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from uswap.testing.engine import HANG_SECONDS
from uswap.testing.program import REGION_PAGES_MAX


@dataclass(frozen=True)
class Options:
    """What `uswap fuzz` takes.

    Attributes:
        seconds, rules: it ends when so much time is over, and when so many steps were run; None: not for that.
        policy: of the pools, a name or "module:Class"; None: the default one.
        seed: of all random choices; None: one at random.
        pages: the most that a region may have. limit: of the pools, in bytes; None: the least there can be.
        steps: of a program, at most. shared: named pools with other processes too.
        database: a folder where examples that fail are kept; None: nowhere.
        hang_seconds: how long one step may take.
        minimise: a program that fails is made as small as can be.

    Example:
        >>> Options(rules=100).over(Report(seed=1, rules=100))
        True
    """

    seconds: float | None = None
    rules: int | None = None
    policy: str | None = None
    seed: int | None = None
    pages: int = REGION_PAGES_MAX
    limit: int | None = None
    steps: int = 100
    shared: bool = True
    database: Path | None = None
    hang_seconds: float = HANG_SECONDS
    minimise: bool = True

    def chosen_seed(self) -> int:
        """The seed, or one at random."""
        return self.seed if self.seed is not None else int.from_bytes(os.urandom(4), "little")

    def over(self, report: Report) -> bool:
        """Whether that is enough."""
        late = self.seconds is not None and time.monotonic() - report.began >= self.seconds
        return late or (self.rules is not None and report.rules >= self.rules)


@dataclass(frozen=True)
class Failure:
    """A program that fails.

    Attributes:
        kind: "wrong" (the model disagrees, the core is inconsistent, the policy raised), "hang", or "ended" (the
            process is gone).
        message: what was wrong. source: the smallest program found, as Python.
        seed: of the round that found it; None: an example kept from an earlier run.
    """

    kind: str
    message: str
    source: str
    seed: int | None = None


@dataclass
class Report:
    """What was run so far.

    Attributes:
        examples: programs. rules: steps, in all. accesses: loads and stores that were started; checked: comparisons
            with the model. steps: how often each was run. counters: sums of Stats over all pools that came to their
            end. failpoints: whether the core has any.
    """

    seed: int
    policy: str = "default"
    failpoints: bool = False
    examples: int = 0
    rules: int = 0
    accesses: int = 0
    checked: int = 0
    seconds: float = 0.0
    steps: Counter[str] = field(default_factory=Counter)
    counters: Counter[str] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        found = {name: value for name, value in vars(self).items() if name != "began"}
        return found | {
            "steps": dict(self.steps),
            "counters": dict(self.counters),
            "failures": [vars(each) for each in self.failures],
        }
