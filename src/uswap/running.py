"""run: unmodified programs under a limit."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from uswap._core import require_core
from uswap._errors import ArgumentError, SwapAreaError, UnsupportedError
from uswap._options import SwapArea, checked_limit, default_directory, default_limit
from uswap._programs import check_can_preload, find_program
from uswap._rendezvous import folder_of, sweep
from uswap.pool import Pool

_LIBRARY = Path(__file__).with_name("libuswap-run.so")

# The first process writes over it where the processes of the program keep their figures (csrc/run/board.c).
_NO_BOARD = f"{0:010}:{0:06}:{0:016x}"

StrPath = str | os.PathLike[str]


def run(
    command: Sequence[StrPath],
    *,
    limit: int | str | None = None,
    swap: StrPath | SwapArea | None = None,
    stats: bool = False,
    shared: bool = False,
    env: Mapping[str, str] | None = None,
    **options: Any,
) -> subprocess.CompletedProcess[Any]:
    """Runs a program, unchanged, whose memory is limited and swapped by uswap; `uswap run` does the same.

    What the program gets from malloc and its like, and from mmap in private anonymous pieces of 64 KiB and up, is
    managed, in each process that it becomes or starts: each has a limit of its own, or, if shared, they all have
    one. Its code, stacks, and what it
    maps of files are not. docs/running.md has the details.

    Args:
        command: the program (a path, or a name on $PATH) and its arguments. A file that ends in .py and may not be
            executed is run by this Python.
        limit: bytes of resident memory, or "512MiB", for each process, or for all together. None: as Pool.
        swap: the directory for the swap files, which have no name; None: as Pool. With SwapArea(directory, size=),
            each process has that much at most.
        stats: what each process came to is said on standard error. A small process then stands between this one and
            the program: signals, status and kill() go through it.
        shared: all processes of the program share the limit. It must have a floor for each of them (about 4 MiB),
            and one for a small process that keeps the pool for them until they are gone.
        env: its environment; None: this one's.
        options: as subprocess.run: check, input, stdin, stdout, stderr, capture_output, timeout, cwd, text, ...;
            but no shell and no executable.

    Raises:
        ArgumentError, TypeError: no such program (seen from cwd, and by env's PATH); a bad limit (LimitError).
        UnsupportedError: the program is static, setuid, or for another machine; or this user may not have what
            system calls on managed memory need (`uswap doctor` says what).
        SwapAreaError: the directory cannot be used.
        On any of these the program was not started. Otherwise as subprocess.run.

    Example:
        >>> import uswap
        >>> done = uswap.run(["sort", "-n"], limit="64MiB", input="10\\n9\\n", text=True, capture_output=True)
        >>> done.stdout.split()
        ['9', '10']
    """
    if options.get("shell") or "executable" in options:
        raise TypeError('no shell= and no executable=: name the program in command, as ["sh", "-c", "..."]')
    folder = options.get("cwd")
    program, words, variables = prepare(
        command, limit=limit, swap=swap, stats=stats, shared=shared, env=env, folder=folder
    )
    return subprocess.run(words, executable=program, env=variables, **options)


def prepare(
    command: Sequence[StrPath],
    *,
    limit: int | str | None = None,
    swap: StrPath | SwapArea | None = None,
    stats: bool = False,
    shared: bool = False,
    env: Mapping[str, str] | None = None,
    folder: StrPath | None = None,
) -> tuple[str, list[str], dict[str, str]]:
    """=> (the path, the words, the environment) with which to execute a program under a limit.
    folder is where it will be executed (None: here). Other arguments and errors as of run."""
    require_core()
    if isinstance(command, (str, bytes, os.PathLike)):
        raise TypeError("command is a list: the program and its arguments, one by one")
    search = None if env is None else env.get("PATH", os.defpath)
    program, words = _with_interpreter([os.fspath(word) for word in command], folder, search)
    check_can_preload(Path(folder or "", program))
    size = default_limit() if limit is None else checked_limit(limit)
    area = _place(swap)
    _try_out(size, area)
    variables = dict(os.environ if env is None else env)
    variables["USWAP_RUN_LIMIT"] = str(size)
    variables["USWAP_RUN_SWAP"] = os.path.abspath(area.path)
    variables["USWAP_RUN_SWAP_BYTES"] = str(area.size_bytes)
    variables["USWAP_RUN_STATS"] = "1" if stats else "0"
    for name in ("USWAP_RUN_BOARD", "USWAP_RUN_POOL"):
        variables.pop(name, None)
    if shared:
        variables["USWAP_RUN_POOL"] = str(_pool_folder())
    if stats:
        variables["USWAP_RUN_BOARD"] = _NO_BOARD
    others = [path for path in variables.get("LD_PRELOAD", "").replace(":", " ").split() if path != str(_library())]
    variables["LD_PRELOAD"] = ":".join([str(_library()), *others])
    return program, words, variables


def _pool_folder() -> Path:
    """A name for a pool that is nobody's yet; the program's first process makes it (csrc/run/join.c). What programs
    have left that were killed to the last process goes."""
    folder = folder_of(f"run-{os.getpid()}-{secrets.token_hex(8)}")
    sweep(folder)
    return folder


def _library() -> Path:
    if not _LIBRARY.exists():
        raise UnsupportedError(
            "uswap was built without what `uswap run` needs",
            hint="install libjemalloc-dev and binutils (Debian, Ubuntu), and build uswap again",
        )
    if " " in str(_LIBRARY) or ":" in str(_LIBRARY):
        raise UnsupportedError(
            f"the loader takes no library from {str(_LIBRARY.parent)!r}: its path has a space or a colon"
        )
    return _LIBRARY


def _with_interpreter(words: list[str], folder: StrPath | None, search: str | None) -> tuple[str, list[str]]:
    """The program learns its name as it was given, as from a shell."""
    if not words:
        raise ArgumentError("no program was named")
    name = words[0]
    script = os.path.join(folder or "", name)
    if name.endswith(".py") and os.path.isfile(script) and not os.access(script, os.X_OK):
        return sys.executable, [sys.executable, *words]
    if os.path.dirname(name):
        find_program(os.path.join(folder or "", name))
        return name, words
    found = str(find_program(name, search))
    return (os.path.abspath(found) if folder else found), words


def _place(swap: StrPath | SwapArea | None) -> SwapArea:
    area = swap if isinstance(swap, SwapArea) else SwapArea(default_directory() if swap is None else swap)
    if not os.path.exists(area.path):
        raise SwapAreaError(f"there is no directory {os.fspath(area.path)!r} to swap to", path=os.fspath(area.path))
    if not area.is_directory:
        raise SwapAreaError(
            f"{os.fspath(area.path)!r} is no directory",
            path=os.fspath(area.path),
            hint="each process of the program makes a swap file without a name: name the directory for them",
        )
    return area


def _try_out(limit: int, area: SwapArea) -> None:
    """Makes a pool here as the program will: what is wrong with limit, swap or permissions is said before it
    starts."""
    Pool(limit=limit, swap=area, faults="thread", reclaimer=False).close()
