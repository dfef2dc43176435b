"""The Hypothesis state machine: which steps there are, with what, and when."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Sequence
from typing import Any, ClassVar

import hypothesis.strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from uswap._core import ffi, lib, new_error
from uswap.policy import Policy
from uswap.testing import failpoints
from uswap.testing.engine import HANG_SECONDS
from uswap.testing.memory import PAGE
from uswap.testing.memory_steps import ADVICE, RIGHTS
from uswap.testing.pool_steps import FAILURES, HOLDS, LOSSES
from uswap.testing.process_steps import PEERS_MAX, shared_points
from uswap.testing.program import REGION_PAGES_MAX, Program, Setup

_Strategies = dict[str, st.SearchStrategy[Any]]
# Rules come from tables here: their overloads say nothing.
_any_rule: Any = rule
_any_initialize: Any = initialize

_thread = st.integers(0, 2)
_region = st.integers(0, 3)
_peer = st.integers(0, PEERS_MAX - 1)
_page = st.integers(0, REGION_PAGES_MAX - 1)
# Mostly a few pages: that is where steps meet.
_count = st.one_of(st.integers(1, 4), st.integers(1, REGION_PAGES_MAX))
# Mostly about as many as a shared region begins with.
_shared_pages = st.one_of(st.integers(1, 70), st.integers(1, REGION_PAGES_MAX))
_start = st.one_of(
    st.integers(0, 8 * PAGE), st.integers(0, REGION_PAGES_MAX * PAGE), st.builds(lambda page: page * PAGE, _page)
)
_length = st.one_of(st.integers(1, 64), st.just(PAGE), st.integers(1, 3 * PAGE), st.integers(1, 64 * PAGE))
_value = st.integers(0, 255)
_advice = st.sampled_from(ADVICE)
_often = st.sampled_from(["PAGEOUT", "PAGEOUT", "COLD", "WILLNEED"])
_nth = st.integers(1, 3)
_point = st.sampled_from(HOLDS)

# Rules of every machine.
_ALWAYS: dict[str, _Strategies] = {
    "map": {"thread": _thread, "pages": _count, "reserve": st.sampled_from([0, 0, 16])},
    "unmap": {"thread": _thread, "region": _region},
    "write": {
        "thread": _thread, "region": _region, "start": _start, "length": _length, "value": _value,
        "system_call": st.booleans(),
    },
    "read": {
        "thread": _thread, "region": _region, "start": _start, "length": _length, "system_call": st.booleans(),
    },
    "read_all": {"thread": _thread, "region": _region},
    "advise": {"thread": _thread, "region": _region, "advice": st.one_of(_often, _advice), "page": _page,
        "count": _count,
    },
    "discard": {"thread": _thread, "region": _region, "page": _page, "count": _count},
    "lock": {"thread": _thread, "region": _region, "page": _page, "count": _count},
    "unlock": {"thread": _thread, "region": _region},
    "keep_in": {"thread": _thread, "region": _region, "page": _page, "count": _count},
    "protect": {
        "thread": _thread, "region": _region, "page": _page, "count": _count, "rights": st.sampled_from(RIGHTS),
    },
    "resize": {
        "thread": _thread, "region": _region, "pages": st.integers(1, REGION_PAGES_MAX),
        "cut": st.one_of(st.just(0), st.integers(0, PAGE - 1)),
        "hem": st.booleans(),
    },
    "verify": {"thread": _thread, "region": _region},
    "press": {
        "thread": _thread, "page": st.integers(0, 1200),
        "count": st.one_of(st.integers(1, 64), st.integers(1, 1200)),
        "value": st.none() | _value,
    },
    "evict": {"thread": _thread, "pages": st.integers(1, 1200)},
    "set_limit": {"thread": _thread, "pages": st.integers(1, 4096)},
    "swapon": {"thread": _thread, "priority": st.integers(-2, 9)},
    "swapoff": {"thread": _thread},
    "let_run": {},
    "join": {},
}  # fmt: skip
# Of one process by itself: forked children.
_PRIVATE: dict[str, _Strategies] = {
    "fork": {},
    "child_checks": {},
    "child_writes": {"region": _region, "start": _start, "length": _length, "value": _value},
    "child_advises": {"region": _region, "advice": _often},
    "child_ends": {"killed": st.booleans()},
}
# Of named pools.
_SHARED: dict[str, _Strategies] = {
    "peer_joins": {},
    "peer_writes": {"peer": _peer, "start": _start, "length": _length, "value": _value},
    "peer_reads": {"peer": _peer, "start": _start, "length": _length},
    "peer_advises": {"peer": _peer, "advice": _often, "page": _page, "count": _count},
    "peer_uses_memory": {"peer": _peer, "pages": st.integers(1, 600)},
    "resize_shared": {"pages": _shared_pages},
    "refresh_shared": {},
    "peer_resizes": {"peer": _peer, "pages": _shared_pages},
    "peer_refreshes": {"peer": _peer},
    "kill_peer": {"peer": _peer},
    "peer_leaves": {"peer": _peer},
}
# With a core that has failpoints.
_FAILPOINTS: dict[str, _Strategies] = {
    "hold": {"at": _point, "nth": _nth},
    "release": {},
    "fail": {"at": st.sampled_from(sorted(FAILURES)), "nth": _nth},
    "lose": {"region": _region, "page": _page, "how": st.sampled_from(sorted(LOSSES))},
}
_SHARED_FAILPOINTS: dict[str, _Strategies] = {
    "peer_stops": {"peer": _peer, "at": st.deferred(lambda: st.sampled_from(shared_points())), "nth": _nth},
    "peer_will_die": {"peer": _peer, "at": st.deferred(lambda: st.sampled_from(shared_points())), "nth": _nth},
}
_OF_PEERS = (set(_SHARED) | set(_SHARED_FAILPOINTS)) - {"peer_joins", "resize_shared", "refresh_shared"}


class _Expected:
    """What the choices so far amount to, whatever came of them: what rules make sense now must not depend on how
    fast something was, or Hypothesis could not run the same choices again."""

    held = loose = child = peers = False

    def note(self, name: str) -> None:
        """That step was chosen."""
        if name in ("hold", "peer_stops"):
            self.held = True
        elif name == "release":
            self.held = False
        elif name in ("let_run", "join"):
            self.loose = name == "let_run"
        elif name in ("fork", "child_ends") and self.quiet:
            self.child = name == "fork"
        elif name == "peer_joins" and self.quiet:
            self.peers = True

    @property
    def quiet(self) -> bool:
        """Nothing is held, nothing is to run by itself."""
        return not self.held and not self.loose


# When there is something to do; anywhere else a step does nothing.
_WHEN: dict[str, Callable[[_Expected], bool]] = {
    "release": lambda now: now.held,
    "hold": lambda now: not now.loose,
    "peer_stops": lambda now: now.peers and not now.loose,
    "let_run": lambda now: now.quiet,
    "join": lambda now: now.loose,
    "fork": lambda now: now.quiet and not now.child,
    "child_ends": lambda now: now.quiet and now.child,
    "lose": lambda now: now.quiet,
    "resize": lambda now: not now.held,
    "peer_joins": lambda now: now.quiet,
    "peer_leaves": lambda now: now.quiet and now.peers,
    "resize_shared": lambda now: now.quiet,
    "refresh_shared": lambda now: now.quiet,
    "peer_resizes": lambda now: now.quiet and now.peers,
    "peer_refreshes": lambda now: now.quiet and now.peers,
}
for _name in ("child_checks", "child_writes", "child_advises"):
    _WHEN[_name] = lambda now: now.child
for _name in _OF_PEERS:
    _WHEN.setdefault(_name, lambda now: now.peers)
# Chosen so many times as often as the others.
_WEIGHTS = {"write": 4, "read": 4, "advise": 3, "peer_writes": 3, "peer_reads": 3, "peer_advises": 2}


def _transports() -> list[str]:
    return ["move", "copy"] if not _probe().live_move_errno else ["copy"]


def _ios() -> list[str]:
    return ["sync", "uring"] if not _probe().uring_errno else ["sync"]


@functools.cache
def _probe() -> Any:
    found = ffi.new("uswap_probe *")
    if lib.uswap_probe_run(found, new_error()) < 0:
        raise RuntimeError("this machine cannot be asked what it can do: see `uswap doctor`")
    return found


def _setups(shared: bool) -> _Strategies:
    return {
        "transport": st.deferred(lambda: st.sampled_from(_transports())),
        "io": st.deferred(lambda: st.sampled_from(_ios())),
        "inline": st.booleans(),
        "encrypt": st.just(False)
        if shared
        else st.deferred(lambda: st.booleans() if not _probe().encrypt_errno else st.just(False)),
        "background": st.booleans(),
        "recycle": st.booleans(),
        "region_pages": st.integers(1, 64),
        **({"map_for_peers": st.booleans()} if shared else {}),
    }


class Machine(RuleBasedStateMachine):
    """Base of the machines that machine_for makes: their rules are the steps of Program; those that need failpoints
    are there where the core has them.

    Example:
        >>> from hypothesis import settings
        >>> from hypothesis.stateful import run_state_machine_as_test
        >>> from uswap.testing import PoolMachine
        >>> run_state_machine_as_test(PoolMachine, settings=settings(max_examples=2, stateful_step_count=5,
        ...                                                          deadline=None, database=None))
    """

    fixed: ClassVar[dict[str, Any]] = {}  # of Setup, what is not chosen
    policy_class: ClassVar[type[Policy] | None] = None
    program_class: ClassVar[type[Program]] = Program
    hang_seconds: ClassVar[float] = HANG_SECONDS
    began: ClassVar[Callable[[Program], None] | None] = None  # told of each program
    ended: ClassVar[Callable[[Program, BaseException | None], None] | None] = None
    journal: ClassVar[Callable[[str], None] | None] = None

    def __init__(self) -> None:
        super().__init__()
        self.program: Program | None = None
        self.error: BaseException | None = None
        self.expected = _Expected()

    def make(self, inline: bool, region_pages: int, **chosen: Any) -> None:
        """A program, with a pool made as chosen and a first region."""
        chosen["faults"] = "inline" if inline else None
        setup = Setup(**{**chosen, **self.fixed})
        kind = type(self)
        self.program = self.program_class(
            hang_seconds=self.hang_seconds,
            journal=kind.journal,
            policy_class=self.policy_class,
            **{name: getattr(setup, name) for name in Setup.__dataclass_fields__},
        )
        if kind.began is not None:
            kind.began(self.program)
        self.step("map", {"pages": region_pages})

    def step(self, name: str, arguments: dict[str, Any]) -> None:
        """One step of the program."""
        assert self.program is not None
        self.expected.note(name)
        try:
            getattr(self.program, name)(**arguments)
        except BaseException as error:
            self.error = error
            raise

    def teardown(self) -> None:
        """The end of the program: everything is compared."""
        program = self.program
        if program is None:
            return
        try:
            if self.error is None:
                program.finish()
        except BaseException as error:
            self.error = error
            raise
        finally:
            if self.error is not None:
                program.abandon()
            ended = type(self).ended
            if ended is not None:
                ended(program, self.error)


def _as_rule(name: str, strategies: _Strategies) -> Any:
    def run(self: Machine, **arguments: Any) -> None:
        self.step(name, arguments)

    run.__name__ = run.__qualname__ = name
    run.__doc__ = getattr(Program, name).__doc__
    made = _any_rule(**strategies)(run)
    when = _WHEN.get(name)
    return made if when is None else precondition(lambda self: when(self.expected))(made)


def _chosen(rules: dict[str, _Strategies], only: Collection[str] | None) -> dict[str, _Strategies]:
    if only is None:
        return rules
    if unknown := set(only) - set(rules):
        raise ValueError(f"no steps of such a machine: {', '.join(sorted(unknown))}")
    return {name: rules[name] for name in only}


def _as_rules(rules: dict[str, _Strategies]) -> dict[str, Any]:
    made = {name: _as_rule(name, strategies) for name, strategies in rules.items()}
    for name, weight in _WEIGHTS.items():
        if name in rules:
            made |= {f"{name}_{number}": _as_rule(name, rules[name]) for number in range(1, weight)}
    return made


def _rules(shared: bool) -> dict[str, _Strategies]:
    rules = {**_ALWAYS, **(_SHARED if shared else _PRIVATE)}
    if failpoints.built():
        rules |= _FAILPOINTS
        if shared:
            rules |= _SHARED_FAILPOINTS
            points = st.one_of(_point, st.sampled_from(shared_points()))
            rules["hold"] = {"at": points, "nth": _nth}
    return rules


def machine_for(
    *,
    policy: type[Policy] | str | None = None,
    shared: bool = False,
    hang_seconds: float = HANG_SECONDS,
    only: Collection[str] | None = None,
    points: Sequence[str] | None = None,
    **fixed: Any,
) -> type[Machine]:
    """A machine of that kind: for a policy (None: the default one), in a named pool with other processes (shared),
    and with some of Setup fixed. only: the names of the steps that it takes; points: the sync points at which
    threads may be held; None: all. Run it as any Hypothesis state machine.

    Raises: ArgumentError: there is no such policy; TypeError: Setup has no such field; ValueError: no such step.

    Example:
        >>> machine_for(policy="s3-fifo", io="sync").__name__
        'PoolMachine'
    """
    Setup(**fixed)
    chosen = dict(fixed)
    policy_class: type[Policy] | None = policy if isinstance(policy, type) else None
    if policy is not None:
        chosen |= {"background": True, "policy": policy if isinstance(policy, str) else None}
    if shared:
        chosen["shared"] = True
    body: dict[str, Any] = {"fixed": chosen, "policy_class": policy_class, "hang_seconds": hang_seconds}
    rules = _rules(shared)
    if points is not None and "hold" in rules:
        rules["hold"] = {"at": st.sampled_from(list(points)), "nth": _nth}
    body |= _as_rules(_chosen(rules, only))

    def make(self: Machine, **arguments: Any) -> None:
        Machine.make(self, **arguments)

    body["make"] = _any_initialize(**_setups(shared))(make)
    return type("PoolMachine", (Machine,), body)


PoolMachine = machine_for()
"""The machine with all rules of one process and its children, nothing fixed."""
