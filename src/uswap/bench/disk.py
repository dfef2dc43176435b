"""The disk by itself: the core's own I/O layer with nothing above it, and fio where it is installed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from uswap._core import check_error, ffi, lib, new_error
from uswap.bench.figures import Figures
from uswap.bench.kernel_swap import drop_caches, scratch_file
from uswap.bench.patterns import PAGE, DiskJob

_MIB = 1 << 20
_IO_KINDS = {"auto": "USWAP_IO_AUTO", "uring": "USWAP_IO_URING", "sync": "USWAP_IO_SYNC"}


@contextmanager
def written_file(folder: Path, size: int) -> Iterator[Path]:
    """A scratch file written in full, at least 1 MiB: reserved blocks that were never written read as zeroes, and
    fast. Raises OSError."""
    with scratch_file(folder, ".data", size) as path:
        block = os.urandom(_MIB)
        with path.open("r+b", buffering=0) as file:
            for start in range(0, size, _MIB):
                file.write(block[: min(_MIB, size - start)])
            os.fsync(file.fileno())
        drop_caches()
        yield path


def raw(path: Path, job: DiskJob, seconds: float, io: str = "auto", seed: int = 1) -> Figures:
    """What the disk gives through the core's I/O layer. Raises UswapError."""
    result, error = ffi.new("uswap_bench_result *"), new_error()
    arguments = (job.block_pages, job.depth, job.write, job.random, getattr(lib, _IO_KINDS[io]), seed)
    status = lib.uswap_bench_disk(
        os.fsencode(path), path.stat().st_size, *arguments, int(seconds * 1e9), result, error
    )
    check_error(status, error)
    figures = Figures()
    figures.add_result(result, job.block_pages * PAGE)
    return figures


def has_fio() -> bool:
    """Whether fio is installed."""
    return shutil.which("fio") is not None


def fio(path: Path, job: DiskJob, seconds: float) -> Figures | None:
    """The same job by fio (O_DIRECT, io_uring); None if it fails here."""
    kind = ("rand" if job.random else "") + ("write" if job.write else "read")
    command = ["fio", "--name=job", f"--filename={path}", "--direct=1", "--ioengine=io_uring", f"--rw={kind}"]
    command += [f"--bs={job.block_pages * PAGE}", f"--iodepth={job.depth}", "--time_based", "--iomem_align=2m"]
    command += [f"--runtime={int(seconds * 1000)}ms", "--output-format=json"]
    # In huge pages, as the core's own: single pages are faster or slower as more or fewer of them lie together.
    huge = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | huge)
    if done.returncode != 0 or "{" not in done.stdout:
        return None
    found = json.loads(done.stdout[done.stdout.index("{") :])["jobs"][0]["write" if job.write else "read"]
    return Figures(found["io_bytes"], found["runtime"] / 1e3, found["total_ios"], Counter())
