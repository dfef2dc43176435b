"""Failpoints and sync points of the core, from Python: those of uswap.testing."""

from uswap.testing.failpoints import Action, armed, await_stopped, hits, names, release, set_failpoint

__all__ = ["Action", "armed", "await_stopped", "hits", "names", "release", "set_failpoint"]
