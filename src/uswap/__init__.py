"""uswap: a hard limit on the resident memory of a Python program, with a swap of its own.

    import uswap
    with uswap.Pool(limit="512MiB") as pool:
        a = pool.zeros((1 << 28,), dtype="f8")     # 2 GiB; at most 512 MiB of it are in memory

Only Pool needs Linux and the compiled core; importing works anywhere.
"""

from uswap import _fork, policy
from uswap._auto_rules import Sample
from uswap._errors import (
    ArgumentError,
    BusyError,
    ClosedError,
    CorruptionError,
    ForkError,
    LimitError,
    NumpyMissingError,
    OutOfSpaceError,
    PolicyError,
    SwapAreaError,
    SwapError,
    SystemCallError,
    TraceError,
    UnsupportedError,
    UserModeWarning,
    UswapError,
    UswapWarning,
)
from uswap._options import SwapArea
from uswap._stats import RegionInfo, Stats, SwapAreaInfo
from uswap._version import __version__
from uswap.auto_limit import AutoLimit
from uswap.policy import Policy
from uswap.pool import Pool
from uswap.reclaimer import Reclaimer
from uswap.region import Advice, PageClass, Protection, Region

__all__ = [
    "Advice",
    "ArgumentError",
    "AutoLimit",
    "BusyError",
    "ClosedError",
    "CorruptionError",
    "ForkError",
    "LimitError",
    "NumpyMissingError",
    "OutOfSpaceError",
    "PageClass",
    "Policy",
    "PolicyError",
    "Pool",
    "Protection",
    "Reclaimer",
    "Region",
    "RegionInfo",
    "Sample",
    "Stats",
    "SwapArea",
    "SwapAreaError",
    "SwapAreaInfo",
    "SwapError",
    "SystemCallError",
    "TraceError",
    "UnsupportedError",
    "UserModeWarning",
    "UswapError",
    "UswapWarning",
    "__version__",
    "policy",
]

_fork.register()
