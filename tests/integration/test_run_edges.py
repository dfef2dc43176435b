"""Calls at the edges of what `uswap run` manages, and limits that the process has from elsewhere."""

from __future__ import annotations

import re
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from _support.native import program

import uswap
from uswap.running import prepare

SOURCE = Path(__file__).resolve().parents[1] / "_support" / "run_edges.c"


EDGES = [
    "small",
    "borders",
    "core",
    "lock",
    "stack",
    "locked stack",
    "mapped over",
    "holes",
    "many small",
    "remap locked",
    "stat",
]


@pytest.mark.parametrize("edge", EDGES)
def test_an_edge(swap_directory: Path, edge: str) -> None:
    command = [program(SOURCE), edge]
    done = uswap.run(command, limit="16MiB", swap=swap_directory, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr, done.returncode) == ("right\n", "", 0)


def test_what_a_shell_starts_after_clearenv_is_limited(swap_directory: Path) -> None:
    """By system and by popen; and libraries of the program's own stay in front of what it starts."""
    shell = 'grep -q libuswap-run /proc/self/maps && echo "it\'s in" $USWAP_RUN_LIMIT; exit 3'
    command = [program(SOURCE.with_name("run_shell.c")), shell]
    done = uswap.run(command, limit="16MiB", swap=swap_directory, capture_output=True, text=True, timeout=60)
    *lines, libraries = done.stdout.splitlines()
    assert lines == [f"it's in {16 << 20}"] * 2 + [f"{3 << 8} {3 << 8}"]
    assert re.fullmatch(r"\S*/libuswap-run\.so:libm\.so\.6", libraries)
    assert (done.stderr, done.returncode) == ("", 0)


def test_a_command_that_begins_with_a_dash_is_none_of_the_shells_options(swap_directory: Path) -> None:
    command = [program(SOURCE.with_name("run_shell.c")), "-nothing 2>/dev/null; echo here"]
    done = uswap.run(command, limit="16MiB", swap=swap_directory, capture_output=True, text=True, timeout=60)
    assert (done.stdout.splitlines()[:3], done.stderr) == (["here", "here", "0 0"], "")


def limited(swap: uswap.SwapArea | Path, kind: int, most: int, *words: str) -> subprocess.CompletedProcess[str]:
    """A program under a limit of uswap's, and one of the kernel's that the launcher itself has not."""
    executable, prepared, variables = prepare(words, limit="16MiB", swap=swap)
    return subprocess.run(
        prepared,
        executable=executable,
        env=variables,
        capture_output=True,
        text=True,
        timeout=60,
        preexec_fn=lambda: resource.setrlimit(kind, (most, most)),
    )


@pytest.mark.parametrize("gib", [4, 64])
def test_where_addresses_are_limited_fewer_are_reserved(swap_directory: Path, gib: int) -> None:
    swap = uswap.SwapArea(swap_directory, size="1GiB")
    done = limited(swap, resource.RLIMIT_AS, gib << 30, program(SOURCE), "small")
    assert (done.stdout, done.stderr, done.returncode) == ("right\n", "", 0)


@pytest.mark.parametrize("gib", [1, 16])
def test_where_data_is_limited_less_is_reserved(swap_directory: Path, gib: int) -> None:
    swap = uswap.SwapArea(swap_directory, size="1GiB")
    done = limited(swap, resource.RLIMIT_DATA, gib << 30, program(SOURCE), "small")
    assert (done.stdout, done.stderr, done.returncode) == ("right\n", "", 0)


@pytest.mark.skipif(
    Path("/proc/sys/kernel/core_pattern").read_text().startswith(("|", "/")), reason="cores go elsewhere"
)
def test_a_core_dump_has_what_is_mapped_and_not_what_is_reserved(swap_directory: Path, tmp_path: Path) -> None:
    """The kernel looks for each page of a core dump's mappings, which takes minutes for a terabyte."""
    words = ["sh", "-c", f"cd {tmp_path} && ulimit -c unlimited && exec {program(SOURCE)} abort"]
    done = uswap.run(words, limit="16MiB", swap=swap_directory, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.returncode) == ("", -signal.SIGABRT)
    (dumped,) = tmp_path.iterdir()
    assert dumped.stat().st_size < 1 << 30
    assert b"this is to be found" * 100 in dumped.read_bytes()


def test_too_few_addresses_are_one_line(swap_directory: Path) -> None:
    done = limited(swap_directory, resource.RLIMIT_AS, 512 << 20, "echo", "started")
    assert (done.stdout, done.returncode) == ("", 2)
    (line,) = done.stderr.splitlines()
    assert line.startswith("uswap run: ")
    assert line.endswith("(its addresses are limited: see ulimit -v)")


def test_a_swap_file_is_no_larger_than_files_may_be(swap_directory: Path) -> None:
    """What has no room in it is refused, instead of a signal when it is written."""
    done = limited(swap_directory, resource.RLIMIT_FSIZE, 64 << 20, program(SOURCE), "core")
    assert (done.stdout, done.stderr, done.returncode) == ("right\n", "", 0)
    done = limited(swap_directory, resource.RLIMIT_FSIZE, 32 << 20, program(SOURCE), "core")
    assert done.stdout.endswith("p != MAP_FAILED (Cannot allocate memory)\n")
    assert (done.stderr, done.returncode) == ("", 1)
    done = limited(swap_directory, resource.RLIMIT_FSIZE, 1 << 20, "echo", "started")
    assert (done.stdout, done.returncode) == ("", 2)
    (line,) = done.stderr.splitlines()
    assert line == "uswap run: files may not grow to 16 MiB here (see ulimit -f), and a swap file is one"


@pytest.mark.parametrize("end", ["", "os._exit(0)"])
def test_refused_forks_are_reported(swap_directory: Path, end: str) -> None:
    """The limit has a floor for one process, not for two. Whether it speaks for itself, or is spoken for."""
    code = f"import os\nfor _ in range(2):\n try: os.fork()\n except OSError as e: print(e.errno == 12)\n{end}"
    done = uswap.run(
        [sys.executable, "-u", "-c", code],
        limit="5MiB",
        swap=swap_directory,
        stats=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout == "True\nTrue\n", done.stderr
    (line,) = (line for line in done.stderr.splitlines() if " peak " in line)
    assert line.endswith("; 2 forks refused")
