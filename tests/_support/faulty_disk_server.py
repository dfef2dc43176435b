"""The process behind faulty_disk.py: ``python -m _support.faulty_disk_server DEVICE BACKING CONTROL``.

It speaks the kernel's FUSE protocol (linux/fuse.h) on DEVICE, for one directory of plain files whose data lie in
the directory BACKING. CONTROL is a socket of whole messages: {"set": rule or null}, {"ask": "met" or "written"}; it
ends with that socket. One thread: what is answered late is put aside meanwhile.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import heapq
import json
import os
import select
import socket
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

BUFFER_BYTES = (1 << 20) + (1 << 16)
MESSAGE_BYTES = 1 << 16
MAX_WRITE = 1 << 20
ROOT = 1
# Of linux/fuse.h.
IN_HEADER = struct.Struct("=IIQQIIIHH")
OUT_HEADER = struct.Struct("=IiQ")
ATTRIBUTES = struct.Struct("=QQQQQQIIIIIIIIII")
(LOOKUP, FORGET, GETATTR, SETATTR, UNLINK) = (1, 2, 3, 4, 10)
(OPEN, READ, WRITE, STATFS, RELEASE, FSYNC) = (14, 15, 16, 17, 18, 20)
(FLUSH, INIT, OPENDIR, READDIR, RELEASEDIR, FSYNCDIR) = (25, 26, 27, 28, 29, 30)
(ACCESS, CREATE, INTERRUPT, DESTROY, BATCH_FORGET, FALLOCATE, TMPFILE) = (34, 35, 36, 38, 42, 43, 51)
NO_ANSWER = {FORGET, INTERRUPT, BATCH_FORGET, DESTROY}
# FUSE_ASYNC_READ, FUSE_BIG_WRITES, FUSE_ASYNC_DIO, FUSE_MAX_PAGES
FLAGS = 1 << 0 | 1 << 5 | 1 << 15 | 1 << 22
SET_MODE, SET_SIZE = 1, 8
DIRECT_IO = 1
VALID_SECONDS = 0
NAMES = {READ: "read", WRITE: "write", FALLOCATE: "fallocate"}
_library = ctypes.CDLL(None, use_errno=True)


class Refused(OSError):
    """The answer is this error."""

    def __init__(self, number: int) -> None:
        super().__init__(number, os.strerror(number))


def span_of(operation: int, body: bytes) -> tuple[int, int]:
    """Offset and length of a read, write or fallocate."""
    if operation == FALLOCATE:
        return struct.unpack_from("=QQ", body, 8)
    offset, length = struct.unpack_from("=QI", body, 8)
    return offset, length


class Files:
    """One directory. A file's number is its index here, and is never used again."""

    def __init__(self, backing: Path) -> None:
        self._backing = backing
        self._names: dict[str, int] = {}
        self._files: dict[int, int] = {}
        self._modes: dict[int, int] = {}

    def attributes(self, node: int) -> bytes:
        """fuse_attr."""
        if node == ROOT:
            return ATTRIBUTES.pack(
                ROOT, 4096, 8, 0, 0, 0, 0, 0, 0, 0o40700, 2, os.getuid(), os.getgid(), 0, 4096, 0
            )
        info, mode = os.fstat(self.file(node)), 0o100000 | self._modes[node]
        links = 1 if node in self._names.values() else 0
        owner = (os.getuid(), os.getgid())
        return ATTRIBUTES.pack(
            node, info.st_size, info.st_blocks, 0, 0, 0, 0, 0, 0, mode, links, *owner, 0, 4096, 0
        )

    def file(self, node: int) -> int:
        """Its descriptor. Raises Refused."""
        if node not in self._files:
            raise Refused(errno.ENOENT)
        return self._files[node]

    def find(self, name: str) -> int:
        """=> its number. Raises Refused."""
        if name not in self._names:
            raise Refused(errno.ENOENT)
        return self._names[name]

    def make(self, name: str | None, mode: int) -> int:
        """A new file; None: without a name."""
        node = ROOT + 1 + len(self._modes)
        self._files[node] = os.open(self._backing, os.O_TMPFILE | os.O_RDWR, 0o600)
        self._modes[node] = mode & 0o7777
        if name is not None:
            self._names[name] = node
        return node

    def unlink(self, name: str) -> None:
        """The name goes; the file stays until the server ends."""
        self.find(name)
        del self._names[name]

    def chmod(self, node: int, mode: int) -> None:
        """Another mode."""
        self._modes[node] = mode & 0o7777


