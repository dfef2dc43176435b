"""A file system of its own for a benchmark: made in a file, mounted by a loop device. Needs root."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from uswap.bench.kernel_swap import UnavailableError, scratch_file

# name -> its command, without the file
MAKERS = {
    "ext4": ["mkfs.ext4", "-q", "-F"],
    "xfs": ["mkfs.xfs", "-q", "-f"],
    "btrfs": ["mkfs.btrfs", "-q", "-f"],
}
_LEAST_BYTES = 512 << 20  # mkfs.xfs makes nothing below 300 MiB


def _run(*command: str) -> str:
    """=> what it printed. Raises UnavailableError."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise UnavailableError(f"{command[0]} is not installed") from None
    if done.returncode != 0:
        raise UnavailableError(f"{' '.join(command[:2])}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout.strip()


def _mount(kind: str, path: Path, mount: Path) -> None:
    """Past the page cache: else memory would be measured. The device goes with the mount."""
    device = _run("losetup", "--find", "--show", "--direct-io=on", str(path))
    try:
        _run("mount", "-t", kind, device, str(mount))
    finally:
        _run("losetup", "--detach", device)  # as soon as nobody uses it


@contextmanager
def loop_file_system(kind: str, folder: Path, size: int) -> Iterator[Path]:
    """The mounted directory of a file system of this kind with room for size bytes.

    Raises:
        UnavailableError: not root, or the kernel or a tool for it is missing.
    """
    if os.geteuid() != 0:
        raise UnavailableError("a file system on a loop device needs root")
    with scratch_file(folder, f".{kind}", max(size + size // 4, _LEAST_BYTES)) as path:
        _run(*MAKERS[kind], str(path))
        mount = path.with_suffix(".mnt")
        mount.mkdir(mode=0o700)
        try:
            _mount(kind, path, mount)
            try:
                yield mount
            finally:
                _run("umount", str(mount))
        finally:
            mount.rmdir()


def unmount_abandoned(folder: Path) -> list[str]:
    """Unmounts what killed runs have left mounted in folder; => what was unmounted."""
    ended = []
    for mount in folder.glob("uswap-bench-*.mnt"):
        pid = mount.name.removeprefix("uswap-bench-").split("-")[0]
        if pid.isdigit() and not Path(f"/proc/{pid}").exists():
            with suppress(UnavailableError, OSError):
                if mount.is_mount():
                    _run("umount", str(mount))
                mount.rmdir()
                ended.append(f"mount {mount}")
    return ended
