"""Which pages leave: the interface (Policy), a queue to build with, and the policies that ship."""

from uswap.policy.fifo import Fifo
from uswap.policy.interface import NEVER, Answer, Batch, Need, Policy, Stays, View, page_of, region_of
from uswap.policy.names import by_name
from uswap.policy.queue import Queue

__all__ = [
    "NEVER",
    "Answer",
    "Batch",
    "Fifo",
    "Need",
    "Policy",
    "Queue",
    "Stays",
    "View",
    "by_name",
    "page_of",
    "region_of",
]
