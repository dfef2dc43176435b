"""Named pools and shared regions between real processes: one limit, the same memory, and every way to an end."""

import gc
import itertools
import os
import random
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from _support.failpoints import Action, armed
from _support.members import Member, MemberError
from _support.workload import Pages

import uswap
from uswap._core import lib

MIB = 1 << 20
PAGE = 4096


@pytest.fixture
def member(jobs: uswap.Pool, swap_directory: Path) -> Iterator[Member]:
    """A process that has joined it, as `pool`."""
    with Member() as process:
        process(f"swap = uswap.SwapArea({str(swap_directory)!r}, size='1GiB')")
        process("pool = uswap.attach('jobs', swap=swap)")
        yield process


# ---- pools -------------------------------------------------------------------------------------------------


def test_a_named_pool_has_members_under_one_limit(jobs: uswap.Pool, member: Member) -> None:
    assert jobs.name == "jobs"
    assert "'jobs'" in repr(jobs)
    assert member("pool.name") == "jobs"
    assert jobs.limit == member("pool.limit") == 64 * MIB
    members = jobs.members()
    assert {one.pid for one in members} == {os.getpid(), member.pid}
    assert [one.pid for one in members if one.itself] == [os.getpid()]
    assert {one.state for one in members} == {"alive"}
    info = jobs.group_info()
    assert info.members == 2
    assert info.limit_bytes == 64 * MIB
    assert all(one.limit >= info.floor_bytes > 0 for one in members)
    assert sum(one.limit for one in members) + info.shared_limit_bytes + info.free_bytes <= info.limit_bytes


def test_the_limit_is_that_of_the_whole_wherever_it_is_set(jobs: uswap.Pool, member: Member) -> None:
    member("pool.limit = '96MiB'")
    assert jobs.limit == 96 * MIB
    jobs.limit = "48MiB"
    assert member("pool.limit") == 48 * MIB
    assert jobs.stats().limit_bytes <= 48 * MIB


def test_a_name_in_use_is_refused_and_free_again_after_the_last(jobs: uswap.Pool, member: Member) -> None:
    with pytest.raises(uswap.PoolExistsError, match="uswap"):
        uswap.Pool("16MiB", name="jobs")
    with pytest.raises(MemberError, match="PoolExistsError"):
        member("uswap.Pool('16MiB', name='jobs')")
    jobs.close()
    assert member("len(pool.members())") == 1
    member("pool.close()")
    with pytest.raises(uswap.PoolNotFoundError):
        uswap.attach("jobs")


def test_private_memory_lives_on_beside_the_shared(jobs: uswap.Pool, member: Member) -> None:
    mine = jobs.zeros(1 << 24)  # 128 MiB
    mine += 1
    member("mine = pool.zeros(1 << 24)")
    member("mine += 2")
    assert mine.sum() == 1 << 24
    assert member("float(mine.sum())") == 2 << 24
    resident = jobs.stats().resident_bytes + member("pool.stats().resident_bytes")
    assert resident <= jobs.limit
    member("del mine")


# ---- regions -----------------------------------------------------------------------------------------------


def test_by_name_both_have_the_same_memory(jobs: uswap.Pool, member: Member) -> None:
    r = jobs.region("8MiB", shared=True, name="x")
    assert isinstance(r, uswap.SharedRegion)
    assert r[:100] == bytes(100)
    r[:5] = b"hello"
    member("r = pool.open_region('x')")
    assert member("bytes(r[:5]).decode()") == "hello"
    member("r[4096:4101] = b'world'")
    assert r[4096:4101] == b"world"
    assert member("r.id") == r.id
    assert jobs.open_region("x") is r
    assert {user.pid for user in r.users(0)} == {os.getpid(), member.pid}
    (info,) = jobs.shared_regions()
    assert (info.name, info.size, info.users, info.creator_pid) == ("x", 8 * MIB, 2, os.getpid())
    assert info.address
    assert jobs.regions() == []
    member("r.close()")
    assert r.info().users == 1


