"""uswap simulate and uswap curve: tables, JSON, pictures, and what they say when something is wrong."""

from __future__ import annotations

import json
import random
import struct
from pathlib import Path
from typing import Any

import pytest

from uswap.cli import main
from uswap.trace import Header, Trace, TraceWriter, simulate
from uswap.trace.cost import DEFAULT_MISS_US, Costs, calibrate, costs_of, work_seconds
from uswap.trace.curve import limits_for, miss_curve, sample_for
from uswap.trace.frames import frames_of

BROKEN = """
from uswap.policy import Answer, Fifo
class Raising(Fifo):
    def decide(self, seen, need):
        raise RuntimeError("not today")
class Unmade(Fifo):
    def __init__(self, size):
        self.size = size
class Nonsense(Fifo):
    def decide(self, seen, need):
        return Answer(clean="everything")
"""


def write(path: Path, *, complete: bool = True, window: int = 64, **stats: int) -> Path:
    """A loop over 3000 pages beside skewed touches of 2000 others."""
    chooser = random.Random(3)
    header = Header(window_pages=window, limit_bytes=8 << 20, program=("/bin/prog.py",))
    writer = TraceWriter(path, header)
    for step in range(30):
        writer.reference_string(int(chooser.paretovariate(0.6)) % 2000 << 18 | 1 for _ in range(400))
        writer.reference_string(page << 18 | 2 for page in range(step % 10 * 300, step % 10 * 300 + 300))
        writer.time((step + 1) * 100_000_000)
    if complete:
        writer.close(stats=stats)
    else:
        writer.abandon()
    return path


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    return write(tmp_path / "t.trace")


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    status = main([str(word) for word in words])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_simulate_prints_a_table_for_each_limit(trace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run(capsys, "simulate", trace, "--limit", "4MiB,0.5", "--limit", "64MiB")
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].startswith(f"{trace}: 21000 touches of ")
    assert [line.split(",")[0] for line in lines if line.startswith("limit")][::2] == [
        "limit 4 MiB",
        "limit 64 MiB",
    ]
    rows = [line.split() for line in lines if line.startswith("  core")]
    assert [row[0] for row in rows] == ["core"] * 3
    assert int(rows[0][1]) == simulate(Trace.open(trace), None, 1024).misses > 0
    assert rows[2][1:] == ["0", "0.00000", "0", "0", "0"]


def test_simulate_in_json_has_every_figure(trace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "simulate", trace, "--json", "--policy", "fifo", "--sample", "0.5")
    report = json.loads(out)
    (result,) = report["results"]
    simulated = simulate(Trace.open(trace), "fifo", 2048, sample=0.5)
    assert status == 0
    assert result == simulated.as_dict()
    assert report["touches"] == simulated.touches == 21000


def test_simulate_with_references_and_an_export(
    trace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("libcachesim")
    words = ("--limit", "4MiB", "--reference", "lru,belady", "--export", tmp_path / "x")
    status, out, err = run(capsys, "simulate", trace, *words, "--json")
    misses = {result["policy"]: result["misses"] for result in json.loads(out)["results"]}
    assert (status, err) == (0, "")
    assert misses["belady (reference)"] < misses["lru (reference)"]
    assert misses["belady (reference)"] < min(misses["core"], misses["fifo"])
    records = list(struct.iter_unpack("<IQIq", (tmp_path / "x").read_bytes()))
    assert len(records) == 21000
    assert [name for _, name, _, _ in records] == [abs(key) for key in _keys(trace)]
    assert "lru (reference)" in run(capsys, "simulate", trace, *words)[1]


def _keys(path: Path) -> list[int]:
    return [key if key >= 0 else ~key for chunk in Trace.open(path).touches() for key in chunk]


def test_what_a_trace_lacks_is_said_on_standard_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "t", complete=False, window=0)
    status, _, err = run(capsys, "simulate", path)
    assert status == 0
    assert "uswap simulate: the trace has no end" in err
    assert "uswap simulate: the trace has only the faults of the run itself" in err
    status, out, _ = run(capsys, "simulate", path, "--json")
    assert len(json.loads(out)["warnings"]) == 2


