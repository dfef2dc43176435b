"""The kernel's side of the benchmark: a memory cgroup with a limit, and a swap file. Needs root.

Everything made here is named uswap-bench-*. Files are locked (flock) while their run lives, so that the next run
can tell what a killed one has left and clean it up.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

PREFIX = "uswap-bench-"
_CGROUP_END_SECONDS = 10


class UnavailableError(Exception):
    """This side cannot run here; the message says why."""


def unavailable_reason() -> str | None:
    """Why cgroup and swap file cannot be made; None: they can, as far as can be seen without trying."""
    if os.geteuid() != 0:
        return "needs root (a memory cgroup and swapon)"
    try:
        _cgroup_parent()
    except UnavailableError as error:
        return str(error)
    return None


# ---- the memory cgroup -------------------------------------------------------------------------------------


def _mounts() -> list[tuple[str, str, Path]]:
    """(type, options, where) of every cgroup mount."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        kind, _, options = right.split(" ", 2)
        if kind in ("cgroup", "cgroup2"):
            found.append((kind, options, Path(left.split()[4])))
    return found


def _cgroup_parent() -> tuple[str, Path]:
    """=> ("v1" or "v2", the folder to make a memory cgroup in). Raises UnavailableError."""
    for kind, options, where in _mounts():
        if kind == "cgroup" and "memory" in options.split(","):
            return "v1", where
    for kind, _, where in _mounts():
        if kind == "cgroup2" and "memory" in (where / "cgroup.controllers").read_text().split():
            return "v2", where
    raise UnavailableError("no memory cgroup is mounted (neither v1 nor v2)")


class MemoryCgroup:
    """Context manager: a memory cgroup whose processes may use limit_bytes of memory, page cache included.

    Attributes:
        version: "v1" or "v2".
        procs: the file a process writes its pid to, to join.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self.version, parent = _cgroup_parent()
        self._folder = parent / f"{PREFIX}{os.getpid()}-{time.monotonic_ns()}"
        self.procs = self._folder / "cgroup.procs"

    def __enter__(self) -> MemoryCgroup:
        try:
            if self.version == "v2":
                (self._folder.parent / "cgroup.subtree_control").write_text("+memory")
            self._folder.mkdir()
            name = {"v1": "memory.limit_in_bytes", "v2": "memory.max"}[self.version]
            (self._folder / name).write_text(str(self._limit_bytes))
        except OSError as error:
            with contextlib.suppress(OSError):
                self._folder.rmdir()
            raise UnavailableError(f"cannot make a memory cgroup: {error}") from error
        return self

    def __exit__(self, *_: object) -> None:
        _remove_cgroup(self._folder)

    def peak_bytes(self) -> int:
        """The most memory it has had so far. Raises OSError: a v2 kernel before 5.19 does not say."""
        name = {"v1": "memory.max_usage_in_bytes", "v2": "memory.peak"}[self.version]
        return int((self._folder / name).read_text())


def _remove_cgroup(folder: Path) -> None:
    """Removes it once its last process, ended already, has been taken out by the kernel. Raises OSError."""
    deadline = time.monotonic() + _CGROUP_END_SECONDS
    while True:
        try:
            folder.rmdir()
            return
        except FileNotFoundError:
            return
        except OSError:
            # The kernel has no event for it on v1.
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


@contextlib.contextmanager
def page_cluster(value: int | None) -> Iterator[None]:
    """The kernel's swap read-ahead is 2 ** value pages while the block runs; None: as it is.

    Raises UnavailableError.
    """
    setting = Path("/proc/sys/vm/page-cluster")
    before = setting.read_text()
    try:
        if value is not None:
            setting.write_text(str(value))
    except OSError as error:
        raise UnavailableError(f"cannot set vm.page-cluster: {error}") from error
    try:
        yield
    finally:
        if value is not None:
            setting.write_text(before)


# ---- files on the disk under test --------------------------------------------------------------------------


@contextlib.contextmanager
def scratch_file(folder: Path, suffix: str, size: int) -> Iterator[Path]:
    """A file of size reserved bytes that is locked while the block runs, and removed after it."""
    path = folder / f"{PREFIX}{os.getpid()}-{time.monotonic_ns()}{suffix}"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        os.posix_fallocate(descriptor, 0, size)
        yield path
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


@contextlib.contextmanager
def swap_file(folder: Path, size: int) -> Iterator[Path]:
    """A file of the kernel's swap, ahead of any other, while the block runs. Raises UnavailableError."""
    with scratch_file(folder, ".swap", size) as path:
        _command("mkswap", str(path))
        _command("swapon", "-p", "32767", str(path))
        try:
            yield path
        finally:
            _command("swapoff", str(path))


def _command(*words: str) -> None:
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise UnavailableError(f"{words[0]} is not installed") from None
    if done.returncode != 0:
        raise UnavailableError(f"{' '.join(words)}: {done.stderr.strip()}")


def clean_up_after_killed_runs(folder: Path) -> list[str]:
    """Ends swap files, files in folder and cgroups of runs that were killed; => what was removed."""
    removed = []
    for line in Path("/proc/swaps").read_text().splitlines()[1:]:
        path = Path(line.split()[0])
        if path.name.startswith(PREFIX) and _is_abandoned(path):
            _command("swapoff", str(path))
            path.unlink(missing_ok=True)
            removed.append(f"swap file {path}")
    for path in folder.glob(f"{PREFIX}*"):
        if path.is_file() and _is_abandoned(path):
            path.unlink(missing_ok=True)
            removed.append(f"file {path}")
    if unavailable_reason() is None:
        for cgroup in _cgroup_parent()[1].glob(f"{PREFIX}*"):
            # The kernel refuses (EBUSY) if processes of another run are in it.
            if not Path(f"/proc/{cgroup.name[len(PREFIX) :].split('-')[0]}").exists():
                with contextlib.suppress(OSError):
                    cgroup.rmdir()
                    removed.append(f"cgroup {cgroup}")
    return removed


def _is_abandoned(path: Path) -> bool:
    """Whether no living run holds the lock of this file."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


def drop_caches() -> bool:
    """Writes back and drops the page cache of the machine; => False where that is not allowed."""
    os.sync()
    try:
        Path("/proc/sys/vm/drop_caches").write_text("1")
    except OSError:
        return False
    return True
