"""What a directory lies on: the file system, whether that is memory, and how much of it is free."""

from __future__ import annotations

import os
from pathlib import Path

_MEMORY_FILE_SYSTEMS = frozenset({"tmpfs", "ramfs", "devtmpfs", "hugetlbfs"})


def _unescape(path: str) -> str:
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        path = path.replace(code, character)
    return path


def file_system_of(path: str | os.PathLike[str]) -> str | None:
    """The type of the file system that path (or its nearest existing parent) lies on, such as "ext4"; None
    if it cannot be found out.

    Example:
        >>> file_system_of("/proc/self")
        'proc'
    """
    place = Path(path).absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    try:
        device = os.stat(place).st_dev
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return None
    wanted = f"{os.major(device)}:{os.minor(device)}"
    real = os.path.realpath(place)
    best, kind = "", None
    for line in lines:
        left, _, right = line.partition(" - ")
        fields = left.split()
        mount = _unescape(fields[4])
        inside = real == mount or real.startswith(mount.rstrip("/") + "/")
        # Of mounts on the same place the last one is on top. (btrfs shows other device numbers in stat.)
        if inside and (len(mount), fields[2] == wanted) >= (len(best), False):
            best, kind = mount, right.split()[0]
    return kind


def is_memory_backed(path: str | os.PathLike[str]) -> bool:
    """Whether what is written there stays in memory (tmpfs and its kin): swapping to it frees nothing."""
    return file_system_of(path) in _MEMORY_FILE_SYSTEMS


def free_bytes(path: str | os.PathLike[str]) -> int:
    """Bytes that this user may still write there. Raises OSError."""
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize


def default_swap_directories() -> list[str]:
    """Where a swap file without a name is tried, in this order: $USWAP_DIR, /var/tmp, the user's cache
    directory."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    named = os.environ.get("USWAP_DIR")
    return [*([named] if named else []), "/var/tmp", cache]
