"""make test-asan and the others: what a sanitizer says fails the run, and what is left out exists."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from _support.native import ROOT
from variants import run
from variants.unfit import UNFIT, reason_for

PLANTED = """
#include <limits.h>
#include <pthread.h>
#include <stdlib.h>
static int counter, *block;
int overflow(int by) { return INT_MAX - 1 + by; }
int past(int by) { block = malloc(8); return block[by]; }
static void *work(void *argument) { counter++; return argument; }
int race(int threads) {
    pthread_t thread;
    pthread_create(&thread, NULL, work, NULL);
    counter += threads;
    return pthread_join(thread, NULL);
}
"""


@pytest.mark.parametrize(
    ("name", "call", "bug"),
    [
        ("asan", "past(2)", "heap-buffer-overflow"),
        ("asan", "overflow(2)", "signed integer overflow"),
        ("tsan", "race(1)", "data race"),
    ],
)
def test_what_a_sanitizer_says_in_any_process_fails_the_run(
    name: str,
    call: str,
    bug: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(run, "PLACE", tmp_path)
    run.findings_of(name).mkdir(parents=True)
    source, made, variant = tmp_path / "planted.c", tmp_path / "planted.so", run.VARIANTS[name]
    source.write_text(PLANTED)
    flags = [f"-fsanitize={variant.build['USWAP_SANITIZE']}", "-g", "-shared", "-fPIC", "-pthread"]
    subprocess.run(["cc", *flags, str(source), "-o", str(made)], check=True)
    run.customize(name, variant)
    subprocess.run(
        [sys.executable, "-c", f"import ctypes; ctypes.CDLL({str(made)!r}).{call}"],
        env=run.environment(name, variant),
        timeout=60,
        check=False,
        capture_output=True,
    )
    assert run.report(name) == 1
    assert bug in capsys.readouterr().out


def test_only_leaks_of_the_core_are_findings() -> None:
    leaks = [
        "Direct leak of 8 byte(s) in 1 object(s) allocated from:\n    #0 malloc\n    #1 _PyObject_Malloc",
        "Direct leak of 9 byte(s) in 1 object(s) allocated from:\n    #0 malloc\n    #1 take csrc/io/key_memory.c",
    ]
    text = "ERROR: LeakSanitizer: detected memory leaks\n\n" + "\n\n".join(leaks) + "\n\nSUMMARY: 2 leaks\n"
    assert run.finding_in(text) == leaks[1]
    assert run.finding_in(text.replace("csrc/", "other/")) == ""
    assert run.finding_in("ERROR: AddressSanitizer: heap-use-after-free") != ""


def test_what_is_left_out_exists() -> None:
    for unfit in UNFIT:
        assert set(unfit.variants) <= set(run.VARIANTS)
        for test in unfit.tests:
            file, _, name = test.partition("::")
            assert f"def {name}" in (ROOT / file).read_text()
            assert reason_for(unfit.variants[0], test) == unfit.reason
    assert reason_for("asan", "tests/unit/test_pool.py::test_stats") is None
