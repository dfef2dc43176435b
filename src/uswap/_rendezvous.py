"""Where named pools meet: their folders, who may get in, and the lock under which they come and go.

The folder of the pool "jobs" is ``<runtime>/jobs``; the core keeps its sockets there. ``<runtime>/jobs.lock`` is
held (flock) while the pool is made or cleaned up after (csrc/run/pool_lock.c does so, too); those who join share
it, so that one who is stopped meanwhile keeps no other from joining. Everything is this user's alone: a folder or
link of anybody else is refused, never used or removed.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import io
import os
import re
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from uswap._errors import (
    ArgumentError,
    BusyError,
    ClosedError,
    PoolExistsError,
    PoolNotFoundError,
    SystemCallError,
    UswapError,
)
from uswap._group_look import is_alive, is_deserted

_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,62}", re.ASCII)
_LOCK_SUFFIX = ".lock"
# Of a socket's path, 107 bytes: the rest is for the names that the core makes in the folder.
_FOLDER_BYTES = 88
# A lock that is held for longer belongs to a process that is stopped.
_LOCK_SECONDS = 10.0
# The kernel has no flock with a time limit, and a thread that blocks in one cannot be called back when whoever has
# the lock is stopped, which gives no sign. So it is asked for again.
_LOCK_POLL_SECONDS = 0.005


def checked_pool_name(name: str) -> str:
    """name, if it can be a pool's: 1 to 63 of A-Z a-z 0-9 . _ -, not beginning with "." nor ending with ".lock".

    Raises:
        ArgumentError (a ValueError), TypeError.

    Example:
        >>> checked_pool_name("jobs-1")
        'jobs-1'
    """
    if not isinstance(name, str):
        raise TypeError(f"a pool's name must be text, not {type(name).__name__}")
    if not _NAME.fullmatch(name) or name.endswith(_LOCK_SUFFIX):
        raise ArgumentError(
            f"a pool cannot be named {name!r}: 1 to 63 of A-Z a-z 0-9 . _ -, not beginning with '.' nor ending with"
            " '.lock'"
        )
    return name


# ---- the runtime folder ------------------------------------------------------------------------------------


def runtime_folder(*, make: bool = True) -> Path:
    """The folder of this user's named pools: $USWAP_RUNTIME_DIR, $XDG_RUNTIME_DIR/uswap, /run/user/<uid>/uswap,
    /run/uswap (root), or uswap-<uid> in the directory for temporary files: the first whose place is there.

    make: it is made if it is missing, mode 0700.

    Raises:
        SystemCallError: it cannot be made, or is not a real directory, of this user and closed to others.
    """
    folder = _chosen_folder()
    if make:
        with contextlib.suppress(FileExistsError):
            try:
                os.mkdir(folder, 0o700)
            except FileNotFoundError as error:
                raise SystemCallError(
                    f"the directory {str(folder.parent)!r} for named pools does not exist",
                    path=str(folder.parent),
                    errno=error.errno,
                ) from error
            except PermissionError as error:
                raise SystemCallError(
                    f"{folder} cannot be made: {error.strerror}",
                    path=str(folder),
                    errno=error.errno,
                    hint="set USWAP_RUNTIME_DIR to a directory of this user, for named pools alone",
                ) from error
    elif not os.path.lexists(folder):
        return folder
    _check_ours(folder)
    return folder


def _chosen_folder() -> Path:
    named = os.environ.get("USWAP_RUNTIME_DIR", "")
    if named:
        return Path(named).absolute()
    user = os.geteuid()
    places = [Path(f"/run/user/{user}")]
    session = os.environ.get("XDG_RUNTIME_DIR", "")
    if os.path.isabs(session):
        places.insert(0, Path(session))
    if user == 0:
        places.append(Path("/run"))
    for place in places:
        if _is_own_directory(place) and os.access(place, os.W_OK | os.X_OK):
            return place / "uswap"
    return Path(tempfile.gettempdir()) / f"uswap-{user}"


def _is_own_directory(path: Path) -> bool:
    try:
        found = path.stat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()


def _check_ours(folder: Path) -> None:
    """That it is a directory and no link, this user's, and closed to all others: it is closed, if that is all that
    lacks. Raises SystemCallError."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        refused = error.errno in (errno.ELOOP, errno.ENOTDIR)
        reason = "it is a link, or no directory" if refused else error.strerror
        raise SystemCallError(f"{folder} is not used: {reason}", path=str(folder), errno=error.errno) from error
    try:
        found = os.fstat(descriptor)
        if found.st_uid != os.geteuid():
            raise SystemCallError(
                f"{folder} is not used: it belongs to user {found.st_uid}, not {os.geteuid()}",
                path=str(folder),
                hint="set USWAP_RUNTIME_DIR to a directory of this user, for named pools alone",
            )
        if stat.S_IMODE(found.st_mode) != 0o700:
            os.fchmod(descriptor, 0o700)
    finally:
        os.close(descriptor)


