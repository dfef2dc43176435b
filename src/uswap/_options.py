"""What a pool is made with: the limit, swap areas, transports; defaults and environment variables."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias

import psutil

from uswap._container import memory_limit_bytes, memory_used_bytes
from uswap._core import ffi, lib
from uswap._errors import LimitError, SwapAreaError, UswapWarning
from uswap._filesystem import default_swap_directories, is_memory_backed
from uswap._sizes import format_size, parse_size

_MIB = 1024 * 1024
# Left to everything else when the limit is chosen for the program: the larger of the two.
_MARGIN_SHARE = 10
_MARGIN_BYTES = 128 * _MIB

_TRANSPORTS = {"auto": "USWAP_TRANSPORT_AUTO", "move": "USWAP_TRANSPORT_MOVE", "copy": "USWAP_TRANSPORT_COPY"}
_FAULT_MODES = {
    None: "USWAP_FAULTS_DEFAULT",
    "thread": "USWAP_FAULTS_THREAD",
    "inline": "USWAP_FAULTS_INLINE",
}
_IO_KINDS = {"auto": "USWAP_IO_AUTO", "uring": "USWAP_IO_URING", "sync": "USWAP_IO_SYNC"}


@dataclass(frozen=True)
class SwapArea:
    """A place to swap to.

    Attributes:
        path: a file (made if it is not there), a block device, or a directory for a file without a name.
        size: bytes it may grow to, as an integer or "20GiB"; None: 90 % of the free disk, or the whole
            device.
        priority: areas with a higher one are filled first.

    Raises:
        ValueError, TypeError: no path, or size is not a size.

    Example:
        >>> SwapArea("/var/tmp/jobs.swap", size="20GiB", priority=5).size_bytes
        21474836480
    """

    path: str | os.PathLike[str]
    size: int | str | None = None
    priority: int = 0

    def __post_init__(self) -> None:
        path = os.fsdecode(self.path)
        if not path or "\0" in path:
            raise ValueError(f"a swap area needs a path, not {path!r}")
        if self.size is not None:
            parse_size(self.size, "swap area size")
        if isinstance(self.priority, bool) or not isinstance(self.priority, int):
            raise TypeError(f"priority must be an integer, not {type(self.priority).__name__}")
        if not -(2**31) <= self.priority < 2**31:
            raise ValueError(f"priority {self.priority} does not fit 32 bits")

    @property
    def size_bytes(self) -> int:
        """size in bytes; 0 for None."""
        return 0 if self.size is None else parse_size(self.size, "swap area size")

    @property
    def is_directory(self) -> bool:
        """True if path is a directory now: the swap file will have no name."""
        return os.path.isdir(self.path)


SwapPath: TypeAlias = "str | os.PathLike[str] | SwapArea"
SwapSpec: TypeAlias = "SwapPath | Iterable[SwapPath] | None"


def swap_areas(spec: SwapSpec) -> list[SwapArea]:
    """The areas that a Pool's swap argument means.

    None means $USWAP_SWAP (paths separated by ":"), and without it a file without a name in the first
    directory of $USWAP_DIR, /var/tmp and the user's cache directory that can be written and does not lie in
    memory.

    Raises:
        SwapAreaError: no such directory, or $USWAP_DIR cannot be used.
        ValueError: an empty list. TypeError: no path.
    """
    if spec is None:
        named = os.environ.get("USWAP_SWAP", "")
        if not named:
            return [SwapArea(default_directory())]
        spec = [path for path in named.split(os.pathsep) if path]
    if isinstance(spec, (str, os.PathLike, SwapArea)):
        spec = [spec]
    if not isinstance(spec, Iterable) or isinstance(spec, bytes):
        raise TypeError(f"swap must be a path, a SwapArea, or several of them, not {type(spec).__name__}")
    areas = [area if isinstance(area, SwapArea) else SwapArea(area) for area in spec]
    if not areas:
        raise ValueError("swap: at least one swap area is needed")
    for area in areas:
        _check_place(area)
    return areas


def _check_place(area: SwapArea) -> None:
    """Raises SwapAreaError, with a reason, where the core could only say ENOENT or EACCES."""
    path = os.fspath(area.path)
    directory = path if area.is_directory else os.path.dirname(path) or "."
    if not os.path.isdir(directory):
        raise SwapAreaError(f"the directory {directory!r} for the swap file does not exist", path=directory)
    if area.is_directory or not os.path.exists(path):
        _check_writable(directory)


def _check_writable(directory: str) -> None:
    if not os.access(directory, os.W_OK | os.X_OK):
        raise SwapAreaError(f"a swap file cannot be made in {directory!r}: not writable", path=directory)


def default_directory() -> str:
    """The directory for a swap file that nobody has named. $USWAP_DIR, where set, is taken as it is.

    Raises:
        SwapAreaError: $USWAP_DIR is missing or not writable; or it is not set and no directory will do.
    """
    chosen = os.environ.get("USWAP_DIR", "")
    if chosen:
        if not os.path.isdir(chosen):
            raise SwapAreaError(f"USWAP_DIR: {chosen!r} is not a directory", path=chosen)
        _check_writable(chosen)
        return chosen
    reasons = []
    for directory in map(os.fspath, default_swap_directories()):
        if not os.path.isdir(directory) or not os.access(directory, os.W_OK | os.X_OK):
            reasons.append(f"{directory}: missing or not writable")
        elif is_memory_backed(directory):
            reasons.append(f"{directory}: lies in memory")
        else:
            return directory
    raise SwapAreaError(
        f"no directory for a swap file: {'; '.join(reasons)}", hint="set USWAP_DIR, or give Pool(swap=path)"
    )


def available_memory() -> int:
    """Bytes that this machine, or this process's container, could still give."""
    available = int(psutil.virtual_memory().available)
    limit = memory_limit_bytes()
    if limit is not None:
        available = min(available, limit - (memory_used_bytes() or 0))
    return max(available, 0)


