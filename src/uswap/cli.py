"""The command line: a table of verbs, each a file in commands/, imported when it is used."""

from __future__ import annotations

import argparse
import importlib
import sys
import warnings
from collections.abc import Sequence
from typing import TextIO

from uswap._errors import UswapWarning
from uswap._version import __version__

# verb -> what `uswap --help` says of it
VERBS = {
    "doctor": "what this machine can do for uswap, and the command that mends what it cannot",
    "bench": "read-ahead on a real disk: patterns, windows and depths beside the disk itself and kernel swap",
    "simulate": "what other policies and limits would have made of a recorded run: misses, miss ratio, rescues",
    "curve": "how much memory a recorded program needs: misses and time for limits from small to all its pages",
    "ls": "this user's named pools: processes, limits, memory, shared regions, and what is stale",
    "clean": "remove what named pools have left behind whose processes were all killed; never what lives",
    "fuzz": "programs at random against a model of memory, for a policy of one's own (needs Hypothesis)",
    "run": "an unmodified program whose memory is limited: malloc and mmap are served by uswap",
    "demo": "sort and group an array four times its limit, and check the answer (needs NumPy)",
}


def make_parser(verb: str | None = None) -> argparse.ArgumentParser:
    """The parser; only the named verb's own arguments are loaded."""
    parser = argparse.ArgumentParser(prog="uswap", description="User-space swapping for Python programs.")
    parser.add_argument("--version", action="version", version=f"uswap {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="COMMAND", required=True)
    for name, summary in VERBS.items():
        command = verbs.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".")
        if name == verb:
            importlib.import_module(f"uswap.commands.{name}").add_arguments(command)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one verb; => the exit status (2 for bad usage, as argparse)."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    verb = next((word for word in words if word in VERBS), None)
    options = make_parser(verb).parse_args(words)
    module = importlib.import_module(f"uswap.commands.{options.verb}")
    if arguments is None:
        _warn_in_a_line(options.verb)
    return int(module.run(options))


def _warn_in_a_line(verb: str) -> None:
    """Our warnings are for the user of the command line: he has no use for a place in Python's source."""
    other = warnings.showwarning

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if issubclass(category, UswapWarning):
            print(f"uswap {verb}: {message}", file=file or sys.stderr)
        else:
            other(message, category, filename, lineno, file, line)

    warnings.showwarning = show
