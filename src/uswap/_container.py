"""How much memory this process's container allows and uses: cgroup v1 and v2.

Source: Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst of the kernel.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

# cgroup v1 says "no limit" with the largest multiple of a page; anything this large is none.
_NO_LIMIT = 1 << 60


def _read_number(path: Path) -> int | None:
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def _mount_points() -> dict[str, tuple[Path, str]]:
    """ "v2" and "v1" (the memory controller) -> (where it is mounted, the cgroup at its root)."""
    found: dict[str, tuple[Path, str]] = {}
    try:
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return found
    for line in lines:
        left, _, right = line.partition(" - ")
        fields, kind = left.split(), right.split()
        if len(fields) < 5 or not kind:
            continue
        where = Path(fields[4]), fields[3]
        if kind[0] == "cgroup2":
            found.setdefault("v2", where)
        elif kind[0] == "cgroup" and "memory" in kind[-1].split(","):
            found.setdefault("v1", where)
    return found


def _own_paths() -> dict[str, str]:
    """ "v2" and "v1" -> this process's cgroup."""
    found: dict[str, str] = {}
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return found
    for line in lines:
        number, controllers, path = line.split(":", 2)
        if number == "0" and not controllers:
            found["v2"] = path
        elif "memory" in controllers.split(","):
            found["v1"] = path
    return found


def _cgroup_folders() -> Iterator[tuple[str, Path]]:
    """(version, folder) of this process's memory cgroup and of those around it, innermost first."""
    mounts, own = _mount_points(), _own_paths()
    for version in ("v1", "v2"):
        if version not in mounts or version not in own:
            continue
        top, root = mounts[version]
        relative = os.path.relpath(own[version], root)
        if relative.startswith(".."):
            relative = "."  # a cgroup namespace: the mount shows ours as the root
        folder = top / relative
        while True:
            yield version, folder
            if folder in (top, folder.parent):
                break
            folder = folder.parent


def memory_limit_bytes() -> int | None:
    """The least memory limit of this process's cgroups in bytes; None: there is none."""
    files = {"v1": "memory.limit_in_bytes", "v2": "memory.max"}
    limits = [_read_number(folder / files[version]) for version, folder in _cgroup_folders()]
    real = [limit for limit in limits if limit is not None and limit < _NO_LIMIT]
    return min(real) if real else None


def memory_used_bytes() -> int | None:
    """What this process's innermost memory cgroup uses now, in bytes, less the file cache that the kernel
    can drop; None: not known."""
    files = {
        "v1": ("memory.usage_in_bytes", "total_inactive_file"),
        "v2": ("memory.current", "inactive_file"),
    }
    for version, folder in _cgroup_folders():
        usage_file, cache_key = files[version]
        used = _read_number(folder / usage_file)
        if used is None:
            continue
        return max(used - _stat_value(folder / "memory.stat", cache_key), 0)
    return None


def _stat_value(path: Path, key: str) -> int:
    try:
        for line in path.read_text().splitlines():
            name, _, value = line.partition(" ")
            if name == key:
                return int(value)
    except OSError:
        pass
    return 0


def looks_like_container() -> str | None:
    """What kind of container this process seems to be in, or None."""
    if Path("/.dockerenv").exists():
        return "docker"
    if Path("/run/.containerenv").exists():
        return "podman"
    if "KUBERNETES_SERVICE_HOST" in os.environ:
        return "kubernetes"
    return os.environ.get("container") or None  # noqa: SIM112 - systemd's own spelling