def total_memory() -> int:
    """Bytes this machine, or this process's container, has."""
    total = int(psutil.virtual_memory().total)
    limit = memory_limit_bytes()
    return total if limit is None else min(total, limit)


def spare_memory() -> int:
    """Bytes that this machine or container can still give, less a margin for everything else: a tenth of its
    memory, at least 128 MiB. 0 if there is nothing to spare."""
    margin = max(total_memory() // _MARGIN_SHARE, _MARGIN_BYTES)
    return max(available_memory() - margin, 0)


def default_limit() -> int:
    """The limit in bytes of a pool that was not given one.

    It is $USWAP_LIMIT; without it, what the container or machine can still give less a margin (a tenth of its
    memory, at least 128 MiB), and never less than the least limit.
    """
    named = os.environ.get("USWAP_LIMIT", "")
    if named:
        return parse_size(named, "USWAP_LIMIT")
    return max(spare_memory(), minimum_limit())


def minimum_limit() -> int:
    """The least limit in bytes."""
    return int(lib.uswap_minimum_limit_bytes())


def checked_limit(limit: int | str) -> int:
    """limit in bytes. Warns if it is more memory than there is.

    Raises:
        ValueError, TypeError: not a size.
        LimitError: below the least limit.
    """
    size = parse_size(limit, "limit")
    least = minimum_limit()
    if size < least:
        raise LimitError(f"limit {format_size(size)} is below the least possible, {format_size(least)}")
    total = total_memory()
    if size > total:
        warnings.warn(
            f"limit {format_size(size)} is more than the memory here, {format_size(total)}",
            UswapWarning,
            stacklevel=4,
        )
    return size


@dataclass(frozen=True)
class CoreOptions:
    """The options of the core; None leaves the core's default."""

    limit: int
    transport: str = "auto"
    io: str = "auto"
    recycle: bool = False
    overcommit: bool = False
    fault_around: int | None = None
    read_ahead: int | None = None
    reclaim_batch: int | None = None
    background: bool = True
    verify: bool = True
    faults: str | None = None
    write_ahead: bool = True
    awake: bool = True
    io_depth: int | None = None
    encrypt: bool = False
    snapshots: bool = True

    def to_core(self) -> Any:
        """A uswap_options. Raises ValueError, TypeError."""
        raw = ffi.new("uswap_options *")
        lib.uswap_options_init(raw)
        raw.limit_bytes = self.limit
        raw.transport = _named(lib, _TRANSPORTS, self.transport, "transport")
        raw.io_kind = _named(lib, _IO_KINDS, self.io, "io")
        raw.fault_mode = fault_mode(self.faults)
        raw.recycle = bool(self.recycle)
        raw.overcommit = bool(self.overcommit)
        raw.background = bool(self.background)
        raw.verify = bool(self.verify)
        raw.write_ahead = bool(self.write_ahead)
        raw.awake = bool(self.awake)
        raw.encrypt = bool(self.encrypt)
        raw.snapshots = bool(self.snapshots)
        for field, value, least in (
            ("fault_around_pages", self.fault_around, 1),
            ("read_ahead_pages", self.read_ahead, 0),
            ("reclaim_batch_pages", self.reclaim_batch, 1),
            ("io_depth", self.io_depth, 1),
        ):
            if value is not None:
                setattr(raw, field, _count(value, least, field.removesuffix("_pages")))
        return raw


def fault_mode(faults: str | None) -> int:
    """The uswap_fault_mode of a faults argument. Raises ValueError."""
    if faults is not None and faults not in _FAULT_MODES:
        raise ValueError(f"faults must be 'thread' or 'inline', not {faults!r}")
    return int(getattr(lib, _FAULT_MODES[faults]))


def _named(lib: Any, names: dict[str, str], value: str, what: str) -> int:
    name = names.get(value)
    if name is None:
        raise ValueError(f"{what} must be one of {', '.join(map(repr, names))}, not {value!r}")
    return int(getattr(lib, name))


def _count(value: int, least: int, what: str) -> int:
    unit = "requests" if what == "io_depth" else "pages"
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{what} must be a number of {unit}, not {type(value).__name__}")
    if not least <= value < 2**31:
        raise ValueError(f"{what} must be at least {least} {unit}, not {value}")
    return value
