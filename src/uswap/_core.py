"""The edge to the C core: one pool of the core, how it is called, and when it is freed.

Owns: the core's pool pointer, the count of calls inside it, the ids of its regions. Does not own: mappings
    (region.py).

Freed means: closed, no region left, no call inside. Whoever ends the last of these frees it. Nothing here
takes a lock, because all of it also runs in finalizers, which may interrupt any thread at any point: only
operations that are atomic in CPython (add, discard, append and pop) are used, in an order that makes one
thread, and one only, the last. Where that one is interrupted (an exception of a signal handler comes anywhere),
the next pool that is made, or the next full garbage collection, frees what it has left (``free_what_is_left``);
or the core's own code does, when nothing refers to the Core any more (``capsule``).
"""

from __future__ import annotations

import ctypes
import gc
import logging
import os
import sys
import threading
import weakref
from collections import deque
from typing import TYPE_CHECKING, Any, Protocol

from uswap._errors import ClosedError, UnsupportedError, UswapError, error_from_status

if TYPE_CHECKING:
    from uswap._group import Group
    from uswap._heap import Heap

ffi: Any
lib: Any
_import_failure: ImportError | None = None
try:
    from uswap._uswap import ffi, lib
except ImportError as failure:
    ffi = lib = None
    _import_failure = failure

logger = logging.getLogger("uswap")


class Stoppable(Protocol):
    """A thread that works for a core (reclaimer.py, auto_limit.py)."""

    def request_stop(self) -> None: ...

    def join(self, timeout: float | None = None) -> None: ...


def require_core() -> None:
    """Raises UnsupportedError where the compiled core is missing (not Linux, or not built)."""
    if _import_failure is not None:
        hint = "build it with `pip install .`" if sys.platform.startswith("linux") else "uswap needs Linux"
        raise UnsupportedError(f"the compiled part of uswap cannot be loaded: {_import_failure}", hint=hint)


def new_error() -> Any:
    """A fresh uswap_error to hand to the core."""
    return ffi.new("uswap_error *")


def error_from_core(error: Any, status: int) -> UswapError:
    """The exception for a negative status and the uswap_error that came with it."""
    name = ffi.string(ffi.cast("uswap_status", status))
    return error_from_status(
        name,
        _text(error.detail),
        operation=_text(error.operation),
        path=_text(error.path),
        errno=int(error.os_errno) or None,
        offset=int(error.offset),
    )


_new_capsule = ctypes.pythonapi.PyCapsule_New
_new_capsule.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
_new_capsule.restype = ctypes.py_object

if lib is not None:
    lib.uswap_guards_use(
        *(
            ffi.cast("void *", ctypes.cast(getattr(ctypes.pythonapi, name), ctypes.c_void_p).value)
            for name in ("PyCapsule_GetPointer", "PyEval_SaveThread", "PyEval_RestoreThread")
        )
    )


def capsule(cell: Any, lost: str) -> Any:
    """=> an object at whose end the core's function lost is called with it: no Python code, so no exception of a
    signal handler comes there. It points to the cell, which must live longer."""
    function = ffi.cast("uintptr_t", ffi.addressof(lib, lost))
    return _new_capsule(int(ffi.cast("uintptr_t", cell)), None, int(function))


# What it needs is bound here: it is called while the interpreter ends, when the globals of this module may be
# gone.
def keep_for_ever(
    thing: object, _take: Any = ctypes.pythonapi.Py_IncRef, _as_object: Any = ctypes.py_object
) -> None:
    """Leaks a reference."""
    _take(_as_object(thing))


def check_error(result: int, error: Any) -> int:
    """result, if it is not negative; otherwise raises what it and the uswap_error stand for."""
    if result < 0:
        raise error_from_core(error, result)
    return result


def _text(characters: Any) -> str:
    return str(ffi.string(characters).decode("utf-8", "surrogateescape"))


