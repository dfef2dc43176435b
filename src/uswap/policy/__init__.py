"""Which pages leave: the interface (Policy), a queue to build with, and the policies that ship."""

from uswap.policy.by_region import ByRegion, weight_of
from uswap.policy.fifo import Fifo
from uswap.policy.interface import (
    NEVER,
    Answer,
    Batch,
    Need,
    Policy,
    SharedBatch,
    Stays,
    View,
    page_of,
    region_of,
)
from uswap.policy.names import DEFAULT_POLICY, by_name, make_policy
from uswap.policy.queue import Queue
from uswap.policy.s3_fifo import S3Fifo
from uswap.policy.second_chance import SecondChance

__all__ = [
    "DEFAULT_POLICY",
    "NEVER",
    "Answer",
    "Batch",
    "ByRegion",
    "Fifo",
    "Need",
    "Policy",
    "Queue",
    "S3Fifo",
    "SecondChance",
    "SharedBatch",
    "Stays",
    "View",
    "by_name",
    "make_policy",
    "page_of",
    "region_of",
    "weight_of",
]
