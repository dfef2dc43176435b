"""Policies by name: one table, and module:Class for those of others."""

from __future__ import annotations

import importlib

from uswap._errors import ArgumentError
from uswap.policy.fifo import Fifo
from uswap.policy.interface import Policy

NAMES: dict[str, type[Policy]] = {
    "fifo": Fifo,
}
"""The policies that ship."""


def by_name(name: str) -> type[Policy]:
    """The class of a policy: "fifo" and the like, or "package.module:Class".

    Raises:
        ArgumentError: there is none of that name; the module cannot be imported; it has no such policy.

    Example:
        >>> by_name("fifo"), by_name("uswap.policy.fifo:Fifo")
        (<class 'uswap.policy.fifo.Fifo'>, <class 'uswap.policy.fifo.Fifo'>)
    """
    if ":" in name:
        return _imported(name)
    if name not in NAMES:
        raise ArgumentError(f"there is no policy {name!r}: one of {', '.join(NAMES)}, or module:Class")
    return NAMES[name]


def _imported(name: str) -> type[Policy]:
    module_name, _, class_name = name.partition(":")
    try:
        found = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ArgumentError(f"there is no policy {name!r}: {error}") from error
    if not (isinstance(found, type) and issubclass(found, Policy)):
        raise ArgumentError(f"{name!r} is no policy: it is to be a class derived from uswap.policy.Policy")
    return found
