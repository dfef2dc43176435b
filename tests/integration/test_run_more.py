"""Unmodified programs under a limit: edges of the calls, and surroundings that are not as expected."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from _support.native import program

import uswap

SUPPORT = Path(__file__).resolve().parents[1] / "_support"
LIBRARY = Path(uswap.__file__).with_name("libuswap-run.so")


def output(command: list[str], swap: Path | uswap.SwapArea, limit: str = "16MiB") -> str:
    done = uswap.run(command, limit=limit, swap=swap, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    return str(done.stdout)


def test_calls_at_their_edges_end_as_without_a_limit(swap_directory: Path) -> None:
    command = [str(program(SUPPORT / "run_calls.c"))]
    without = subprocess.run(command, capture_output=True, text=True, timeout=100, check=True)
    assert output(command, swap_directory) == without.stdout


def test_promises_of_swap_space_are_given_back_exactly(swap_directory: Path) -> None:
    """Of 64 MiB: by threads at the same time; of sparse mappings; of memory whose protection changes."""
    area = uswap.SwapArea(swap_directory, size="64MiB")
    assert output([str(program(SUPPORT / "run_promises.c"))], area, "8MiB") == "right\n"


def test_a_signal_handler_maps_memory(swap_directory: Path) -> None:
    assert output([str(program(SUPPORT / "run_handlers.c")), "1000"], swap_directory) == "right\n"


def test_a_fork_that_there_is_no_room_for_fails_as_forks_do(swap_directory: Path) -> None:
    """The parent has 60 of 96 MiB; its child may come to need as much. Nobody hears of a child."""
    script = """
import errno, mmap, os, signal
heard = []
signal.signal(signal.SIGCHLD, lambda *_: heard.append(1))
block = mmap.mmap(-1, 60 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
for i in range(60):
    block[i << 20 : (i + 1) << 20] = os.urandom(1 << 20)
before = sum(block[::4096])
try:
    if os.fork() == 0:
        print("there", flush=True)
        os._exit(0)
except OSError as error:
    print(errno.errorcode[error.errno], sum(block[::4096]) == before, heard)
try:
    os.waitpid(-1, 0)
except ChildProcessError:
    print("no child")
block.close()
os._exit(0) if os.fork() == 0 else print(os.wait()[1], heard)
"""
    done = uswap.run(
        [sys.executable, "-c", script],
        limit="8MiB",
        swap=uswap.SwapArea(swap_directory, size="96MiB"),
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "ENOMEM True []\nno child\n0 [1]\n", "")


# ---- exec ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [None, "", "0"])
def test_the_library_without_a_limit_is_in_nobodys_way(tmp_path: Path, limit: str | None) -> None:
    environment = {**os.environ, "LD_PRELOAD": str(LIBRARY)}
    environment.pop("USWAP_RUN_LIMIT", None)
    if limit is not None:
        environment["USWAP_RUN_LIMIT"] = limit
    done = subprocess.run(
        ["env", "echo", "done"], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (0, "done\n")  # env calls execvp


def test_libraries_that_an_environment_names_stay_beside_ours(swap_directory: Path, tmp_path: Path) -> None:
    source, other = tmp_path / "other.c", tmp_path / "other.so"
    source.write_text("int other;\n")
    subprocess.run(["cc", "-shared", "-fPIC", str(source), "-o", str(other)], check=True)
    code = "m = open('/proc/self/maps').read(); print('other.so' in m, 'libuswap-run' in m)"
    environment = {"LD_PRELOAD": str(other)}
    script = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {code!r}], env={environment!r})"
    assert output([sys.executable, "-c", script], swap_directory) == "True True\n"


# ---- the command -----------------------------------------------------------------------------------------------


def test_a_program_gets_its_words_as_they_were_given(swap_directory: Path) -> None:
    script = 'echo "$0 $*"'
    assert output(["sh", "-c", script], swap_directory) == "sh \n"
    command = [sys.executable, "-m", "uswap", "run", "--limit", "16MiB", "--swap", str(swap_directory)]
    for words, expected in [
        (["sh", "-c", script], "sh \n"),
        (["--", "sh", "-c", script, "name", "--", "--limit", "1"], "name -- --limit 1\n"),
        (["--", "echo", "--", "--stats"], "-- --stats\n"),
    ]:
        done = subprocess.run([*command, *words], capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (0, expected, "")


def test_a_warning_is_one_line_for_the_user_of_the_command(swap_directory: Path) -> None:
    command = [sys.executable, "-m", "uswap", "run", "--limit", "16MiB", "--swap", "/dev/shm", "true"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    (line,) = done.stderr.splitlines()
    assert line.startswith("uswap run: swap area /dev/shm lies in memory")


def test_a_program_is_looked_for_where_it_will_run(swap_directory: Path, tmp_path: Path) -> None:
    prog = tmp_path / "prog"
    prog.write_text('#!/bin/sh\necho "$0 $PWD"\n')
    prog.chmod(0o755)
    (tmp_path / "script.py").write_text("print(__file__)\n")
    there: dict[str, Any] = {"swap": swap_directory, "limit": "16MiB", "capture_output": True, "text": True}
    assert uswap.run(["./prog"], cwd=tmp_path, **there).stdout == f"./prog {tmp_path}\n"
    assert uswap.run(["script.py"], cwd=tmp_path, **there).stdout.endswith("script.py\n")
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    assert uswap.run(["prog"], env={**os.environ, "PATH": path}, **there).returncode == 0
    with pytest.raises(uswap.ArgumentError, match="no program"):
        uswap.run(["./prog"], **there)
    for option in ({"shell": True}, {"executable": "/bin/ls"}):
        with pytest.raises(TypeError, match="name the program"):
            uswap.run(["echo"], **there, **option)
