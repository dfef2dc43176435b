"""A prepared process that forks members of named pools: ``python -m _support.crowd_nursery FD``. A member that is
forked is there in milliseconds; an interpreter of its own takes half a second.

FD is a socket of whole messages. {"job": ...} with three descriptors (standard input, output, error) => {"pid": n};
{"wait": pid} => {"status": n} when that one has ended. It ends with its socket.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from typing import Any

from _support import crowd_member, soak_member

MESSAGE_BYTES = 1 << 16
PROGRAMS = {"crowd": crowd_member.run, "soak": soak_member.run}


def _fork(job: dict[str, Any], descriptors: list[int], door: socket.socket) -> int:
    """=> the child's pid; 0 in the child, which has the descriptors as its standard ones."""
    pid = os.fork()
    if pid == 0:
        door.close()
        for number, descriptor in enumerate(descriptors):
            os.dup2(descriptor, number)
        os.environ["USWAP_RUNTIME_DIR"] = job["runtime"]
    for descriptor in descriptors:
        os.close(descriptor)
    return pid


def main() -> int:
    """=> 0; in a member, its status."""
    door = socket.socket(fileno=int(sys.argv[1]))
    while True:
        message, descriptors, _, _ = socket.recv_fds(door, MESSAGE_BYTES, 3)
        if not message:
            return 0
        request = json.loads(message)
        if "wait" in request:
            _, status = os.waitpid(request["wait"], 0)
            answer = {"status": os.waitstatus_to_exitcode(status)}
        else:
            answer = {"pid": _fork(request["job"], list(descriptors), door)}
            if answer["pid"] == 0:
                return PROGRAMS[request["job"]["program"]](request["job"])
        door.send(json.dumps(answer).encode())


if __name__ == "__main__":
    sys.exit(main())
