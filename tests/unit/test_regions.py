"""Regions: the buffer, the calls, and above all their ends."""

import copy
import gc
import mmap
import os
import pickle
import threading
import weakref
from collections.abc import Callable

import pytest
from conftest import PoolFactory

import uswap
from uswap import Advice, PageClass, Protection

MIB = 1 << 20
PAGE = 4096


def test_a_region_is_zero_and_keeps_what_is_written(pool: uswap.Pool) -> None:
    r = pool.region("1MiB")
    assert bytes(r) == bytes(MIB)
    r[100:105] = b"hello"
    assert r.find(b"hello") == 100
    assert bytes(memoryview(r)[99:106]) == b"\0hello\0"
    r.close()


@pytest.mark.parametrize("size", [1, 4095, 4097, MIB + 1])
def test_the_length_is_what_was_asked_for(pool: uswap.Pool, size: int) -> None:
    r = pool.region(size)
    assert len(r) == len(memoryview(r)) == r.info().size == size
    r[size - 1] = 7
    r.advise(Advice.PAGEOUT)
    assert r[size - 1] == 7
    r.advise(Advice.DONTNEED)
    assert r[size - 1] == 0
    r.close()


@pytest.mark.parametrize("size", [0, -1, "0", "x", True])
def test_a_size_that_is_none_is_a_value_error(pool: uswap.Pool, size: object) -> None:
    with pytest.raises(ValueError, match="size"):
        pool.region(size)  # type: ignore[arg-type]


def test_contents_survive_eviction(pool_factory: Callable[..., uswap.Pool]) -> None:
    pool = pool_factory()
    r = pool.region(4 * MIB, name="data")
    for page in range(0, 4 * MIB, PAGE):
        r[page : page + 8] = page.to_bytes(8, "little")
    r.advise(Advice.PAGEOUT)
    assert r.info().resident < MIB
    r.verify()
    for page in range(0, 4 * MIB, PAGE):
        assert r[page : page + 8] == page.to_bytes(8, "little")
    stats = pool.stats()
    assert stats.pages_out >= 1000
    assert stats.pages_in >= 1000
    r.close()


def test_page_classes_tell_where_pages_are(pool: uswap.Pool) -> None:
    r = pool.region(4 * PAGE)
    r[0] = 1
    r.lock(0, PAGE)
    classes = r.page_classes()
    assert len(classes) == 4
    assert classes[0] == PageClass.RESIDENT
    assert classes[3] == PageClass.ZERO
    r.unlock(0, PAGE)
    r.advise(Advice.PAGEOUT)
    assert r.page_classes(0, PAGE)[0] in (PageClass.SWAPPED, PageClass.CACHED)
    r.close()


def test_ranges_outside_are_refused(pool: uswap.Pool) -> None:
    r = pool.region(MIB)
    for start, length in ((-1, 1), (0, MIB + 1), (MIB, 1), (0, -1)):
        with pytest.raises(ValueError, match="not all in a region"):
            r.advise(Advice.COLD, start, length)
        with pytest.raises(ValueError, match="not all in a region"):
            r.lock(start, length)
    for start, length in (("1MiB", 1), (0, "1MiB"), (0.5, 1), (0, 1.5)):
        with pytest.raises(TypeError, match="must be a number of bytes"):
            r.lock(start, length)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="not a valid Advice"):
        r.advise(99)
    with pytest.raises(ValueError, match="protection is made of"):
        r.protect(64)
    r.close()


@pytest.mark.parametrize("size", [1 << 50, 1 << 60, (1 << 63) - 4096])
def test_more_than_can_be_addressed_is_out_of_space(make_pool: PoolFactory, size: int) -> None:
    pool = make_pool(overcommit=True)
    with pytest.raises(uswap.OutOfSpaceError, match="no address space"):
        pool.region(4096, reserve=size)
    with pytest.raises(uswap.OutOfSpaceError):
        pool.region(size)
    assert pool.regions() == []


