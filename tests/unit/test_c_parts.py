"""Single parts of the core, by programs of their own (tests/c): each against a model, and under the sanitizers.

Processes of one pool and their tables: tests/integration/test_shared_tables.py.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest
from _support.native import ROOT, program
from conftest import probe

HERE = ROOT / "tests" / "c"
LOCK = ("base/lock", "base/awake", "base/invariant")


class Part(NamedTuple):
    """A program of tests/c, and the files of the core that it tests."""

    core: tuple[str, ...]
    flags: tuple[str, ...] = ()
    libraries: tuple[str, ...] = ()


PARTS = {
    "locks": Part((*LOCK, "base/gate")),
    "held": Part((*LOCK, "base/gate", "base/held", "region/page_word"), ("-DUSWAP_DEBUG",)),
    "page_words": Part((*LOCK, "region/page_word")),
    "slots": Part((*LOCK, "swap/slot_alloc")),
    "places": Part((*LOCK, "frame/arena", "io/bounce", "base/memory")),
    "rings": Part((*LOCK, "reclaim/ring", "base/memory")),
    "read_ahead": Part((*LOCK, "swap/read_ahead", "swap/runs")),
    "soft_runs": Part(("shared/soft_runs",)),
    "proc_stat": Part(("base/proc_stat",)),
    "hashes": Part(("swap/hash", "swap/hash_avx2")),
    "codecs": Part(
        (*LOCK, "io/codec", "io/codec_cipher", "io/key_memory", "base/memory"),
        ("-DUSWAP_HAVE_CRYPTO",),
        ("-l:libcrypto.a", "-ldl"),
    ),
}
SANITIZERS = ("address,undefined", "thread")


def test_every_program_is_run() -> None:
    assert {file.stem for file in HERE.glob("*.c")} == set(PARTS)


@pytest.mark.parametrize("sanitizer", SANITIZERS)
@pytest.mark.parametrize("name", PARTS)
def test_part(name: str, sanitizer: str) -> None:
    part = PARTS[name]
    if name == "codecs" and probe().encrypt_errno != 0:
        pytest.skip("swap cannot be encrypted: no libcrypto")
    core: list[Path] = [ROOT / "csrc" / f"{file}.c" for file in part.core]
    flags = (
        f"-fsanitize={sanitizer}",
        "-fno-sanitize-recover=undefined",
        "-Wall",
        "-Wextra",
        "-Werror",
        *part.flags,
    )
    made = program(HERE / f"{name}.c", *core, flags=flags, libraries=part.libraries)
    environment = {key: value for key, value in os.environ.items() if key != "LD_PRELOAD"}
    environment |= {"ASAN_OPTIONS": "detect_leaks=1", "TSAN_OPTIONS": "halt_on_error=1", "UBSAN_OPTIONS": ""}
    done = subprocess.run([made], capture_output=True, text=True, timeout=100, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
