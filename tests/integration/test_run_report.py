"""What `uswap run --stats` says, whatever way a program ends; and that its end is told as it was."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import uswap
from uswap.running import prepare

WORKS = "import os, signal, subprocess, sys\nb = bytearray(48 << 20)\nb[::4096] = b'x' * len(b[::4096])\n"
FIGURES = re.compile(r"uswap run: (\S+)\[(\d+)\](.*?): peak ([\d.]+) (\w+) of 16\.0 MiB; (\d+) faults, ")


def reported(script: str, swap: Path, status: int) -> list[tuple[str, int, str, float]]:
    """=> (name, pid, how it ended, peak in MiB) of each process, in order; the script must end with that status."""
    command = [sys.executable, "-c", WORKS + script]
    done = uswap.run(command, limit="16MiB", swap=swap, stats=True, capture_output=True, text=True, timeout=100)
    assert done.returncode == status, done.stderr
    units = {"bytes": 2**-20, "KiB": 2**-10, "MiB": 1.0}
    return [
        (name, int(pid), how, float(peak) * units[unit])
        for name, pid, how, peak, unit, _ in FIGURES.findall(done.stderr)
    ]


@pytest.mark.parametrize(
    ("end", "status", "how"),
    [
        ("os._exit(5)", 5, ""),
        ("os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL, ", ended by SIGKILL"),
        ("os.kill(os.getpid(), signal.SIGTERM)", -signal.SIGTERM, ", ended by SIGTERM"),
        ("os.abort()", -signal.SIGABRT, ", ended by SIGABRT"),
    ],
)
def test_a_program_that_does_not_come_to_its_exit_is_reported(
    swap_directory: Path, end: str, status: int, how: str
) -> None:
    ((name, _, ended, peak),) = reported(end, swap_directory, status)
    assert name.startswith("python")
    assert ended == how
    assert 8 < peak <= 16


def test_children_and_what_a_process_was_before_are_reported(swap_directory: Path) -> None:
    script = """
child = os.fork()
if child == 0:
    b[::4096] = b'y' * len(b[::4096])
    os._exit(0)
os.waitpid(child, 0)
child = os.fork()
if child == 0:
    os.kill(os.getpid(), signal.SIGKILL)
os.waitpid(child, 0)
os.execl('/bin/sh', 'sh', '-c', 'exit 7')
"""
    lines = reported(script, swap_directory, 7)
    assert len(lines) == 4
    first = next(line for line in lines if line[2] == ", which became another program")
    after = next(line for line in lines if line[0] == "sh")
    assert after[1] == first[1]
    children = [line for line in lines if line not in (first, after)]
    assert all(name == first[0] and how == "" for name, _, how, _ in children)
    assert max(peak for *_, peak in children) > 4


def test_signals_and_stops_reach_the_program_and_its_parent(swap_directory: Path) -> None:
    script = """
import signal, sys
def handler(number, frame):
    print(signal.Signals(number).name, flush=True)
    if number == signal.SIGTERM:
        sys.exit(9)
for number in (signal.SIGUSR1, signal.SIGCONT, signal.SIGTERM):
    signal.signal(number, handler)
print("ready", flush=True)
while True:
    signal.pause()
"""
    program, words, variables = prepare(
        [sys.executable, "-c", script], limit="16MiB", swap=swap_directory, stats=True
    )
    with subprocess.Popen(
        words, executable=program, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as started:
        assert started.stdout
        try:
            assert started.stdout.readline() == "ready\n"
            started.send_signal(signal.SIGUSR1)
            assert started.stdout.readline() == "SIGUSR1\n"
            (child,) = Path(f"/proc/{started.pid}/task/{started.pid}/children").read_text().split()
            os.kill(int(child), signal.SIGSTOP)
            found = os.waitid(os.P_PID, started.pid, os.WSTOPPED)
            assert found is not None
            assert found.si_status == signal.SIGSTOP
            started.send_signal(signal.SIGCONT)
            assert started.stdout.readline() == "SIGCONT\n"
            started.send_signal(signal.SIGTERM)
            rest, report = started.communicate(timeout=60)
            assert rest.splitlines()[-1] == "SIGTERM"
            assert (started.returncode, len(FIGURES.findall(report))) == (9, 1)
        finally:
            started.kill()


def test_whoever_kills_what_he_has_started_ends_the_program(swap_directory: Path) -> None:
    """And what the program closes is closed: its output ends with it."""
    script = "import os, signal\nprint(os.getpid(), flush=True)\nos.close(1)\nsignal.pause()"
    program, words, variables = prepare(
        [sys.executable, "-c", script], limit="16MiB", swap=swap_directory, stats=True
    )
    with subprocess.Popen(words, executable=program, env=variables, stdout=subprocess.PIPE, text=True) as started:
        assert started.stdout
        end = os.pidfd_open(int(started.stdout.read()))
        try:
            started.kill()
            assert started.wait(60) == -signal.SIGKILL
            assert select.select([end], [], [], 60)[0]
        finally:
            os.close(end)
