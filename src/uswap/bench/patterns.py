"""The access patterns of `uswap bench`, and the disk job that each is held against."""

from __future__ import annotations

from dataclasses import dataclass

PAGE = 4096


@dataclass(frozen=True)
class DiskJob:
    """A job for the disk by itself: block_pages pages a request, depth requests in flight."""

    block_pages: int
    depth: int
    write: bool = False
    random: bool = False

    @property
    def name(self) -> str:
        """Such as "read 1024 KiB x 8".

        Example:
            >>> DiskJob(1, 32, random=True).name
            'random read 4 KiB x 32'
        """
        kind = ("random " if self.random else "") + ("write" if self.write else "read")
        return f"{kind} {self.block_pages * PAGE >> 10} KiB x {self.depth}"


@dataclass(frozen=True)
class Pattern:
    """An order of pages, and what is done with each.

    Attributes:
        order, access: names of uswap_bench_order and uswap_bench_access (csrc/include/uswap_api.h) without prefix.
        step: pages of a stride, or the number of streams.
        share: accesses, as a share of the region's pages.
        disk: what the disk is asked for beside it.
        summary: for people.
    """

    order: str
    access: str
    disk: DiskJob
    summary: str
    step: int = 1
    share: float = 1.0
    exponent: float = 0.99


_STREAM = DiskJob(256, 8)
_ONE = DiskJob(1, 1, random=True)

# In the order in which they run.
PATTERNS: dict[str, Pattern] = {
    "fill": Pattern(
        "SEQUENTIAL", "FILL", DiskJob(256, 8, write=True), "the first touch: writes all words, in order"
    ),
    "sequential": Pattern("SEQUENTIAL", "READ", _STREAM, "reads all words, in order"),
    "backward": Pattern("BACKWARD", "READ", _STREAM, "reads all words, last page first"),
    "streams": Pattern("STREAMS", "READ", _STREAM, "reads all words of four parts, a page of each in turn", step=4),
    "rmw": Pattern("SEQUENTIAL", "ADD", _STREAM, "adds 1 to all words, in order"),
    "stride": Pattern(
        "STRIDE", "TOUCH", DiskJob(1, 32, random=True), "reads a word of every 16th page", step=16, share=0.5
    ),
    "random": Pattern("RANDOM", "TOUCH", _ONE, "reads a word of random pages", share=0.5),
    "zipf": Pattern("ZIPF", "TOUCH", _ONE, "reads a word of pages with Zipf's popularity (0.99)", share=1.0),
}


def pattern_named(text: str) -> Pattern:
    """The pattern of this name; "stride:N", "streams:N" and "zipf:S" set the stride (pages), the number of streams
    and the exponent.

    Raises:
        ValueError: there is none, or the number makes no sense.

    Example:
        >>> pattern_named("stride:64").step
        64
    """
    name, colon, number = text.partition(":")
    pattern = PATTERNS.get(name)
    if pattern is None:
        raise ValueError(f"there is no pattern {name!r}; there are {', '.join(PATTERNS)}")
    if not colon:
        return pattern
    fields = dict(vars(pattern))
    try:
        if name == "zipf":
            fields["exponent"] = float(number)
            sensible = 0 < fields["exponent"] < 4 and fields["exponent"] != 1
        else:
            fields["step"] = int(number)
            sensible = name in ("stride", "streams") and 1 <= fields["step"] <= 65536
    except ValueError:
        sensible = False
    if not sensible:
        raise ValueError(f"{text!r}: stride:PAGES, streams:NUMBER (1 to 65536) or zipf:EXPONENT (0 to 4, not 1)")
    return Pattern(**fields)