class Known:
    """What Python knows of a region: its size in bytes as asked for, and its priority, which may change."""

    __slots__ = ("priority", "size")

    def __init__(self, size: int, priority: int) -> None:
        self.size = size
        self.priority = priority


class Call:
    """Somebody is inside a core as long as this object lives, or until Core.leave: so a call that is interrupted
    anywhere counts no longer than its frame.

    Attributes:
        pointer: the uswap_pool *.
        entry: how it stands in Core._calls.
        thread: whose it is.
    """

    __slots__ = ("__weakref__", "entry", "pointer", "thread")

    def __init__(self, pointer: Any, calls: set[weakref.ref[Call]]) -> None:
        self.pointer = pointer
        self.thread = threading.get_ident()
        self.entry = weakref.ref(self, calls.discard)
        calls.add(self.entry)


class Core:
    """A uswap_pool of the core, shared by a Pool, its regions and its threads. Thread-safe.

    Attributes:
        cell: of the uswap_pool *, which the core itself writes when the pool is made and when it ends.
        pointer: the uswap_pool *; valid only between enter and leave.
        regions: cell of a region (_mapping.ManagedMapping) -> what is known of it. An entry lives from before the
            region is created until it is destroyed.
        heaps: id -> each heap (_heap.py) that may have memory of it.
        shared: cell of each mapping of a shared region: the index of its object + 1; 0 before the core knows it.
        group: what makes it a member of a named pool.
        abandoned: the process ends: it is not freed any more.
        closing: no new regions; freed as soon as nothing is left.
        snapshots: a forked child has its private regions.
        inline: regions that name no other way serve their faults inline.
        swapoff_lock: one area is taken out of use at a time.
    """

    __slots__ = (
        "__weakref__",
        "_calls",
        "_guard",
        "_token",
        "abandoned",
        "auto_limit",
        "cell",
        "closing",
        "group",
        "heaps",
        "inline",
        "owner_pid",
        "reclaimer",
        "regions",
        "shared",
        "snapshots",
        "swapoff_lock",
    )

    def __init__(self, pointer: Any = None) -> None:
        """pointer: of a pool that ends with the process; None: create is yet to make one."""
        self.cell = ffi.new("uswap_pool **")
        self._guard: Any = None
        if pointer is not None:
            self.cell[0] = pointer
        self.owner_pid = os.getpid()
        self.regions: dict[Any, Known] = {}
        self.shared: set[Any] = set()
        self.heaps: dict[int, Heap] = {}
        self.group: Group | None = None
        self.abandoned = pointer is not None
        self.closing = False
        self.inline = False
        self.snapshots = True
        self.reclaimer: Stoppable | None = None
        self.auto_limit: Stoppable | None = None
        self.swapoff_lock = threading.Lock()
        self._calls: set[weakref.ref[Call]] = set()
        self._token: deque[None] = deque([None])  # whoever pops it frees the core
        live_cores.add(self)

    def create(self, options: Any) -> None:
        """Makes the pool. Raises as check_error."""
        error = new_error()
        self._guard = self.cell, capsule(self.cell, "uswap_pool_lost")
        check_error(int(lib.uswap_pool_create(options, self.cell, error)), error)

    @property
    def pointer(self) -> Any:
        return self.cell[0]

    @property
    def freed(self) -> bool:
        """True once the core pool is gone (or just going), and before it is there."""
        return not self._token or not self.cell[0]

    @property
    def has_regions(self) -> bool:
        """Whether a region or a shared mapping is left."""
        for cells in (self.regions, self.shared):
            for cell in [cell for cell in list(cells) if not cell[1]]:  # ended by its guard (_mapping)
                self.regions.pop(cell, None)
                self.shared.discard(cell)
        return bool(self.regions or self.shared)

    @property
    def in_use(self) -> bool:
        """Whether a region, a shared mapping or a heap is left."""
        return self.has_regions or bool(self.heaps)

    def check_process(self) -> None:
        """Raises ForkError in a forked child that could not go on with the pool."""
        # A signal handler may fork right after the call: so the process is asked for last, here and elsewhere.
        if self.owner_pid != os.getpid():
            if not self.cell[0]:
                raise ClosedError("the pool is closed")
            error = new_error()
            check_error(int(lib.uswap_pool_check_process(self.pointer, error)), error)
            go_on_in_child()  # the core has, but the interpreter's call of it was interrupted

    def adopt(self, adopted: set[Core]) -> None:
        """In a forked child, before anything else: if the core has gone on with the pool, it is this process's, and
        among those adopted."""
        if self.freed or self.owner_pid == os.getpid():
            return
        if int(lib.uswap_pool_check_process(self.pointer, new_error())) != 0:
            return
        adopted.add(self)
        self.owner_pid = os.getpid()

    def forget_threads(self) -> None:
        """In a forked child: what other threads were at has ended, as they have."""
        self.auto_limit = None
        mine = threading.get_ident()
        for entry in list(self._calls):
            call = entry()
            if call is None or call.thread != mine:  # a signal handler may have forked, within a call
                self._calls.discard(entry)
        self.swapoff_lock = threading.Lock()

    def enter(self) -> Call:
        """=> what holds the pointer, which stays valid until leave. Raises ClosedError, ForkError."""
        self.check_process()
        call = Call(self.pointer, self._calls)
        if self.freed:
            self.leave(call)
            raise ClosedError("the pool is closed")
        return call

    def leave(self, call: Call) -> None:
        """Ends what enter began; the last one out frees a closed core."""
        self._calls.discard(call.entry)
        if self.closing:
            self.free_if_unused()

    def abandon(self) -> None:
        """The process ends: the pool stays as it is."""
        self.abandoned = True
        keep_for_ever(self._guard)

    def call(self, function: Any, *arguments: Any) -> int:
        """function(pool, *arguments, error), with the GIL released; => its result. Raises what a negative one
        means."""
        error = new_error()
        call = self.enter()
        try:
            result = int(function(call.pointer, *arguments, error))
        finally:
            self.leave(call)
        return check_error(result, error)

    def close(self) -> None:
        """No new regions from here on; frees the core as soon as nothing uses it. Never waits."""
        self.closing = True
        _closing.add(self)
        for heap in list(self.heaps.values()):
            heap.let_go()
        self.free_if_unused()

    def free_if_unused(self) -> None:
        """Frees the core if it is closed and nothing is left in it. May be called by anybody, at any time."""
        if not self.closing or self.in_use or self.owner_pid != os.getpid():
            return
        for thread in (self.auto_limit, self.reclaimer):
            if thread is not None:
                thread.request_stop()  # it then leaves, and comes by here
        if self._calls or self.abandoned:
            return
        try:
            self._token.pop()
        except IndexError:
            return
        if self._calls:
            # Somebody entered before the token was gone. It frees the core when it leaves; or, if it left
            # between these two lines without finding the token, it is up to us again.
            self._token.append(None)
            if not self._calls:
                self.free_if_unused()
            return
        error = new_error()
        status = int(lib.uswap_pool_end(self.cell, error))
        if status < 0:
            logger.error("a pool could not be freed: %s", error_from_core(error, status))
        if self.group is not None:
            self.group.left()
        _closing.discard(self)


def go_on_in_child() -> None:
    """_fork.in_child, which knows all that a pool has."""
    from uswap import _fork

    _fork.in_child()


live_cores: weakref.WeakSet[Core] = weakref.WeakSet()
_closing: set[Core] = set()


def free_what_is_left() -> None:
    """Frees the closed cores whose last user was interrupted before it could."""
    for core in list(_closing):
        if core.freed or core.owner_pid != os.getpid():
            _closing.discard(core)
        else:
            core.free_if_unused()


def _after_collection(phase: str, info: dict[str, int]) -> None:
    if phase == "stop" and info["generation"] == 2 and _closing:
        free_what_is_left()


gc.callbacks.append(_after_collection)
