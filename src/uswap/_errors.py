"""The exceptions and the warning of uswap, and the one place that turns a status of the core into an
exception."""

from __future__ import annotations

from typing import Any


class UswapWarning(UserWarning):
    """Something works, but not as well or as safely as it could: the message says what and why."""


class UserModeWarning(UswapWarning):
    """userfaultfd is not permitted to this user for faults inside system calls: regions serve their faults
    inline, and a system call on memory that is swapped out fails with EFAULT."""


class UswapError(Exception):
    """Base of every error of uswap. Each child also inherits the built-in exception that fits.

    Attributes:
        operation: what failed ("fallocate", "userfaultfd", ...), or "".
        path: the file or directory concerned, or "".
        errno: the system's error number, or None if no system call failed.
        offset: byte offset in the file or region, or None.
        hint: what to do about it, or "".

    Example:
        >>> import uswap
        >>> try:
        ...     raise uswap.ClosedError("the pool is closed", hint="make a new one")
        ... except ValueError as error:
        ...     print(error)
        the pool is closed (make a new one)
    """

    operation: str
    path: str
    errno: int | None
    offset: int | None
    hint: str

    def __init__(
        self,
        message: str,
        *,
        operation: str = "",
        path: str = "",
        errno: int | None = None,
        offset: int | None = None,
        hint: str = "",
    ) -> None:
        super().__init__(message)
        self.operation = operation
        self.path = path
        self.errno = errno
        self.offset = offset
        self.hint = hint

    def __str__(self) -> str:
        message = str(self.args[0]) if self.args else ""
        return f"{message} ({self.hint})" if self.hint else message

    def __reduce__(self) -> tuple[Any, ...]:
        fields = {name: getattr(self, name) for name in ("operation", "path", "errno", "offset", "hint")}
        return _rebuild, (type(self), self.args[0] if self.args else "", fields)


def _rebuild(kind: type[UswapError], message: str, fields: dict[str, Any]) -> UswapError:
    return kind(message, **fields)


class ArgumentError(UswapError, ValueError):
    """A bad argument; the message says which and why. Nothing has changed."""


class LimitError(UswapError, ValueError):
    """The limit is below the minimum, or below what is locked."""


class OutOfSpaceError(UswapError, MemoryError):
    """No swap space, metadata or address space for this. What exists is untouched."""


class UnsupportedError(UswapError, RuntimeError):
    """The kernel, a container or this version of uswap refuses what is needed; the hint says what would mend
    it."""


class SystemCallError(UswapError, OSError):
    """A system call failed: see operation, path and errno."""


class SwapAreaError(UswapError, OSError):
    """A swap area cannot be used: another pool has it, it holds somebody's data, or its directory is not
    writable."""


class SwapError(UswapError, OSError):
    """Contents could not be read back from swap, or came back damaged; offset says where, errno what: EBADMSG, the
    checksum is wrong; any other, the read failed. Those bytes are lost."""


class ClosedError(UswapError, ValueError):
    """The pool or region is closed."""


class ForkError(UswapError, RuntimeError):
    """Used in a forked child: pools and regions belong to the process that made them."""


class PoolExistsError(UswapError, FileExistsError):
    """Pool(name=): a pool of that name is in use; uswap.attach joins it."""


class PoolNotFoundError(UswapError, FileNotFoundError):
    """attach: no process is in a pool of that name (any more)."""


class CorruptionError(UswapError, AssertionError):
    """The core's own consistency check found a broken invariant. A bug in uswap: please report it."""


class BusyError(UswapError, BlockingIOError):
    """Pinned, locked or in use just now; the message says by what."""


class TraceError(UswapError, ValueError):
    """This is no trace, or a damaged one, or one of another version; path and offset say where."""


class PolicyError(UswapError, RuntimeError):
    """A policy raised, or answered what is no answer, in a simulation; the message names it. (In a live pool its
    error is in pool.reclaimer.error, and the core goes on without it.)"""


class NumpyMissingError(UswapError, ImportError):  # type: ignore[misc]  # path is text in both
    """Arrays were asked for and NumPy is not installed."""


# By the names of uswap_status in csrc/include/uswap_api.h.
_CLASS_OF_STATUS: dict[str, type[UswapError]] = {
    "USWAP_E_INVALID": ArgumentError,
    "USWAP_E_NO_MEMORY": OutOfSpaceError,
    "USWAP_E_UNSUPPORTED": UnsupportedError,
    "USWAP_E_OS": SystemCallError,
    "USWAP_E_IN_USE": SwapAreaError,
    "USWAP_E_NOT_OURS": SwapAreaError,
    "USWAP_E_SWAP_READ": SwapError,
    "USWAP_E_CLOSED": ClosedError,
    "USWAP_E_FORKED": ForkError,
    "USWAP_E_CORRUPT": CorruptionError,
    "USWAP_E_BUSY": BusyError,
    "USWAP_E_LIMIT": LimitError,
}

_HINTS: dict[type[UswapError], str] = {
    UnsupportedError: "`uswap doctor` names each refusal and the command that mends it",
    ForkError: "make a new pool in the child, or attach to a named one there",
}

# Statuses that say something about a place even where that place is offset 0.
_WITH_OFFSET = frozenset({"USWAP_E_SWAP_READ"})


def error_from_status(status: str, detail: str, **fields: Any) -> UswapError:
    """The exception for a status of the core, by the status's name in uswap_api.h; fields as in
    UswapError."""
    kind = _CLASS_OF_STATUS.get(status, UswapError)
    if not fields.get("offset") and status not in _WITH_OFFSET:
        fields["offset"] = None
    message = detail or f"{fields.get('operation') or 'uswap'} failed ({status})"
    return kind(message, hint=_HINTS.get(kind, ""), **fields)
