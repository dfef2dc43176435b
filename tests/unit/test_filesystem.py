"""File systems of directories: their types, whether they are memory, and where swap files go by default."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from uswap import _filesystem


def may_mount() -> bool:
    """In a mount namespace of its own; a root without CAP_SYS_ADMIN may not."""
    words = ["unshare", "--mount", "mount", "-t", "tmpfs", "none", "/tmp"]
    return subprocess.run(words, capture_output=True, check=False).returncode == 0


def test_file_systems_are_named() -> None:
    assert _filesystem.file_system_of("/proc/self") == "proc"
    assert _filesystem.file_system_of("/proc/self/no/such/place") == "proc"
    assert not _filesystem.is_memory_backed("/proc")


@pytest.mark.skipif(not os.path.ismount("/dev/shm"), reason="no tmpfs at /dev/shm")
def test_tmpfs_is_memory() -> None:
    assert _filesystem.is_memory_backed("/dev/shm")
    assert _filesystem.is_memory_backed("/dev/shm/not/there/yet")


def test_swap_directories_come_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USWAP_DIR", "/somewhere")
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    assert _filesystem.default_swap_directories() == ["/somewhere", "/var/tmp", "/cache"]


def test_free_bytes_are_those_of_the_file_system(tmp_path: Path) -> None:
    assert 0 < _filesystem.free_bytes(tmp_path) <= shutil.disk_usage(tmp_path).total
    with pytest.raises(FileNotFoundError):
        _filesystem.free_bytes(tmp_path / "not there")


@pytest.mark.skipif(not may_mount(), reason="this user may not mount")
def test_of_stacked_mounts_with_odd_names_the_one_on_top_counts(tmp_path: Path) -> None:
    """In a mount namespace of its own: tmpfs, over it ramfs, and beside it a directory with a longer name."""
    place = tmp_path / "a name\twith \\040"
    (tmp_path / "a name\twith \\040 and more").mkdir()
    place.mkdir()
    program = "import sys; from uswap import _filesystem as f; print(*map(f.file_system_of, sys.argv[1:]))"
    script = """
        set -e
        mount -t tmpfs none "$1"; "$2" -c "$3" "$1" "$1/deeper" "$1 and more"
        mount -t ramfs none "$1"; "$2" -c "$3" "$1"
    """
    words = ["unshare", "--mount", "sh", "-c", script, "sh", str(place), sys.executable, program]
    result = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    first, second = result.stdout.splitlines()
    around = _filesystem.file_system_of(tmp_path)
    assert first.split() == ["tmpfs", "tmpfs", around]
    assert second == "ramfs"
