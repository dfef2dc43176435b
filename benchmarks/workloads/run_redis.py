"""redis-server under a client that fills it and reads all of it back. Argument: keys, of 1 KiB each. The server is
started here, so that it has what this process has: a limit, or none."""

import hashlib
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

keys = int(sys.argv[1])
BATCH = 200


def value_of(key: int) -> bytes:
    return hashlib.sha256(b"%d" % key).digest() * 32


def commands(names: list[list[bytes]]) -> bytes:
    return b"".join(
        b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)
        for words in names
    )


def connect(path: Path, server: subprocess.Popen[bytes]) -> socket.socket:
    while True:
        client = socket.socket(socket.AF_UNIX)
        try:
            client.connect(str(path))
            return client
        except OSError:
            client.close()
            if server.poll() is not None:
                raise SystemExit("redis-server has ended") from None
            time.sleep(0.01)  # it has no other sign that it listens


with tempfile.TemporaryDirectory(prefix="uswap-bench-") as folder:
    path = Path(folder) / "socket"
    server = subprocess.Popen(
        [
            "redis-server",
            "--port",
            "0",
            "--unixsocket",
            str(path),
            "--save",
            "",
            "--daemonize",
            "no",
            "--dir",
            folder,
        ],
        stdout=subprocess.DEVNULL,
    )
    client = connect(path, server)
    stream = client.makefile("rb")
    for first in range(0, keys, BATCH):
        batch = range(first, min(first + BATCH, keys))
        client.sendall(commands([[b"SET", b"key:%d" % key, value_of(key)] for key in batch]))
        for _ in batch:
            assert stream.readline() == b"+OK\r\n"
    right = 0
    for first in range(0, keys, BATCH):
        batch = [(key * 7919) % keys for key in range(first, min(first + BATCH, keys))]
        client.sendall(commands([[b"GET", b"key:%d" % key] for key in batch]))
        for key in batch:
            length = int(stream.readline()[1:])
            right += stream.read(length + 2)[:-2] == value_of(key)
    client.sendall(commands([[b"SHUTDOWN", b"NOSAVE"]]))
    server.wait()
    print(keys, right)
