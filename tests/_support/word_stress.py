"""A stress of a pool: threads load and store checked words (word_stress.c), and another one evicts under them.

    make stress STRESS_ARGS='--operations 1e9 --threads 8 --seed 7 --json stress.json'

An operation is one load that is checked or one store, in native code. Between them a *steward* does what takes
pages away and brings them back: evict, all advices, changes of the limit, lock, resident(), verify(), and a few
pages of his own that become uniform, zero, or are discarded. Ends with status 1 at the first wrong word, and says
which.
"""

from __future__ import annotations

import argparse
import ctypes
import functools
import gc
import json
import os
import platform
import queue
import random
import sys
import threading
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import uswap
from _support.native import shared_object
from uswap._options import default_directory
from uswap._sizes import format_size, parse_size

PAGE = 4096
WORDS_A_PAGE = 512
MOST_WRITERS = 63
_CHUNK = 1 << 17  # operations between two looks at the clock; one act of the steward each
_OWN_PAGES = 64
_SOURCE = Path(__file__).with_name("word_stress.c")


class _Area(ctypes.Structure):
    """struct word_area."""

    _fields_ = [
        ("memory", ctypes.c_void_p),
        ("versions", ctypes.c_void_p),
        ("pages", ctypes.c_uint64),
        ("hot_pages", ctypes.c_uint64),
        ("writers", ctypes.c_uint32),
        ("stop", ctypes.c_uint32),
    ]


class _Writer(ctypes.Structure):
    """struct word_writer."""

    _fields_ = [
        ("random", ctypes.c_uint64),
        ("number", ctypes.c_uint64),
        ("loads", ctypes.c_uint64),
        ("stores", ctypes.c_uint64),
        ("visits", ctypes.c_uint64),
        ("wrong", ctypes.c_uint64),
        ("word", ctypes.c_uint64),
        ("found", ctypes.c_uint64),
        ("least", ctypes.c_uint64),
        ("most", ctypes.c_uint64),
    ]


class WrongWordError(Exception):
    """A word was not what it must be; the message names it."""


@dataclass(frozen=True)
class Plan:
    """What a run does; see --help."""

    operations: int
    threads: int = 8
    seed: int = 1
    limit: int = 8 << 20
    size: int = 32 << 20
    transport: str = "auto"
    io: str = "auto"
    faults: str = "thread"
    recycle: bool = False
    encrypt: bool = False
    directory: str | None = None


@dataclass
class Result:
    """What was done: exact counts, and what the pool counted meanwhile."""

    plan: Plan
    operations: int = 0
    loads: int = 0
    stores: int = 0
    visits: int = 0
    checked_at_end: int = 0
    steward: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    pool: dict[str, int] = field(default_factory=dict)


@functools.cache
def _library() -> Any:
    return ctypes.CDLL(shared_object(_SOURCE))


