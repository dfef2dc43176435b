"""faulthandler and inline faults: both want SIGBUS.

The core's handler chains to whatever it finds, but cannot know when something is put in its place: a page touched
before it has looked again would end the process. faulthandler.enable and disable are the two calls that do this
in ordinary programs, so from the first inline region on each of them has the core look at once.
"""

from __future__ import annotations

import faulthandler
import functools
from collections.abc import Callable
from typing import Any

from uswap._core import lib

_guarded = False


def _checked_after(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def then_check(*arguments: Any, **options: Any) -> Any:
        try:
            return function(*arguments, **options)
        finally:
            lib.uswap_signals_check()

    return then_check


def guard() -> None:
    """From now on, faulthandler.enable and disable leave the core's SIGBUS handler on top. Called before each
    inline region."""
    global _guarded
    if not _guarded:
        _guarded = True
        faulthandler.enable = _checked_after(faulthandler.enable)
        faulthandler.disable = _checked_after(faulthandler.disable)
