"""uswap simulate: what policies would have made of a recorded run."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from uswap._errors import PolicyError, UswapError
from uswap._sizes import format_size
from uswap.commands import _trace_options as common
from uswap.trace import Simulated, Trace, frames_of, simulate
from uswap.trace.oracle_general import write_oracle_general
from uswap.trace.reference import REFERENCES, check_references, run_reference


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """TRACE and the options; `uswap simulate --help` lists them."""
    common.add_common_arguments(parser, "core,fifo")
    parser.add_argument(
        "--limit",
        action="append",
        metavar="SIZE",
        help="512MiB, or a share of the pages touched such as 0.5; may be given several times, or with commas "
        "(default: as recorded)",
    )
    parser.add_argument(
        "--reference",
        action="append",
        metavar="NAME",
        help=f"of {', '.join(REFERENCES)}, by libCacheSim (pip install 'uswap[simulate]')",
    )
    parser.add_argument("--export", metavar="FILE", help="the touches in libCacheSim's format oracleGeneral")


def _limits(options: argparse.Namespace, trace: Trace) -> list[int]:
    """In frames. Raises ValueError."""
    if texts := common.words_of(options.limit):
        return [common.limit_frames_of(text, trace) for text in texts]
    if trace.header.limit_bytes <= 0:
        raise ValueError("the trace does not say under which limit it was recorded: give one (--limit)")
    return [trace.header.limit_bytes // trace.header.page_bytes]


def _run(
    trace: Trace, policies: list[str], references: list[str], limits: list[int], sample: float | None
) -> list[Simulated]:
    found = [simulate(trace, policy, limit, sample=sample) for limit in limits for policy in policies]
    if not references:
        return found
    with tempfile.TemporaryDirectory(prefix="uswap-simulate-") as folder:
        path = Path(folder) / "touches.oracleGeneral"
        exported = write_oracle_general(trace, path, sample=sample)
        for limit in limits:
            frames = frames_of(limit, exported.sample)
            found += [run_reference(path, exported, name, limit, frames) for name in references]
    return found


def _table(trace: Trace, found: list[Simulated], limits: list[int]) -> list[str]:
    """A table a limit; counts are estimates for all pages where only a sample was simulated."""
    lines = [common.describe(trace)]
    for limit in dict.fromkeys(limits):
        size = format_size(limit * trace.header.page_bytes)
        lines += ["", f"limit {size}, {limit} frames", f"  {'policy':28s}{'misses':>12s}{'miss ratio':>12s}"]
        lines[-1] += f"{'rescues':>12s}{'evictions':>12s}{'by the core':>13s}"
        lines += [_row(each) for each in found if each.limit_frames == limit]
    if found and found[0].sample < 1:
        lines += [
            "",
            f"estimated from {found[0].accesses} touches of a sample of {found[0].sample:.3g} of the pages",
        ]
    return lines


def _row(each: Simulated) -> str:
    misses, rescues, evictions, core = (
        round(count / each.sample) for count in (each.misses, each.rescues, each.evictions, each.core_evictions)
    )
    is_reference = each.policy.endswith("(reference)")
    rest = f"{'-':>12s}{evictions:12d}{'-':>13s}" if is_reference else f"{rescues:12d}{evictions:12d}{core:13d}"
    return f"  {each.policy:28.28s}{misses:12d}{each.miss_ratio:12.5f}{rest}"


def _document(trace: Trace, found: list[Simulated]) -> str:
    touches, pages = trace.counted
    return json.dumps(
        {
            "trace": trace.path,
            "touches": touches,
            "pages": pages,
            "pages_touched": trace.pages_touched,
            "sample": trace.header.sample,
            "warnings": trace.warnings(),
            "results": [each.as_dict() for each in found],
        },
        indent=2,
    )


def run(options: argparse.Namespace) -> int:
    """=> 0; 1 if a policy failed, 2 if nothing could be run."""
    try:
        policies = common.policies_of(options)
        references = check_references(common.words_of(options.reference))
        common.check_sample(options)
        common.check_output(options.export)
        trace = Trace.open(options.trace)
        limits = _limits(options, trace)
        found = _run(trace, policies, references, limits, options.sample)
        if options.export:
            write_oracle_general(trace, options.export, sample=options.sample)
        common.say_warnings("simulate", trace.warnings())
        print(_document(trace, found) if options.json else "\n".join(_table(trace, found, limits)))
    except PolicyError as error:
        print(f"uswap simulate: {error}", file=sys.stderr)
        return 1
    except (ValueError, UswapError, OSError) as error:
        print(f"uswap simulate: {error}", file=sys.stderr)
        return 2
    return 0
