"""What the verbs that read traces have in common: their arguments, and what they say of a trace."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from uswap._errors import ArgumentError
from uswap._sizes import format_size, parse_size
from uswap.policy import by_name
from uswap.trace import Trace
from uswap.trace.simulator import CORE


def add_common_arguments(parser: argparse.ArgumentParser, policies: str) -> None:
    """TRACE, --policy, --sample, --json; policies: the default, separated by commas."""
    parser.add_argument("trace", help="a trace file")
    parser.add_argument(
        "--policy",
        action="append",
        metavar="NAME",
        help="core (what is done without a policy), fifo, ... or module:Class; may be given several times, or with "
        f"commas (default: {policies})",
    )
    parser.add_argument("--sample", type=float, metavar="SHARE", help="simulate only so large a share of the pages")
    parser.add_argument("--json", action="store_true", help="every figure as JSON on standard output")
    parser.set_defaults(default_policies=policies)


def words_of(texts: list[str] | None, default: str = "") -> list[str]:
    """What was given, taken apart at commas, each once, in order."""
    words = [word.strip() for text in texts or [default] for word in text.split(",")]
    return list(dict.fromkeys(word for word in words if word))


def policies_of(options: argparse.Namespace) -> list[str]:
    """The names; modules are looked for in the current directory too. Raises ArgumentError for one there is not."""
    names = words_of(options.policy, options.default_policies)
    if any(":" in name for name in names) and "" not in sys.path:
        sys.path.insert(0, "")
    for name in names:
        try:
            if name != CORE:
                by_name(name)
        except ArgumentError as error:
            raise ArgumentError(f"{error}; or {CORE}") from error
    return names


def check_sample(options: argparse.Namespace) -> None:
    """Raises ArgumentError."""
    if options.sample is not None and not 0 < options.sample <= 1:
        raise ArgumentError(f"--sample: a share of the pages, up to 1, not {options.sample}")


def limit_frames_of(text: str, trace: Trace) -> int:
    """A limit as it was given: a size, or a share of the pages touched ("0.5"). Raises ValueError."""
    try:
        share = float(text) if "." in text else 0.0
    except ValueError:
        share = 0.0
    if 0 < share <= 1:
        return max(1, round(share * trace.pages_touched))
    return parse_size(text, "--limit") // trace.header.page_bytes


def check_output(file: str | None, suffixes: tuple[str, ...] = ()) -> None:
    """That it can be written, as far as can be seen. Raises ArgumentError."""
    if not file:
        return
    if suffixes and Path(file).suffix not in suffixes:
        raise ArgumentError(f"{file}: a file that ends in {' or '.join(suffixes)}")
    if not Path(file).absolute().parent.is_dir():
        raise ArgumentError(f"{file}: there is no such directory")


def describe(trace: Trace) -> str:
    """One line on what was recorded."""
    header, (touches, pages) = trace.header, trace.counted
    size = format_size(trace.pages_touched * header.page_bytes)
    part = "" if header.sample == 1 else f" (a sample of {header.sample:g})"
    window = f", window {header.window_pages} pages" if header.window_pages else ""
    return f"{trace.path}: {touches} touches of {pages} pages{part}, {size} in all{window}"


def say_warnings(verb: str, said: list[str]) -> None:
    """On standard error."""
    for text in said:
        print(f"uswap {verb}: {text}", file=sys.stderr)
