"""Processes that are told what to do, one statement after the other: members of named pools."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
from types import TracebackType
from typing import Any

from _support.program import TESTS

# Only against hangs.
DEADLINE_SECONDS = 60.0

_LOOP = """
import json, os, sys
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
import uswap
names = {"uswap": uswap}
for line in sys.stdin:
    try:
        code = json.loads(line)
        try:
            value = eval(compile(code, "<member>", "eval"), names)
        except SyntaxError:
            value = exec(compile(code, "<member>", "exec"), names)
        answer = {"value": value}
    except Exception as error:
        answer = {"error": type(error).__name__, "message": str(error)}
    print(json.dumps(answer), file=answers, flush=True)
answers.close()
"""


class MemberError(Exception):
    """What a member was told to do raised; the message begins with the exception's name."""


class Member:
    """A process with uswap imported. As a context manager it ends with the block (killed, if it must be)."""

    def __init__(self, **environment: str) -> None:
        path = os.pathsep.join(filter(None, [str(TESTS), os.environ.get("PYTHONPATH")]))
        self._process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", _LOOP],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1", **environment},
        )
        self.pid = self._process.pid

    def __call__(self, code: str) -> Any:
        """The value of an expression, as JSON carries it; None for statements. Raises MemberError."""
        self.send(code)
        return self.answer()

    def send(self, code: str) -> None:
        """Does not wait for it: answer does."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(code) + "\n")
        self._process.stdin.flush()

    def answer(self, seconds: float = DEADLINE_SECONDS) -> Any:
        """To what was sent. Raises MemberError; AssertionError: there was none in time."""
        assert self._process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            if not selector.select(seconds):
                self.kill()
                raise AssertionError(f"process {self.pid} did not answer in {seconds} s")
        line = self._process.stdout.readline()
        assert line, f"process {self.pid} has ended: {self._process.wait()}"
        answer = json.loads(line)
        if "error" in answer:
            raise MemberError(f"{answer['error']}: {answer['message']}")
        return answer["value"]

    @property
    def alive(self) -> bool:
        """Whether it has not ended yet."""
        return self._process.poll() is None

    def stop(self) -> None:
        """SIGSTOP, and waits until all of its threads are stopped: one of them may have answered somebody yet."""
        os.kill(self.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def go_on(self) -> None:
        """SIGCONT."""
        os.kill(self.pid, signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL, and waits for its end."""
        self._process.kill()
        self._process.wait()

    def end(self) -> int:
        """Lets it come to its end; => its exit status."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            return self._process.wait(DEADLINE_SECONDS)
        finally:
            self._process.kill()

    def __enter__(self) -> Member:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        if kind is not None or self._process.poll() is not None:
            self.kill()
        else:
            self.end()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None and not pipe.closed:
                pipe.close()
