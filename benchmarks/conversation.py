"""A worker process that is told what to do, one step at a time: JSON lines over its standard input and output.

The script that makes a Worker is itself what the worker runs: it calls serve() when is_worker() says so.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import harness

_FLAG = "--worker"
_PR_SET_PDEATHSIG = 1
_END_SECONDS = 60


class Worker:
    """Context manager: a process that answers ask(). It runs script, with setup at hand.

    Raises:
        harness.BenchmarkError: (ask, and at the end of the block) it ended badly; what it said is the message.
    """

    def __init__(self, script: str, setup: dict[str, Any]) -> None:
        command = [sys.executable, script, _FLAG, json.dumps(setup | {"parent": os.getpid()})]
        environment = os.environ | {"OPENBLAS_NUM_THREADS": "1"}
        self.name = setup.get("side", "worker")
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._to, self._from = self._process.stdin, self._process.stdout
        self.pid = self._process.pid

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if kind is None:
                self._to.close()
                if status := self._process.wait(_END_SECONDS):
                    raise harness.BenchmarkError(f"{self.name}: the worker ended with status {status}")
        finally:
            self._process.kill()
            self._process.wait()
            self._from.close()

    def tell(self, step: str, **arguments: Any) -> None:
        """Begins a step; listen() has its answer."""
        try:
            self._to.write(json.dumps({"step": step, **arguments}) + "\n")
            self._to.flush()
        except BrokenPipeError:
            raise harness.BenchmarkError(f"{self.name}: the worker has ended") from None

    def listen(self) -> Any:
        """The answer of the step that was begun first and not listened to yet."""
        line = self._from.readline()
        if not line:
            raise harness.BenchmarkError(f"{self.name}: the worker ended with status {self._process.wait()}")
        answer = json.loads(line)
        if "error" in answer:
            raise harness.BenchmarkError(f"{self.name}: {answer['error']}")
        return answer["answer"]

    def ask(self, step: str, **arguments: Any) -> Any:
        """A step, and its answer."""
        self.tell(step, **arguments)
        return self.listen()


def is_worker() -> bool:
    """Whether this process was started by a Worker."""
    return len(sys.argv) == 3 and sys.argv[1] == _FLAG


def end_with_parent() -> None:
    """Nothing of a run that is killed may stay behind: it would hold its cgroup and swap file."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


# What a worker can be told to do, by name; each takes its arguments by name and gives back the answer.
Steps = dict[str, Callable[..., Any]]


def serve(run: Callable[[dict[str, Any], Callable[[Steps], None]], None]) -> int:
    """Runs run(setup, answer_all), which prepares what it measures and calls answer_all(steps): that does each step
    it is told and sends back the answer, until the parent says no more. => the exit status."""
    end_with_parent()
    setup = json.loads(sys.argv[2])
    if os.getppid() != setup["parent"]:
        return 1

    def answer_all(steps: Steps) -> None:
        for line in sys.stdin:
            message = json.loads(line)
            print(json.dumps({"answer": steps[message.pop("step")](**message)}), flush=True)

    try:
        run(setup, answer_all)
    except Exception as failure:
        print(json.dumps({"error": f"{type(failure).__name__}: {failure}"}), flush=True)
        return 1
    return 0
