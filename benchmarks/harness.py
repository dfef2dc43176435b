"""What the benchmark scripts share: building the native loops, running a worker, the machine, the disk, medians."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from uswap._sizes import parse_size

HERE = Path(__file__).resolve().parent
_WORKER_SECONDS = 3600
_FIO_SECONDS = 2

# Buffers of huge pages. With single pages fio's figure depends on how many of them happen to lie together.
_HUGE = ["--iomem_align=2m"]
# name -> fio's arguments; each on a file written in full before
FIO_JOBS = {
    "read_1MiB_depth8_huge": ["--rw=read", "--bs=1M", "--iodepth=8", *_HUGE],
    "write_1MiB_depth8_huge": ["--rw=write", "--bs=1M", "--iodepth=8", *_HUGE],
    "read_1MiB_depth8": ["--rw=read", "--bs=1M", "--iodepth=8"],
    "read_256KiB_depth6": ["--rw=read", "--bs=256k", "--iodepth=6"],
    "write_1MiB_depth8": ["--rw=write", "--bs=1M", "--iodepth=8"],
    "write_256KiB_depth8": ["--rw=write", "--bs=256k", "--iodepth=8"],
    "mixed_256KiB_depth8": ["--rw=rw", "--bs=256k", "--iodepth=8"],
    "randread_4KiB_depth1": ["--rw=randread", "--bs=4k", "--iodepth=1"],
    "randread_4KiB_depth8": ["--rw=randread", "--bs=4k", "--iodepth=8"],
    "randread_4KiB_depth32": ["--rw=randread", "--bs=4k", "--iodepth=32"],
}


class BenchmarkError(Exception):
    """A side failed; the message says how."""


class KilledError(BenchmarkError):
    """Somebody killed it: the kernel, for lack of memory."""


@dataclass(frozen=True)
class Job:
    """What a worker does: worker.py takes this as JSON.

    Attributes:
        side: "uswap", "kernel" or "memmap".
        size_bytes, limit_bytes: of the region; of the pool or cgroup.
        folder: where the swap file lies. file: of the memmap side.
        seconds: budget of each pattern that touches one word a page.
        seed: of the random patterns; the same on all sides.
    """

    side: str
    patterns: list[str]
    size_bytes: int
    limit_bytes: int
    folder: str
    seconds: float
    seed: int
    library: str
    pool_options: dict[str, Any] = field(default_factory=dict)
    cgroup_procs: str = ""
    file: str = ""


@contextlib.contextmanager
def native_library() -> Iterator[str]:
    """The path of workload.c, compiled, while the block runs."""
    with tempfile.TemporaryDirectory(prefix="uswap-bench-build-") as folder:
        target = os.path.join(folder, "workload.so")
        command = [*os.environ.get("CC", "cc").split(), "-O2", "-shared", "-fPIC", str(HERE / "workload.c"), "-o"]
        subprocess.run([*command, target, "-lm", "-lpthread"], check=True)
        yield target


def run_worker(job: Any, report: Any = None, script: str = "worker.py") -> list[dict[str, Any]]:
    """Runs a job in a process of its own; => the figures of its patterns. report is called with each of them.

    job is a Job, or what the script takes: a dataclass with a side.

    Raises:
        BenchmarkError: it ended badly, or found wrong contents.
    """
    document = json.dumps(asdict(job) | {"parent": os.getpid()})
    process = subprocess.Popen(
        [sys.executable, str(HERE / script), document],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
    )
    results = []
    try:
        assert process.stdout is not None
        for line in process.stdout:
            result = json.loads(line)
            if "error" in result:
                raise BenchmarkError(f"{job.side}: {result['error']}")
            results.append(result)
            if report is not None:
                report(result)
        status = process.wait(_WORKER_SECONDS)
        if status == -signal.SIGKILL:
            raise KilledError(f"{job.side}: the worker was killed")
        if status:
            raise BenchmarkError(f"{job.side}: the worker ended with status {status}")
    finally:
        process.kill()
        process.wait()
    return results


def sharing_arguments(name: str, description: str | None, *, size: str, limit: str, repeats: int) -> ArgumentParser:
    """What the benchmarks of processes that share an array have in common; parse_sharing reads them. name: of the
    results."""
    parser = ArgumentParser(description=description, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--size", default=size, help="of what is shared (default: %(default)s)")
    parser.add_argument("--limit", default=limit, help="of all processes (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=repeats, help="default: %(default)s")
    parser.add_argument("--dir", default="/var/tmp", type=Path, help="on the disk to use (default: %(default)s)")
    parser.add_argument("--json", type=Path, default=HERE / "results" / f"{name}.json", metavar="FILE")
    parser.add_argument("--text", type=Path, default=HERE / "results" / f"{name}.txt", metavar="FILE")
    return parser


def parse_sharing(parser: ArgumentParser, arguments: list[str] | None) -> Namespace:
    """=> the options, sizes in bytes; ends the program if they are wrong."""
    options = parser.parse_args(arguments)
    try:
        options.size = parse_size(options.size, "--size")
        options.limit = parse_size(options.limit, "--limit")
    except ValueError as error:
        parser.error(str(error))
    return options


def median(values: list[float]) -> float | None:
    """The median, or None of no values."""
    return statistics.median(values) if values else None


# ---- the machine and the disk ------------------------------------------------------------------------------


def _read(path: str) -> str | None:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return None


def _field(path: str, name: str) -> str | None:
    """The value of the first "name: value" line."""
    for line in (_read(path) or "").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return None


def environment(folder: Path) -> dict[str, Any]:
    """What the figures depend on: kernel, CPU, memory, disk and its settings, versions."""
    device = os.stat(folder).st_dev
    block = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}").resolve()
    disk = block.parent if (block / "partition").exists() else block
    found = {
        "kernel": platform.release(),
        "machine": platform.machine(),
        "cpu": _field("/proc/cpuinfo", "model name"),
        "cpus": len(os.sched_getaffinity(0)),
        "memory": _field("/proc/meminfo", "MemTotal"),
        "disk": disk.name,
        "disk_model": _read(f"{disk}/device/model"),
        "disk_scheduler": _read(f"{disk}/queue/scheduler"),
        "disk_read_ahead_kib": _read(f"{disk}/queue/read_ahead_kb"),
        "page_cluster": _read("/proc/sys/vm/page-cluster"),
        "swappiness": _read("/proc/sys/vm/swappiness"),
        "huge_pages": _read("/sys/kernel/mm/transparent_hugepage/enabled"),
        "load_before": os.getloadavg()[0],
        "python": platform.python_version(),
    }
    with contextlib.suppress(ImportError):
        import numpy

        found["numpy"] = numpy.__version__
    with contextlib.suppress(ImportError):
        import uswap

        found["uswap"] = uswap.__version__
        found["uswap_core"] = _core_description()
    return found


def _core_description() -> str:
    """Version and build of the core: one with failpoints is slower."""
    from uswap._core import ffi, lib

    return bytes(ffi.string(lib.uswap_build_info())).decode()


def fio_figures(file: Path) -> dict[str, float]:
    """What the disk itself gives, in MB/s, through O_DIRECT and io_uring on this file; {} without fio."""
    if shutil.which("fio") is None:
        return {}
    figures = {}
    for name, arguments in FIO_JOBS.items():
        command = ["fio", f"--name={name}", f"--filename={file}", "--direct=1", "--ioengine=io_uring", *arguments]
        command += ["--time_based", f"--runtime={_FIO_SECONDS}", "--output-format=json"]
        environment = os.environ | ({"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"} if _HUGE[0] in arguments else {})
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        if done.returncode == 0:
            document = json.loads(done.stdout[done.stdout.index("{") :])
            job = document["jobs"][0]
            figures[name] = (job["read"]["bw_bytes"] + job["write"]["bw_bytes"]) / 1e6
    return figures
