"""Pool(encrypt=True): no plain text in swap, contents right, the limit kept, keys guarded."""

import errno
import gc
import os
import threading
from pathlib import Path

import pytest
from _support.failpoints import Action, armed, await_stopped, hits, release
from _support.native import shared_object
from _support.program import TESTS, run_program
from _support.waiting import await_that
from _support.workload import PAGE, Pages, in_threads
from conftest import PoolFactory, probe

import uswap
from uswap import Advice, PageClass
from uswap._core import lib
from uswap._options import minimum_limit

MIB = 1 << 20
MARKER = b"plain text that nobody may read "
pytestmark = pytest.mark.skipif(probe().encrypt_errno != 0, reason="swap cannot be encrypted: no libcrypto")
needs_failpoints = pytest.mark.skipif(
    not lib.uswap_failpoints_built(), reason="the core was built without failpoints"
)


def mark(region: uswap.Region) -> None:
    """Fills the region with pages that differ and are full of MARKER."""
    page = bytearray(MARKER * (PAGE // len(MARKER)))
    for number in range(len(region) // PAGE):
        page[:8] = number.to_bytes(8, "little")
        region[number * PAGE : (number + 1) * PAGE] = page


def marked(region: uswap.Region) -> bool:
    """Whether mark's contents are there."""
    tail = (MARKER * (PAGE // len(MARKER)))[8:]
    return all(
        region[number * PAGE : (number + 1) * PAGE] == number.to_bytes(8, "little") + tail
        for number in range(len(region) // PAGE)
    )


# ---- no plain text -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("encrypt", [False, True])
@pytest.mark.parametrize("how", ["blocks", "single pages"])
def test_plain_text_is_in_swap_only_without_encryption(
    pool_factory: PoolFactory, swap_directory: Path, encrypt: bool, how: str
) -> None:
    first, second = swap_directory / "first", swap_directory / "second"
    pool = pool_factory("8MiB", swap=uswap.SwapArea(first, "256MiB"), encrypt=encrypt)
    region = pool.region("24MiB")
    mark(region)
    if how == "blocks":
        region.advise(Advice.PAGEOUT)
    else:
        for start in range(0, len(region), 5 * PAGE):
            region.advise(Advice.PAGEOUT, start, PAGE)
    written = first.read_bytes()
    assert len(written) > 16 * MIB
    assert (MARKER in written) is not encrypt
    region.verify()
    assert marked(region)
    pool.swapon(second, size="256MiB")
    pool.swapoff(first)
    assert (MARKER in second.read_bytes()) is not encrypt
    assert marked(region)
    stats = pool.stats()
    assert stats.codec == ("aes-128-xts" if encrypt else "none")
    assert (stats.bounce_bytes > 0) is encrypt
    assert stats.hash_errors == stats.read_errors == 0


def blocks_of(swap_file: Path) -> set[bytes]:
    """The cipher's blocks that the file holds: all that is not its header, or a hole."""
    written = swap_file.read_bytes()
    return {written[at : at + 16] for at in range(PAGE, len(written), 16)} - {bytes(16)}


def test_equal_pages_differ_in_every_slot(make_pool: PoolFactory, swap_directory: Path) -> None:
    pool = make_pool("8MiB", swap=uswap.SwapArea(swap_directory / "swap", "64MiB"), encrypt=True)
    region = pool.region("2MiB")
    page = bytes(range(256)) * (PAGE // 256)
    for start in range(0, len(region), PAGE):
        region[start : start + PAGE] = page
    region.advise(Advice.PAGEOUT)
    assert len(blocks_of(swap_directory / "swap")) == len(region) // 16


def test_two_pools_have_keys_of_their_own(make_pool: PoolFactory, swap_directory: Path) -> None:
    blocks = []
    for name in ("one", "other"):
        pool = make_pool("8MiB", swap=uswap.SwapArea(swap_directory / name, "64MiB"), encrypt=True)
        region = pool.region("1MiB")
        mark(region)
        region.advise(Advice.PAGEOUT)
        blocks.append(blocks_of(swap_directory / name))
        assert marked(region)
    assert len(blocks[0]) == len(blocks[1]) == MIB // 16
    assert not blocks[0] & blocks[1]


# ---- contents and the limit --------------------------------------------------------------------------------


def none_wrong(wrong: int) -> None:
    assert wrong == 0


@pytest.mark.parametrize("faults", ["thread", "inline"])
def test_contents_are_right_under_eviction(pool_factory: PoolFactory, faults: str) -> None:
    pool = pool_factory("6MiB", encrypt=True, faults=faults)
    pages = Pages(pool.region("24MiB"))
    in_threads(4, lambda number: none_wrong(pages.stress(number + 1, 1500)))
    assert pages.wrong_after_stress() == 0
    stats = pool.stats()
    assert stats.peak_resident_bytes <= stats.limit_bytes
    assert stats.over_limit_events == 0


def test_streams_are_right(pool_factory: PoolFactory) -> None:
    """By blocks, and page by page where frames are short: how many are depends on what else runs."""
    pool = pool_factory("48MiB", encrypt=True)
    pages = Pages(pool.region("160MiB"))
    for version in range(1, 4):
        pages.fill(version)
        assert pages.wrong(version) == 0
    stats = pool.stats()
    assert stats.peak_resident_bytes <= stats.limit_bytes


def test_blocks_are_right(pool_factory: PoolFactory) -> None:
    """There are frames for all: so it is blocks that are written, and read."""
    pool = pool_factory("48MiB", encrypt=True)
    region = pool.region("16MiB")
    pages = Pages(region)
    for version in range(1, 4):
        pages.fill(version)
        while region.info().resident:
            region.advise(Advice.PAGEOUT)
        before = pool.stats()
        region.advise(Advice.WILLNEED)
        await_that(lambda pages_in=before.pages_in: pool.stats().pages_in - pages_in == pages.count)
        assert pages.wrong(version) == 0
        stats = pool.stats()
        if stats.transport == "move":
            assert stats.pages_in - before.pages_in > 100 * (stats.reads - before.reads)


def test_the_least_limit_is_higher_by_the_bounce_frames_and_holds(pool_factory: PoolFactory) -> None:
    with pytest.raises(uswap.LimitError, match="below the minimum") as refused:
        pool_factory(minimum_limit(), encrypt=True)
    least = int(str(refused.value).split("minimum of ")[1].split(":")[0])
    pool = pool_factory(least, encrypt=True)
    assert pool.minimum_limit == least == minimum_limit() + pool.stats().bounce_bytes
    pages = Pages(pool.region(4 * least))
    in_threads(8, lambda number: none_wrong(pages.stress(number + 1, 400)))
    assert pages.wrong_after_stress() == 0
    stats = pool.stats()
    assert stats.peak_resident_bytes <= least
    assert stats.over_limit_events == 0
    with pytest.raises(uswap.LimitError):
        pool.limit = least - PAGE


def test_a_limit_is_lowered_to_the_least_and_no_further(make_pool: PoolFactory) -> None:
    pool = make_pool("64MiB", encrypt=True)
    pages = Pages(pool.region("32MiB"))
    pages.fill(1)
    pool.limit = pool.minimum_limit
    with pytest.raises(uswap.LimitError):
        pool.limit = pool.minimum_limit - PAGE
    assert pages.wrong(1) == 0


LIMIT_FROM_OUTSIDE = """
    from uswap._sampler import ResidentPeak
    from _support.workload import Pages, in_threads
    LIMIT = 48 << 20
    in_threads(4, lambda n: None)
    warm = Pages(bytearray(1 << 20)); warm.fill(1)
    uswap.Pool(LIMIT, swap=SWAP, encrypt=True).close()              # so does libcrypto's own memory
    with ResidentPeak() as peak:
        pool = uswap.Pool(LIMIT, swap=SWAP, encrypt=True)
        pages = Pages(pool.region(4 * LIMIT))
        pages.fill(1)
        wrong = [pages.wrong(1)]
        in_threads(4, lambda n: wrong.append(pages.wrong_at_random(1, n + 1, 1000)))
        stats = pool.stats()
    assert sum(wrong) == 0, wrong
    assert stats.bounce_bytes > 1 << 20, stats
    assert stats.over_limit_events == 0, stats
    assert stats.peak_resident_bytes <= LIMIT, stats
    assert peak.growth_bytes <= LIMIT * 1.01 + (16 << 20), (peak, peak.growth_bytes)
    pool.check()
"""


def test_the_limit_holds_seen_from_outside(swap_directory: Path) -> None:
    run_program(LIMIT_FROM_OUTSIDE, swap_directory)


def test_a_pool_in_a_forked_child_encrypts_by_itself(swap_directory: Path) -> None:
    run_program(
        """
        import os, warnings
        from _support.workload import Pages
        warnings.simplefilter("ignore")
        def use(pool):
            pages = Pages(pool.region("8MiB"))
            pages.fill(1)
            assert pages.wrong(1) == 0
        pool = uswap.Pool("6MiB", swap=SWAP, encrypt=True)
        use(pool)
        pid = os.fork()
        if pid == 0:
            use(uswap.Pool("6MiB", swap=SWAP, encrypt=True))
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        use(pool)
        """,
        swap_directory,
    )


# ---- failures ----------------------------------------------------------------------------------------------


@needs_failpoints
@pytest.mark.parametrize("name", ["codec.encode", "codec.decode"])
@pytest.mark.parametrize("nth", [1, 100])
def test_a_step_that_fails_once_is_done_again(pool_factory: PoolFactory, name: str, nth: int) -> None:
    pool = pool_factory("6MiB", encrypt=True)
    region = pool.region("16MiB")
    pages = Pages(region)
    with armed(name, Action.ERROR, errno.EIO, nth=nth):
        pages.fill(1)
        region.advise(Advice.PAGEOUT)
        assert pages.wrong(1) == 0
        assert hits(name) >= nth
    stats = pool.stats()
    assert (stats.bad_slots, stats.poisoned_pages) == (0, 0)


@needs_failpoints
@pytest.mark.parametrize("name", ["page_in.read", "page_out.written", "uffd.move", "io.submit"])
@pytest.mark.parametrize("every", [False, True])
def test_steps_around_the_codec_fail_as_ever(make_pool: PoolFactory, name: str, every: bool) -> None:
    pool = make_pool("6MiB", encrypt=True)
    pages = Pages(pool.region("16MiB"))
    number = errno.EBUSY if name in ("uffd.move", "io.submit") else errno.EIO
    with armed(name, Action.ERROR, number, nth=3, every=every):
        in_threads(4, lambda thread: none_wrong(pages.stress(thread + 1, 1000)))
        assert hits(name) >= 3
        assert pages.wrong_after_stress() == 0
    assert pages.wrong_after_stress() == 0
    assert pool.stats().poisoned_pages == 0


@needs_failpoints
def test_what_cannot_be_encoded_stays_in_memory(pool_factory: PoolFactory, swap_directory: Path) -> None:
    pool = pool_factory("6MiB", swap=uswap.SwapArea(swap_directory / "swap", "64MiB"), encrypt=True)
    region = pool.region("1MiB")
    mark(region)
    with armed("codec.encode", Action.ERROR, errno.EIO, every=True):
        region.advise(Advice.PAGEOUT)
        assert set(region.page_classes()) == {PageClass.RESIDENT}
        assert marked(region)
    assert MARKER not in (swap_directory / "swap").read_bytes()
    stats = pool.stats()
    assert stats.write_errors == stats.bad_slots > 0
    region.advise(Advice.PAGEOUT)
    assert marked(region)


@needs_failpoints
def test_what_cannot_be_decoded_is_a_lost_page(pool_factory: PoolFactory) -> None:
    pool = pool_factory("6MiB", encrypt=True, read_ahead=0)
    region = pool.region("1MiB", name="data")
    pages = Pages(region)
    pages.fill(1)
    region.advise(Advice.PAGEOUT)
    with (
        armed("codec.decode", Action.ERROR, errno.EIO, every=True),
        pytest.raises(uswap.SwapError, match="'data', offset 20480"),
        region.resident(5 * PAGE, PAGE),
    ):
        pass
    assert region.page_classes(5 * PAGE, PAGE) == bytes([PageClass.POISONED])
    assert pages.wrong(1, 0, 5) + pages.wrong(1, 6) == 0
    region.advise(Advice.DONTNEED, 5 * PAGE, PAGE)


@needs_failpoints
@pytest.mark.parametrize("faults", ["thread", "inline"])
def test_a_slot_damaged_on_its_way_is_read_again(pool_factory: PoolFactory, faults: str) -> None:
    pool = pool_factory("6MiB", encrypt=True, faults=faults)
    region = pool.region("4MiB")
    pages = Pages(region)
    pages.fill(1)
    region.advise(Advice.PAGEOUT)
    with armed("codec.slot", Action.FLIP, 999, every=True):
        assert pages.wrong(1) == 0
        assert hits("codec.slot") > 0
    assert pool.stats().hash_errors == 0  # of second tries


def test_a_slot_damaged_on_the_disk_is_a_lost_page(pool_factory: PoolFactory, swap_directory: Path) -> None:
    path = swap_directory / "swap"
    pool = pool_factory("6MiB", swap=uswap.SwapArea(path, "64MiB"), encrypt=True, read_ahead=0)
    region = pool.region("1MiB")
    pages = Pages(region)
    pages.fill(1)
    region.advise(Advice.PAGEOUT)
    region.verify()
    with open(path, "r+b", buffering=0) as file:
        for slot in range(1, 1 + 2 * 256):
            file.seek(slot * PAGE + 100)
            byte = file.read(1)[0]
            file.seek(slot * PAGE + 100)
            file.write(bytes([byte ^ 1]))
    with pytest.raises(uswap.SwapError):
        region.verify()
    with pytest.raises(uswap.SwapError), region.resident(0, PAGE):
        pass
    assert pool.stats().hash_errors > 0
    region.advise(Advice.DONTNEED)


@needs_failpoints
def test_without_encryption_nothing_is_encoded(make_pool: PoolFactory) -> None:
    pool = make_pool("6MiB")
    region = pool.region("8MiB")
    with armed("codec.encode", Action.DELAY, 0, nth=1 << 60), armed("codec.decode", Action.DELAY, 0, nth=1 << 60):
        pages = Pages(region)
        pages.fill(1)
        region.advise(Advice.PAGEOUT)
        assert pages.wrong(1) == 0
        assert (hits("codec.encode"), hits("codec.decode")) == (0, 0)
    assert pool.stats().bounce_bytes == 0


# ---- the fault path, and the keys --------------------------------------------------------------------------

WATCHED = """
    import ctypes, threading
    from _support.workload import Pages, in_threads
    watch = ctypes.CDLL({library!r})
    for name in ("allocations_seen", "locks_seen", "specifics_seen"):
        getattr(watch, name).restype = ctypes.c_ulong
    def seen():
        return watch.allocations_seen(), watch.locks_seen(), watch.specifics_seen()
    for faults in ("thread", "inline"):
        # The native reclaimer: Python's own calls the core through Python.
        pool = uswap.Pool("6MiB", swap=SWAP, encrypt=True, faults=faults, io={io!r}, reclaimer=False)
        pages = Pages(pool.region("24MiB"))
        pages.fill(1, 0, 10)
        barrier = threading.Barrier(4)
        def work(number):
            if barrier.wait() == 0:     # threads begin and end unwatched: the C library has its own business then
                watch.watch_calls(1)
            barrier.wait()
            pages.stress(number + 1, 500)
            barrier.wait()
            if number == 0:
                watch.watch_calls(0)
            barrier.wait()
        in_threads(4, work)
        assert pool.stats().pages_in > 0 and pool.stats().pages_out > 0
        assert seen() == (0, 0, 0), (faults, seen())
    watch.watch_calls(1)
    del pages
    pool = uswap.Pool("6MiB", swap=SWAP, encrypt=True)             # what is made beforehand is seen
    assert seen()[0] > 0
"""


@pytest.mark.parametrize("io", ["uring", "sync"])
def test_moving_pages_allocates_nothing_and_takes_no_library_lock(swap_directory: Path, io: str) -> None:
    library = shared_object(TESTS / "_support" / "watch_calls.c")
    run_program(WATCHED.format(library=library, io=io), swap_directory, LD_PRELOAD=library)


LARGE = 64 << 20  # csrc/base/memory.c


def key_mappings(*flags: str) -> list[tuple[int, int]]:
    """(start, end) of the anonymous mappings here that are left out of dumps and forks, and have these flags.

    Not of tables and arenas, which are left out because they are large, nor of unused pieces beside them.
    """
    found, span, used = [], (0, 0), False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        words = line.split()
        if "-" in words[0] and not words[0].endswith(":"):
            low, high = words[0].split("-")
            span = (int(low, 16), int(high, 16)) if len(words) < 6 else (0, 0)
            span = span if span[1] - span[0] < LARGE else (0, 0)
        elif words[0] == "Rss:":
            used = int(words[1]) > 0
        elif words[0] == "VmFlags:" and {"dd", "dc", *flags} <= set(words[1:]) and span[1] and used:
            found.append(span)
    return found


def memory(start: int, end: int) -> bytes:
    with open("/proc/self/mem", "rb", buffering=0) as file:
        return os.pread(file.fileno(), end - start, start)


@needs_failpoints
def test_keys_are_locked_in_no_dump_and_wiped(make_pool: PoolFactory) -> None:
    others = set(key_mappings())
    pool = make_pool("6MiB", encrypt=True)
    ((start, end),) = set(key_mappings()) - others
    assert pool.stats().key_locked is ((start, end) in key_mappings("lo"))
    assert any(memory(start, end))
    with armed("key.wiped", Action.STOP):
        closer = threading.Thread(target=pool.close)
        closer.start()
        await_stopped("key.wiped")
        wiped = memory(start, end)
        release("key.wiped")
        closer.join()
    assert wiped == bytes(end - start)
    assert set(key_mappings()) == others


def test_key_schedules_are_nowhere_else(swap_directory: Path) -> None:
    """A child reports where its keys are; its parent looks for them in all else that the child can write to."""
    result = run_program(
        """
        import os, subprocess, sys
        from integration.test_encrypt import key_mappings
        from _support.workload import Pages
        pool = uswap.Pool("6MiB", swap=SWAP, encrypt=True)
        pages = Pages(pool.region("16MiB"))
        pages.fill(1)
        assert pages.wrong(1) == 0
        searcher = "from integration.test_encrypt import search_parent; search_parent(%r)" % key_mappings()
        print(subprocess.run([sys.executable, "-c", searcher], capture_output=True, text=True, check=True).stdout)
        """,
        swap_directory,
    )
    needles, searched, found = map(int, result.stdout.split())
    assert needles > 20
    assert searched > MIB
    assert found == 0


def search_parent(spans: list[tuple[int, int]]) -> None:
    """Prints how many pieces of keys it looked for, in how many bytes of its parent, and how many it found."""
    process = Path(f"/proc/{os.getppid()}")
    searched = found = 0
    with open(process / "mem", "rb", buffering=0) as file:
        keys = b"".join(os.pread(file.fileno(), end - start, start) for start, end in spans)
        pieces = {keys[at : at + 16] for at in range(0, len(keys), 16)}
        needles = {piece for piece in pieces if len(set(piece)) >= 13}  # pointers and counts have zeroes
        for line in (process / "maps").read_text().splitlines():
            words = line.split()
            start, end = (int(word, 16) for word in words[0].split("-"))
            if not words[1].startswith("rw") or (start, end) in spans or end - start > 64 * MIB:
                continue
            try:
                data = os.pread(file.fileno(), end - start, start)
            except OSError:
                continue  # managed memory that is out, or a device
            searched += len(data)
            found += len(needles & {data[at : at + 16] for at in range(0, len(data), 16)})
    print(len(needles), searched, found)


def test_a_pool_that_ends_leaves_the_keys_of_another(make_pool: PoolFactory) -> None:
    first, second = make_pool("6MiB", encrypt=True), make_pool("6MiB", encrypt=True)
    pages = Pages(second.region("16MiB"))
    pages.fill(1)
    first.close()
    third = make_pool("6MiB", encrypt=True)
    assert pages.wrong(1) == 0
    pages.fill(2)
    del pages
    gc.collect()
    second.close()
    pages = Pages(third.region("16MiB"))
    pages.fill(1)
    assert pages.wrong(1) == 0
