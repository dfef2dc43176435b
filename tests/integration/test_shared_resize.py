"""Shared regions that grow, shrink and move while several processes work on them: what each of them sees, what is
refused, and that nothing is lost."""

from __future__ import annotations

import contextlib
import os
import pickle
import random
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from _support.addresses import address_of, hem_in
from _support.failpoints import Action, armed, await_stopped, release
from _support.members import Member, MemberError
from _support.pagemap import PAGE
from _support.waiting import await_that
from _support.workload import Pages

import uswap
from uswap import Advice, Protection, _resizing
from uswap._core import lib

MIB = 1 << 20
READ, WRITE = Protection.READ, Protection.WRITE
needs_failpoints = pytest.mark.skipif(
    not lib.uswap_failpoints_built(), reason="the core was built without failpoints"
)


@pytest.fixture
def pool(runtime_folder: Path, swap_directory: Path) -> Iterator[uswap.Pool]:
    with uswap.Pool("32MiB", name="resized", swap=uswap.SwapArea(swap_directory, size="256MiB")) as pool:
        yield pool
        pool.check()
        pool.check()


@pytest.fixture
def member(pool: uswap.Pool, swap_directory: Path) -> Iterator[Member]:
    """Another process of it."""
    with Member() as process:
        process(f"swap = uswap.SwapArea({str(swap_directory)!r}, size='256MiB')")
        process(
            "pool = uswap.attach('resized', swap=swap); import numpy as np; from _support.workload import Pages"
        )
        yield process


# ---- longer ------------------------------------------------------------------------------------------------------


def test_growth_by_reserve_stays_where_it_is_under_live_exports(pool: uswap.Pool, member: Member) -> None:
    r = pool.region(4 * MIB, shared=True, name="r", reserve=64 * MIB)
    Pages(r).fill(1)
    old, at = np.frombuffer(r, "u8"), address_of(r)
    member("r = pool.open_region('r'); old = np.frombuffer(r, 'u8'); at = r._address")
    for size in (5 * MIB, 16 * MIB, 64 * MIB):
        r.resize(size)
        assert (len(r), r.size(), len(memoryview(r)), r.info().size) == (size,) * 4
        assert address_of(r) == at
    assert member("len(r), r.info().size") == [4 * MIB, 64 * MIB]
    assert (len(r.users(0)), len(r.users(1 << 10))) == (2, 1)
    member("r.refresh()")
    assert member("len(r), r._address == at, len(old) * 8") == [64 * MIB, True, 4 * MIB]
    assert len(r.users(1 << 10)) == 2
    assert Pages(old).wrong(1) == 0
    assert not np.frombuffer(r, "u8")[len(old) :].any()
    Pages(r).fill(2)
    assert member("Pages(r).wrong(2)") == 0
    del old
    member("del old; r.close()")
    r.close()


