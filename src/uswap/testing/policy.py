"""A policy under observation: whether it raises, hangs, or is of any use."""

from __future__ import annotations

import threading
import time
import traceback
from typing import Any

from uswap._core import lib
from uswap.policy import Answer, Batch, Need, Policy, by_name
from uswap.policy.interface import View
from uswap.testing.threads import where_threads_are

# Between two calls to the thread that steers: it may have been about to go to sleep at the first.
_WAKE_SECONDS = 0.1


class PolicyFailure(AssertionError):
    """A policy has raised, hangs, or answers what is no answer."""


class Watched(Policy):
    """Another policy, and what became of it. Made by watched.

    Attributes:
        asked: how often decide was called. answered: how often it has returned.
        since: when the call that is going on began (time.monotonic), or None.
    """

    inner_class: type[Policy]

    def __init__(self) -> None:
        self.inner = self.inner_class()
        self.wants = self.inner.wants  # type: ignore[misc]
        self.every = self.inner.every  # type: ignore[misc]
        self.asked = self.answered = 0
        self.since: float | None = None
        self.trace = ""
        self._answers = threading.Condition()

    @property
    def name(self) -> str:
        """Of the policy itself."""
        kind = self.inner_class
        return f"{kind.__module__}:{kind.__qualname__}"

    def start(self, view: View) -> None:
        """As Policy.start."""
        self._watch("start", lambda: self.inner.start(view))

    def decide(self, seen: Batch, need: Need) -> Answer | None:
        """As Policy.decide."""
        self.asked += 1
        answer: Answer | None = self._watch("decide", lambda: self.inner.decide(seen, need))
        with self._answers:
            self.answered += 1
            self._answers.notify_all()
        return answer

    def _watch(self, what: str, call: Any) -> Any:
        self.since = time.monotonic()
        try:
            return call()
        except BaseException:
            self.trace = traceback.format_exc()
            raise
        finally:
            self.since = None

    def check(self, pool: Any, hang_seconds: float) -> None:
        """Raises PolicyFailure if it has failed, or has been at work for so long."""
        reclaimer = pool.reclaimer
        error = None if reclaimer is None else reclaimer.error
        if error is not None:
            kind = "raised" if self.trace else "gave an answer that is none:"
            raise PolicyFailure(f"policy {self.name} {kind} {type(error).__name__}: {error}\n{self.trace}".rstrip())
        since = self.since
        if since is not None and time.monotonic() - since > hang_seconds:
            raise PolicyFailure(
                f"policy {self.name} has not come back from a call for {hang_seconds:g} s; the core does without it"
            )

    def settle(self, pool: Any, hang_seconds: float) -> None:
        """Until it has been asked, and has answered, about all that has happened so far. Raises PolicyFailure."""
        target = self.asked + 2  # it is asked a second time when its first answer has been looked at
        deadline = time.monotonic() + hang_seconds
        while self.answered < target:
            self.check(pool, hang_seconds)
            if pool.reclaimer is None or not pool.reclaimer.running:
                self.check(pool, hang_seconds)  # it may have failed since, and ended
                return
            if time.monotonic() > deadline:
                raise PolicyFailure(
                    f"policy {self.name} has not answered within {hang_seconds:g} s\n{where_threads_are()}"
                )
            pool._core.call(lib.uswap_policy_wake)
            with self._answers:
                self._answers.wait_for(lambda: self.answered >= target, _WAKE_SECONDS)


def watched(policy: str | type[Policy]) -> Watched:
    """An observed policy of that class, or of that name. Raises ArgumentError."""
    kind = by_name(policy) if isinstance(policy, str) else policy
    made: Watched = type("Watched" + kind.__name__, (Watched,), {"inner_class": kind})()
    return made
