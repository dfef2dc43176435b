"""What does it cost to reclaim a page, and does it cost more where there is more memory?

    python benchmarks/bench_reclaim.py --sizes 64MiB,1GiB,8GiB --repeats 3 --json reclaim.json

Two things are measured, in processes of their own: the page-out, by calls of pool.evict from one thread while
nobody else evicts; and the Python side of the default policy, at work on a pool. README.md beside this file says
how to read the figures.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import conversation
import harness
import numpy as np

from uswap._filesystem import free_bytes, is_memory_backed
from uswap._sizes import format_size, parse_size

PAGE = 4096
WORDS = PAGE // 8
BLOCK = 512
KINDS = ("single", "block", "sealed")
# What issue 4 asks for: growth with the managed size, and a reclaim call's p99.9 of thread CPU.
MOST_GROWTH = 0.2
MOST_CALL_MS = 1.0
# Sealed pages are read back one by one, 50 us each: so many of a larger region are, and those are evicted.
_SEALED_PAGES = 128 << 10
# Beside the pages: metadata, the reserve, places for what is read.
_ROOM_SHARE, _ROOM_BYTES = 1.1, 64 << 20
_CHUNK = 4096
# A policy's region, as a share of its limit: so a fifth of the random reads miss.
_POLICY_REGION = 1.25


# ---- a worker: one size and kind ---------------------------------------------------------------------------


class Managed:
    """Memory of which all is in: pages of one kind, the oldest of which are evicted.

    Half of it is evicted at most before it is made anew, so that what a call costs is that of a pool which manages
    this much.
    """

    def __init__(self, pool: Any, region: Any, setup: dict[str, Any]) -> None:
        self._pool, self._region = pool, region
        self._pages = np.frombuffer(region, dtype="u8").reshape(-1, WORDS)
        self._kind = setup["kind"]
        self._random = np.random.default_rng(setup["seed"])
        self._contents = self._random.integers(1, 1 << 63, (_CHUNK, WORDS), dtype="u8")
        self._buffer = np.empty_like(self._contents)
        self._left = 0  # may be evicted before the memory is made anew
        self._order = np.arange(len(self._pages))

    def _write(self, order: Any) -> None:
        for start in range(0, len(order), _CHUNK):
            some = order[start : start + _CHUNK]
            contents = np.bitwise_xor(
                self._contents[: len(some)], some[:, None].astype("u8"), self._buffer[: len(some)]
            )
            if some[-1] - some[0] == len(some) - 1:
                self._pages[some[0] : some[0] + len(some)] = contents
            else:
                self._pages[some] = contents

    def _read(self, order: Any) -> None:
        for start in range(0, len(order), _CHUNK):
            self._pages[order[start : start + _CHUNK], 0].sum()

    def _empty(self) -> None:
        import uswap

        while self._pool.evict(len(self._pages) * PAGE):
            pass
        self._region.advise(uswap.Advice.DONTNEED)

    def _make(self) -> None:
        """All pages come in, those first that will be evicted first."""
        count = len(self._pages)
        if self._kind == "sealed" and self._left < count <= _SEALED_PAGES and self._pool.stats().pages_out:
            self._read(self._order[: count // 2])  # the others are in, and older
            self._order = np.roll(self._order, -(count // 2))
            self._left = count // 2
            return
        self._empty()
        self._order = np.arange(count) if self._kind == "block" else self._random.permutation(count)
        if self._kind == "sealed":
            first = self._order[:_SEALED_PAGES]
            self._write(first)
            while self._pool.evict(count * PAGE):
                pass
            self._read(first)
            self._write(np.sort(self._order[_SEALED_PAGES:]))
            self._left = min(count // 2, len(first))
        else:
            self._write(self._order)
            self._left = count // 2

    def evict(self, batch: int, calls: int) -> dict[str, Any]:
        """So many calls of pool.evict; => thread CPU of each in ns, pages, wall clock, CPU of the process's other
        threads meanwhile, and what was written."""
        spent: list[int] = []
        total = {"pages": 0, "wall_ns": 0, "other_ns": 0, "written": 0}
        while len(spent) < calls:
            if self._left < batch:
                self._make()
            written, process, began = self._pool.stats().pages_out, time.process_time_ns(), time.perf_counter_ns()
            own = 0
            while len(spent) < calls and self._left >= batch:
                before = time.thread_time_ns()
                evicted = self._pool.evict(batch * PAGE) // PAGE
                spent.append(time.thread_time_ns() - before)
                own += spent[-1]
                total["pages"] += evicted
                self._left -= max(evicted, batch)  # a block leaves as a whole
            total["wall_ns"] += time.perf_counter_ns() - began
            total["other_ns"] += max(0, time.process_time_ns() - process - own)
            total["written"] += self._pool.stats().pages_out - written
        return {"batch": batch, "calls": spent, **total}


def work_reclaim(setup: dict[str, Any], answer_all: Callable[[conversation.Steps], None]) -> None:
    """Nobody but the caller evicts: no reclaimer, no watermarks, nothing written ahead, and room for all."""
    import uswap

    limit = int(setup["size"] * _ROOM_SHARE) + _ROOM_BYTES
    options = {"background": False, "write_ahead": False, "read_ahead": 0, "policy": None, "faults": "inline"}
    with uswap.Pool(limit, swap=setup["folder"], **options) as pool:
        managed: Any = Managed(pool, pool.region(setup["size"]), setup)
        answer_all({"evict": managed.evict})
        del managed  # so that the pool can end


def timed_policy(base: type[Any]) -> Any:
    """A policy of that class, and what its decisions have cost: a Counter, named cost."""

    class Timed(base):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.cost: Counter[str] = Counter()

        def decide(self, seen: Any, need: Any) -> Any:
            before = time.thread_time_ns()
            answer = super().decide(seen, need)
            spent = time.thread_time_ns() - before
            self.cost.update(cpu_ns=spent, decisions=1, pages=handled(seen, answer))
            self.cost["longest_ns"] = max(self.cost["longest_ns"], spent)
            return answer

    return Timed()


def handled(seen: Any, answer: Any) -> int:
    """Pages of a decision: those it was told of, and those it named."""
    told = sum(len(stays) for stays in (seen.faulted, seen.rescued, seen.read_ahead, seen.kept))
    return told + sum(len(stays) for stays in answer or ())


def work_policy(setup: dict[str, Any], answer_all: Callable[[conversation.Steps], None]) -> None:
    """The default policy under random reads."""
    import uswap

    policy = timed_policy(uswap.policy.SecondChance)
    with uswap.Pool(setup["size"], swap=setup["folder"], policy=policy, read_ahead=0, faults="inline") as pool:
        region = pool.region(int(setup["size"] * _POLICY_REGION) // PAGE * PAGE)
        random = np.random.default_rng(setup["seed"])
        fill(region, random)

        def steer(seconds: float) -> dict[str, int]:
            read(region, random, seconds)  # the policy's queues get their steady lengths first
            policy.cost.clear()
            read(region, random, seconds)
            return dict(policy.cost)

        answer_all({"steer": steer})


def fill(region: Any, random: Any) -> None:
    """No page is like another."""
    pages = np.frombuffer(region, dtype="u8").reshape(-1, WORDS)
    contents = random.integers(1, 1 << 63, (BLOCK, WORDS), dtype="u8")
    for start in range(0, len(pages), BLOCK):
        pages[start : start + BLOCK] = contents[: len(pages) - start]
        pages[start : start + BLOCK, 0] = start


def read(region: Any, random: Any, seconds: float) -> None:
    """Random pages, for so long."""
    pages = np.frombuffer(region, dtype="u8").reshape(-1, WORDS)
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        pages[random.integers(0, len(pages), _CHUNK), 0].sum()


def work(setup: dict[str, Any], answer_all: Callable[[conversation.Steps], None]) -> None:
    """What the process is for."""
    (work_policy if setup["kind"] == "policy" else work_reclaim)(setup, answer_all)


# ---- the run -----------------------------------------------------------------------------------------------


def run_one(kind: str, size: int, repeat: int, options: argparse.Namespace) -> list[dict[str, Any]]:
    """One size and kind in a process of its own; => its runs."""
    setup = {"side": kind, "kind": kind, "size": size, "folder": str(options.dir), "seed": repeat}
    common = {"kind": kind, "size": size, "repeat": repeat}
    with conversation.Worker(__file__, setup) as worker:
        if kind == "policy":
            return [common | worker.ask("steer", seconds=options.seconds)]
        found = []
        for batch in options.batches:
            calls = options.calls if kind != "sealed" else min(options.calls, _SEALED_PAGES // 2 // batch)
            found.append(common | worker.ask("evict", batch=batch, calls=calls))
        return found


def percentile(values: list[int], share: float) -> int:
    """The least value that at least this share of them does not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -int(-share * len(ordered) // 1) - 1)]


def summarize(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row for each kind and batch (ns a page: medians over the repeats; calls: of all repeats together), and one
    of the policy; each with its sizes, and its growth."""
    rows: list[dict[str, Any]] = []
    for kind, batch in dict.fromkeys((run["kind"], run.get("batch")) for run in runs):
        these = [run for run in runs if (run["kind"], run.get("batch")) == (kind, batch)]
        sizes = {}
        for size in sorted({run["size"] for run in these}):
            some = [run for run in these if run["size"] == size]
            sizes[size] = _policy_figures(some) if kind == "policy" else _call_figures(some)
        costs = [figures["cpu_ns"] for figures in sizes.values()]
        rows.append({"kind": kind, "batch": batch, "sizes": sizes, "growth": growth(costs)})
    return rows


def growth(costs: list[float]) -> float:
    """How much more the dearest costs than the cheapest."""
    return max(costs) / min(costs) - 1 if min(costs) > 0 else 0.0


def _call_figures(runs: list[dict[str, Any]]) -> dict[str, float]:
    calls = [spent for run in runs for spent in run["calls"]]
    return {
        "cpu_ns": _median_a_page([(sum(run["calls"]), run["pages"]) for run in runs]),
        "other_ns": _median_a_page([(run["other_ns"], run["pages"]) for run in runs]),
        "wall_ns": _median_a_page([(run["wall_ns"], run["pages"]) for run in runs]),
        "written_share": sum(run["written"] for run in runs) / max(1, sum(run["pages"] for run in runs)),
        "calls": len(calls),
        "call_median_ms": percentile(calls, 0.5) / 1e6,
        "call_p999_ms": percentile(calls, 0.999) / 1e6,
        "call_most_ms": max(calls) / 1e6,
    }


def _policy_figures(runs: list[dict[str, Any]]) -> dict[str, float]:
    return {
        "cpu_ns": _median_a_page([(run["cpu_ns"], run["pages"]) for run in runs]),
        "pages": sum(run["pages"] for run in runs),
        "decisions": sum(run["decisions"] for run in runs),
        "call_most_ms": max(run["longest_ns"] for run in runs) / 1e6,
    }


def _median_a_page(spent: list[tuple[int, int]]) -> float:
    return harness.median([ns / max(1, pages) for ns, pages in spent]) or 0.0


def print_tables(rows: list[dict[str, Any]]) -> None:
    """CPU a page, and CPU a call."""
    sizes = sorted({size for row in rows for size in row["sizes"]})
    title = "".join(f"{format_size(size):>12s}" for size in sizes)
    print(f"\n{'CPU a page, ns':22s}{title}{'growth':>9s}")
    for row in rows:
        print(f"{_name(row):22s}{_cells(row, sizes, 'cpu_ns', '12.0f')}{row['growth']:9.0%}")
    print(f"\n{'of other threads':22s}{title}")
    for row in rows:
        if row["kind"] != "policy":
            print(f"{_name(row):22s}{_cells(row, sizes, 'other_ns', '12.0f')}")
    print(f"\n{'CPU of a call, ms':22s}{title}")
    for row in rows:
        for figure, words in (("call_median_ms", "median"), ("call_p999_ms", "p99.9"), ("call_most_ms", "most")):
            if all(figure in figures for figures in row["sizes"].values()):
                print(f"{_name(row) + ' ' + words:22s}{_cells(row, sizes, figure, '12.3f')}")


def _name(row: dict[str, Any]) -> str:
    return "second-chance" if row["kind"] == "policy" else f"{row['kind']} {row['batch']}"


def _cells(row: dict[str, Any], sizes: list[int], figure: str, form: str) -> str:
    return "".join(
        format(row["sizes"][size][figure], form) if size in row["sizes"] else f"{'-':>12s}" for size in sizes
    )


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line; ends the program if it is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", help="of managed memory (default: 64MiB,256MiB,1GiB,4GiB,8GiB)")
    parser.add_argument("--policy-sizes", help="limits under the policy (default: 64MiB,1GiB,8GiB)")
    parser.add_argument("--kinds", default=",".join(KINDS), help="default: %(default)s")
    parser.add_argument("--batches", default="64,512", help="pages of a call (default: %(default)s)")
    parser.add_argument("--calls", type=int, help="of each batch and repeat (default: 1000)")
    parser.add_argument("--seconds", type=float, help="of random reads under the policy (default: 4)")
    parser.add_argument("--repeats", type=int, help="default: 3")
    parser.add_argument("--dir", default="/var/tmp", type=Path, help="where swap files lie (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="64MiB and 256MiB, 200 calls, one repeat")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every repeat there")
    options = parser.parse_args(arguments)
    quick = {"sizes": "64MiB,256MiB", "policy_sizes": "64MiB,256MiB", "calls": 200, "seconds": 1.0, "repeats": 1}
    slow = {
        "sizes": "64MiB,256MiB,1GiB,4GiB,8GiB",
        "policy_sizes": "64MiB,1GiB,8GiB",
        "calls": 1000,
        "seconds": 4.0,
    }
    for name, value in (quick if options.quick else slow | {"repeats": 3}).items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    try:
        options.sizes = [
            parse_size(text, "--sizes") // (BLOCK * PAGE) * (BLOCK * PAGE) for text in _list(options.sizes)
        ]
        options.policy_sizes = [parse_size(text, "--policy-sizes") for text in _list(options.policy_sizes)]
        options.batches = [int(text) for text in _list(options.batches)]
        options.kinds = _list(options.kinds)
        if unknown := set(options.kinds) - set(KINDS):
            raise ValueError(f"--kinds: {', '.join(sorted(unknown))}: there are {', '.join(KINDS)}")
        if options.repeats < 1 or options.calls < 1 or min(options.batches, default=0) < 1:
            raise ValueError("at least one repeat, one call, and one page a call")
        if any(size // PAGE // 2 < max(options.batches) for size in options.sizes):
            raise ValueError("--sizes: twice the largest batch, at least")
        needed = int(2 * max(options.sizes + options.policy_sizes, default=0) * _POLICY_REGION)
        if is_memory_backed(options.dir) or free_bytes(options.dir) < needed:
            raise ValueError(f"--dir: {options.dir} lies in memory or has less than {format_size(needed)} free")
    except (ValueError, OSError) as error:
        parser.error(str(error))
    return options


def _list(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def main(arguments: list[str] | None = None) -> int:
    """=> 0; 1 if a run failed."""
    options = parse_arguments(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that finally blocks run
    runs: list[dict[str, Any]] = []
    report: dict[str, Any] = {
        "environment": harness.environment(options.dir),
        "arguments": {name: str(value) for name, value in vars(options).items()},
    }
    status = 0
    jobs = [(kind, size) for kind in options.kinds for size in options.sizes]
    jobs += [("policy", size) for size in options.policy_sizes]
    with contextlib.suppress(KeyboardInterrupt):
        try:
            for repeat in range(options.repeats):
                for kind, size in jobs if repeat % 2 == 0 else reversed(jobs):
                    found = run_one(kind, size, repeat, options)
                    runs += found
                    for row in summarize(found):
                        cost = next(iter(row["sizes"].values()))["cpu_ns"]
                        line = f"{_name(row):16s} {format_size(size):8s} {cost:8.0f} ns a page"
                        print(f"  {repeat + 1}/{options.repeats} {line}", flush=True)
        except (harness.BenchmarkError, OSError) as error:
            print(f"bench_reclaim: {error}", file=sys.stderr)
            status = 1
    if runs:
        report["summary"] = summarize(sorted(runs, key=lambda run: [*KINDS, "policy"].index(run["kind"])))
        print_tables(report["summary"])
    report["runs"] = runs
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(report, indent=1) + "\n")
    return status


if __name__ == "__main__":
    sys.exit(conversation.serve(work) if conversation.is_worker() else main())
