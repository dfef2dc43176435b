"""The long benchmarks run from end to end at a tiny size; what their figures are is not asked here."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("numpy")

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def run(script: str, folder: Path, *arguments: str) -> dict[str, Any]:
    """=> the report of a run that ended well."""
    report = folder / "report.json"
    command = [sys.executable, str(BENCHMARKS / script), "--dir", str(folder), "--json", str(report), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
    document: dict[str, Any] = json.loads(report.read_text())
    left = [path.name for path in folder.iterdir() if path != report]
    assert left == []
    return document


def test_memory_that_fits_keeps_the_core_asleep(swap_directory: Path) -> None:
    report = run("bench_fit.py", swap_directory, "--size=4MiB", "--repeats=2", "--age-seconds=0.2")
    assert set(report["sides"]) == {"plain", "scattered", "huge", "uswap", "uswap_aged", "recycle", "recycle_aged"}
    for name in ("uswap", "uswap_aged", "recycle", "recycle_aged"):
        assert report["sides"][name]["faults"] == 0, name
    assert report["sides"]["uswap_aged"]["aged_pages_in"] > 0
    assert [row["kernel"] for row in report["summary"]] == ["sum", "sort", "product", "gather"]


def test_numpy_is_measured_on_both_sides(swap_directory: Path) -> None:
    report = run("bench_numpy.py", swap_directory, "--count=20000", "--repeats=1")
    for row in report["summary"]:
        assert row["time_ratio"] > 0, row
        assert set(row["median_ms"]) == {"numpy", "uswap"}
    assert [row["shuffled"] for row in report["beyond"]] == [False, True]
    assert report["faults"] > 0


def test_sizes_are_measured_in_processes_of_their_own(swap_directory: Path) -> None:
    arguments = ["--sizes=16MiB,1TiB:16MiB", "--limit=8MiB", "--cluster=1MiB", "--repeats=1", "--accesses=256"]
    report = run("bench_scale.py", swap_directory, *arguments)
    assert [run["size"] for run in report["runs"]] == ["16MiB", "1TiB:16MiB"]
    for one in report["runs"]:
        assert one["figures"]["fill"]["pages"] == one["figures"]["seq_read"]["pages"] == 16 << 8
        assert one["memory"]["swapped"]["swapped_pages"] >= 8 << 8
        assert one["metadata"]["swapped"] > 0


def test_a_churned_region_is_sampled_and_right(swap_directory: Path) -> None:
    arguments = ["--sides=uswap", "--size=16MiB", "--limit=4MiB", "--seconds=0.4", "--sample-every=0.2"]
    report = run("bench_churn.py", swap_directory, *arguments)
    assert len(report["samples"]) == 2
    assert all(sample["scan"]["uswap"]["mb_per_second"] > 0 for sample in report["samples"])
    assert report["summary"]["uswap"]["writes"] > 0


def test_a_worker_that_fails_is_the_failure_of_the_run(swap_directory: Path) -> None:
    command = [sys.executable, str(BENCHMARKS / "bench_churn.py"), "--dir", str(swap_directory), "--sides=uswap"]
    limits = ["--size=16MiB", "--limit=64KiB", "--seconds=0.1"]
    done = subprocess.run([*command, *limits], capture_output=True, text=True, timeout=100)
    assert done.returncode == 1
    assert done.stderr.startswith("bench_churn: uswap: LimitError: "), done.stderr
    assert list(swap_directory.iterdir()) == []
