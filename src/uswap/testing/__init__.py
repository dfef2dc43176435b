"""Fuzzing uswap, and policies for it: programs of steps against a model, made and minimised by Hypothesis.

`uswap fuzz` is the command (docs/fuzzing.md). Here is what it is made of:

- Program: a pool, a model of what it must hold, and steps done to both. It needs nothing besides uswap, so a
  program that fails can be run again anywhere.
- PoolMachine: the Hypothesis state machine whose rules are those steps (pip install 'uswap[fuzz]'); machine_for
  makes others.
- fuzz: what the command runs, with Options and a Report.
- failpoints: the named places of the core where steps fail or threads are held, in a build that has them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from uswap.testing.machine import Machine, PoolMachine, machine_for
    from uswap.testing.options import Options, Report
    from uswap.testing.policy import PolicyFailure
    from uswap.testing.program import Program, Setup
    from uswap.testing.run import fuzz
    from uswap.testing.threads import HangError

# Where each lies: members of other processes import this package, and need neither Hypothesis nor most of it.
_PLACES = {
    "HangError": "threads",
    "Machine": "machine",
    "Options": "options",
    "PolicyFailure": "policy",
    "PoolMachine": "machine",
    "Program": "program",
    "Report": "options",
    "Setup": "program",
    "fuzz": "run",
    "machine_for": "machine",
}

__all__ = [
    "HangError",
    "Machine",
    "Options",
    "PolicyFailure",
    "PoolMachine",
    "Program",
    "Report",
    "Setup",
    "fuzz",
    "machine_for",
]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_PLACES[name]}"), name)
