"""Policies by name: one table, and module:Class for those of others."""

from __future__ import annotations

import importlib

from uswap._errors import ArgumentError
from uswap.policy.by_region import ByRegion
from uswap.policy.fifo import Fifo
from uswap.policy.interface import Policy
from uswap.policy.s3_fifo import S3Fifo
from uswap.policy.second_chance import SecondChance

NAMES: dict[str, type[Policy]] = {
    "second-chance": SecondChance,
    "s3-fifo": S3Fifo,
    "fifo": Fifo,
    "by-region": ByRegion,
}
"""The policies that ship."""

DEFAULT_POLICY = "second-chance"


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


def make_policy(policy: Policy | type[Policy] | str | None) -> Policy | None:
    """What Pool(policy=...) means. Raises as by_name; TypeError for what is no policy."""
    if isinstance(policy, str):
        policy = by_name(policy)
    if isinstance(policy, type) and issubclass(policy, Policy):
        policy = policy()
    if policy is None or isinstance(policy, Policy):
        return policy
    raise TypeError(f"policy must be a uswap.Policy or the name of one, not {type(policy).__name__}")
