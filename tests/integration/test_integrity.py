"""The swap file is damaged behind the pool's back: it is found, only the pages concerned are lost, and nobody ever
sees zeroes or old contents. docs/integrity.md says what is promised."""

from __future__ import annotations

import errno
import gc
import os
import random
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from _support.members import Member
from _support.program import run_program
from _support.waiting import await_that
from _support.workload import PAGE, Pages
from conftest import PoolFactory, probe

import uswap
from uswap import Advice, PageClass

MIB = 1 << 20
AREA = "8MiB"
# So many versions are written until a slot has had two of them.
VERSIONS = 64
HALF = PAGE // 2


@dataclass(frozen=True)
class Swapped:
    """A region that is out, and the file it is in.

    Attributes:
        version: what it was filled with.
        used: where in the file the slots of its pages are, all of them.
        old: what those held at an earlier time.
    """

    region: uswap.Region
    pages: Pages
    file: Path
    version: int
    used: list[int]
    old: dict[int, bytes]


def nameless_file() -> Path:
    """The only file of this process that has no name and is open for direct I/O, as a path."""
    (found,) = [
        path
        for path in Path("/proc/self/fd").iterdir()
        if path.exists() and "(deleted)" in os.readlink(path) and path.stat().st_size > MIB and not is_memory(path)
    ]
    return found


def is_memory(path: Path) -> bool:
    return os.readlink(path).startswith("/memfd:")


def slots_of(file: Path) -> list[bytes]:
    data = file.read_bytes()
    return [data[at : at + PAGE] for at in range(0, len(data), PAGE)]


def swap_out(region: uswap.Region, file: Path) -> Swapped:
    """Versions are written and paged out until the last one lies in slots that held others before."""
    pages, count = Pages(region), len(region) // PAGE
    before = slots_of(file)
    for version in range(1, VERSIONS):
        pages.fill(version)
        region.advise(Advice.PAGEOUT)
        after = slots_of(file)
        before += [bytes(PAGE)] * (len(after) - len(before))
        used = [slot for slot, (old, new) in enumerate(zip(before, after, strict=True)) if old != new]
        old = {slot * PAGE: before[slot] for slot in used}
        if len(used) == count and all(any(page) for page in old.values()):
            return Swapped(region, pages, file, version, sorted(old), old)
        before = after
    raise AssertionError("no slot was used twice")


# ---- damages: each => where in the file the slots are that do not hold their pages any more ---------------


def put(swapped: Swapped, at: int, data: bytes) -> None:
    with open(swapped.file, "r+b", buffering=0) as file:
        assert os.pwrite(file.fileno(), data, at) == len(data)


def get(swapped: Swapped, at: int) -> bytes:
    with open(swapped.file, "rb", buffering=0) as file:
        return os.pread(file.fileno(), PAGE, at)


