"""How many threads a program under `uswap run` sees of itself: its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import uswap

# As CPython does from 3.12 on, when it forks: by fopen. Any other field is what the kernel says.
TOLD = """
import ctypes, os, threading

def told():
    libc = ctypes.CDLL(None)
    libc.fopen.restype = ctypes.c_void_p
    libc.fgets.argtypes = [ctypes.c_char_p, ctypes.c_int, ctypes.c_void_p]
    libc.fclose.argtypes = [ctypes.c_void_p]
    stream, line = libc.fopen(b"/proc/self/stat", b"r"), ctypes.create_string_buffer(1000)
    libc.fgets(line, len(line), stream)
    libc.fclose(stream)
    name, _, fields = line.value.rpartition(b")")
    fields = fields.split()
    return int(fields[17]), len(fields), int(name.split()[0]) == os.getpid(), line.value.endswith(b"\\n")

print(told())
end = threading.Event()
others = [threading.Thread(target=end.wait) for _ in range(2)]
for thread in others:
    thread.start()
print(told(), flush=True)
if os.fork() == 0:
    print(told(), flush=True)
    os._exit(0)
os.wait()
end.set()
for thread in others:
    thread.join()
"""


def test_a_program_is_told_of_its_own_threads_only(swap_directory: Path) -> None:
    command = [sys.executable, "-W", "ignore", "-c", TOLD]
    plain = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    done = uswap.run(command, limit="16MiB", swap=swap_directory, capture_output=True, text=True, timeout=60)
    assert [line.split(",")[0] for line in plain.stdout.splitlines()] == ["(1", "(3", "(1"]
    assert (done.stdout, done.stderr, done.returncode) == (plain.stdout, "", 0)