def test_madvise_by_number_is_advice(pool: uswap.Pool) -> None:
    r = pool.region(MIB)
    r[0] = 1
    r.madvise(mmap.MADV_DONTNEED)
    assert r[0] == 0
    with pytest.raises(ValueError, match="not for managed memory"):
        r.madvise(mmap.MADV_DONTFORK)
    r.flush()
    r.close()


def test_what_is_no_size_is_refused(pool: uswap.Pool) -> None:
    r = pool.region(MIB)
    for wrong in (-1, 0, "many", 1 << 63):
        with pytest.raises(ValueError, match="new size"):
            r.resize(wrong)
    with pytest.raises(uswap.OutOfSpaceError):
        r.resize((1 << 63) - 1)
    with pytest.raises(ValueError, match="less than the size"):
        pool.region(MIB, reserve=PAGE)
    assert len(r) == MIB
    r.close()
    with pytest.raises(uswap.ClosedError):
        r.resize("2MiB")


def test_what_is_resident_stays(pool: uswap.Pool) -> None:
    r = pool.region(MIB)
    r[:] = b"x" * MIB
    with r.resident(0, 8 * PAGE), r.resident(0, PAGE):
        r.advise(Advice.PAGEOUT)
        assert set(r.page_classes(0, 8 * PAGE)) == {PageClass.RESIDENT}
        assert pool.stats().pinned_bytes == 8 * PAGE
    assert pool.stats().pinned_bytes == 0
    r.lock(0, PAGE)
    assert pool.stats().locked_bytes == PAGE
    r.unlock(0, PAGE)
    r.close()


def test_protected_memory_can_still_be_read_and_evicted(pool: uswap.Pool) -> None:
    r = pool.region(MIB)
    r[:4] = b"keep"
    r.protect(Protection.READ)
    r.advise(Advice.PAGEOUT)
    assert r[:4] == b"keep"
    r.protect(Protection.READ | Protection.WRITE)
    r[:4] = b"more"
    r.close()


def test_info_and_regions_agree(pool: uswap.Pool) -> None:
    r, s = pool.region(MIB, name="first"), pool.region(2 * MIB, name="second")
    r[0] = 1
    with r.resident(0, PAGE):  # the fault's own thread has counted it by now
        infos = pool.regions()
    assert [(info.name, info.size, info.id) for info in infos] == [
        ("first", MIB, r.id),
        ("second", 2 * MIB, s.id),
    ]
    assert infos[0].resident >= PAGE
    assert infos[0].faults >= 1
    assert r.info().address == infos[0].address
    assert "first" in repr(r)
    r.close()
    assert [info.name for info in pool.regions()] == ["second"]
    assert "closed" in repr(r)
    s.close()


@pytest.mark.parametrize(("name", "error"), [("x" * 64, ValueError), ("a\0b", ValueError), (7, TypeError)])
def test_bad_names_are_refused(pool: uswap.Pool, name: object, error: type[Exception]) -> None:
    with pytest.raises(error, match="name"):
        pool.region(MIB, name=name)  # type: ignore[arg-type]


def test_in_a_pool_without_a_name_nothing_can_be_shared(pool: uswap.Pool) -> None:
    assert pool.name == ""
    for call in (
        lambda: pool.region(MIB, shared=True),
        lambda: pool.zeros(10, shared=True),
        lambda: pool.open_region("x"),
        lambda: pool.attach_region(1, 1),
        pool.members,
        pool.group_info,
        pool.shared_regions,
    ):
        with pytest.raises(uswap.UnsupportedError, match="shared"):
            call()


def test_a_private_page_has_one_user(pool: uswap.Pool) -> None:
    r = pool.region(MIB)
    r[4096] = 1
    assert r.users(1) == [uswap.PageUser(os.getpid(), True, 1)]
    for page in (-1, MIB // 4096):
        with pytest.raises(ValueError, match="page"):
            r.users(page)


def test_a_way_to_serve_faults_that_is_none_is_refused(pool: uswap.Pool) -> None:
    with pytest.raises(ValueError, match="faults"):
        pool.region(MIB, faults="slow")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="faults"):
        uswap.Pool("16MiB", faults="slow")  # type: ignore[arg-type]