class Words:
    """The words of a region (or any writable buffer of whole pages), and who stores to them."""

    def __init__(self, region: Any, plan: Plan) -> None:
        if not 1 <= plan.threads <= MOST_WRITERS:
            raise ValueError(f"threads: from 1 to {MOST_WRITERS}, not {plan.threads}")
        view = memoryview(region).cast("B")
        self.pages = len(view) // PAGE
        self._view = view
        self._versions = (ctypes.c_uint32 * (self.pages * WORDS_A_PAGE))()
        self.area = _Area(
            ctypes.addressof(ctypes.c_char.from_buffer(view)),
            ctypes.addressof(self._versions),
            self.pages,
            max(1, min(self.pages, plan.limit // PAGE) // 2),
            plan.threads,
        )
        self.writers = [_Writer(random=plan.seed << 8 | number, number=number) for number in range(plan.threads)]

    def work(self, number: int, operations: int) -> bool:
        """Writer number does just so many operations. => False if a word was wrong, of his or of another's."""
        return bool(
            _library().words_work(
                ctypes.byref(self.area), ctypes.byref(self.writers[number]), ctypes.c_uint64(operations)
            )
        )

    def check_all(self) -> int:
        """Checks every word. => how many"""
        auditor = _Writer(number=MOST_WRITERS)
        for writer in self.writers:
            self._raise_if_wrong(writer)
        _library().words_check_all(ctypes.byref(self.area), ctypes.byref(auditor))
        self._raise_if_wrong(auditor)
        return int(auditor.loads)

    def stop(self) -> None:
        """Ends everybody's work."""
        self.area.stop = 1

    def _raise_if_wrong(self, writer: Any) -> None:
        if writer.wrong:
            raise WrongWordError(
                f"word {writer.word} (page {writer.word // WORDS_A_PAGE}), found by thread {writer.number} after "
                f"{writer.loads + writer.stores} operations of its own: 0x{writer.found:016x} (word "
                f"{writer.found >> 38}, version {writer.found >> 6 & 0xFFFFFFFF}, writer {writer.found & 63}), due "
                f"was version {writer.least} to {writer.most} of writer {writer.word % self.area.writers}"
            )


class Steward:
    """Who takes pages away. One thread uses it; each act is chosen by the seed."""

    def __init__(self, pool: uswap.Pool, region: uswap.Region, plan: Plan) -> None:
        self._pool, self._region, self._plan = pool, region, plan
        self._pages = len(region) // PAGE
        self._chance = random.Random(plan.seed)
        self._own = pool.region(_OWN_PAGES * PAGE, name="steward")
        self._model = bytearray(_OWN_PAGES * PAGE)
        self.done: dict[str, int] = {}

    def act(self) -> None:
        """One act."""
        acts = {
            self.evict: 30,
            self.advise: 25,
            self.own_page: 30,
            self.change_limit: 5,
            self.lock: 4,
            self.hold: 4,
            self.check: 1,
            self.verify: 5,
        }
        act = self._chance.choices(list(acts), list(acts.values()))[0]
        act()
        self.done[act.__name__] = self.done.get(act.__name__, 0) + 1

    def _span(self, most_pages: int) -> tuple[int, int]:
        first = self._chance.randrange(self._pages)
        return first * PAGE, min(self._chance.randint(1, most_pages), self._pages - first) * PAGE

    def evict(self) -> None:
        """From one page to half of the limit."""
        self._pool.evict(self._chance.randint(1, self._plan.limit // 2))

    def advise(self) -> None:
        """Any advice that keeps the contents, for a range of the region."""
        kept = [advice for advice in uswap.Advice if advice is not uswap.Advice.DONTNEED]
        self._region.advise(self._chance.choice(kept), *self._span(self._pages // 4))

    def change_limit(self) -> None:
        """From the plan's to half as much again."""
        self._pool.limit = self._chance.randint(self._plan.limit, self._plan.limit * 3 // 2)

    def lock(self) -> None:
        """A few pages stay locked until the next time."""
        self._region.unlock()
        self._region.lock(*self._span(16))

    def hold(self) -> None:
        """A few pages are pinned while all others are asked out."""
        start, length = self._span(16)
        with self._region.resident(start, length):
            self._region.advise(uswap.Advice.PAGEOUT, *self._span(self._pages // 4))
            if set(self._region.page_classes(start, length)) != {uswap.PageClass.RESIDENT}:
                raise WrongWordError(f"a pinned page among {length // PAGE} at {start} is not resident")

    def check(self) -> None:
        """The core's own check."""
        self._pool.check()

    def verify(self) -> None:
        """The slots of a part of the region."""
        self._region.verify(*self._span(self._pages // 8))

    def own_page(self) -> None:
        """A page of his own is looked at, and made uniform, zero or another; or it is discarded."""
        page = self._chance.randrange(_OWN_PAGES)
        span = slice(page * PAGE, (page + 1) * PAGE)
        self._check_own(span)
        kind = self._chance.randrange(4)
        if kind == 0:
            self._own.advise(uswap.Advice.DONTNEED, page * PAGE, PAGE)
            self._model[span] = bytes(PAGE)
            return
        data = [bytes(PAGE), bytes([self._chance.randrange(256)]) * PAGE, self._chance.randbytes(PAGE)][kind - 1]
        self._own[span] = data
        self._model[span] = data

    def _check_own(self, span: slice) -> None:
        if self._own[span] != self._model[span]:
            raise WrongWordError(f"the steward's page {span.start // PAGE} is not as he left it")

    def finish(self) -> None:
        """Looks at all his pages."""
        self._check_own(slice(0, len(self._model)))
        self._own.close()


def _shares(operations: int, threads: int) -> list[int]:
    return [operations // threads + (number < operations % threads) for number in range(threads)]


def _work_beside(words: Words, steward: Steward, plan: Plan) -> None:
    """All threads until their operations are done; the steward acts once for each chunk that has been."""
    turns: queue.SimpleQueue[BaseException | bool] = queue.SimpleQueue()

    def work(number: int, left: int) -> None:
        try:
            while left > 0 and words.work(number, min(left, _CHUNK)):
                left -= min(left, _CHUNK)
                turns.put(True)
        finally:
            turns.put(False)

    threads = [
        threading.Thread(target=work, args=(number, share), daemon=True)
        for number, share in enumerate(_shares(plan.operations, plan.threads))
    ]
    for thread in threads:
        thread.start()
    try:
        for _ in threads:
            while turns.get():
                steward.act()
    finally:
        words.stop()
        for thread in threads:
            thread.join()


def run(plan: Plan) -> Result:
    """Does what the plan says.

    Raises:
        WrongWordError: a word was wrong, or a promise broken.
    """
    area = uswap.SwapArea(plan.directory or default_directory(), size=2 * plan.size + (64 << 20))
    options = {"transport": plan.transport, "io": plan.io, "faults": plan.faults}
    pool = uswap.Pool(plan.limit, swap=area, recycle=plan.recycle, encrypt=plan.encrypt, **options)
    region = pool.region(plan.size, name="words")
    words, steward = Words(region, plan), Steward(pool, region, plan)
    started = time.monotonic()
    _work_beside(words, steward, plan)
    result = Result(plan, seconds=time.monotonic() - started, steward=dict(sorted(steward.done.items())))
    for name in ("loads", "stores", "visits"):
        setattr(result, name, sum(int(getattr(writer, name)) for writer in words.writers))
    result.operations = result.loads + result.stores
    result.checked_at_end = words.check_all()
    steward.finish()
    pool.check()
    result.pool = _counts(pool, plan)
    del words, steward
    gc.collect()
    region.close()
    pool.close()
    if result.operations != plan.operations:
        raise WrongWordError(f"{result.operations} operations were done instead of {plan.operations}")
    return result


def _counts(pool: uswap.Pool, plan: Plan) -> dict[str, int]:
    """What the pool has counted; its limit has held, and its reclaimer is at work."""
    stats = pool.stats()
    if stats.over_limit_events or stats.peak_resident_bytes > plan.limit * 3 // 2:
        raise WrongWordError(
            f"over the limit: {stats.over_limit_events} times, at most {stats.peak_resident_bytes} bytes"
        )
    reclaimer = pool.reclaimer
    if reclaimer is not None and reclaimer.error is not None:
        raise WrongWordError(f"the reclaimer has ended: {reclaimer.error!r}") from reclaimer.error
    names = (
        "faults zero_fills soft_faults major_faults write_faults inline_faults parked_faults evictions "
        "evictions_api evictions_direct evictions_steered evictions_native clean_drops zero_drops filled_drops "
        "pages_in pages_out read_ahead_pages rescues copy_fallbacks peak_resident_bytes"
    )
    return {name: int(getattr(stats, name)) for name in names.split()}


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="make stress", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--operations", type=lambda text: int(float(text)), default=100_000_000)
    parser.add_argument("--threads", type=int, default=8, help=f"who load and store; at most {MOST_WRITERS}")
    parser.add_argument(
        "--seed", type=int, default=1, help="of all choices; the order of the threads is the system's"
    )
    parser.add_argument("--limit", type=parse_size, default="8MiB")
    parser.add_argument("--size", type=parse_size, default="32MiB", help="of the region: at most 512 MiB")
    parser.add_argument("--transport", choices=["auto", "move", "copy"], default="auto")
    parser.add_argument("--io", choices=["auto", "uring", "sync"], default="auto")
    parser.add_argument("--faults", choices=["thread", "inline"], default="thread")
    parser.add_argument("--recycle", action="store_true", help="Pool(recycle=True)")
    parser.add_argument("--encrypt", action="store_true", help="Pool(encrypt=True)")
    parser.add_argument("--directory", help="where the swap file lies")
    parser.add_argument("--json", metavar="FILE", help="the result, and where it was measured")
    return parser


def _report(result: Result) -> str:
    pool = result.pool
    return (
        f"seed {result.plan.seed}: {result.operations:,} operations ({result.loads:,} loads checked, "
        f"{result.stores:,} stores) of {result.plan.threads} threads in {result.seconds:.0f} s: no word was wrong\n"
        f"{pool['faults']:,} faults ({pool['major_faults']:,} waited for a read), {pool['evictions']:,} evictions "
        f"({pool['evictions_api']:,} asked for), {sum(result.steward.values()):,} acts of the steward; "
        f"{result.checked_at_end:,} words right at the end\n"
        f"limit {format_size(result.plan.limit)}, region {format_size(result.plan.size)}"
    )


def main() -> int:
    """=> exit status"""
    arguments = vars(_arguments().parse_args())
    file = arguments.pop("json")
    try:
        result = run(Plan(**arguments))
    except WrongWordError as failure:
        print(f"seed {arguments['seed']}: {failure}", file=sys.stderr)
        return 1
    print(_report(result))
    if file:
        where = {"machine": platform.machine(), "kernel": platform.release(), "processors": os.cpu_count()}
        text = json.dumps({**asdict(result), "version": uswap.__version__, "environment": where}, indent=2)
        Path(file).write_text(text + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
