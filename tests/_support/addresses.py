"""Where regions lie, and things that are put in their way."""

from __future__ import annotations

import uswap
from uswap import _mapping
from uswap._sizes import round_to_pages
from uswap.testing.memory import occupy


def address_of(region: uswap.Region) -> int:
    """The address of its first byte."""
    return _mapping.address_of(region)


def hem_in(region: uswap.Region) -> None:
    """Something of somebody else's behind the region, for good: without a reserve it cannot grow in place."""
    occupy(address_of(region) + round_to_pages(len(region)))
