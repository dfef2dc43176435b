"""A disk that fails as it is told to: a file system of our own on /dev/fuse, served by another process
(faulty_disk_server.py). To the core it is a device: it answers late or never, with an error, or with too little."""

from __future__ import annotations

import ctypes
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

TESTS = Path(__file__).resolve().parent.parent
MESSAGE_BYTES = 1 << 16
MOUNT_FLAGS = 2 | 4  # MS_NOSUID, MS_NODEV
DETACH = 2  # MNT_DETACH
# Against hangs only.
DEADLINE_SECONDS = 60.0

READ, WRITE, FALLOCATE = "read", "write", "fallocate"
ANY_OFFSET = (0, 1 << 62)


class FaultyDisk:
    """One that is mounted.

    Attributes:
        path: of its root.
    """

    def __init__(self, path: Path, control: socket.socket) -> None:
        self.path = path
        self._control = control

    def _ask(self, **request: Any) -> Any:
        self._control.send(json.dumps(request).encode())
        return json.loads(self._control.recv(MESSAGE_BYTES))

    @contextmanager
    def failing(
        self,
        *operations: str,
        error: int = 0,
        short_bytes: int = 0,
        delay_seconds: float = 0.0,
        hold: bool = False,
        offsets: tuple[int, int] = ANY_OFFSET,
        after: int = 0,
        times: int | None = None,
    ) -> Iterator[None]:
        """Inside the block requests of these kinds that meet one of these offsets fail with that error, are done by
        so many bytes less, late, or (hold) not before the block ends; all but the first so many of them, at most so
        many times."""
        rule = {
            "operations": operations,
            "error": error,
            "short_bytes": short_bytes,
            "delay_seconds": delay_seconds,
            "hold": hold,
            "offsets": offsets,
            "after": after,
            "times": times,
        }
        self._ask(set=rule)
        try:
            yield
        finally:
            self._ask(set=None)

    def met(self) -> int:
        """How many requests the last rule has failed or held so far."""
        return int(self._ask(ask="met"))

    def written(self) -> tuple[int, int]:
        """Where the largest write so far began and ended."""
        begin, end = self._ask(ask="written")
        return begin, end


def _mount(target: Path, device: int) -> None:
    library = ctypes.CDLL(None, use_errno=True)
    data = f"fd={device},rootmode=40000,user_id={os.getuid()},group_id={os.getgid()},max_read=1048576"
    done = library.mount(b"faulty", str(target).encode(), b"fuse", MOUNT_FLAGS, data.encode())
    if done != 0:
        raise OSError(ctypes.get_errno(), "mount")


def _unmount(target: Path) -> None:
    ctypes.CDLL(None).umount2(str(target).encode(), DETACH)


def serve(
    device: int, backing: Path, control: socket.socket, others: Sequence[int] = ()
) -> subprocess.Popen[bytes]:
    """Starts the server."""
    return subprocess.Popen(
        [sys.executable, "-m", "_support.faulty_disk_server", str(device), str(backing), str(control.fileno())],
        pass_fds=[device, control.fileno(), *others],
        cwd=TESTS,
    )


@contextmanager
def faulty_disk(folder: Path) -> Iterator[FaultyDisk]:
    """One with its data in folder. Skips where there can be none."""
    try:
        device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        pytest.skip(f"no faulty disk: /dev/fuse: {error.strerror}")
    target, backing = folder / "faulty", folder / "faulty-data"
    target.mkdir()
    backing.mkdir()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        _mount(target, device)
    except OSError as error:
        os.close(device)
        pytest.skip(f"no faulty disk: mount: {error.strerror}")
    server = serve(device, backing, theirs)
    os.close(device)
    theirs.close()
    ours.settimeout(DEADLINE_SECONDS)
    try:
        yield FaultyDisk(target, ours)
    finally:
        _unmount(target)
        ours.close()  # it ends: what it holds then fails
        server.wait(DEADLINE_SECONDS)
