"""A forked child that is told what to do: it has the private regions, and the model of them, as they were at the
fork."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import threading
import traceback
import warnings
from collections.abc import Callable
from typing import Any


class Child:
    """A fork of this process. The child runs serve(request) for each request until it is ended."""

    def __init__(self, serve: Callable[[dict[str, Any]], None]) -> None:
        requests, answers = os.pipe(), os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads
            self.pid = os.fork()
        if self.pid == 0:
            os.close(requests[1])
            os.close(answers[0])
            _serve(serve, requests[0], answers[1])
        os.close(requests[0])
        os.close(answers[1])
        self._requests, self._answers = requests[1], answers[0]
        self._pidfd = os.pidfd_open(self.pid)
        self._lock = threading.Lock()

    def __call__(self, request: dict[str, Any], seconds: float) -> None:
        """Has it done. Raises AssertionError: what it found wrong; that it has ended; that it hangs."""
        with self._lock:
            self._ask(request, seconds)

    @property
    def busy(self) -> bool:
        """Whether it has a request that is not answered."""
        return self._lock.locked()

    def _ask(self, request: dict[str, Any], seconds: float) -> None:
        with contextlib.suppress(BrokenPipeError):
            os.write(self._requests, json.dumps(request).encode() + b"\n")
        if not select.select([self._answers], [], [], seconds)[0]:
            raise AssertionError(f"a forked child has not answered {request} within {seconds:g} s")
        answer = os.read(self._answers, 1 << 16).decode()
        if not answer:
            raise AssertionError(f"a forked child has ended at {request}: status {self._end(seconds)}")
        if answer != "done":
            raise AssertionError(f"in a forked child, {request}: {answer}")

    def _end(self, seconds: float) -> int:
        if not select.select([self._pidfd], [], [], seconds)[0]:
            raise AssertionError(f"a forked child has not ended within {seconds:g} s")
        status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        for descriptor in (self._requests, self._answers, self._pidfd):
            os.close(descriptor)
        return status

    def end(self, seconds: float) -> None:
        """It ends in good order. Raises AssertionError if not."""
        os.write(self._requests, b'{"what": "end"}\n')
        status = self._end(seconds)
        if status != 0:
            raise AssertionError(f"a forked child ended with status {status}")

    def send_kill(self) -> None:
        """SIGKILL, and no more."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def kill(self, seconds: float) -> None:
        """SIGKILL. Raises AssertionError if it had ended before."""
        os.kill(self.pid, signal.SIGKILL)
        status = self._end(seconds)
        if status != -signal.SIGKILL:
            raise AssertionError(f"a forked child ended with status {status} before it was killed")


def _serve(serve: Callable[[dict[str, Any]], None], requests: int, answers: int) -> None:
    """The child's life; does not return."""
    status = 1
    try:
        for line in os.fdopen(requests):
            request = json.loads(line)
            if request["what"] == "end":
                status = 0
                break
            try:
                serve(request)
                answer = "done"
            except Exception:
                answer = traceback.format_exc(limit=3)
            os.write(answers, answer.encode())
    finally:
        os._exit(status)
