"""Test programs in interpreters of their own."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent


def run_program(
    program: str, swap_directory: Path, *, timeout: float = 100, check: bool = True, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Runs program with uswap and SWAP (an area on a disk) at hand, warnings as errors.

    check: it must end well; otherwise its result is the caller's to judge.
    """
    path = os.pathsep.join(filter(None, [str(TESTS), os.environ.get("PYTHONPATH")]))
    head = f"import uswap\nSWAP = uswap.SwapArea({str(swap_directory)!r}, size='1GiB')\n"
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", head + textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=timeout,
        env={**os.environ, "PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1", **environment},
    )
    if check:
        assert result.returncode == 0, result.stdout + result.stderr
    return result