@pytest.mark.parametrize("verb", ["simulate", "curve"])
@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["--policy", "lifo"], 2, "there is no policy 'lifo': one of second-chance, s3-fifo, fifo"),
        (["--policy", "no.such:Policy"], 2, "No module named 'no'"),
        (
            ["--policy", "broken:Raising"],
            1,
            "the policy broken:Raising raised in decide(): RuntimeError: not today",
        ),
        (["--policy", "broken:Nonsense"], 1, "the policy broken:Nonsense answered with no stays in 'clean'"),
        (["--policy", "broken:Unmade"], 1, "the policy broken:Unmade cannot be made: TypeError"),
        (["--sample", "1.5"], 2, "--sample: a share"),
    ],
)
def test_what_is_wrong_is_one_line_and_a_status(
    verb: str,
    words: list[str],
    status: int,
    said: str,
    trace: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "broken.py").write_text(BROKEN)
    monkeypatch.syspath_prepend(str(tmp_path))
    limit = ["--limit", "4MiB"] if verb == "simulate" else ["--points", "2"]
    got, out, err = run(capsys, verb, trace, *limit, *words)
    assert (got, out) == (status, "")
    assert err.startswith(f"uswap {verb}: ")
    assert said in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["simulate", "/no/such/trace"], "/no/such/trace"),
        (["simulate", __file__], "is no trace of uswap"),
        (["simulate", "TRACE", "--limit", "12XB"], "--limit: '12XB' is not a size"),
        (["simulate", "TRACE", "--limit", "64KiB"], "64 are reserved"),
        (["simulate", "TRACE", "--limit", "0.0"], "--limit"),
        (["simulate", "TRACE", "--reference", "mru"], "no reference policy 'mru'"),
        (["simulate", "TRACE", "--export", "/no/such/dir/x"], "there is no such directory"),
        (["curve", "TRACE", "--points", "1"], "--points"),
        (["curve", "TRACE", "--slower", "-1"], "--slower"),
        (["curve", "TRACE", "--miss-us", "nan"], "--miss-us"),
        (["curve", "TRACE", "--plot", "x.gif"], "a file that ends in .png"),
        (["curve", "TRACE", "--calibrate", "/no/such/dir"], "/no/such"),
    ],
)
def test_bad_arguments_are_refused(
    words: list[str], said: str, trace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = run(capsys, *(str(trace) if word == "TRACE" else word for word in words))
    assert (status, out) == (2, "")
    assert said in err


def test_a_trace_without_a_limit_wants_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with TraceWriter(tmp_path / "t") as writer:
        writer.touch(1)
    assert "give one (--limit)" in run(capsys, "simulate", tmp_path / "t")[2]


def test_curve_answers_in_a_sentence(trace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    status, out, _ = run(
        capsys, "curve", trace, "--policy", "core,fifo", "--points", 5, "--plot", tmp_path / "p.png"
    )
    assert status == 0
    last = out.splitlines()[-2:]
    assert [line.split(",")[0] for line in last] == ["With core", "With fifo"]
    assert all("prog.py needs" in line and "MiB" in line and "at most 10 % more time." in line for line in last)
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")


def test_curve_has_the_limits_that_were_asked_for(trace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "curve", trace, "--points", 2, "--limit", "5MiB,0.5", "--limit", "6MiB", "--json")
    limits = json.loads(out)["limits"]
    assert status == 0
    assert limits == sorted(limits)
    assert {5 * 256, 6 * 256} <= set(limits)
    assert len(limits) == 5
    assert run(capsys, "curve", trace, "--limit", "nonsense")[0] == 2


def test_curve_in_json_falls_to_no_misses(trace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "curve", trace, "--points", 6, "--json", "--miss-us", 100, "--sequential-us", 10)
    report = json.loads(out)
    (core,) = report["curves"]
    points = core["points"]
    assert status == 0
    assert len(report["lru"]) == len(points) == len(report["limits"])
    assert report["lru"] == sorted(report["lru"], reverse=True)
    assert points[-1]["misses"] == report["lru"][-1] == 0
    assert points[-1]["seconds"] == report["work_seconds"]
    wasted = (points[0]["misses"] - points[0]["sequential_misses"]) * 100e-6 + points[0][
        "sequential_misses"
    ] * 10e-6
    assert points[0]["seconds"] == pytest.approx(report["work_seconds"] + wasted)
    assert report["limits"][0] <= core["needed_frames"] <= report["limits"][-1]


def test_the_memory_that_is_needed_is_enough(trace: Path) -> None:
    opened, costs = Trace.open(trace), Costs(2000, 100)
    curve = miss_curve(opened, ["core"], costs, points=4, slower=0.2)
    (core,) = curve.curves
    at_need = simulate(opened, "core", core.needed_frames)
    seconds = costs.seconds(at_need.misses, at_need.sequential_misses)
    assert curve.limits[0] < core.needed_frames < curve.limits[-1]
    assert seconds <= 0.2 * curve.work_seconds
    generous = miss_curve(opened, ["core"], costs, points=4, slower=100)
    assert generous.curves[0].needed_frames == curve.limits[0]


def test_limits_end_where_all_pages_stay() -> None:
    assert limits_for(10, 4) == [768]
    for pages in (5000, 100_000, 1_000_000):
        frames = frames_of(limits_for(pages, 8)[-1])
        assert pages <= frames.capacity - frames.low <= pages + 1


def test_costs_come_from_the_trace_if_it_waited_often(tmp_path: Path) -> None:
    often = Trace.open(write(tmp_path / "often", major_faults=10_000, soft_faults=500, stall_ns=10**9))
    assert costs_of(often).miss_us == 100
    assert costs_of(often, miss_us=7).miss_us == 7
    for stats in ({"major_faults": 10, "stall_ns": 10**9}, {"major_faults": 10_000, "soft_faults": 20_000}, {}):
        assert costs_of(Trace.open(write(tmp_path / "seldom", **stats))).miss_us == DEFAULT_MISS_US


def test_the_work_is_what_was_not_waited_for(tmp_path: Path) -> None:
    costs = Costs(100, 10, soft_us=10)
    stats: dict[str, Any] = {"stall_ns": 10**9, "soft_faults": 50_000}
    assert work_seconds(Trace.open(write(tmp_path / "t", **stats)), costs) == (pytest.approx(1.5), [])
    assert work_seconds(Trace.open(write(tmp_path / "t", window=0, **stats)), costs)[0] == pytest.approx(2.0)
    seconds, (doubt,) = work_seconds(Trace.open(write(tmp_path / "t", stall_ns=10**11)), costs)
    assert seconds == pytest.approx(0.15)
    assert "rough" in doubt
    seconds, (doubt,) = work_seconds(Trace.open(write(tmp_path / "t", complete=False)), costs)
    assert seconds == pytest.approx(3.0)


def test_a_long_trace_is_sampled(tmp_path: Path) -> None:
    with TraceWriter(tmp_path / "long", Header(window_pages=1, sample=0.5)) as writer:
        writer.reference_string(step * 7919 % 20_000 << 18 for step in range(600_000))
    assert sample_for(Trace.open(tmp_path / "long")) == pytest.approx(0.5 * 250_000 / 600_000)
    assert sample_for(Trace.open(write(tmp_path / "short"))) == 1


def test_a_disk_can_be_asked(swap_directory: Path) -> None:
    costs = calibrate(swap_directory)
    assert 0 < costs.sequential_us < costs.miss_us < 1e6
    assert str(swap_directory) in costs.basis