def test_without_room_it_moves_or_says_that_it_must(pool: uswap.Pool, member: Member) -> None:
    r = pool.region(MIB, shared=True, name="r")
    Pages(r).fill(1)
    hem_in(r)
    at = address_of(r)
    with memoryview(r), pytest.raises(BufferError, match="reserve="):
        r.resize(8 * MIB)
    assert (len(r), r.info().size, address_of(r)) == (MIB, MIB, at)
    member("r = pool.open_region('r'); old = memoryview(r)")
    r.protect(READ, 8 * PAGE, PAGE)
    r.resize(8 * MIB)
    assert address_of(r) != at
    assert Pages(r).wrong(1, 0, MIB // PAGE) == 0
    Pages(r).fill(2, 9, len(r) // PAGE - 9)
    assert f"{address_of(r) + 8 * PAGE:x}-{address_of(r) + 9 * PAGE:x} r--s" in Path("/proc/self/maps").read_text()
    member("old.release(); r.refresh()")
    assert member("Pages(r).wrong(2, 9, len(r) // 4096 - 9), Pages(r).wrong(1, 0, 9)") == [0, 0]
    member("Pages(r).fill(3)")
    assert Pages(r).wrong(3) == 0
    member("r.close()")
    r.close()


def test_a_region_that_grows_in_one_process_is_written_and_evicted_in_all(pool: uswap.Pool, member: Member) -> None:
    """More than the limit, by who sees all of it and who sees a part."""
    r = pool.region(MIB, shared=True, name="r", reserve=96 * MIB)
    member("r = pool.open_region('r')")
    r.resize(96 * MIB)
    for version in (1, 2):
        Pages(r).fill(version)
        assert member(f"Pages(r).wrong({version})") == 0
    member("r.advise(uswap.Advice.PAGEOUT)")
    assert Pages(r).wrong(2) == 0
    assert pool.group_info().shared_resident_bytes <= 32 * MIB
    member("r.refresh()")
    assert member("Pages(r).wrong(2)") == 0
    member("r.close()")
    r.close()


def test_what_is_opened_or_unpickled_is_as_long_as_it_can_be(pool: uswap.Pool, member: Member) -> None:
    r = pool.region(MIB, shared=True, name="r", reserve=8 * MIB)
    member("import pickle; r = pool.open_region('r')")
    r.resize(2 * MIB)
    assert member("len(pool.open_region('r'))") == 2 * MIB
    r.resize(4 * MIB)
    last = r.array((1,), "u8", offset=len(r) - 8)
    last[0] = 7
    member(f"last = pickle.loads(bytes.fromhex({pickle.dumps(last).hex()!r}))")
    assert member("int(last[0]), len(r)") == [7, 4 * MIB]
    hem_in_code = "from _support.addresses import hem_in; s = pool.open_region('s'); hem_in(s); old = memoryview(s)"
    s = pool.region(MIB, shared=True, name="s")
    member(hem_in_code)
    s.resize(4 * MIB)
    assert member("len(pool.open_region('s'))") == MIB
    far = s.array((1,), "u8", offset=len(s) - 8)
    with pytest.raises(MemberError, match="BufferError"):
        member(f"pickle.loads(bytes.fromhex({pickle.dumps(far).hex()!r}))")
    del last, far
    member("del last; old.release(); r.close(); s.close()")


def test_more_than_there_is_room_for_is_refused_and_changes_nothing(pool: uswap.Pool) -> None:
    r = pool.region(MIB, shared=True)
    r[:4] = b"here"
    for wrong, error in ((0, ValueError), (-1, ValueError), ("x", ValueError), (1 << 60, uswap.OutOfSpaceError)):
        with pytest.raises(error):
            r.resize(wrong)
    with pytest.raises(uswap.OutOfSpaceError, match="reserve="):
        r.resize("16TiB")
    assert (len(r), r.info().size, r[:4]) == (MIB, MIB, b"here")


@needs_failpoints
def test_a_disk_without_room_refuses_growth(pool: uswap.Pool) -> None:
    r = pool.region(MIB, shared=True, reserve="1GiB")
    with (
        armed("shared.fallocate", Action.ERROR, 28, every=True),
        pytest.raises(uswap.OutOfSpaceError, match="space"),
    ):
        r.resize("1GiB")
    assert (len(r), r.info().size) == (MIB, MIB)
    r.resize("1GiB")
    assert len(r) == 1 << 30


# ---- shorter -----------------------------------------------------------------------------------------------------


def test_what_is_cut_off_is_gone_and_zeroes_when_it_comes_again(pool: uswap.Pool, member: Member) -> None:
    r = pool.region(48 * MIB, shared=True, name="r")
    Pages(r).fill(1)  # a part of it is out
    r.resize(MIB)
    assert (len(r), r.info().size, r.info().resident + r.info().swapped) == (MIB, MIB, MIB)
    pool.check()
    assert Pages(r).wrong(1) == 0
    member("r = pool.open_region('r')")
    assert member("len(r), Pages(r).wrong(1)") == [MIB, 0]
    r.resize(48 * MIB)
    assert not np.frombuffer(r, "u8")[MIB // 8 :].any()
    assert Pages(r).wrong(1, 0, MIB // PAGE) == 0
    member("r.refresh()")
    assert member("bool(np.frombuffer(r, 'u8')[131072:].any())") is False


def test_nobody_loses_what_he_sees(pool: uswap.Pool, member: Member) -> None:
    r = pool.region(2 * MIB, shared=True, name="r")
    Pages(r).fill(1)
    member("r = pool.open_region('r')")
    with pytest.raises(uswap.BusyError, match=f"process {member.pid} has mapped more"):
        r.resize(MIB)
    with memoryview(r), pytest.raises(BufferError, match="shrink"):
        r.resize(MIB)
    with r.resident(), pytest.raises(uswap.BusyError, match=r"must close|unlock"):
        r.resize(MIB)
    assert member("len(r), Pages(r).wrong(1)") == [2 * MIB, 0]
    assert (len(r), r.info().size, Pages(r).wrong(1)) == (2 * MIB, 2 * MIB, 0)
    member("r.close()")
    with r.resident(PAGE, PAGE):
        r.resize(MIB)
    with r.resident(MIB - PAGE, PAGE), pytest.raises(uswap.BusyError, match="unlock"):
        r.resize(MIB - PAGE)
    assert Pages(r).wrong(1) == 0


def test_who_sees_only_what_is_left_is_no_hindrance(pool: uswap.Pool, member: Member) -> None:
    r = pool.region(MIB, shared=True, name="r", reserve=4 * MIB)
    Pages(r).fill(1)
    member("r = pool.open_region('r'); old = np.frombuffer(r, 'u8')")
    r.resize(4 * MIB)
    Pages(r).fill(2)
    r.resize(MIB)
    assert member("Pages(old).wrong(2)") == 0
    member("r.refresh()")
    assert member("len(r)") == MIB


def test_a_resize_of_what_another_process_has_made_longer_is_of_the_whole(pool: uswap.Pool, member: Member) -> None:
    r = pool.region(MIB, shared=True, name="r", reserve=8 * MIB)
    member("r = pool.open_region('r'); r.resize('8MiB'); r[-4:] = b'last'")
    with pytest.raises(uswap.BusyError, match=f"{member.pid}"):
        r.resize(2 * MIB)
    assert len(r) == MIB
    r.resize(8 * MIB)
    assert r[-4:] == b"last"
    r.resize(8 * MIB)
    member("r.close()")
    r.resize(2 * MIB)
    assert (len(r), r.info().size) == (2 * MIB, 2 * MIB)


@needs_failpoints
def test_lost_pages_that_are_cut_off_are_no_more(pool: uswap.Pool) -> None:
    r = pool.region(MIB, shared=True)
    r[:] = b"x" * MIB
    r.advise(Advice.PAGEOUT)
    with armed("shared.hash", Action.FLIP, every=True), pytest.raises(uswap.SwapError):
        r.lock(200 * PAGE, PAGE)
    r.resize(100 * PAGE)
    r.resize(MIB)
    assert r[:100] == b"x" * 100
    assert r[100 * PAGE :] == bytes(MIB - 100 * PAGE)


# ---- at once -----------------------------------------------------------------------------------------------------


@needs_failpoints
@pytest.mark.parametrize(
    ("step", "nth", "left"),
    [
        ("object.resizing", 1, 4 * MIB),
        ("object.cut_locked", 1, 4 * MIB),
        ("object.cutting", 5, MIB),
        ("object.cut", 1, MIB),
        ("object.shorter", 1, MIB),
    ],
)
def test_one_at_a_time_and_a_cut_is_done_wholly_or_not_at_all(
    pool: uswap.Pool, member: Member, step: str, nth: int, left: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    r = pool.region(MIB, shared=True, name="r", reserve=4 * MIB)
    member("from _support.failpoints import set_failpoint, Action")
    member("r = pool.open_region('r'); r.resize('4MiB'); Pages(r).fill(2)")
    member(f"set_failpoint({step!r}, {int(Action.FREEZE)}, 0, nth={nth})")
    member.send("r.resize('1MiB')")
    os.waitid(os.P_PID, member.pid, os.WSTOPPED | os.WNOWAIT)
    assert Pages(r).wrong(2) == 0  # what is left goes on
    pool.check()
    monkeypatch.setattr(_resizing, "_PATIENCE_SECONDS", 0.1)
    with pytest.raises(uswap.BusyError, match=f"process {member.pid} is changing"):
        r.resize(2 * MIB)
    assert len(r) == MIB
    member.kill()
    await_that(lambda: len(pool.members()) == 1)
    r.refresh()
    assert (len(r), r.info().size, Pages(r).wrong(2)) == (left, left, 0)
    pool.check()
    r.resize(4 * MIB)
    assert not np.frombuffer(r, "u8")[left // 8 :].any()


@needs_failpoints
def test_readers_in_flight_and_evictions_meet_a_growing_region(pool: uswap.Pool) -> None:
    """A view that is watched and not known yet is nobody's business: threads go on with what there is."""
    r = pool.region(MIB, shared=True, reserve=8 * MIB)
    Pages(r).fill(1)
    with armed("object.viewed", Action.STOP):
        grower = threading.Thread(target=r.resize, args=(8 * MIB,))
        grower.start()
        await_stopped("object.viewed")
        r.advise(Advice.PAGEOUT)
        assert Pages(memoryview(r)[:MIB]).wrong(1) == 0
        release("object.viewed")
        grower.join(30)
    assert len(r) == 8 * MIB


@needs_failpoints
def test_a_page_that_is_just_leaving_is_let_go_by_who_evicts_it(pool: uswap.Pool) -> None:
    """Full of zeroes, it is ZERO and still locked, by another thread of this process: the cut passes it over."""
    r = pool.region(2 * MIB, shared=True)
    np.frombuffer(r, "u8")[:] = 0
    with armed("shared.committed", Action.STOP):
        evictor = threading.Thread(target=r.advise, args=(Advice.PAGEOUT, MIB, MIB))
        evictor.start()
        await_stopped("shared.committed")
        r.resize(MIB)
        release("shared.committed")
        evictor.join(30)
    pool.check()
    r.resize(2 * MIB)
    assert Pages(r).wrong(0) == 0


WORK = """
import random, threading, time
def work(r, seed, pages, seconds):
    chance, rows = random.Random(seed), np.frombuffer(r, 'u8').reshape(-1, 512)
    own, wrong, turns, end = range(seed, pages, 2), 0, 0, time.monotonic() + seconds
    versions = {page: 0 for page in own}
    for page in own:
        rows[page] = 0
    while time.monotonic() < end or not turns:
        page = chance.choice(own)
        wrong += bool((rows[page] != versions[page]).any())
        versions[page] = chance.randrange(1, 1 << 40)
        rows[page] = versions[page]
        turns += 1
        if chance.random() < 0.05:
            r.advise(uswap.Advice.PAGEOUT, chance.randrange(pages - 64) * 4096, 4096 * 64)
    wrong += sum(bool((rows[page] != versions[page]).any()) for page in own)
    return [wrong, turns]
"""


def test_processes_work_on_while_one_of_them_changes_the_size(pool: uswap.Pool, swap_directory: Path) -> None:
    """Two members write their pages of the common part; this process makes the region longer and shorter, writes
    what is new and checks that what was cut off does not come again."""
    pages, most = 512, 96 * MIB // PAGE
    r = pool.region(pages * PAGE, shared=True, name="r", reserve=most * PAGE)
    with Member() as one, Member() as two:
        for number, each in enumerate((one, two)):
            each(f"swap = uswap.SwapArea({str(swap_directory)!r}, size='256MiB')")
            each("pool = uswap.attach('resized', swap=swap); import numpy as np")
            each(WORK)
            each("r = pool.open_region('r')")
            each.send(f"work(r, {number}, {pages}, 3.0)")
        chance, resized = random.Random(1), 0
        while resized < 30:
            now = chance.randrange(pages + 1, most)
            r.resize(now * PAGE)
            rows = np.frombuffer(r, "u8").reshape(-1, 512)
            assert not rows[pages:, 0].any()
            rows[pages::7] = now
            assert (rows[pages::7] == now).all()
            del rows
            r.resize(pages * PAGE)
            resized += 1
        for each in (one, two):
            wrong, turns = each.answer()
            assert wrong == 0, turns
            each("r.close()")
    pool.check()
    r.close()


RESIZERS = 3
RESIZE = """
import contextlib, random, time
def work(r, seed, least, most, seconds):
    chance, versions, wrong, done = random.Random(seed), {}, 0, [0, 0, 0]
    end = time.monotonic() + seconds
    def look(rows, page):
        # What was cut off in between is zeroes, in all of its words; nobody else writes it.
        found, known = int(rows[page, 0]), versions.get(page, 0)
        return (rows[page] != found).any() or (found != known and (found != 0 or page < least))
    while time.monotonic() < end or not all(done):
        kind = chance.randrange(3)
        try:
            if kind == 0:
                r.resize(min(len(r) + chance.randrange(100) * 4096, most * 4096))
            elif kind == 1:
                r.refresh()
            else:
                before = len(r)
                r.resize(before + chance.randrange(1, 200) * 4096)
                page = before // 4096 + (seed - before // 4096) % RESIZERS
                if page < len(r) // 4096:
                    versions[page] = page << 32 | 7
                    np.frombuffer(r, 'u8').reshape(-1, 512)[page] = versions[page]
                r.resize(before)  # nobody may have seen it meanwhile
            done[kind] += 1
        except uswap.BusyError as error:
            assert 'has mapped more' in str(error), error
        rows = np.frombuffer(r, 'u8').reshape(-1, 512)
        for _ in range(40):
            page = chance.randrange(seed, len(rows), RESIZERS)
            wrong += bool(look(rows, page))
            versions[page] = page << 32 | chance.randrange(1, 1 << 31)
            rows[page] = versions[page]
        other = chance.randrange(len(rows))
        wrong += bool((((rows[other] >> 32) != other) & (rows[other] != 0)).any())
        del rows
        if chance.random() < 0.3:
            r.advise(uswap.Advice.PAGEOUT)
    rows = np.frombuffer(r, 'u8').reshape(-1, 512)
    wrong += sum(bool(look(rows, page)) for page in versions if page < len(rows))
    return [wrong, done]
"""


def test_all_of_them_change_the_size_at_once(pool: uswap.Pool, swap_directory: Path) -> None:
    """Each process has pages of its own; what it does not see just then may be cut off, and nothing else may."""
    least, most = 64, 24 * MIB // PAGE
    r = pool.region(least * PAGE, shared=True, name="r", reserve=most * PAGE // 2)  # beyond that it moves
    with contextlib.ExitStack() as all_of_them:
        members = [all_of_them.enter_context(Member()) for _ in range(RESIZERS)]
        for number, each in enumerate(members):
            each(f"swap = uswap.SwapArea({str(swap_directory)!r}, size='256MiB')")
            each("pool = uswap.attach('resized', swap=swap); import numpy as np")
            each(f"RESIZERS = {RESIZERS}")
            each(RESIZE)
            each("r = pool.open_region('r')")
            each.send(f"work(r, {number}, {least}, {most}, 4.0)")
        for each in members:
            wrong, done = each.answer()
            assert wrong == 0, done
            each("r.close()")
    pool.check()
    r.refresh()
    r.close()


@needs_failpoints
def test_who_mends_a_cut_may_die_of_it_too(runtime_folder: Path, swap_directory: Path) -> None:
    """One dies in the middle of a cut, the second while it goes on with it; the third ends it."""
    with Member() as one, Member() as two, Member() as three:
        for each in (one, two, three):
            each(f"swap = uswap.SwapArea({str(swap_directory)!r}, size='64MiB')")
            each("from _support.failpoints import set_failpoint; from _support.workload import Pages")
        one("pool = uswap.Pool('32MiB', name='cut', swap=swap); r = pool.region('1MiB', shared=True, name='r')")
        for each in (two, three):
            each("pool = uswap.attach('cut', swap=swap); r = pool.open_region('r')")
        one("r.resize('4MiB'); Pages(r).fill(2)")
        one(f"set_failpoint('object.cutting', {int(Action.FREEZE)}, 0, nth=5)")
        one.send("r.resize('1MiB')")
        os.waitid(os.P_PID, one.pid, os.WSTOPPED | os.WNOWAIT)
        two(f"set_failpoint('object.cutting', {int(Action.KILL)}, 0, nth=3)")
        three.stop()
        one.kill()
        await_that(lambda: not two.alive)
        three.go_on()
        three("import time\nwhile len(pool.members()) > 1: time.sleep(0.01)")
        three("r.refresh()")
        assert three("len(r), r.info().size, Pages(r).wrong(2)") == [MIB, MIB, 0]
        three("pool.check(); r.resize('4MiB')")
        assert three("r[1 << 20 :].strip(bytes(1)) == b''") is True
        three("r.close(); pool.check(); pool.close()")
