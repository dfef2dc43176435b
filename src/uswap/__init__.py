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
    PoolExistsError,
    PoolNotFoundError,
    SwapAreaError,
    SwapError,
    SystemCallError,
    TraceError,
    UnsupportedError,
    UserModeWarning,
    UswapError,
    UswapWarning,
)
from uswap._group_info import GroupInfo, MemberInfo, PageUser
from uswap._options import SwapArea
from uswap._stats import RegionInfo, Stats, SwapAreaInfo
from uswap._version import __version__
from uswap.auto_limit import AutoLimit
from uswap.limiting import limit
from uswap.policy import Policy
from uswap.pool import Pool, process_pool
from uswap.reclaimer import Reclaimer
from uswap.region import Advice, PageClass, Protection, Region
from uswap.running import run
from uswap.shared_region import SharedRegion
from uswap.sharing import attach, reopen

__all__ = [
    "Advice",
    "ArgumentError",
    "AutoLimit",
    "BusyError",
    "ClosedError",
    "CorruptionError",
    "ForkError",
    "GroupInfo",
    "LimitError",
    "MemberInfo",
    "NumpyMissingError",
    "OutOfSpaceError",
    "PageClass",
    "PageUser",
    "Policy",
    "PolicyError",
    "Pool",
    "PoolExistsError",
    "PoolNotFoundError",
    "Protection",
    "Reclaimer",
    "Region",
    "RegionInfo",
    "Sample",
    "SharedRegion",
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
    "attach",
    "limit",
    "policy",
    "process_pool",
    "reopen",
    "run",
]

_fork.register()
