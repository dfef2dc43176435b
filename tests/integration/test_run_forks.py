"""What libc looks into while a program under `uswap run` forks, and how it ends; a part of CPython's own suite."""

from __future__ import annotations

import importlib.util
import subprocess
from pathlib import Path

import pytest
from _support import run_suites
from _support.native import program

import uswap

SOURCE = Path(__file__).resolve().parents[1] / "_support" / "run_forks.c"


@pytest.mark.parametrize("way", ["stack", "streams", "names", "last"])
def test_a_fork_waits_for_no_page(swap_directory: Path, way: str) -> None:
    command = [str(program(SOURCE)), way]
    done = uswap.run(command, limit="16MiB", swap=swap_directory, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr, done.returncode) == ("right\n", "", 0)


@pytest.mark.skipif(importlib.util.find_spec("test.libregrtest") is None, reason="no `test` package of Python's")
@pytest.mark.timeout(400)
@pytest.mark.parametrize("module", ["test_mmap", "test_dict", "test_fork1"])
def test_a_part_of_pythons_own_suite(swap_directory: Path, module: str) -> None:
    plain, _ = run_suites.run(module, None, swap=swap_directory, patience=180)
    limited, text = run_suites.run(module, "64MiB", swap=swap_directory, patience=180)
    run_suites.judge(plain, limited)
    assert limited.new == [], text
    assert limited.result == plain.result
    assert limited.faults is not None
    assert limited.faults > 100


def test_fork_handlers_that_were_there_first_run_while_memory_is_served(swap_directory: Path) -> None:
    """An allocator in the program itself registers its own before anybody else can."""
    command = [str(program(SOURCE.with_name("run_early.c")))]
    done = uswap.run(command, limit="8MiB", swap=swap_directory, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr, done.returncode) == ("3 6\n0 1\n", "", 0)


def test_a_program_with_its_own_malloc_is_told_that_it_cannot_fork(swap_directory: Path, tmp_path: Path) -> None:
    own = tmp_path / "own"
    subprocess.run(["cc", "-DOWN_MALLOC", "-o", str(own), str(SOURCE.with_name("run_early.c"))], check=True)
    done = uswap.run([str(own)], limit="8MiB", swap=swap_directory, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.returncode) == ("no fork: ENOMEM\n0 1\n", 0)
    (line,) = done.stderr.splitlines()
    assert line.startswith("uswap run: this program brings its own malloc")


def compiled(folder: Path, text: str, *options: str) -> Path:
    """The program that this C text is."""
    source, made = folder / "program.c", folder / "program"
    source.write_text(text)
    subprocess.run(["cc", "-O0", "-w", *options, "-o", str(made), str(source)], check=True)
    return made


def test_a_program_that_takes_mallocs_address_does_not_bring_its_own(swap_directory: Path, tmp_path: Path) -> None:
    """Where code lies at fixed addresses, as node's does, malloc then has an entry of the program's."""
    own = compiled(
        tmp_path,
        "#include <stdlib.h>\n#include <stdio.h>\n#include <unistd.h>\n#include <sys/wait.h>\n"
        "int main(void) { void *(*volatile get)(size_t) = malloc; int status = 1; free(get(100000));"
        ' if (fork() == 0) _exit(0); wait(&status); printf("%d\\n", status); }\n',
        "-fno-pie",
        "-no-pie",
    )
    done = uswap.run([str(own)], limit="8MiB", swap=swap_directory, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr, done.returncode) == ("0\n", "", 0)


def test_a_fork_after_printf_was_told_of_specifiers(swap_directory: Path, tmp_path: Path) -> None:
    """As libquadmath does, which NumPy loads: each printf looks into tables of libc's then, the runtime's too."""
    own = compiled(
        tmp_path,
        "#include <printf.h>\n#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n#include <unistd.h>\n"
        "#include <sys/wait.h>\n#include <wchar.h>\n"
        'static int print(FILE *to, const struct printf_info *i, const void *const *a) { return fputs("Y", to); }\n'
        "static int size(const struct printf_info *i, size_t n, int *types, int *sizes) { return 0; }\n"
        'int main(void) { register_printf_modifier(L"Q"); register_printf_specifier(89, print, size);'
        " char *memory = malloc(32 << 20); int status = 1; memset(memory, 1, 32 << 20);"
        ' if (fork() == 0) _exit(0); wait(&status); printf("%Y %d\\n", status); }\n',
    )
    done = uswap.run([str(own)], limit="8MiB", swap=swap_directory, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr, done.returncode) == ("Y 0\n", "", 0)


def test_a_fork_does_not_wait_for_who_closes(swap_directory: Path) -> None:
    """He may be about to touch a page of his stack, which nobody brings in meanwhile."""
    command = [str(program(SOURCE.with_name("run_closing.c")))]
    done = uswap.run(
        command,
        limit="8MiB",
        swap=swap_directory,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert (done.stdout, done.stderr, done.returncode) == ("30\n", "", 0)