class Rule:
    """Which requests fail, and how (FaultyDisk.failing)."""

    def __init__(self, values: dict[str, Any]) -> None:
        self.error, self.short_bytes = int(values["error"]), int(values["short_bytes"])
        self.delay_seconds, self.hold = float(values["delay_seconds"]), bool(values["hold"])
        self._operations, self._offsets = set(values["operations"]), values["offsets"]
        self._after, self._times = int(values["after"]), values["times"]
        self.met = 0

    def meets(self, operation: int, body: bytes) -> bool:
        """Whether this request fails; counted."""
        if NAMES.get(operation) not in self._operations:
            return False
        offset, length = span_of(operation, body)
        if offset >= self._offsets[1] or offset + length <= self._offsets[0]:
            return False
        if self._after > 0:
            self._after -= 1
            return False
        if self._times is not None and self.met >= self._times:
            return False
        self.met += 1
        return True


class Server:
    """Requests in, answers out."""

    def __init__(self, device: int, backing: Path, control: socket.socket) -> None:
        self._device, self._control = device, control
        self._files = Files(backing)
        self._rule: Rule | None = None
        self._last_met = 0
        self._written = (0, 0)
        self._held: list[tuple[int, int, int, bytes, int]] = []
        self._late: list[tuple[float, int, int, int, bytes, int]] = []
        self._answers: dict[int, Callable[[int, bytes], bytes]] = {
            INIT: self._init, LOOKUP: self._lookup, GETATTR: self._getattr, SETATTR: self._setattr,
            CREATE: self._create, TMPFILE: self._tmpfile, OPEN: self._open, OPENDIR: self._open,
            READ: self._read, WRITE: self._write,
            FALLOCATE: self._fallocate, UNLINK: self._unlink, STATFS: self._statfs, READDIR: self._nothing,
            RELEASE: self._nothing, RELEASEDIR: self._nothing, FLUSH: self._nothing, FSYNC: self._nothing,
            FSYNCDIR: self._nothing, ACCESS: self._nothing,
        }  # fmt: skip

    def run(self) -> None:
        """Until the control socket closes, or the file system is unmounted."""
        while True:
            left = max(0.0, self._late[0][0] - time.monotonic()) if self._late else None
            ready, _, _ = select.select([self._device, self._control], [], [], left)
            while self._late and self._late[0][0] <= time.monotonic():
                _, unique, operation, node, body, short = heapq.heappop(self._late)
                self._answer(unique, operation, node, body, short)
            if self._control in ready and not self._obey():
                return
            if self._device in ready and not self._take():
                return

    # ---- what it is told ----

    def _obey(self) -> bool:
        message = self._control.recv(MESSAGE_BYTES)
        if not message:
            return False
        request = json.loads(message)
        answer: Any = True
        if "set" in request:
            self._last_met = self._rule.met if self._rule else self._last_met
            self._rule = Rule(request["set"]) if request["set"] else None
            held, self._held = self._held, []
            for unique, operation, node, body, short in held:
                self._answer(unique, operation, node, body, short)
        elif request["ask"] == "met":
            answer = self._rule.met if self._rule else self._last_met
        else:
            answer = self._written
        self._control.send(json.dumps(answer).encode())
        return True

    # ---- requests ----

    def _take(self) -> bool:
        try:
            message = os.read(self._device, BUFFER_BYTES)
        except OSError as error:
            return error.errno in (errno.EINTR, errno.EAGAIN, errno.ENOENT)
        _, operation, unique, node, *_ = IN_HEADER.unpack_from(message)
        body, rule = message[IN_HEADER.size :], self._rule
        if operation in NO_ANSWER:
            return True
        if rule is None or not rule.meets(operation, body):
            self._answer(unique, operation, node, body, 0)
        elif rule.hold:
            self._held.append((unique, operation, node, body, rule.short_bytes))
        elif rule.delay_seconds:
            due = time.monotonic() + rule.delay_seconds
            heapq.heappush(self._late, (due, unique, operation, node, body, rule.short_bytes))
        elif rule.error:
            self._send(unique, -rule.error, b"")
        else:
            self._answer(unique, operation, node, body, rule.short_bytes)
        return True

    def _answer(self, unique: int, operation: int, node: int, body: bytes, short: int) -> None:
        try:
            if short and operation in (READ, WRITE):
                body = shortened(body, short)
            answer = self._answers.get(operation, self._unknown)(node, body)
        except OSError as error:
            self._send(unique, -(error.errno or errno.EIO), b"")
            return
        self._send(unique, 0, answer)

    def _send(self, unique: int, error: int, answer: bytes) -> None:
        with contextlib.suppress(FileNotFoundError):  # who asked has gone
            os.write(self._device, OUT_HEADER.pack(OUT_HEADER.size + len(answer), error, unique) + answer)

    # ---- answers ----

    def _unknown(self, node: int, body: bytes) -> bytes:
        raise Refused(errno.ENOSYS)

    def _nothing(self, node: int, body: bytes) -> bytes:
        return b""

    def _init(self, node: int, body: bytes) -> bytes:
        _, minor, ahead, flags = struct.unpack_from("=IIII", body)
        return struct.pack(
            "=IIIIHHIIHHI28x",
            7,
            min(minor, 38),
            ahead,
            flags & FLAGS,
            64,
            48,
            MAX_WRITE,
            1,
            MAX_WRITE // 4096,
            0,
            0,
        )

    def _entry(self, node: int) -> bytes:
        return struct.pack("=QQQQII", node, 0, VALID_SECONDS, VALID_SECONDS, 0, 0) + self._files.attributes(node)

    def _lookup(self, node: int, body: bytes) -> bytes:
        return self._entry(self._files.find(text(body)))

    def _getattr(self, node: int, body: bytes) -> bytes:
        return struct.pack("=QII", VALID_SECONDS, 0, 0) + self._files.attributes(node)

    def _setattr(self, node: int, body: bytes) -> bytes:
        valid, _, _, size = struct.unpack_from("=IIQQ", body)
        if valid & SET_SIZE:
            os.ftruncate(self._files.file(node), size)
        if valid & SET_MODE:
            (mode,) = struct.unpack_from("=I", body, 68)
            self._files.chmod(node, mode)
        return self._getattr(node, body)

    def _create(self, node: int, body: bytes) -> bytes:
        (mode,) = struct.unpack_from("=I", body, 4)
        made = self._files.make(text(body[16:]), mode)
        return self._entry(made) + self._open(made, body)

    def _tmpfile(self, node: int, body: bytes) -> bytes:
        (mode,) = struct.unpack_from("=I", body, 4)
        made = self._files.make(None, mode)
        return self._entry(made) + self._open(made, body)

    def _open(self, node: int, body: bytes) -> bytes:
        return struct.pack("=QII", 0, DIRECT_IO if node != ROOT else 0, 0)

    def _read(self, node: int, body: bytes) -> bytes:
        offset, length = span_of(READ, body)
        return os.pread(self._files.file(node), length, offset)

    def _write(self, node: int, body: bytes) -> bytes:
        offset, length = span_of(WRITE, body)
        if length > self._written[1] - self._written[0]:
            self._written = (offset, offset + length)
        return struct.pack("=II", os.pwrite(self._files.file(node), body[40 : 40 + length], offset), 0)

    def _fallocate(self, node: int, body: bytes) -> bytes:
        offset, length = span_of(FALLOCATE, body)
        (mode,) = struct.unpack_from("=I", body, 24)
        arguments = (ctypes.c_int(mode), ctypes.c_int64(offset), ctypes.c_int64(length))
        if _library.fallocate(self._files.file(node), *arguments) != 0:
            raise Refused(ctypes.get_errno())
        return b""

    def _unlink(self, node: int, body: bytes) -> bytes:
        self._files.unlink(text(body))
        return b""

    def _statfs(self, node: int, body: bytes) -> bytes:
        blocks = 1 << 22
        return struct.pack("=QQQQQIIII24x", blocks, blocks, blocks, 1000, 1000, 4096, 255, 4096, 0)


def text(body: bytes) -> str:
    """A name, as the kernel sends it."""
    return body.split(b"\0", 1)[0].decode()


def shortened(body: bytes, by: int) -> bytes:
    """A read or write of so many bytes less."""
    offset, length = span_of(READ, body)
    return body[:8] + struct.pack("=QI", offset, max(0, length - by)) + body[20:]


if __name__ == "__main__":
    Server(int(sys.argv[1]), Path(sys.argv[2]), socket.socket(fileno=int(sys.argv[3]))).run()
