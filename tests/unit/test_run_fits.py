"""What bench_run_fits.py makes of its runs: values, ratios within rounds, a table; and one of a small program."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"

# Runs in a process of its own, in the scripts' folder: they import each other by bare names.
_ROWS = """
import json, sys
from pathlib import Path
from bench_run_fits import Measured, row_of, table_of, values_in
rounds = [
    {"memory": Measured({"a": m}, 1.0, 10, "x"), "uswap": Measured({"a": u}, 1.5, 30, "y")}
    for m, u in ((1.0, 1.02), (4.0, 4.0), (2.0, 4.0))
]
row = row_of("pyperformance", "a", rounds)
print(json.dumps([row, table_of([row]), values_in(Path(sys.argv[1]))]))
"""
# As pyperf writes it: what two benchmarks have in common stands outside; a warmup is no value.
_VALUES = {
    "metadata": {"name": "a"},
    "benchmarks": [
        {"runs": [{"warmups": [[1, 9.0]], "values": [3.0, 1.0, 2.0]}]},
        {"metadata": {"name": "b", "inner_loops": 10}, "runs": [{"values": [0.5]}]},
    ],
}


def test_ratios_are_taken_within_rounds(tmp_path: Path) -> None:
    (tmp_path / "values.json").write_text(json.dumps(_VALUES))
    command = [sys.executable, "-c", _ROWS, str(tmp_path / "values.json")]
    done = subprocess.run(command, cwd=BENCHMARKS, capture_output=True, text=True, timeout=60, check=True)
    row, table, values = json.loads(done.stdout)
    assert row["ratio"] == 1.02
    assert row["ratios"] == [1.0, 1.02, 2.0]
    assert row["cpu_ratio"] == 1.5
    assert row["faults"] == {"memory": 10, "uswap": 30}
    assert row["seconds"] == {"memory": 2.0, "uswap": 4.0}
    assert not row["same"]
    assert "OUTPUT DIFFERS" in table
    assert "1.020  (1 rows, geometric mean)" in table
    assert values == {"a": 2.0, "b": 5.0}


@pytest.mark.skipif(shutil.which("sqlite3") is None, reason="no sqlite3 program")
def test_a_small_program_on_both_sides(swap_directory: Path, tmp_path: Path) -> None:
    found, text = tmp_path / "fits.json", tmp_path / "fits.txt"
    words = ["--programs", "sqlite", "--scale", "0.0005", "--rounds", "2", "--dir", str(swap_directory)]
    words += ["--json", str(found), "--text", str(text)]
    command = [sys.executable, str(BENCHMARKS / "bench_run_fits.py"), *words]
    subprocess.run(command, capture_output=True, timeout=100, check=True)
    (row,) = json.loads(found.read_text())["rows"]
    assert row["same"]
    assert len(row["ratios"]) == 2
    assert row["faults"]["uswap"] > 0
    assert text.read_text().splitlines()[1].startswith("sqlite ")