def test_by_id_with_consent(jobs: uswap.Pool, member: Member) -> None:
    r = jobs.region(10000, shared=True)
    assert len(r) == 3 * PAGE
    hidden = jobs.region("1MiB", shared=True, exportable=False, name="hidden")
    r[:5] = b"hello"
    member(f"r = pool.attach_region({os.getpid()}, {r.id})")
    assert member("bytes(r[:5]).decode()") == "hello"
    assert hidden.id == 0
    for pid, region_id in ((os.getpid(), 0), (os.getpid(), r.id + 1), (member.pid + 1, r.id), (os.getpid(), -1)):
        with pytest.raises(MemberError, match="no exportable shared region"):
            member(f"pool.attach_region({pid}, {region_id})")
    assert member("len(pool.open_region('hidden'))") == MIB  # whoever knows the name
    member("r.close()")


def test_names_are_taken_once_and_found_or_not(jobs: uswap.Pool, member: Member) -> None:
    r = jobs.region("1MiB", shared=True, name="x")
    with pytest.raises(MemberError, match="ArgumentError"):
        member("pool.region('1MiB', shared=True, name='x')")
    with pytest.raises(ValueError, match="no shared region 'y'"):
        jobs.open_region("y")
    with pytest.raises(ValueError, match="attach_region"):
        jobs.open_region("")
    r.close()
    with pytest.raises(MemberError, match="no shared region 'x'"):
        member("pool.open_region('x')")
    member("x = pool.region('2MiB', shared=True, name='x')")


def test_who_may_open_no_more_files_is_told_so_and_can_open_it_later(jobs: uswap.Pool, member: Member) -> None:
    region = jobs.region(MIB, shared=True, name="full")
    region[0] = 7
    member("import os, resource; few = len(os.listdir('/proc/self/fd')) - 1")  # but for the one that lists them
    member("before = resource.getrlimit(resource.RLIMIT_NOFILE)")
    for spare in range(2):
        member(f"resource.setrlimit(resource.RLIMIT_NOFILE, (few + {spare}, before[1]))")
        with pytest.raises(MemberError, match=r"SystemCallError: .*Too many open files"):
            member("pool.open_region('full')")
    member("resource.setrlimit(resource.RLIMIT_NOFILE, before)")
    assert member("pool.open_region('full')[0]") == region[0]


def test_more_than_the_limit_goes_to_swap_and_comes_back(jobs: uswap.Pool, member: Member) -> None:
    a = jobs.zeros(1 << 24, dtype="u8", shared=True, name="a")  # 128 MiB
    a[:] = np.arange(len(a), dtype="u8")
    member("import numpy as np; a = np.frombuffer(pool.open_region('a'), dtype='u8')")
    assert member("int((a != np.arange(len(a), dtype='u8')).sum())") == 0
    member("a[::1000] += 1")
    expected = np.arange(len(a), dtype="u8")
    expected[::1000] += 1
    assert int((a != expected).sum()) == 0
    info = jobs.group_info()
    assert info.evictions > 0
    assert info.pages_written > 0
    assert info.shared_resident_bytes <= info.shared_limit_bytes <= info.limit_bytes
    a.region.verify()
    (region,) = jobs.shared_regions()
    assert region.resident + region.swapped >= 120 * MIB
    member("del a")