def folder_of(name: str, *, make: bool = True) -> Path:
    """The folder of a named pool, whether it is there or not; make: the runtime folder is. Raises as
    checked_pool_name and runtime_folder; ArgumentError if sockets in it would have too long a path."""
    folder = runtime_folder(make=make) / checked_pool_name(name)
    if len(os.fsencode(folder)) > _FOLDER_BYTES:
        raise ArgumentError(
            f"the path {str(folder)!r} is too long for sockets: {_FOLDER_BYTES} bytes at most",
            hint="a shorter name, or USWAP_RUNTIME_DIR",
        )
    return folder


def pool_folders() -> list[Path]:
    """The folders of all named pools of this user, alive or stale, by name. Raises SystemCallError as
    runtime_folder."""
    runtime = runtime_folder(make=False)
    if not runtime.is_dir():
        return []
    return sorted(entry for entry in runtime.iterdir() if is_pool_folder(entry))


def is_pool_folder(path: Path) -> bool:
    """Whether it can be one of ours: a directory of this user with a pool's name, and nothing but sockets in it."""
    try:
        found = path.lstat()
    except OSError:
        return False
    named = bool(_NAME.fullmatch(path.name)) and not path.name.endswith(_LOCK_SUFFIX)
    ours = named and stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()
    return ours and _stranger_in(path) is None


def _stranger_in(folder: Path) -> str | None:
    """The name of something in it that no pool makes: the runtime folder may be one that its user has for other
    things, too."""
    # One that has gone, or cannot be looked into: who wants to use it is told why.
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):
                if not stat.S_ISSOCK(entry.stat(follow_symlinks=False).st_mode):
                    return entry.name
    return None


def _check_content(folder: Path) -> None:
    stranger = None if folder.is_symlink() else _stranger_in(folder)
    if stranger is not None:
        raise SystemCallError(
            f"{folder} is neither used nor removed: no pool has made {stranger!r} in it",
            path=str(folder),
            errno=errno.ENOTEMPTY,
            hint="another name, or USWAP_RUNTIME_DIR: a directory for named pools alone",
        )


