"""What a Pool checks and warns about."""

from __future__ import annotations

import inspect
import os
import warnings

from uswap._core import lib, logger
from uswap._errors import ArgumentError, UserModeWarning, UswapWarning
from uswap._sizes import format_size
from uswap._stats import RegionInfo, SwapAreaInfo

_NAME_BYTES = 63
_PACKAGE = os.path.dirname(__file__)
_warned = False


def checked_name(name: str | None) -> str:
    """name, or "" for None. Raises ValueError, TypeError."""
    if name is None:
        return ""
    if not isinstance(name, str):
        raise TypeError(f"name must be text, not {type(name).__name__}")
    try:
        encoded = name.encode()
    except UnicodeEncodeError as error:
        raise ArgumentError(f"name {name!r} cannot be encoded in UTF-8") from error
    if len(encoded) > _NAME_BYTES or b"\0" in encoded:
        raise ArgumentError(f"name {name!r} is longer than {_NAME_BYTES} bytes or has a null byte")
    return name


def described(infos: list[RegionInfo]) -> str:
    """The first few regions, for a message."""
    shown = [f"{info.name or 'a region'} ({format_size(info.size)})" for info in infos[:3]]
    more = f" and {len(infos) - 3} more" if len(infos) > 3 else ""
    return ", ".join(shown) + more


def _callers_level() -> int:
    """The stacklevel, for a warning by who calls this, that names the line of the program."""
    frame, level = inspect.currentframe(), 0
    while frame is not None and os.path.dirname(frame.f_code.co_filename).startswith(_PACKAGE):
        frame, level = frame.f_back, level + 1
    return level


def warn_of_user_mode() -> None:
    """Once a process."""
    global _warned
    if _warned:
        return
    _warned = True
    text = (
        "userfaultfd is not permitted to this user for faults inside system calls, so faults are served inline: "
        "read, write, send, recv and every other system call on managed memory that is swapped out fails with "
        "EFAULT, except inside Region.resident(). `uswap doctor` names the command that permits it; "
        "Pool(faults='inline') says that it is meant so"
    )
    logger.info("%s", text)
    warnings.warn(text, UserModeWarning, stacklevel=_callers_level())


def warn_about_area(info: SwapAreaInfo, notes: int) -> None:
    """About each of the core's notes that costs speed or safety."""
    texts = {
        lib.USWAP_AREA_TMPFS: "lies in memory (tmpfs): swapping there frees nothing",
        lib.USWAP_AREA_NO_O_DIRECT: "is on a file system that refuses O_DIRECT: the page cache slows it down",
        lib.USWAP_AREA_NO_FALLOCATE: "is where space cannot be reserved: a full disk may show up late",
    }
    for note, text in texts.items():
        if notes & note:
            logger.info("swap area %s %s", info.path, text)
            warnings.warn(f"swap area {info.path} {text}", UswapWarning, stacklevel=_callers_level())
