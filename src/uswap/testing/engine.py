"""What every step of a fuzzed program goes through: it is noted, started in a thread, awaited or left outstanding,
and compared with the model."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from uswap.testing import failpoints
from uswap.testing.model import Access, Kind, Ledger
from uswap.testing.threads import Crew, HangError, Task, settle

THREADS = 3
# Against hangs: how long one step may take.
HANG_SECONDS = 20.0

_Step = TypeVar("_Step", bound=Callable[..., None])


def step(method: _Step) -> _Step:
    """A method that is a step of a program: by keywords alone, with plain values, so that what was done can be
    written down as Python."""

    @functools.wraps(method)
    def run(self: Engine, **arguments: object) -> None:
        if not self.ending:
            words = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
            self.note(f"{method.__name__}({words})")
            self.steps += 1
        method(self, **arguments)
        self.after_step()

    run.is_step = True  # type: ignore[attr-defined]
    return run  # type: ignore[return-value]


class Outstanding:
    """A task, what it does to memory, and what is to be done when it has ended."""

    def __init__(
        self,
        task: Task,
        access: Access | None,
        finish: Callable[[Any], None] | None,
        may_raise: tuple[type[BaseException], ...],
        torn: bool,
    ) -> None:
        self.task, self.access, self.finish, self.may_raise, self.torn = task, access, finish, may_raise, torn


class Engine:
    """Base of Program: threads, the ledger of accesses, and the order of steps.

    Attributes:
        steps: how many have been run. accesses: how many loads and stores were started.
        lines: the steps so far, as Python.
        holds: the sync points at which a thread is to be held, or is.
        loose: steps are started and not waited for.
    """

    _crews: list[Crew] = []  # noqa: RUF012 - one for all programs of a process, while its threads come back

    def __init__(self, hang_seconds: float, journal: Callable[[str], None] | None) -> None:
        self.hang_seconds = hang_seconds
        self._journal = journal
        self.lines: list[str] = []
        self.steps = 0
        self.accesses = 0
        self.ledger = Ledger()
        self._outstanding: list[Outstanding] = []
        self.holds: dict[str, int] = {}
        self.loose = False
        self.hung = False
        self.ending = False  # what is done now is the end of every program, and no step
        if not self._crews:
            self._crews.append(Crew(THREADS))

    @property
    def crew(self) -> Crew:
        """The threads."""
        return self._crews[-1]

    @property
    def quiet(self) -> bool:
        """Nothing is held, and nothing runs that was not waited for."""
        return not self.holds and not self.loose

    def note(self, line: str) -> None:
        """Writes a line of the program down, before it is run."""
        self.lines.append(line)
        if self._journal is not None:
            self._journal(line)

    # ---- jobs ------------------------------------------------------------------------------------------------

    def start(
        self,
        thread: int,
        what: str,
        job: Callable[[], Any],
        *,
        access: Access | None = None,
        finish: Callable[[Any], None] | None = None,
        may_raise: tuple[type[BaseException], ...] = (),
        torn: bool = False,
    ) -> bool:
        """Has a thread do the job; => False: it cannot be done now (its access would clash, or all are busy). When
        nothing is held this thread does it itself: a handover costs more than most jobs.

        finish is called with the result when it is known to have ended. may_raise: then it has done nothing, or, if
        it is torn then, some of it."""
        worker = None if self.quiet else self.crew.free_worker(thread)
        if (worker is None and not self.quiet) or (access is not None and self.ledger.clash(access)):
            return False
        if access is not None:
            self.ledger.begin(access)
            self.accesses += access.kind in (Kind.LOAD, Kind.STORE)
        task = Task(what, job)
        outstanding = Outstanding(task, access, finish, may_raise, torn)
        if worker is None:
            task.run()
            self._end(outstanding)
            return True
        self._outstanding.append(outstanding)
        worker.start(task)
        if not self.loose:
            settle(task, self.other_processes())
            self._retire()
        return True

    def other_processes(self) -> Iterable[int]:
        """Those that may be at work on the same memory."""
        return ()

    def wait_for(self, task: Task) -> None:
        """Until it has ended. Raises HangError."""
        try:
            task.wait(self.hang_seconds)
        except HangError:
            self.hung = True
            raise

    def join_all(self) -> None:
        """All that is outstanding ends. Raises what is found wrong; HangError."""
        for each in self._outstanding:
            self.wait_for(each.task)
        self._retire()

    def _retire(self) -> None:
        """What has ended is compared, and is no longer outstanding."""
        ended = [each for each in self._outstanding if each.task.done]
        for each in ended:
            self._outstanding.remove(each)
            self._end(each)

    def _end(self, each: Outstanding) -> None:
        access, error = each.access, each.task.error
        if error is not None:
            if access is not None:
                self.ledger.give_up(access)
                if each.torn and access.after:
                    self.ledger.tear(access)
            if not isinstance(error, each.may_raise):
                raise AssertionError(f"{each.task.what} raised {type(error).__name__}: {error}") from error
            return
        if access is not None:
            self.ledger.end(access)
        if each.finish is not None:
            each.finish(each.task.result)

    def call(self, what: str, job: Callable[[], Any]) -> Any:
        """The job's result, at once, in a thread that is watched. Raises what it raises; HangError."""
        worker = self.crew.free_worker(0)
        assert worker is not None, "all threads are at work"
        task = Task(what, job)
        worker.start(task)
        self.wait_for(task)
        if task.error is not None:
            raise task.error
        return task.result

    # ---- the order of steps ----------------------------------------------------------------------------------

    @step
    def hold(self, *, at: str, nth: int = 1) -> None:
        """From now on the nth thread that passes the sync point is held there, until release. Steps are started and
        left outstanding if they come to no end. Nothing, if this build of the core has no sync points."""
        if self.loose or at in self.holds or not failpoints.built():
            return
        failpoints.set_failpoint(at, failpoints.Action.STOP, nth=nth)
        self.holds[at] = nth

    @step
    def release(self, *, at: str | None = None) -> None:
        """Lets go what is held there (None: anywhere). When nothing is held any more, all that is outstanding must
        end."""
        for name in [at] if at is not None else list(self.holds):
            if self.holds.pop(name, None) is not None:
                self.let_go(name)
        if self.quiet:
            self.join_all()
        elif self._outstanding:
            settle(self._outstanding[0].task, self.other_processes())
            self._retire()

    @step
    def let_run(self) -> None:
        """From now on steps run beside each other, as they come."""
        if not self.holds:
            self.loose = True

    @step
    def join(self) -> None:
        """Waits for all of them."""
        if self.loose:
            self.loose = False
            self.join_all()

    def after_step(self) -> None:
        """What must be true after each step."""

    def let_all_go(self) -> None:
        """Nothing is held, nothing fails; what is outstanding is as it is."""
        for name in list(self.holds):
            self.let_go(name)
        self.holds.clear()
        self.loose = False

    def let_go(self, name: str) -> None:
        """Who is held there goes on."""
        failpoints.clear(name)

    def abandon_threads(self) -> None:
        """After a hang: the next program has threads of its own."""
        if not self.crew.free:
            self._crews.append(Crew(THREADS))
