"""uswap run: an unmodified program, whose memory is limited."""

from __future__ import annotations

import argparse
import os
import sys

from uswap._errors import UswapError
from uswap._options import SwapArea
from uswap.running import prepare


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """--limit, --swap, --swap-size, --shared, --stats; the program and its arguments."""
    parser.usage = (
        "uswap run [--limit SIZE] [--swap DIR] [--swap-size SIZE] [--shared] [--stats] -- PROGRAM [ARGUMENT ...]"
    )
    parser.add_argument(
        "--limit",
        metavar="SIZE",
        help="resident memory of each process, as 512MiB (default: $USWAP_LIMIT, or what is free less a margin)",
    )
    parser.add_argument(
        "--swap",
        metavar="DIR",
        help="where the swap files lie, which have no name (default: $USWAP_DIR, /var/tmp, ...)",
    )
    parser.add_argument(
        "--swap-size", metavar="SIZE", help="how large that of a process may grow (default: 90 %% of the free disk)"
    )
    parser.add_argument("--stats", action="store_true", help="say at the end of each process what it came to")
    parser.add_argument(
        "--shared", action="store_true", help="one limit for all processes together, instead of one for each"
    )
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="PROGRAM", help="and its arguments")


def run(options: argparse.Namespace) -> int:
    """Becomes the program; => 2 if that cannot be."""
    words = options.command[1:] if options.command[:1] == ["--"] else options.command
    try:
        swap = options.swap
        if options.swap_size is not None:
            from uswap._options import default_directory

            swap = SwapArea(swap or default_directory(), size=options.swap_size)
        program, arguments, variables = prepare(
            words, limit=options.limit, swap=swap, stats=options.stats, shared=options.shared
        )
        sys.stdout.flush()
        os.execve(program, arguments, variables)
    except (UswapError, ValueError, OSError) as error:
        print(f"uswap run: {error}", file=sys.stderr)
    return 2
