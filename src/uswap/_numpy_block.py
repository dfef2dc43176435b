"""A with block, or a decorated function, in which NumPy allocates from a pool.

NumPy keeps its handler in a context variable, so this is a matter of contexts (PEP 567): the block is in force for
the thread or the asyncio task that entered it, and for tasks made inside.
"""

from __future__ import annotations

import abc
import contextvars
import functools
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar, cast

from uswap._errors import ClosedError
from uswap._heap import Heap
from uswap._numpy_handler import numpy_api

if TYPE_CHECKING:
    from uswap.pool import Pool

Function = TypeVar("Function", bound=Callable[..., Any])

# (block, the handler before it) of each block that this context is inside, innermost last.
_Inside = tuple[tuple["NumpyBlock", Any], ...]
_inside: contextvars.ContextVar[_Inside] = contextvars.ContextVar("uswap_numpy_blocks", default=())


class NumpyBlock(abc.ABC):
    """Base of what Pool.numpy and uswap.limit return. It may be entered any number of times, also while it is
    entered already, and by several threads."""

    @abc.abstractmethod
    def _begin(self) -> tuple[Pool, Heap]:
        """The pool, and its heap, that NumPy is to allocate from. Each call is followed by one of _end."""

    @abc.abstractmethod
    def _end(self) -> None:
        """A block has been left."""

    def __enter__(self) -> Pool:
        """=> the pool. Raises as Pool.numpy."""
        set_handler = numpy_api().set_handler
        pool, heap = self._begin()
        capsule = heap.capsule
        if capsule is None:  # another thread is just closing the pool
            self._end()
            raise ClosedError("the pool is closed to new arrays")
        _inside.set((*_inside.get(), (self, set_handler(capsule))))
        return pool

    def __exit__(self, *_: object) -> None:
        """Raises RuntimeError if this context is not inside the block, or inside another one that it entered since;
        nothing has changed then."""
        inside = _inside.get()
        if not inside or inside[-1][0] is not self:
            raise RuntimeError(
                "this block of NumPy's allocations was entered by another thread or task, or blocks entered later "
                "have not been left: leave it where it was entered, in a with statement"
            )
        _inside.set(inside[:-1])
        numpy_api().set_handler(inside[-1][1])
        self._end()

    def __call__(self, function: Function) -> Function:
        """As a decorator: each call of function, or each await of a coroutine function, is a block of its own.

        Raises:
            TypeError: function is a generator function: its body runs a piece at a time, between which the block
                would be in force for the caller.
        """
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise TypeError(
                f"{function.__qualname__} is a generator function, whose caller would be inside the block as well: "
                "put the with statement around the loop over it"
            )
        if inspect.iscoroutinefunction(function):
            return cast("Function", self._around_coroutine(function))

        @functools.wraps(function)
        def inside(*arguments: Any, **options: Any) -> Any:
            with self:
                return function(*arguments, **options)

        return cast("Function", inside)

    def _around_coroutine(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        async def inside(*arguments: Any, **options: Any) -> Any:
            with self:
                return await function(*arguments, **options)

        return inside


class PoolBlock(NumpyBlock):
    """What Pool.numpy returns."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    def _begin(self) -> tuple[Pool, Heap]:
        return self._pool, self._pool._heap.get()

    def _end(self) -> None:
        """The pool is not this block's to end."""
