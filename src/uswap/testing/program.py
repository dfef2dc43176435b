"""Program: a pool, a model of what it must hold, and steps that are done to both."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Any

import uswap
from uswap._options import default_directory, minimum_limit
from uswap.policy import Policy
from uswap.testing import failpoints, memory
from uswap.testing.engine import HANG_SECONDS
from uswap.testing.memory import PAGE
from uswap.testing.model import Access, Kind, Mapped
from uswap.testing.policy import watched
from uswap.testing.shape_steps import ShapeSteps

_MEBIBYTE = 1 << 20
_SWAP_BYTES = 48 * _MEBIBYTE
# What a member of a named pool needs besides the least limit of a pool, and the shared pages.
_MEMBER_BYTES = 5 * _MEBIBYTE
_MEMBERS = 3
_LIMIT_MOST = 16 * _MEBIBYTE
REGION_PAGES_MAX = 256
# How often the counters are looked at.
_STATS_EVERY = 16
# What is counted of each pool for the report.
COUNTERS = (
    "faults", "evictions", "evictions_steered", "evictions_native", "evictions_direct", "evictions_api", "pages_in",
    "pages_out", "policy_orders", "policy_passed", "write_errors", "read_errors", "hash_errors",
)  # fmt: skip

_numbers = itertools.count(1)
# Programs that failed with a thread still inside the core: nothing of them may be finalised.
_kept: list[Program] = []


@dataclass(frozen=True)
class Setup:
    """How a program's pool is made: options of Pool; shared: it is a named one, with a shared region, and
    map_for_peers is that of a named one.

    Example:
        >>> Setup(io="sync").transport
        'auto'
    """

    transport: str = "auto"
    io: str = "auto"
    faults: str | None = None
    encrypt: bool = False
    background: bool = True
    recycle: bool = False
    shared: bool = False
    map_for_peers: bool = False
    policy: str | None = "default"
    limit: int | None = None
    pages: int = REGION_PAGES_MAX

    def arguments(self) -> str:
        """As Python, what is not the default."""
        given = {name: value for name, value in asdict(self).items() if value != getattr(Setup, name)}
        return ", ".join(f"{name}={value!r}" for name, value in given.items())


class Program(ShapeSteps):
    """A pool under test. Each method that is a step does something to the pool and to the model, and raises
    AssertionError if they disagree; steps that make no sense just now do nothing. As a context manager, everything
    is compared once more at the end.

    Args: those of Setup, by keyword, which are Pool's, but for these.
        shared: a named pool with a shared region, for the steps that begin with peer.
        limit: in bytes; None: the least there can be. pages: the most a region may have.
        hang_seconds: how long a step may take.
        journal: called with each step before it is run, as a line of Python.

    Raises: as Pool; AssertionError (also as uswap.CorruptionError, HangError, PolicyFailure): found wrong.

    Example:
        >>> from uswap.testing import Program
        >>> with Program(io="sync") as program:
        ...     program.map(pages=8)
        ...     program.write(region=0, start=100, length=5000, value=9)
        ...     program.advise(region=0, advice="PAGEOUT", page=0, count=8)
        ...     program.read(region=0, start=0, length=8192)
        ...     print(program.steps, program.ledger.checked)
        4 1
    """

    def __init__(
        self,
        *,
        hang_seconds: float = HANG_SECONDS,
        journal: Callable[[str], None] | None = None,
        policy_class: type[Policy] | None = None,
        **setup: Any,
    ) -> None:
        super().__init__(hang_seconds, journal)
        self.setup = Setup(**setup)
        self.counters: dict[str, int] = {}
        self.regions: list[Mapped] = []
        self.peers = []
        self._more_areas = []
        self.kernel = memory.Kernel()
        self.region_pages_max = self.setup.pages
        self.swap_folder = default_directory()
        failpoints_reset()
        self._make(policy_class)

    def _make(self, policy_class: type[Policy] | None) -> None:
        setup = self.setup
        policy: Any = policy_class or setup.policy
        default = policy in ("default", None) or not setup.background
        self.watched = None if default else watched(policy)
        self.limit_floor = max(setup.limit or 0, minimum_limit() + (_MEBIBYTE if setup.encrypt else 0))
        if setup.shared:
            self.limit_floor = max(self.limit_floor, _MEMBERS * _MEMBER_BYTES)
        self.limit_most = max(_LIMIT_MOST, 2 * self.limit_floor)
        self.pool = uswap.Pool(
            self.limit_floor,
            swap=uswap.SwapArea(self.swap_folder, size=_SWAP_BYTES + 2 * self.limit_floor),
            name=f"fuzz-{os.getpid()}-{next(_numbers)}" if setup.shared else None,
            transport=setup.transport,
            io=setup.io,
            faults=setup.faults,  # type: ignore[arg-type]
            encrypt=setup.encrypt and not setup.shared,
            background=setup.background,
            recycle=setup.recycle,
            map_for_peers=setup.map_for_peers,
            policy=self.watched if self.watched is not None else (setup.policy if setup.background else None),
        )
        self.system_calls = self.pool.stats().fault_mode == "thread"
        if setup.shared:
            size = min(64, setup.pages) * PAGE
            region = self.pool.region(size, shared=True, name="shared")
            self.shared = Mapped(region, 0, shared=True, model=bytearray(size))
            self.regions.append(self.shared)

    def __repr__(self) -> str:
        return f"<uswap.testing.Program {self.setup.arguments()} steps={self.steps}>"

    def source(self) -> str:
        """What was done so far, as a Python program.

        Example:
            >>> with Program() as program:
            ...     program.map(pages=1)
            ...     print(program.source())
            from uswap.testing import Program
            <BLANKLINE>
            with Program() as program:
                program.map(pages=1)
        """
        return source_of(self.setup.arguments(), self.lines)

    # ---- what is always true -----------------------------------------------------------------------------------

    def after_step(self) -> None:
        """The core agrees with itself, the limit holds, the policy lives."""
        if not self.quiet or self._outstanding:
            return
        self.settle_peers()
        self.pool.check()
        if self.watched is not None:
            self.watched.check(self.pool, self.hang_seconds)
        if self.steps % _STATS_EVERY == 0:
            self._look_at_stats()

    def _look_at_stats(self) -> None:
        stats = self.pool.stats()
        if not self.failed and not stats.over_limit_events:
            assert stats.resident_bytes <= stats.limit_bytes, f"over the limit: {stats}"
        if not self.failed:
            wrong = (stats.write_errors, stats.read_errors, stats.hash_errors, stats.poisoned_pages)
            assert not any(wrong), f"errors of the disk that nobody has injected: {stats}"

    def compare_all(self) -> None:
        """Every byte of every region. Raises AssertionError."""
        for mapped in [*self.regions, *filter(None, [self.neighbour])]:
            if mapped.no_access:
                rights = uswap.Protection.READ | uswap.Protection.WRITE
                mapped.region.protect(rights)
                mapped.no_access.clear()
            found = memory.load(self.address(mapped), len(mapped.model))
            access = Access(Kind.LOAD, mapped, 0, len(mapped.model), candidates=[bytes(mapped.model)])
            self.ledger.check(access, found)

    # ---- the end -----------------------------------------------------------------------------------------------

    def finish(self) -> None:
        """Everything outstanding ends, everything is compared, everything is freed. Raises AssertionError."""
        self.ending = True
        self.let_all_go()
        self.mend()
        self.join_all()
        self.settle_peers()
        self.end_processes()
        self.compare_all()
        self.pool.check()
        if self.watched is not None:
            self.watched.settle(self.pool, self.hang_seconds)
        self._look_at_stats()
        stats = self.pool.stats()
        self.counters = {name: getattr(stats, name) for name in COUNTERS}
        self._close()

    def _close(self) -> None:
        for mapped in [*self.regions, *filter(None, [self.neighbour])]:
            mapped.region.close()
        self.regions, self.neighbour, self.shared = [], None, None
        self.pool.close()
        for _, file in self._more_areas:
            file.close()

    def abandon(self) -> None:
        """After a failure: nothing is compared; what can be freed is."""
        self.let_all_go()
        self.mend()
        self.kill_all()
        if self.hung or self._outstanding:
            _kept.append(self)
            self.abandon_threads()
            return
        try:
            self.call("Pool.close", self._close)
        except (AssertionError, uswap.UswapError, BufferError):
            _kept.append(self)
            self.abandon_threads()

    def __enter__(self) -> Program:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.abandon()
            return
        try:
            self.finish()
        except BaseException:
            self.abandon()
            raise


def source_of(arguments: str, lines: list[str]) -> str:
    """A program as Python. arguments: of Program; lines: its steps."""
    body = [f"    program.{line}" for line in lines] or ["    pass"]
    return "\n".join(["from uswap.testing import Program", "", f"with Program({arguments}) as program:", *body])


def failpoints_reset() -> None:
    """Nothing that an earlier program has left is armed."""
    if failpoints.built():
        failpoints.clear_all()


def steps() -> list[str]:
    """The names of all steps."""
    return sorted(name for name in dir(Program) if getattr(getattr(Program, name), "is_step", False))
