"""uswap bench: figures that add up, bad input, both kinds of plot, and nothing left behind however it ends."""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from uswap._core import ffi, lib
from uswap.bench import kernel_swap, loop_device
from uswap.bench.patterns import PATTERNS
from uswap.bench.table import knee
from uswap.cli import main

LIMIT_PAGES = (16 << 20) // 4096
QUICK = ["--size", "32MiB", "--limit", "16MiB", "--seconds", "0.05"]


def order(name: str, count: int, **fields: Any) -> list[int]:
    """The pages of the first accesses of a pattern: those whose version a fill of them has left wrong."""
    return [first_page(name, index, **fields) for index in range(count)]


def first_page(name: str, index: int, **fields: Any) -> int:
    """The page of one access: the one that adding to it has changed."""
    memory = bytearray(64 * 4096)
    job = ffi.new("uswap_bench_job *", fields)
    job.order, job.access = getattr(lib, f"USWAP_ORDER_{name}"), lib.USWAP_ACCESS_ADD
    job.first, job.count, job.budget_ns = index, 1, 10**9
    lib.uswap_bench_run(ffi.from_buffer(memory), 64, job, ffi.new("uswap_bench_result *"))
    (page,) = {at // 4096 for at in range(0, len(memory), 8) if memory[at]}
    return page


def left(folder: Path) -> list[Path]:
    return list(folder.glob("uswap-bench-*"))


# ---- the loops -----------------------------------------------------------------------------------------------


def test_orders_are_what_their_names_say() -> None:
    assert order("SEQUENTIAL", 66) == [*range(64), 0, 1]
    assert order("BACKWARD", 65) == [*reversed(range(64)), 63]
    assert order("STRIDE", 9, step=16) == [0, 16, 32, 48, 1, 17, 33, 49, 2]
    assert order("STREAMS", 6, step=2) == [0, 32, 1, 33, 2, 34]
    drawn = order("RANDOM", 200, seed=5)
    assert drawn == order("RANDOM", 200, seed=5) != order("RANDOM", 200, seed=6)
    assert len(set(drawn)) > 40


@pytest.mark.parametrize("exponent", [0.8, 0.99, 1.2])
def test_popularity_is_zipfs(exponent: float) -> None:
    memory, draws = bytearray(64 * 4096), 20_000
    job = ffi.new("uswap_bench_job *", {"exponent": exponent, "seed": 11, "count": draws, "budget_ns": 10**12})
    job.order, job.access = lib.USWAP_ORDER_ZIPF, lib.USWAP_ACCESS_ADD
    lib.uswap_bench_run(ffi.from_buffer(memory), 64, job, ffi.new("uswap_bench_result *"))
    counts = sorted(
        (int.from_bytes(memory[at : at + 8], "little") for at in range(0, len(memory), 4096)), reverse=True
    )
    weights = [rank**-exponent for rank in range(1, 65)]
    assert sum(counts) == draws
    for count, weight in zip(counts[:4], weights, strict=False):
        expected = draws * weight / sum(weights)
        assert abs(count - expected) < 6 * expected**0.5


def test_wrong_contents_are_counted() -> None:
    memory = bytearray(64 * 4096)
    job, result = ffi.new("uswap_bench_job *"), ffi.new("uswap_bench_result *")
    job.count, job.budget_ns = 64, 10**9
    for access in (lib.USWAP_ACCESS_FILL, lib.USWAP_ACCESS_READ, lib.USWAP_ACCESS_ADD, lib.USWAP_ACCESS_TOUCH):
        job.access = access
        lib.uswap_bench_run(ffi.from_buffer(memory), 64, job, result)
    assert (result.wrong, result.accesses, sum(result.latency)) == (0, 256, 256)
    memory[5 * 4096 + 8 * (1 + 5)] ^= 1  # the word of page 5 that its touch looks at
    for access in (lib.USWAP_ACCESS_READ, lib.USWAP_ACCESS_TOUCH):
        job.access = access
        lib.uswap_bench_run(ffi.from_buffer(memory), 64, job, result)
    assert result.wrong == 2


def test_buckets_are_an_eighth_wide() -> None:
    ends = [lib.uswap_bench_bucket_ns(bucket) for bucket in range(lib.USWAP_BENCH_BUCKETS)]
    assert ends == sorted(set(ends))
    assert all(after <= 1.126 * before + 1 for before, after in itertools.pairwise(ends[8:]))


# ---- the command ---------------------------------------------------------------------------------------------


def test_all_patterns(swap_directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "out.json"
    arguments = ["--windows", "64", "--transports", "move,copy", "--faults", "thread,inline", "--no-kernel"]
    assert main(["bench", str(swap_directory), *QUICK, *arguments, "--json", str(file)]) == 0
    out = capsys.readouterr().out
    document = json.loads(file.read_text())
    assert len(document["pools"]) == 4 * len(PATTERNS)
    for entry in document["pools"]:
        assert entry["pattern"] in out
        (run,) = entry["runs"]
        assert run["accesses"] > 0
        assert sum(run["latency"].values()) == run["accesses"]
        assert 0 < run["p50_us"] <= run["p99_us"]
        assert run["mb_per_second"] == pytest.approx(run["accesses"] * 4096 / 1e6 / run["seconds"])
        if entry["pattern"] in ("sequential", "rmw") and run["accesses"] > LIMIT_PAGES:
            assert run["counters"]["pages_in"] > 0  # of so many pages some were not in memory
    for entry in document["disk"]:
        assert len(entry["raw"]) == 5
        assert all(run["accesses"] > 0 for run in entry["raw"])
    assert not left(swap_directory)


def test_a_sweep_shows_the_knee(swap_directory: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """The knee is that of what was measured, whichever that is: how fast the disk is today is not ours to say."""
    file = tmp_path / "out.json"
    arguments = ["--sweep", "--patterns", "sequential", "--windows", "8,512", "--depths", "1,16", "--no-kernel"]
    assert main(["bench", str(swap_directory), *QUICK, *arguments, "--json", str(file)]) == 0
    speed = {
        (entry["configuration"]["window"], entry["configuration"]["depth"]): entry["runs"][0]["mb_per_second"]
        for entry in json.loads(file.read_text())["pools"]
    }
    assert sorted(speed) == [(8, 1), (8, 16), (512, 1), (512, 16)]
    window, depth = knee(speed)
    assert f"knee: window {window}, depth {depth} (95 % of the best)" in capsys.readouterr().out


@pytest.mark.parametrize("suffix", [".png", ".html"])
def test_plots(swap_directory: Path, tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"plot{suffix}"
    arguments = ["--patterns", "sequential,random", "--windows", "8,64", "--no-kernel", "--plot", str(file)]
    assert main(["bench", str(swap_directory), *QUICK, *arguments]) == 0
    content = file.read_bytes()
    assert content.startswith(b"\x89PNG") if suffix == ".png" else b"<svg" in content and b"MB/s" in content


@pytest.mark.skipif(kernel_swap.unavailable_reason() is not None, reason="no cgroup and swap file for this user")
def test_the_kernels_swap_runs_beside(swap_directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--patterns", "sequential", "--windows", "64", "--json", "-"]
    assert main(["bench", str(swap_directory), *QUICK, *arguments]) == 0
    document = json.loads(capsys.readouterr().out)
    (entry,) = document["kernel"]
    assert entry["runs"][0]["counters"]["pswpin"] > 0
    assert str(swap_directory) not in Path("/proc/swaps").read_text()
    assert not left(swap_directory)


@pytest.mark.skipif(kernel_swap.unavailable_reason() is not None, reason="no cgroup and swap file for this user")
def test_a_cgroup_knows_its_peak() -> None:
    touch = "import os, sys; open(sys.argv[1], 'w').write(str(os.getpid())); b'x' * (32 << 20)"
    with kernel_swap.MemoryCgroup(256 << 20) as cgroup:
        subprocess.run([sys.executable, "-c", touch, str(cgroup.procs)], check=True)
        assert 32 << 20 <= cgroup.peak_bytes() < 64 << 20


@pytest.mark.skipif(
    not os.access("/proc/sys/vm/page-cluster", os.W_OK), reason="no cgroup and swap file for this user"
)
def test_the_kernels_read_ahead_is_put_back() -> None:
    setting = Path("/proc/sys/vm/page-cluster")
    before = setting.read_text()
    with kernel_swap.page_cluster(None):
        assert setting.read_text() == before
    with pytest.raises(ZeroDivisionError), kernel_swap.page_cluster(0):  # noqa: PT012 - it is put back all the same
        assert setting.read_text() == "0\n"
        _ = 1 // 0
    assert setting.read_text() == before


@pytest.mark.skipif(os.geteuid() != 0 or not Path("/dev/loop-control").exists(), reason="no loop device")
def test_a_file_system_of_its_own(swap_directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--patterns", "sequential", "--windows", "64", "--loop", "ext4"]
    assert main(["bench", str(swap_directory), *QUICK, *arguments]) == 0
    assert "ext4 on a loop device" in capsys.readouterr().out
    assert not left(swap_directory)
    assert str(swap_directory) not in Path("/proc/mounts").read_text()


# ---- bad input -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["/proc"], "cannot be written|no directory|lies in memory|free"),
        (["/nonexistent"], "no directory"),
        (["--patterns", "nonsense"], "there is no pattern"),
        (["--patterns", "stride:0"], "stride:PAGES"),
        (["--patterns", "zipf:1"], "not 1"),
        (["--windows", "8,x"], "--windows"),
        (["--depths", "257"], "--depths"),
        (["--transports", "teleport"], "--transports"),
        (["--faults", ""], "--faults"),
        (["--size", "1MiB"], "no smaller than the limit"),
        (["--size", "900TiB"], "free"),
        (["--repeats", "0"], "--repeats"),
        (["--plot", "picture.gif"], r"\.png or \.html"),
        (["--json", "/nonexistent/file"], "no such directory"),
    ],
)
def test_bad_input_is_refused_at_once(
    swap_directory: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    place = [] if arguments[0].startswith("/") else [str(swap_directory)]
    assert main(["bench", *place, *arguments]) == 2
    assert re.search(said, capsys.readouterr().err)
    assert not left(swap_directory)


def test_memory_is_no_disk(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "/dev/shm"]) == 2
    assert "lies in memory" in capsys.readouterr().err


# ---- endings -------------------------------------------------------------------------------------------------


@pytest.fixture
def running(swap_directory: Path) -> Iterator[subprocess.Popen[str]]:
    """A long run whose first pool is being measured."""
    arguments = [str(swap_directory), "--size", "32MiB", "--limit", "16MiB", "--seconds", "0.2", "--repeats", "999"]
    arguments += ["--patterns", "random", "--windows", "0", "--no-kernel"]
    process = subprocess.Popen(
        # A shell that runs the tests in the background has them ignore SIGINT, and their children with them.
        ["env", "--default-signal=INT", sys.executable, "-m", "uswap", "bench", *arguments],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert process.stderr is not None
        for line in process.stderr:
            if "window 0" in line:
                break
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_prints_what_it_has(
    running: subprocess.Popen[str], swap_directory: Path, number: signal.Signals
) -> None:
    running.send_signal(number)
    out, err = running.communicate(timeout=60)
    assert running.returncode == 130
    assert "interrupted" in err
    assert "the disk by itself" in out
    assert not left(swap_directory)


def test_what_a_killed_run_leaves_the_next_one_removes(
    running: subprocess.Popen[str], swap_directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stale = swap_directory / "uswap-bench-1-1.data"
    stale.write_bytes(b"left")
    running.kill()
    running.wait()
    assert main(["bench", str(swap_directory), *QUICK, "--patterns", "fill", "--windows", "8", "--no-kernel"]) == 0
    assert "left by a killed run" in capsys.readouterr().err
    assert not left(swap_directory)


def test_mounts_of_killed_runs_are_found(swap_directory: Path) -> None:
    gone = swap_directory / "uswap-bench-4194304-1.mnt"
    gone.mkdir()
    alive = swap_directory / f"uswap-bench-{os.getpid()}-1.mnt"
    alive.mkdir()
    assert loop_device.unmount_abandoned(swap_directory) == [f"mount {gone}"]
    assert alive.exists()
    alive.rmdir()
