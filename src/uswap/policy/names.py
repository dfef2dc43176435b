"""Policies by name: those that ship, and "module:Class" for a user's own."""

from __future__ import annotations

import importlib

from uswap.policy.fifo import Fifo
from uswap.policy.interface import Policy
from uswap.policy.second_chance import SecondChance

POLICIES: dict[str, type[Policy]] = {"second-chance": SecondChance, "fifo": Fifo}


def by_name(name: str) -> type[Policy]:
    """The policy class of that name. Raises ValueError, listing the names; ImportError, AttributeError for a
    "module:Class" that is not there."""
    module, colon, attribute = name.partition(":")
    found: object = getattr(importlib.import_module(module), attribute) if colon else POLICIES.get(name)
    if not (isinstance(found, type) and issubclass(found, Policy)):
        known = ", ".join(map(repr, POLICIES))
        raise ValueError(
            f"there is no policy {name!r}: it must be one of {known}, or module:Class of a uswap.Policy"
        )
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
