"""What the long benchmarks compute from their measurements."""

import itertools
import subprocess
import sys
from array import array
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from uswap.bench import kernel_swap

pytest.importorskip("numpy")

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
MIB = 1 << 20


@pytest.fixture(autouse=True)
def scripts_importable(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The scripts import each other as they do when they are run. They set the threads of the matrix product."""
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield
    for name in [name for name, module in sys.modules.items() if _is_script(module)]:
        del sys.modules[name]


def _is_script(module: ModuleType) -> bool:
    return Path(getattr(module, "__file__", None) or "/").parent == BENCHMARKS


def test_a_speed_is_compared_within_its_round() -> None:
    import bench_fit

    # The machine was three times slower in the second round; the side took twice the time in every round.
    assert bench_fit.paired_ratio([1.0, 3.0, 1.0], [2.0, 6.0, 2.0]) == 0.5


def test_frames_that_follow_each_other_are_counted() -> None:
    import bench_fit
    import numpy as np

    assert bench_fit.share_of_followers(np.array([5, 6, 7, 20, 21], dtype="u8")) == 0.75
    assert bench_fit.share_of_followers(np.array([7, 6, 5], dtype="u8")) == 0.0
    assert bench_fit.share_of_followers(np.zeros(4, dtype="u8")) is None


def test_every_kernel_gives_the_same_result_wherever_its_memory_lies() -> None:
    import bench_fit
    import numpy as np

    kernels = bench_fit.Kernels(MIB // 8)
    for name in bench_fit.Kernels.ALL:
        first, second = np.ones(MIB // 8), np.ones(MIB // 8)
        assert getattr(kernels, name)(first)() == getattr(kernels, name)(second)() != 0


def test_sizes_say_what_is_touched_of_them() -> None:
    import bench_scale

    sizes = bench_scale.parse_sizes("64MiB, 1TiB:16MiB", MIB)
    assert [(size.size_bytes, size.touched_bytes) for size in sizes] == [(64 * MIB, 64 * MIB), (1 << 40, 16 * MIB)]
    for bad in ("", "8MiB:16MiB", "1KiB", "1GiB:4KiB"):
        with pytest.raises(ValueError, match="--sizes"):
            bench_scale.parse_sizes(bad, MIB)


def test_clusters_lie_apart_over_all_of_a_sparse_region() -> None:
    import bench_scale

    cluster_pages = MIB // 4096
    for size in (16 * MIB, 1 << 40):
        starts = sorted(int(start) for start in bench_scale.cluster_starts(size, 16 * MIB, MIB))
        assert len(starts) == 16
        assert starts[0] == 0
        assert starts[-1] + cluster_pages <= size // 4096
        assert starts[-1] >= size // 4096 * 15 // 16
        assert min(b - a for a, b in itertools.pairwise(starts)) >= cluster_pages


def test_metadata_is_counted_for_pages_that_came_and_for_pages_that_left() -> None:
    import bench_scale

    made = {"metadata": 1000, "rss_outside": 5000, "page_tables": 0, "resident_pages": 0, "swapped_pages": 0}
    resident = made | {"metadata": 1800, "rss_outside": 6800, "resident_pages": 100}
    swapped = resident | {"metadata": 5800, "rss_outside": 11800, "page_tables": 800, "swapped_pages": 100}
    assert bench_scale.metadata_a_page(made, resident, swapped) == {
        "resident": 18,
        "resident_rss": 28,
        "swapped": 40,
        "swapped_rss": 50,
        "swapped_page_tables": 8,
    }
    assert set(bench_scale.metadata_a_page(made, resident, resident)) == {"resident", "resident_rss"}


def test_growth_is_that_of_the_dearest_size_over_the_first() -> None:
    import bench_scale

    assert bench_scale.spread({"small": 2.0, "large": 3.0, "sparse": 1.0}) == 0.5
    assert bench_scale.spread({"small": 2.0, "large": 1.0}) == -0.5
    assert bench_scale.spread({"small": 2.0}) == 0.0


def test_a_random_read_costs_by_its_faults_and_other_patterns_by_their_pages() -> None:
    import bench_scale

    figure = {"pages": 100, "seconds": 1e-3, "cpu_seconds": 2e-3, "faults": 50}
    found = bench_scale.costs({"fill": figure, "rand_read": figure})
    assert found == pytest.approx({"fill_us": 10, "fill_cpu_us": 20, "rand_read_us": 20, "rand_read_cpu_us": 40})


def test_samples_go_around_the_region_and_stay_inside() -> None:
    import bench_churn

    assert list(itertools.islice(bench_churn.sample_starts(100, 30), 5)) == [0, 30, 60, 0, 30]
    assert list(itertools.islice(bench_churn.sample_starts(100, 100), 3)) == [0, 0, 0]


def churn_report(after: float) -> dict[str, Any]:
    """Three scans before and after, two samples; the kernel reads at 100 MB/s throughout."""

    def scans(speed: float) -> list[dict[str, dict[str, float]]]:
        figures = [speed / 2, speed, speed * 2]
        return [{"uswap": {"mb_per_second": one}, "kernel": {"mb_per_second": 100.0}} for one in figures]

    return {
        "before": scans(600.0),
        "after": scans(after),
        "samples": [{"churn": {"uswap": {"writes": 5}, "kernel": {"writes": 7}}}] * 2,
    }


def test_churn_is_summed_up_by_medians_and_a_ratio() -> None:
    import bench_churn

    rows = bench_churn.summarize(churn_report(250.0), ["uswap", "kernel"])
    assert rows["uswap"] == {"writes": 10, "before": 600.0, "after": 250.0}
    assert rows["ratio"] == {"before": 6.0, "after": 2.5}
    assert "ratio" not in bench_churn.summarize(churn_report(250.0), ["uswap"])


def test_a_lost_write_is_found() -> None:
    import bench_churn

    churned = bench_churn.Churned(bytearray(64 * 4096), 1, lambda: (0, 0))
    churned.fill()
    churned.churn(0.001)
    assert churned.check() == 0
    churned._pages[5, 1] += 1
    assert churned.check() == 1
    churned._pages[7, 0] += 1
    assert churned.check() == 2


def test_a_percentile_is_one_of_the_calls() -> None:
    import bench_reclaim

    calls = list(range(1, 1001))
    assert bench_reclaim.percentile(calls, 0.5) == 500
    assert bench_reclaim.percentile(calls, 0.999) == 999
    assert bench_reclaim.percentile([7], 0.999) == 7


def test_growth_is_between_the_dearest_and_the_cheapest_size() -> None:
    import bench_reclaim

    assert bench_reclaim.growth([200.0, 100.0, 120.0]) == 1.0
    assert bench_reclaim.growth([0.0, 1.0]) == 0.0


def test_the_cost_of_a_page_is_that_of_all_calls_by_all_pages() -> None:
    import bench_reclaim

    common = {"kind": "single", "batch": 64, "other_ns": 0, "wall_ns": 9, "written": 64}
    runs = [
        common | {"size": size, "repeat": repeat, "calls": [64 * cost, 64 * cost], "pages": 128}
        for size, cost in ((64 * MIB, 1000), (1024 * MIB, 1100))
        for repeat in range(3)
    ]
    (row,) = bench_reclaim.summarize(runs)
    assert [figures["cpu_ns"] for figures in row["sizes"].values()] == [1000, 1100]
    assert row["sizes"][64 * MIB]["calls"] == 6
    assert row["sizes"][64 * MIB]["call_p999_ms"] == 0.064
    assert abs(row["growth"] - 0.1) < 1e-9


def test_a_decision_handles_what_it_is_told_and_what_it_names() -> None:
    import bench_reclaim

    from uswap.policy import Answer, Batch, Fifo, Need

    came = memoryview(array("Q", [page << 28 for page in range(4)]))
    assert bench_reclaim.handled(Batch(faulted=came), Answer(clean=[1, 2], age=[3])) == 7
    assert bench_reclaim.handled(Batch(), None) == 0
    policy = bench_reclaim.timed_policy(Fifo)
    policy.decide(Batch(faulted=came), Need(2, 16, 16, 0, 0, 0, 0))
    assert (policy.cost["decisions"], policy.cost["pages"]) == (1, 6)


def loader_run(seconds: float, pss: int, **different: Any) -> dict[str, Any]:
    """A run of the benchmark of data loaders with two epochs."""
    run = {"make": 1.0, "start": 2.0, "epochs": [seconds] * 2, "shares": [1.0] * 2, "checksums": [5, 6]}
    return run | {"pages_read": 0, "pss_bytes": pss, "pss_samples": 9} | different


def test_batches_are_compared_where_an_epoch_came_to_its_end() -> None:
    import bench_loader

    cut = loader_run(9.0, MIB, checksums=[5, None])
    assert bench_loader.same_result({"shared": [loader_run(1.0, MIB)], "memmap": [cut]})
    assert not bench_loader.same_result({"shared": [loader_run(1.0, MIB)], "copies": [cut | {"checksums": [7, 6]}]})


def test_the_table_of_loaders_says_what_falls_short() -> None:
    import bench_loader

    options = bench_loader.parse_arguments(["--size", "512MiB", "--limit", "128MiB"])
    fine = {"shared": [loader_run(4.0, 200 * MIB)], "copies": [loader_run(2.0, 3000 * MIB, shares=[1.0, 0.5])]}
    text = bench_loader.text_of(fine, 100 * MIB, options)
    shared, copies = (line for line in text.splitlines() if line.startswith(("shared ", "copies ")))
    assert shared.split() == ["shared", "100", "MiB", "1.0", "2.0", "4.0", "11.0"]
    assert copies.endswith("(cut and scaled up)")
    assert "SHORT" not in text
    assert "SHORT" in bench_loader.text_of({"shared": [loader_run(4.0, 400 * MIB)]}, 100 * MIB, options)


def test_memory_of_processes_is_sampled_less_what_they_had() -> None:
    import os
    import time

    import memory_use

    own = memory_use.pss_bytes(os.getpid())
    assert own > 0
    assert memory_use.family(os.getpid())[0] == os.getpid()
    with memory_use.PssPeak([os.getpid()]) as pss:
        held = b"x" * (64 * MIB)
        deadline = time.monotonic() + 60
        while pss.peak_bytes < 32 * MIB and time.monotonic() < deadline:
            time.sleep(0.01)
    assert pss.peak_bytes >= 32 * MIB
    del held


@pytest.mark.skipif(
    kernel_swap.unavailable_reason() is not None or not Path("/sys/fs/cgroup/memory/memory.oom_control").exists(),
    reason="no cgroup and swap file for this user",
)
def test_who_would_be_killed_is_given_more() -> None:
    import oom_relief

    job = "import os, sys; open(sys.argv[1], 'w').write(str(os.getpid())); print(len(b'x' * (32 << 20)))"
    with (
        kernel_swap.MemoryCgroup(24 * MIB) as cgroup,
        oom_relief.OomRelief(cgroup.procs.parent, 24 * MIB) as relief,
    ):
        done = subprocess.run([sys.executable, "-c", job, str(cgroup.procs)], capture_output=True, text=True)
    assert done.stdout == f"{32 * MIB}\n"
    assert relief.times > 0
    assert relief.limit_bytes == 24 * MIB + relief.times * oom_relief.STEP_BYTES