@pytest.mark.parametrize("length", [1, 3, 5, 9])
def test_records_at_random_are_read_as_they_are(jobs: uswap.Pool, length: int) -> None:
    """Each as a whole, once it is known how long they are, and nothing behind it. Frames are there for all."""
    with jobs.region(32 * MIB, shared=True, name="records") as region:
        Pages(region).fill(1)
        while region.info().resident:
            region.advise(uswap.Advice.PAGEOUT)
        firsts = random.Random(1).sample(range(0, len(region), 16 * PAGE), len(region) // (16 * PAGE))
        before, known = jobs.group_info(), len(firsts) // 4
        for number, first in enumerate(firsts):
            if number == known:
                before = jobs.group_info()
            for page in range(length):
                assert region[first + page * PAGE : first + page * PAGE + 8] != bytes(8)
        after, count = jobs.group_info(), len(firsts) - known
        assert after.pages_read - before.pages_read < 1.25 * length * count
        # The first page waits for all; the second tells whether records are still as long.
        assert after.faults - before.faults < (3 if length > 1 else 1.1) * count


def test_figures_of_the_group_fit_each_other_while_pages_come_and_go(jobs: uswap.Pool) -> None:
    shared, private = jobs.region("64MiB", shared=True), jobs.region("64MiB")
    stop = threading.Event()

    def press() -> None:
        pages, others = Pages(shared), Pages(private)
        for version in itertools.count(1):
            if stop.is_set():
                return
            pages.fill(version)
            others.fill(version)
            shared.advise(uswap.Advice.DONTNEED)

    presser = threading.Thread(target=press)
    presser.start()
    try:
        for _ in range(4000):
            info = jobs.group_info()
            assert info.shared_resident_bytes <= info.shared_limit_bytes <= info.limit_bytes
            assert info.shared_limit_bytes + info.free_bytes <= info.limit_bytes
    finally:
        stop.set()
        presser.join()


def test_advice_classes_locks_and_residence(jobs: uswap.Pool) -> None:
    r = jobs.region("8MiB", shared=True)
    r[:] = b"x" * len(r)
    assert set(r.page_classes(0, MIB)) == {uswap.PageClass.RESIDENT}
    r.advise(uswap.Advice.PAGEOUT)
    assert uswap.PageClass.SWAPPED in r.page_classes()
    with r.resident(PAGE, 10 * PAGE):
        assert set(r.page_classes(PAGE, 10 * PAGE)) == {uswap.PageClass.RESIDENT}
        r.advise(uswap.Advice.PAGEOUT)
        assert set(r.page_classes(PAGE, 10 * PAGE)) == {uswap.PageClass.RESIDENT}
    r.lock(0, MIB)
    r.unlock(0, MIB)
    r.verify()
    r.advise(uswap.Advice.DONTNEED, 0, PAGE)
    assert r[:PAGE] == bytes(PAGE)
    assert r[PAGE : 2 * PAGE] == b"x" * PAGE
    with pytest.raises(ValueError, match="not all in"):
        r.lock(0, 9 * MIB)
    with pytest.raises(ValueError, match="page"):
        r.users(2048)


def test_figures_are_of_all_processes_and_each_page_counts_once(jobs: uswap.Pool, member: Member) -> None:
    r = jobs.region("8MiB", shared=True, name="x")
    r[:] = b"x" * len(r)
    before = r.info().faults
    assert before > 0
    member("r = pool.open_region('x'); total = sum(r[::4096])")
    faults = r.info().faults
    assert faults > before
    r.lock(0, MIB)
    r.lock(MIB, PAGE)
    member("r.lock(1 << 19, 1 << 20); r.lock(4 << 20, 4096)")
    (seen,) = jobs.shared_regions()
    assert seen.locked == r.info().locked == MIB + MIB // 2 + PAGE
    member("r.unlock(1 << 19, 1 << 20)")
    assert r.info().locked == MIB + 2 * PAGE
    member("r.close()")
    assert r.info().locked == MIB + PAGE
    r.unlock(0, MIB)
    r.unlock(MIB, PAGE)
    info = r.info()
    assert (info.locked, info.poisoned_pages) == (0, 0)
    assert info.faults >= faults


@pytest.mark.skipif(not lib.uswap_failpoints_built(), reason="the core was built without failpoints")
def test_lost_pages_are_counted_until_they_are_thrown_away(jobs: uswap.Pool) -> None:
    r = jobs.region("1MiB", shared=True, name="x")
    r[:] = b"x" * len(r)
    r.advise(uswap.Advice.PAGEOUT)
    with armed("shared.hash", Action.FLIP, every=True), pytest.raises(uswap.SwapError, match="page 3"):
        r.lock(3 * PAGE, PAGE)
    assert r.info().poisoned_pages == 1
    r.advise(uswap.Advice.DONTNEED, 3 * PAGE, PAGE)
    assert r.info().poisoned_pages == 0
    assert r[3 * PAGE : 4 * PAGE] == bytes(PAGE)
    assert r[4 * PAGE : 5 * PAGE] == b"x" * PAGE


def test_what_shared_regions_cannot_do_says_so(jobs: uswap.Pool) -> None:
    with pytest.raises(uswap.UnsupportedError):
        jobs.region("1MiB", shared=True, faults="inline")


def resident_while_touched(regions: list[uswap.SharedRegion]) -> list[int]:
    """Of each, added up over time, while stores go to pages of all of them at random."""
    chance, sums = np.random.default_rng(1), [0] * len(regions)
    pages = [np.frombuffer(region, dtype="u8").reshape(-1, PAGE // 8)[:, 0] for region in regions]
    for turn in range(240):
        for each in pages:
            each[chance.integers(0, len(each), 200)] += 1
        if turn >= 140:
            sums = [total + region.info().resident for total, region in zip(sums, regions, strict=True)]
    return sums


def await_more_of(regions: list[uswap.SharedRegion]) -> None:
    """Of the first there is clearly more in memory, at the latest when pages have come back a few times, and the
    limit lies where it is needed: on a busy machine that takes longer."""
    for _ in range(40):
        of_first, of_second = resident_while_touched(regions)
        if of_first > 1.2 * of_second:
            return
    pytest.fail(f"{of_first} bytes of the first, {of_second} of the second")


def test_priority_is_one_for_all_and_pages_of_a_higher_one_stay_longer(jobs: uswap.Pool, member: Member) -> None:
    jobs.limit = "32MiB"
    dear = jobs.region("32MiB", shared=True, name="dear", priority=6)
    cheap = jobs.region("32MiB", shared=True, name="cheap")
    member("dear = pool.open_region('dear')")
    assert dear.priority == dear.info().priority == member("dear.priority") == 6
    member("dear.priority = 7")
    assert (dear.priority, cheap.priority) == (7, 0)
    with pytest.raises(ValueError, match="priority"):
        dear.priority = 20
    with pytest.raises(ValueError, match="priority"):
        jobs.region("1MiB", shared=True, priority=-21)
    await_more_of([dear, cheap])
    cheap.priority = 19
    await_more_of([cheap, dear])
    member("dear.close()")


# ---- ends --------------------------------------------------------------------------------------------------


def test_an_array_keeps_its_region_and_the_region_its_pool(jobs: uswap.Pool) -> None:
    a = jobs.zeros(1000, shared=True, name="a")
    region = weakref.ref(a.region)
    assert region() is not None
    view = a[10:20]
    del a
    with pytest.raises(BufferError, match="a \\("):
        jobs.close()
    with pytest.raises(BufferError):
        view.region.close()
    view[:] = 3
    assert view.sum() == 30
    del view
    gc.collect()
    assert region() is None
    assert jobs.shared_regions() == []
    jobs.close()


def test_the_region_ends_with_the_last_that_has_it(jobs: uswap.Pool, member: Member) -> None:
    r = jobs.region("1MiB", shared=True, name="x")
    r[:5] = b"hello"
    member("r = pool.open_region('x')")
    r.close()
    r.close()
    for call in (r.info, lambda: r.users(0), lambda: r.advise(0)):
        with pytest.raises(uswap.ClosedError):
            call()
    assert member("bytes(r[:5]).decode()") == "hello"
    again = jobs.open_region("x")
    assert again is not r
    assert again[:5] == b"hello"
    again.close()
    member("r.close()")
    assert jobs.shared_regions() == []
    assert jobs.group_info().shared_resident_bytes == 0


def test_the_maker_may_go_first(jobs: uswap.Pool, member: Member) -> None:
    a = jobs.zeros(1 << 20, shared=True, name="a")
    a[:] = 1
    member("import numpy as np; a = np.frombuffer(pool.open_region('a'))")
    del a
    gc.collect()
    jobs.close()
    assert member("float(a.sum())") == 1 << 20
    assert member("pool.shared_regions()[0].users") == 1
    member("del a")


def test_a_killed_member_leaves_nothing_and_harms_nobody(jobs: uswap.Pool, member: Member) -> None:
    a = jobs.zeros(1 << 23, dtype="u8", shared=True, name="a")  # 64 MiB
    a[:] = 7
    member("import numpy as np; a = np.frombuffer(pool.open_region('a'), dtype='u8')")
    member("private = pool.zeros(1 << 22); private += 1")
    member.send("while True: a[:] = 7")
    assert int((a != 7).sum()) == 0
    member.kill()
    for _ in range(3):
        assert int((a != 7).sum()) == 0
    with Member() as other:
        other("pool = uswap.attach('jobs')")
        assert other("len(pool.members())") == 2
        other("import numpy as np; a = np.frombuffer(pool.open_region('a'), dtype='u8')")
        assert other("int((a != 7).sum())") == 0
        other("del a")
    jobs.check()


def await_rest(pool: uswap.Pool, member: Member) -> None:
    """Until nobody evicts shared pages any more."""
    before = None
    while (now := pool.group_info()) != before:
        before = now
        time.sleep(0.5)
        pool.check()  # returns when nobody is in the core: what a slow one did shows in the figures
        member("pool.check()")


def test_with_a_stopped_member_the_others_go_on(jobs: uswap.Pool, member: Member) -> None:
    a = jobs.zeros(1 << 24, dtype="u8", shared=True, name="a")  # 128 MiB
    member("import numpy as np; a = np.frombuffer(pool.open_region('a'), dtype='u8')")
    member("a[:] = 5")
    await_rest(jobs, member)  # what it is just doing to a page, it keeps
    member.stop()
    try:
        assert int((a != 5).sum()) == 0
        a[:] = 6
        (silent,) = [one for one in jobs.members() if one.pid == member.pid]
        assert silent.state == "alive"
    finally:
        member.go_on()
    assert member("int((a != 6).sum())") == 0
    member("del a")


def test_who_is_too_busy_to_hand_a_region_over_is_asked_again(
    jobs: uswap.Pool, member: Member, monkeypatch: pytest.MonkeyPatch
) -> None:
    member("r = pool.region('1MiB', shared=True, name='x')")
    member("r[:5] = b'hello'")
    member.stop()
    try:
        with monkeypatch.context() as impatient:
            impatient.setattr("uswap.shared_region._PATIENCE_SECONDS", 0.0)
            with pytest.raises(uswap.BusyError, match="answers"):
                jobs.open_region("x")
        monkeypatch.setattr("uswap.shared_region._wait", member.go_on)
        r = jobs.open_region("x")
    finally:
        member.go_on()
    assert r[:5] == b"hello"
    r.close()


def test_a_process_that_just_ends_leaves_nothing(runtime_folder: Path, swap_directory: Path) -> None:
    with Member() as process:
        process(f"swap = uswap.SwapArea({str(swap_directory)!r}, size='1GiB')")
        process("pool = uswap.Pool('32MiB', name='jobs', swap=swap)")
        process("a = pool.zeros(1 << 20, shared=True); r = pool.region('1MiB', shared=True)")
        process("a[:] = 1")
        assert process.end() == 0
    assert list(runtime_folder.iterdir()) == []


def test_what_a_killed_group_left_is_taken_over(runtime_folder: Path, swap: uswap.SwapArea) -> None:
    with Member() as process:
        process("pool = uswap.Pool('32MiB', name='jobs'); r = pool.region('1MiB', shared=True, name='x')")
        process.kill()
    with pytest.raises(uswap.PoolNotFoundError):
        uswap.attach("jobs")
    with uswap.Pool("32MiB", name="jobs", swap=swap) as pool:
        assert pool.shared_regions() == []


@pytest.mark.parametrize("name", ["x\0y", "x" * 64, "\udc80"])
def test_a_name_that_cannot_be_one_is_told(name: str, runtime_folder: Path, swap_directory: Path) -> None:
    with uswap.Pool("32MiB", name="names", swap=uswap.SwapArea(swap_directory, size="64MiB")) as pool:
        for use in (lambda: pool.open_region(name), lambda: pool.region("1MiB", shared=True, name=name)):
            with pytest.raises(uswap.ArgumentError, match="name"):
                use()
        with pytest.raises(TypeError, match="NoneType"):
            pool.open_region(None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("use", "error", "message"),
    [
        (lambda r: r.users(None), TypeError, "page must be a number, not NoneType"),
        (lambda r: r.users(256), ValueError, "256 pages"),
        (lambda r: r.protect(-1), ValueError, "READ and WRITE"),
        (lambda r: r.protect("r"), TypeError, "Protection"),
        (lambda r: r.array(None), TypeError, "whole numbers"),
        (lambda r: r.array((2, 1.5)), TypeError, "whole numbers"),
        (lambda r: r.array(3, offset="a"), TypeError, "whole numbers"),
        (lambda r: r.array((3, -1)), uswap.ArgumentError, "does not fit"),
        (lambda r: (r.close(), r.array(3)), uswap.ClosedError, "closed"),
    ],
)
def test_bad_use_of_a_shared_region_is_told(
    use: Callable[[uswap.SharedRegion], object], error: type[Exception], message: str, jobs: uswap.Pool
) -> None:
    region = jobs.region("1MiB", shared=True, name="x")
    with pytest.raises(error, match=message):
        use(region)
