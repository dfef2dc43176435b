"""A program under `uswap run` that has set itself a low limit of descriptors has as many of them as without."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from _support.native import program

import uswap

SUPPORT = Path(__file__).resolve().parents[1] / "_support"

# All but six numbers are taken when it forks, and when it executes a program that inherits them.
LOW = """
import os, resource, subprocess, sys
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
taken = [os.open(os.devnull, os.O_RDONLY) for _ in range(20)]
resource.setrlimit(resource.RLIMIT_NOFILE, (29, hard))
child = os.fork()
if child == 0:
    os._exit(0 if resource.getrlimit(resource.RLIMIT_NOFILE) == (29, hard) else 3)
print(os.waitpid(child, 0)[1], resource.getrlimit(resource.RLIMIT_NOFILE) == (29, hard), flush=True)
for fd in taken:
    os.set_inheritable(fd, True)
print(subprocess.run(["sh", "-c", "ulimit -n; (echo sub)"], close_fds=False).returncode)
"""


def test_a_low_limit_of_descriptors_is_the_programs_alone(swap_directory: Path) -> None:
    command = [sys.executable, "-c", LOW]
    plain = subprocess.run(command, capture_output=True, text=True, timeout=60)
    done = uswap.run(command, limit="16MiB", swap=swap_directory, capture_output=True, text=True, timeout=60)
    assert plain.stdout == "0 True\n29\nsub\n0\n"
    assert (done.stdout, done.stderr, done.returncode) == (plain.stdout, plain.stderr, plain.returncode)


@pytest.mark.parametrize("way", ["range", "from", "kill"])
def test_the_runtime_does_not_wait_for_ever_for_who_closes(swap_directory: Path, way: str) -> None:
    """A close that takes long is none of its business; and a child of vfork may be killed while it closes."""
    command = [program(SUPPORT / "run_choosing.c"), way]
    done = uswap.run(command, limit="16MiB", swap=swap_directory, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr, done.returncode) == ("right\n", "", 0)