# ---- the lock ----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def locked(folder: Path, *, wait: float = _LOCK_SECONDS, shared: bool = False) -> Iterator[None]:
    """Inside the with block nobody else makes or cleans up that pool; or joins it, unless both say shared. The lock
    file goes when the pool's folder is not there at the end, with the last who has it.

    Raises:
        BusyError: somebody has had it for more than wait seconds (he is stopped). SystemCallError: it cannot be
            made.
    """
    path = folder.with_name(folder.name + _LOCK_SUFFIX)
    # The file is this frame's alone: wherever an exception of a signal handler ends it, the lock ends too.
    file = _lock(path, time.monotonic() + wait, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
    try:
        yield
    finally:
        # Still held: who opened this file meanwhile finds, when he gets it, that it is not the one of that name any
        # more.
        if not os.path.lexists(folder):
            with contextlib.suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # others may share it yet
                os.unlink(path)
        # A child forked meanwhile has the descriptor too: closing ours alone would not end the lock.
        fcntl.flock(file, fcntl.LOCK_UN)
        file.close()
        # The last member may have left, and removed the folder, between the look above and the end of the lock: he
        # did not wait for it, so the file is left to us.
        forget_lock(folder)


class _LockFile(io.FileIO):
    """A descriptor that is closed with its last reference. To leave that to Python is meant: no ResourceWarning."""

    def __del__(self) -> None:
        self.close()


def _open_lock(path: str, _: int) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def _lock(path: Path, deadline: float, kind: int) -> _LockFile:
    while True:
        try:
            file = _LockFile(path, "r+", opener=_open_lock)
        except OSError as error:
            raise SystemCallError(
                f"the lock file {path} cannot be made: {error.strerror}", path=str(path), errno=error.errno
            ) from error
        if _flock_until(file, deadline, kind) and _is_at(file, path):
            return file
        file.close()
        if time.monotonic() >= deadline:
            raise BusyError(
                f"{path} is locked: another process has been making, joining or cleaning up this pool for long",
                path=str(path),
                hint="is it stopped?",
            )


def _flock_until(file: _LockFile, deadline: float, kind: int) -> bool:
    while True:
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(_LOCK_POLL_SECONDS)
        else:
            return True


def _is_at(file: _LockFile, path: Path) -> bool:
    try:
        there = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return os.path.samestat(os.fstat(file.fileno()), there)


# ---- coming and going --------------------------------------------------------------------------------------


@contextlib.contextmanager
def making(name: str) -> Iterator[Path]:
    """Inside the with block, the caller makes the pool in the empty folder that this gives; if it raises, the
    folder goes.

    Raises:
        PoolExistsError: a pool of that name has living members. Otherwise as folder_of and locked.
    """
    folder = folder_of(name)
    sweep(folder)
    _check_content(folder)
    with locked(folder):
        if os.path.lexists(folder):
            _check_ours(folder)
            if is_alive(folder):
                raise PoolExistsError(
                    f"there is a pool {name!r} already", path=str(folder), hint=f"uswap.attach({name!r}) joins it"
                )
            remove(folder)
        os.mkdir(folder, 0o700)
        try:
            yield folder
        except BaseException:
            remove(folder)
            raise


@contextlib.contextmanager
def joining(name: str) -> Iterator[Path]:
    """Inside the with block, the caller joins the pool in the folder that this gives.

    Raises:
        PoolNotFoundError: no pool of that name has a living member. Otherwise as folder_of and locked.
    """
    folder = folder_of(name)
    sweep(folder)
    if not os.path.lexists(folder):
        raise _not_found(name, folder)
    _check_content(folder)
    with locked(folder, shared=True):
        if not os.path.lexists(folder):
            raise _not_found(name, folder)
        try:
            _check_ours(folder)
        except SystemCallError as error:
            if error.errno != errno.ENOENT:
                raise
            raise _not_found(name, folder) from error
        if not is_alive(folder):
            raise _not_found(name, folder)
        try:
            yield folder
        except ClosedError as error:  # the last one has left meanwhile: he takes no lock for that
            raise _not_found(name, folder) from error


def _not_found(name: str, folder: Path) -> PoolNotFoundError:
    return PoolNotFoundError(
        f"no pool {name!r} is in use", path=str(folder), hint=f"uswap.Pool(name={name!r}, limit=...) makes one"
    )


def remove(folder: Path) -> None:
    """Removes a pool's folder and what is in it. Context: locked; nobody alive is in it. Raises SystemCallError:
    nothing is removed, if there is anything in it that no pool makes."""
    _check_content(folder)
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        for entry in os.listdir(descriptor):
            os.unlink(entry, dir_fd=descriptor)
        os.rmdir(folder)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise SystemCallError(
            f"{folder} cannot be removed: {error.strerror}", path=str(folder), errno=error.errno
        ) from error
    finally:
        os.close(descriptor)


def clean(folder: Path) -> bool:
    """Removes a folder whose pool has no living member, and its lock file; => whether it was stale. Raises
    BusyError, SystemCallError, as locked and remove."""
    with locked(folder):
        if not os.path.lexists(folder):
            return False
        _check_ours(folder)
        if is_alive(folder):
            return False
        remove(folder)
    return True


def sweep(but: Path) -> None:
    """What pools have left behind whose processes have all ended without a chance to clean up (killed, or by
    os._exit) goes; but not that folder, which the caller sees to. Waits for nobody, never raises: what cannot be
    told, or is in somebody's hands, stays."""
    with contextlib.suppress(UswapError, OSError):
        for lock in stale_locks():
            forget_lock(lock.with_suffix(""))
        for folder in pool_folders():
            if folder == but:
                continue
            with contextlib.suppress(UswapError, OSError), locked(folder, wait=0):
                if is_deserted(folder):
                    remove(folder)


def forget_lock(folder: Path) -> None:
    """After the last member has left: the lock file goes with the folder. Never waits, never raises."""
    with contextlib.suppress(OSError, BusyError):
        if not os.path.lexists(folder) and os.path.lexists(folder.with_name(folder.name + _LOCK_SUFFIX)):
            with locked(folder, wait=0):
                pass


def stale_locks() -> list[Path]:
    """Lock files without a pool's folder."""
    runtime = runtime_folder(make=False)
    if not runtime.is_dir():
        return []
    return sorted(
        lock
        for lock in runtime.glob("*" + _LOCK_SUFFIX)
        if not os.path.lexists(lock.with_suffix("")) and lock.is_file()
    )
