"""uswap curve: how much memory a recorded program needs."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path

from uswap._errors import ArgumentError, PolicyError, UswapError
from uswap._sizes import format_size
from uswap.commands import _trace_options as common
from uswap.trace import Trace, plot
from uswap.trace.cost import Costs, calibrate, costs_of
from uswap.trace.curve import Curve, miss_curve


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """TRACE and the options; `uswap curve --help` lists them."""
    common.add_common_arguments(parser, "second-chance")
    parser.add_argument("--points", type=int, default=16, help="limits, evenly by logarithm (default: %(default)s)")
    parser.add_argument(
        "--limit",
        action="append",
        metavar="LIMIT",
        help='one more limit for the table: a size ("512MiB"), or a share of the pages touched ("0.5"); may be '
        "given several times, or with commas",
    )
    parser.add_argument(
        "--slower", type=float, default=10, metavar="PERCENT", help="time that may be lost (default: %(default)s)"
    )
    parser.add_argument("--miss-us", type=float, metavar="US", help="cost of a miss (default: the trace's, or 75)")
    parser.add_argument("--sequential-us", type=float, metavar="US", help="of one in sequence (default: 4)")
    parser.add_argument(
        "--work",
        type=float,
        metavar="SECONDS",
        help="what the run takes with all in memory (default: from the trace)",
    )
    parser.add_argument("--calibrate", metavar="DIR", help="measure both on that disk: a second or two, 256 MiB")
    parser.add_argument("--plot", metavar="FILE", help=f"a picture: {', '.join(plot.SUFFIXES)}")


def _check(options: argparse.Namespace) -> None:
    """Raises ArgumentError, UnsupportedError."""
    common.check_sample(options)
    if not 2 <= options.points <= 1000:
        raise ArgumentError(f"--points: 2 to 1000, not {options.points}")
    if options.slower < 0:
        raise ArgumentError(f"--slower: a percentage from 0 up, not {options.slower:g}")
    for name, unit in (("miss_us", "microseconds"), ("sequential_us", "microseconds"), ("work", "seconds")):
        value = getattr(options, name)
        if value is not None and not value >= 0:
            raise ArgumentError(f"--{name.replace('_', '-')}: {unit} from 0 up, not {value:g}")
    if options.plot:
        common.check_output(options.plot, plot.SUFFIXES)
        plot.require_matplotlib()


def _costs(options: argparse.Namespace, trace: Trace) -> Costs:
    """What is given goes before what is measured."""
    if not options.calibrate:
        return costs_of(trace, options.miss_us, options.sequential_us)
    given = {
        name: getattr(options, name) for name in ("miss_us", "sequential_us") if getattr(options, name) is not None
    }
    return dataclasses.replace(calibrate(options.calibrate), **given)


def _table(curve: Curve, page_bytes: int) -> list[str]:
    """A row a limit: LRU's miss ratio, and those of the policies with their times."""
    heads = "".join(f"{each.policy:>20.20s}{'time, s':>12s}" for each in curve.curves)
    lines = [f"{'limit':>12s}{'LRU':>10s}{heads}"]
    for row, limit in enumerate(curve.limits):
        cells = "".join(
            f"{each.points[row].miss_ratio:20.5f}{each.points[row].seconds:12.2f}" for each in curve.curves
        )
        lines.append(f"{format_size(limit * page_bytes):>12s}{curve.lru[row]:10.5f}{cells}")
    return lines


def _text(trace: Trace, curve: Curve) -> str:
    costs = curve.costs
    lines = [
        common.describe(trace),
        f"a miss: {costs.miss_us:.1f} us, in sequence {costs.sequential_us:.1f} us ({costs.basis})",
        f"without misses: {curve.work_seconds:.2f} s",
    ]
    if curve.sample < 1:
        lines.append(f"estimated from a sample of {curve.sample:.3g} of the pages")
    return "\n".join([*lines, "", *_table(curve, trace.header.page_bytes), "", *answers(trace, curve)])


def answers(trace: Trace, curve: Curve) -> list[str]:
    """The one sentence, for each policy."""
    program = Path(trace.header.program[0]).name if trace.header.program else "the program"
    said = []
    for each in curve.curves:
        need = -(-each.needed_frames * trace.header.page_bytes // (1 << 20))
        at_most = " or less" if each.needed_frames == curve.limits[0] else ""
        said.append(
            f"With {each.policy}, {program} needs {need} MiB{at_most} "
            f"for at most {100 * curve.slower:g} % more time."
        )
    return said


def _progress(step: str) -> None:
    if sys.stderr.isatty():
        print(f"\r{step:<70.70s}", end="", file=sys.stderr, flush=True)


def run(options: argparse.Namespace) -> int:
    """=> 0; 1 if a policy failed, 2 if nothing could be run."""
    try:
        policies = common.policies_of(options)
        _check(options)
        trace = Trace.open(options.trace)
        curve = miss_curve(
            trace,
            policies,
            _costs(options, trace),
            points=options.points,
            slower=options.slower / 100,
            work=options.work,
            sample=options.sample,
            at=[common.limit_frames_of(word, trace) for word in common.words_of(options.limit)],
            progress=_progress,
        )
        if sys.stderr.isatty():
            print(f"\r{'':70s}\r", end="", file=sys.stderr, flush=True)
        common.say_warnings("curve", curve.doubts)
        document = {"trace": trace.path, "page_bytes": trace.header.page_bytes, "answers": answers(trace, curve)}
        print(json.dumps(document | curve.as_dict(), indent=2) if options.json else _text(trace, curve))
        if options.plot:
            plot.write_plot(Path(options.plot), Path(trace.path).name, curve, trace.header.page_bytes)
    except PolicyError as error:
        print(f"uswap curve: {error}", file=sys.stderr)
        return 1
    except (ValueError, UswapError, OSError) as error:
        print(f"uswap curve: {error}", file=sys.stderr)
        return 2
    return 0