def test_regions_neither_pickle_nor_copy(pool: uswap.Pool) -> None:
    r = pool.region(MIB)
    for action in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="cannot be pickled"):
            action(r)
    with pytest.raises(TypeError, match="Pool"):
        pickle.dumps(pool)
    with pytest.raises(TypeError, match=r"Pool\.region"):
        uswap.Region(-1, 10)
    r.close()


# ---- the end --------------------------------------------------------------------------------------------


def test_close_with_a_live_export_is_a_buffer_error_and_changes_nothing(pool: uswap.Pool) -> None:
    r = pool.region(MIB)
    r[:4] = b"data"
    view = memoryview(r)
    with pytest.raises(BufferError):
        r.close()
    assert not r.closed
    r.advise(Advice.PAGEOUT)  # reclaim goes on
    assert r.page_classes(0, PAGE)[0] != PageClass.RESIDENT
    assert bytes(view[:4]) == b"data"
    view.release()
    r.close()
    r.close()


def test_a_closed_region_says_so(pool: uswap.Pool) -> None:
    r = pool.region(MIB)
    with r:
        pass
    assert r.closed
    for action in (r.info, r.verify, lambda: r.advise(Advice.COLD), r.page_classes):
        with pytest.raises(uswap.ClosedError):
            action()
    with pytest.raises(ValueError, match="closed"):
        r[0]
    assert pool.regions() == []


def test_a_region_ends_with_its_last_reference(pool: uswap.Pool) -> None:
    r = pool.region(MIB)
    r[0] = 1
    view = memoryview(r)
    del r
    assert len(pool.regions()) == 1
    assert view[0] == 1
    del view
    assert pool.regions() == []


def test_addresses_that_are_used_again_start_as_zeroes(pool: uswap.Pool) -> None:
    addresses = []
    for round_ in range(50):
        r = pool.region(MIB)
        addresses.append(r.info().address)
        assert r[0] == r[MIB - 1] == 0
        r[:] = bytes([round_ + 1]) * MIB
        if round_ % 2:
            r.close()
    assert len(set(addresses)) < len(addresses)  # otherwise this test shows nothing


def test_a_region_in_a_garbage_cycle_ends_after_its_exports(pool: uswap.Pool) -> None:
    seen: list[int] = []

    class Node:
        """Looks at the memory in its finalizer, which may come after the region's."""

        def __init__(self, region: uswap.Region) -> None:
            self.view = memoryview(region)
            self.me = self

        def __del__(self) -> None:
            seen.append(self.view[0])

    for _ in range(20):
        r = pool.region(MIB)
        r[0] = 42
        r.advise(Advice.PAGEOUT)
        nodes = [Node(r), Node(r)]
        gone = weakref.ref(r)
        del r, nodes
        gc.collect()
        gc.collect()
        assert gone() is None
    assert seen == [42] * 40
    assert pool.regions() == []


def test_regions_come_and_go_in_many_threads(make_pool: Callable[..., uswap.Pool]) -> None:
    pool = make_pool()
    errors: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for round_ in range(40):
                r = pool.region(64 * PAGE)
                assert r[0] == 0
                r[:] = bytes([number + 1]) * len(r)
                if round_ % 3 == 0:
                    r.advise(Advice.PAGEOUT)
                assert bytes(r) == bytes([number + 1]) * len(r)
                if round_ % 2:
                    r.close()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    gc.collect()
    assert pool.regions() == []


def test_each_residence_ends_by_itself_also_by_an_exception(pool: uswap.Pool) -> None:
    r = pool.region(MIB)
    r[:] = b"x" * MIB
    with r.resident(0, 8 * PAGE):
        with pytest.raises(KeyError), r.resident(0, PAGE):
            raise KeyError
        r.advise(Advice.PAGEOUT)
        assert set(r.page_classes(0, 8 * PAGE)) == {PageClass.RESIDENT}
        assert pool.stats().pinned_bytes == 8 * PAGE
    assert pool.stats().pinned_bytes == 0
    r.advise(Advice.PAGEOUT)
    assert PageClass.RESIDENT not in set(r.page_classes(0, 8 * PAGE))
    r.close()
