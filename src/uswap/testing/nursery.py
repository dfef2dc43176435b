"""A prepared process that forks others quickly: ``python -m uswap.testing.nursery FD MODULE...``. What is forked is
there in milliseconds; an interpreter of its own takes half a second. A nursery has no pools, so what it forks
inherits none.

FD is a socket of whole messages. {"run": "module:function", "job": ..., "descriptors": [0, 1, 2],
"environment": {}} with the file descriptors that are to have those numbers => {"pid": n}; the child calls
function(job) and ends with its result.
{"wait": pid} => {"status": n} when that one has ended. It ends with its socket.
"""

from __future__ import annotations

import array
import importlib
import json
import os
import socket
import subprocess
import sys
from typing import Any

MESSAGE_BYTES = 1 << 16
DESCRIPTORS_MAX = 4
# Against hangs only.
_DEADLINE_SECONDS = 60.0


class Nursery:
    """Starts processes quickly. As a context manager it ends with the block; the processes do not.

    modules: imported once, before any is forked; path: where modules are looked for besides."""

    def __init__(self, *modules: str, path: list[str] | None = None) -> None:
        self._door, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        places = [*(path or []), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
        extra = {"PYTHONPATH": os.pathsep.join(places), "OPENBLAS_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "uswap.testing.nursery", str(theirs.fileno()), *modules],
            pass_fds=[theirs.fileno()],
            env={**os.environ, **extra},
        )
        theirs.close()

    def fork(self, run: str, job: Any, descriptors: dict[int, int], **environment: str) -> int:
        """A process that calls run ("module:function") with job, and has the environment besides its own;
        descriptors: its number -> ours. => its pid."""
        request = {"run": run, "job": job, "descriptors": list(descriptors), "environment": environment}
        sent = array.array("i", descriptors.values())
        self._door.sendmsg([json.dumps(request).encode()], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, sent)])
        return int(self._answer()["pid"])

    def status(self, pid: int) -> int:
        """Of a process that ends; a signal is negative."""
        self._door.send(json.dumps({"wait": pid}).encode())
        return int(self._answer()["status"])

    def _answer(self) -> dict[str, Any]:
        message = self._door.recv(MESSAGE_BYTES)
        if not message:
            raise RuntimeError("the nursery of processes has ended")
        answer: dict[str, Any] = json.loads(message)
        return answer

    def close(self) -> None:
        """Ends it."""
        self._door.close()
        self._process.wait(_DEADLINE_SECONDS)

    def __enter__(self) -> Nursery:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _fork(request: dict[str, Any], received: list[int], door: socket.socket) -> int:
    """=> the child's pid; 0 in the child, which has the descriptors under their numbers."""
    pid = os.fork()
    if pid == 0:
        door.close()
        for ours, number in zip(received, request["descriptors"], strict=True):
            os.dup2(ours, number)
        os.environ.update(request["environment"])
    for descriptor in received:
        if pid or descriptor not in request["descriptors"]:
            os.close(descriptor)
    return pid


def _run(request: dict[str, Any]) -> int:
    module, _, function = request["run"].partition(":")
    return int(getattr(importlib.import_module(module), function)(request["job"]))


def main() -> int:
    """=> 0; in a forked process, its status."""
    for module in sys.argv[2:]:
        importlib.import_module(module)
    door = socket.socket(fileno=int(sys.argv[1]))
    while True:
        message, received, _, _ = socket.recv_fds(door, MESSAGE_BYTES, DESCRIPTORS_MAX)
        if not message:
            return 0
        request = json.loads(message)
        if "wait" in request:
            _, status = os.waitpid(request["wait"], 0)
            answer = {"status": os.waitstatus_to_exitcode(status)}
        else:
            answer = {"pid": _fork(request, list(received), door)}
            if answer["pid"] == 0:
                return _run(request)
        door.send(json.dumps(answer).encode())


if __name__ == "__main__":
    sys.exit(main())
