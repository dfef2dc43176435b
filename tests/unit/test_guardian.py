"""What a test has left does not outlive the worker that ran it (tests/_support/guardian.py)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from _support.program import TESTS
from _support.waiting import await_that

# Each leaves a process, with the worker's pipes if it can, and ends the worker as pytest-timeout does.
LEFT = """
import ctypes, os, signal, subprocess, sys

def leave(pid):
    with open(f"left-{pid}", "w") as file:
        file.write(str(pid))
    os._exit(1)

def pause():
    while True:
        signal.pause()

def test_fork():
    leave(os.fork() or pause())

def test_fork_behind_pythons_back():
    leave(ctypes.PyDLL(None).fork() or pause())

def test_a_daemon():
    read, write = os.pipe()
    if os.fork() == 0:
        os.write(write, str(os.fork() or pause()).encode())
        os._exit(0)
    os.wait()
    leave(int(os.read(read, 20)))

def test_a_session_of_its_own():
    leave(subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"], start_new_session=True).pid)
"""


def alive(pid: int) -> bool:
    """A zombie is not: here nobody may be there to bury it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_worker_that_ends_takes_with_it_what_a_test_has_left(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(
        "from _support.guardian import guard_this_process\n"
        "def pytest_configure(config):\n"
        "    if hasattr(config, 'workerinput'): guard_this_process()\n"
    )
    (tmp_path / "test_left.py").write_text(LEFT)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-n", "1", "--max-worker-restart=4", "-p", "no:cacheprovider"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(TESTS)},
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    left = [int(path.read_text()) for path in tmp_path.glob("left-*")]
    assert len(left) == 4, done.stdout + done.stderr
    for pid in left:
        await_that(lambda pid=pid: not alive(pid))  # type: ignore[misc]