def middle(swapped: Swapped) -> int:
    return swapped.used[len(swapped.used) // 2]


def flip_a_bit(swapped: Swapped) -> set[int]:
    at = middle(swapped)
    (byte,) = get(swapped, at)[1234:1235]
    put(swapped, at + 1234, bytes([byte ^ 8]))
    return {at}


def tear(swapped: Swapped) -> set[int]:
    at = middle(swapped)
    put(swapped, at + HALF, swapped.old[at][HALF:])
    return {at}


def play_back_an_old_version(swapped: Swapped) -> set[int]:
    at = middle(swapped)
    put(swapped, at, swapped.old[at])
    return {at}


def exchange_two(swapped: Swapped) -> set[int]:
    one, other = swapped.used[3], swapped.used[-3]
    contents = get(swapped, one), get(swapped, other)
    put(swapped, one, contents[1])
    put(swapped, other, contents[0])
    return {one, other}


def blank(swapped: Swapped) -> set[int]:
    put(swapped, middle(swapped), bytes(PAGE))
    return {middle(swapped)}


def truncate(swapped: Swapped) -> set[int]:
    os.truncate(swapped.file, middle(swapped))
    return {at for at in swapped.used if at >= middle(swapped)}


def replace(swapped: Swapped) -> set[int]:
    for at in swapped.used:
        put(swapped, at, random.Random(at).randbytes(PAGE))
    return set(swapped.used)


DAMAGES = [flip_a_bit, tear, play_back_an_old_version, exchange_two, blank, truncate, replace]
Damage = Callable[[Swapped], set[int]]


# ---- where ------------------------------------------------------------------------------------------------


KINDS = ["pages", "blocks", "encrypted", "nameless", "shared"]
# To find slots that are used a second time takes a shared region a second: these tell most.
OF_SHARED = [flip_a_bit, play_back_an_old_version, exchange_two, truncate]
CASES = [(kind, one) for kind in KINDS for one in (OF_SHARED if kind == "shared" else DAMAGES)]


@pytest.fixture(params=KINDS)
def swapped(request: pytest.FixtureRequest, make_pool: PoolFactory, swap_directory: Path) -> Iterator[Swapped]:
    """A region of each kind."""
    kind, file = request.param, swap_directory / "swap"
    if kind == "encrypted" and probe().encrypt_errno != 0:
        pytest.skip("swap cannot be encrypted: no libcrypto")
    if kind == "shared":
        runtime = request.getfixturevalue("runtime_folder")
        assert runtime
        with uswap.Pool("32MiB", name="damaged", swap=uswap.SwapArea(swap_directory, size=AREA)) as pool:
            region = pool.region("1MiB", shared=True, name="data")
            region[:PAGE] = bytes([1]) * PAGE
            yield from until_closed(swap_out(region, nameless_file()))
        return
    place = swap_directory if kind == "nameless" else file
    size = "16MiB" if kind == "blocks" else AREA
    pool = make_pool("8MiB", swap=uswap.SwapArea(place, size=size), encrypt=kind == "encrypted")
    region = pool.region("4MiB" if kind == "blocks" else "1MiB", name="data")
    yield from until_closed(swap_out(region, nameless_file() if kind == "nameless" else file))


def until_closed(swapped: Swapped) -> Iterator[Swapped]:
    yield swapped
    swapped.pages.view.release()
    gc.collect()
    swapped.region.close()


def bad_pages(region: uswap.Region) -> list[int]:
    """As verify() finds them."""
    found, start = [], 0
    while start < len(region):
        try:
            region.verify(start)
        except uswap.SwapError as error:
            offset = error.offset or 0
            found.append(offset // PAGE)
            start = offset + PAGE
        else:
            break
    return found


def assert_right(swapped: Swapped, pages: list[int]) -> None:
    """All pages but these hold what was stored."""
    wanted = [page for page in range(swapped.pages.count) if page not in pages]
    assert sum(swapped.pages.wrong(swapped.version, page, 1) for page in wanted) == 0


@pytest.mark.parametrize(
    ("swapped", "damage"), CASES, indirect=["swapped"], ids=[f"{kind}-{one.__name__}" for kind, one in CASES]
)
def test_damage_is_found_and_only_the_pages_concerned_are_lost(swapped: Swapped, damage: Damage) -> None:
    region = swapped.region
    region.verify()
    slots = damage(swapped)
    lost = bad_pages(region)
    assert len(lost) == len(slots)
    # Reading ahead finds them too, and maps none.
    region.advise(Advice.WILLNEED)
    assert_right(swapped, lost)
    for page in lost[:4]:
        with pytest.raises(uswap.SwapError) as asked, region.resident(page * PAGE, PAGE):
            pass
        assert asked.value.offset == page * PAGE
        assert region.page_classes(page * PAGE, PAGE) == bytes([PageClass.POISONED])
        with pytest.raises(OSError, match="Bad address") as called:
            os.write(open_sink(), memoryview(region)[page * PAGE : page * PAGE + 1])
        assert called.value.errno == errno.EFAULT
    await_that(lambda: bad_pages(region) == lost)  # a page that is just being read is judged by who reads it
    assert_right(swapped, lost)
    # It can be used again: as zeroes, by request.
    region.advise(Advice.DONTNEED, lost[0] * PAGE, PAGE)
    assert swapped.pages.wrong(0, lost[0], 1) == 0
    region.advise(Advice.DONTNEED)


def open_sink() -> int:
    """A pipe's end: /dev/null does not look at what it is given."""
    global _sink
    if _sink is None:
        _sink = os.pipe()
    return _sink[1]


_sink: tuple[int, int] | None = None


# ---- who touches one ---------------------------------------------------------------------------------------

TOUCH = """
    import os, sys
    from pathlib import Path
    from integration.test_integrity import flip_a_bit, nameless_file, swap_out, bad_pages
    shared = {shared}
    if shared:
        pool = uswap.attach("damaged")
        region = pool.open_region("data")
        lost = int(os.environ["LOST"])
    else:
        pool = uswap.Pool("8MiB", swap=uswap.SwapArea(SWAP.path, size="16MiB"), encrypt={encrypt})
        region = pool.region("4MiB", name="data")
        swapped = swap_out(region, nameless_file())
        flip_a_bit(swapped)
        (lost,) = bad_pages(region)
    print(lost, flush=True)
    print(region[lost * 4096])
"""


def assert_ended_by_touch(result: object, region: str, page: int) -> None:
    assert result.returncode == -signal.SIGBUS, result.stderr  # type: ignore[attr-defined]
    (line,) = result.stderr.strip().splitlines()  # type: ignore[attr-defined]
    assert line.startswith(f"uswap: lost page: {region} at offset {page * PAGE:#x}: what its slot holds is damaged")


@pytest.mark.parametrize("encrypt", [False, True])
def test_a_touch_ends_the_process_after_one_line(swap_directory: Path, encrypt: bool) -> None:
    if encrypt and probe().encrypt_errno != 0:
        pytest.skip("swap cannot be encrypted: no libcrypto")
    result = run_program(TOUCH.format(shared=False, encrypt=encrypt), swap_directory, check=False)
    assert_ended_by_touch(result, "region 'data'", int(result.stdout.split()[0]))


@pytest.mark.parametrize("swapped", ["shared"], indirect=True)
def test_a_member_is_told_of_a_page_that_another_has_found_lost(
    swapped: Swapped, swap_directory: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """It had no reason to look after SIGBUS before."""
    with Member() as member:
        member(f"swap = uswap.SwapArea({str(swap_directory)!r}, size='16MiB')")
        member("pool = uswap.attach('damaged', swap=swap); region = pool.open_region('data')")
        flip_a_bit(swapped)
        (lost,) = bad_pages(swapped.region)
        with pytest.raises(uswap.SwapError), swapped.region.resident(lost * PAGE, PAGE):
            pass
        member.send(f"region[{lost * PAGE}]")
        with pytest.raises(AssertionError, match=f"has ended: -{int(signal.SIGBUS)}"):
            member.answer()
    assert capfd.readouterr().err.startswith(f"uswap: lost page: shared region 'data' at offset {lost * PAGE:#x}: ")


@pytest.mark.parametrize("swapped", ["shared"], indirect=True)
@pytest.mark.parametrize("found", ["by another", "by itself"])
def test_each_process_learns_of_a_lost_shared_page(swapped: Swapped, swap_directory: Path, found: str) -> None:
    flip_a_bit(swapped)
    (lost,) = bad_pages(swapped.region)
    if found == "by another":
        with pytest.raises(uswap.SwapError), swapped.region.resident(lost * PAGE, PAGE):
            pass
    program = TOUCH.format(shared=True, encrypt=False)
    result = run_program(program, swap_directory, check=False, LOST=str(lost))
    assert_ended_by_touch(result, "shared region 'data'", lost)
    assert swapped.region.page_classes(lost * PAGE, PAGE) == bytes([PageClass.POISONED])
    with pytest.raises(uswap.SwapError):
        swapped.region.verify()
    assert_right(swapped, [lost])
