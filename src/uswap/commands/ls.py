"""uswap ls: this user's named pools, their processes and shared regions, and what is stale."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from uswap._core import require_core
from uswap._errors import UswapError
from uswap._group_look import Look
from uswap._rendezvous import runtime_folder, stale_locks
from uswap._sizes import format_size
from uswap.commands._pools import Found, find_pools

# Longer than a running process takes to look around, whatever else the machine does.
_STOPPED_SECONDS = 5.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """--json."""
    parser.add_argument("--json", action="store_true", help="every figure as JSON on standard output")


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """The first row is the head; the first column is aligned to the left, the others to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  "
        + "  ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _printable(name: str) -> str:
    """Of a region, which may have any name: nothing that a terminal obeys."""
    return name if name.isprintable() else ascii(name)


def _describe(name: str, seen: Look) -> list[str]:
    group = seen.group
    limit, free, for_shared, resident, swapped = map(
        format_size,
        (
            group.limit_bytes,
            group.free_bytes,
            group.shared_limit_bytes,
            group.shared_resident_bytes,
            group.shared_swap_used_bytes,
        ),
    )
    said = f"limit {limit}, of which {for_shared} for shared pages and {free} free"
    lines = [f"{name}: {said}; shared pages: {resident} in memory, {swapped} in swap"]
    rows = [["member", "state", "part", "used"]]
    for member in seen.members:
        stopped = member.state == "alive" and member.silent_seconds > _STOPPED_SECONDS
        state = f"silent for {member.silent_seconds:.0f} s" if stopped else member.state
        rows.append([str(member.pid or "-"), state, format_size(member.limit), format_size(member.used)])
    lines += _aligned(rows)
    if seen.regions:
        rows = [["region", "size", "resident", "swapped", "locked", "faults", "lost pages", "users", "made by"]]
        for region in seen.regions:
            sizes = [format_size(size) for size in (region.size, region.resident, region.swapped, region.locked)]
            counts = [str(count) for count in (region.faults, region.poisoned_pages, region.users)]
            rows.append(
                [_printable(region.name) or str(region.id), *sizes, *counts, str(region.creator_pid or "-")]
            )
        lines += _aligned(rows)
    return lines


def _text(found: list[Found], locks: list[str]) -> str:
    if not found and not locks:
        return f"no named pools in {runtime_folder(make=False)}"
    lines = []
    for pool in found:
        if pool.seen is not None:
            lines += _describe(pool.folder.name, pool.seen)
        else:
            lines.append(f"{pool.folder.name}: {pool.problem or 'stale: no living process is in it'}")
    lines += [f"{lock}: stale: a lock without a pool" for lock in locks]
    if locks or any(pool.stale for pool in found):
        lines.append("`uswap clean` removes what is stale")
    return "\n".join(lines)


def run(options: argparse.Namespace) -> int:
    """=> 0; 2 if nothing can be said."""
    try:
        require_core()
        found, locks = find_pools(), [str(lock) for lock in stale_locks()]
    except (UswapError, OSError) as error:
        print(f"uswap ls: {error}", file=sys.stderr)
        return 2
    if options.json:
        print(json.dumps({"pools": [pool.as_dict() for pool in found], "stale_locks": locks}, indent=2))
    else:
        print(_text(found, locks))
    return 0
