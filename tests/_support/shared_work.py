"""What worker processes do with what they are sent: importable, so that it pickles."""

from __future__ import annotations

import os
from typing import Any

import uswap


def total(array: Any) -> tuple[str, float, int]:
    """=> the class of what came, the sum, and how many processes have its region."""
    region = array.region
    users = 0 if region is None else len(region.users(0))
    return type(array).__name__, float(array.sum()), users


def add(array: Any, value: float) -> int:
    """Adds in place; => this process's number."""
    array += value
    return os.getpid()


def fill_region(region: uswap.SharedRegion, text: bytes) -> tuple[int, bool]:
    """=> (this process's number, whether both of two references are one object)."""
    region[: len(text)] = text
    ((pool,),) = uswap.sharing._joined.values()
    found = pool()
    assert found is not None
    return os.getpid(), found.attach_region(os.getpid(), region.id) is region


def reopened(array: Any, value: float) -> None:
    """In a child that inherited the array: not its memory."""
    assert type(array).__name__ == "SharedArray"
    again = uswap.reopen(array)
    assert again is not array
    again += value
    uswap.reopen(array.region)[:1]
