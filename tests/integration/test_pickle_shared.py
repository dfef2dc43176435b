"""Shared regions and arrays pickle by reference: in one process, and to the workers of multiprocessing, futures,
joblib."""

import copy
import gc
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from _support.program import run_program

import uswap

MIB = 1 << 20
HEAD = """
    import gc, os, pickle, sys, warnings
    import multiprocessing as mp
    from _support import shared_work
    warnings.simplefilter("ignore", DeprecationWarning)
    pool = uswap.Pool("64MiB", name="jobs", swap=SWAP)
    a = pool.zeros((1024, 1024), shared=True)             # 8 MiB
    a[:] = 1
"""


def round_trip(thing: object) -> object:
    return pickle.loads(pickle.dumps(thing))


# ---- in one process ----------------------------------------------------------------------------------------


def test_a_region_comes_back_as_itself(jobs: uswap.Pool) -> None:
    r = jobs.region("1MiB", shared=True)
    assert round_trip(r) is r
    assert len(pickle.dumps(r)) < 500


def test_it_comes_back_as_itself_though_a_later_member_of_this_process_has_left(jobs: uswap.Pool) -> None:
    """It once made a member that nobody could close."""
    r = jobs.region("1MiB", shared=True)
    uswap.attach("jobs").close()
    assert round_trip(r) is r
    assert len(jobs.members()) == 1


def test_a_process_finds_by_its_own_pid_only_what_it_has(jobs: uswap.Pool) -> None:
    r = jobs.region("1MiB", shared=True)
    assert jobs.attach_region(os.getpid(), r.id) is r
    with uswap.attach("jobs") as other, pytest.raises(ValueError, match="no exportable shared region"):
        other.attach_region(os.getpid(), r.id)


def test_an_option_that_attach_does_not_take_is_named(jobs: uswap.Pool) -> None:
    with pytest.raises(TypeError, match="attach takes no bogus"):
        uswap.attach("jobs", bogus=1)  # type: ignore[call-arg]


@pytest.mark.parametrize("offset", [-8, 4096 - 7, 1 << 40])
def test_an_array_that_does_not_fit_is_refused(jobs: uswap.Pool, offset: int) -> None:
    """One that began before its region was once given, on others' memory."""
    with jobs.region("4KiB", shared=True) as r:
        with pytest.raises(ValueError, match="does not fit"):
            r.array(1, offset=offset)
        with pytest.raises(ValueError, match="does not fit"):
            r.array((3, -1))
        with pytest.raises(ValueError, match="does not fit"):
            r.array(513)
        assert r.array(512).shape == (512,)
        assert r.array((), offset=4088).shape == ()


@pytest.mark.parametrize(
    "index",
    [np.s_[:], np.s_[3], np.s_[2:7, 1:9], np.s_[::-1, ::3], np.s_[::2, ::-2], np.s_[None, 4, ...]],
)
def test_views_come_back_as_views(jobs: uswap.Pool, index: object) -> None:
    a = jobs.array(np.arange(200, dtype="i4").reshape(10, 20), shared=True)
    view = a[index]
    again = round_trip(view)
    assert isinstance(again, np.ndarray)
    assert type(again) is type(a)
    assert (again.shape, again.strides, again.dtype) == (view.shape, view.strides, view.dtype)
    again += 1
    assert (view == again).all()
    assert (a[index] == np.arange(200).reshape(10, 20)[index] + 1).all()


def test_a_view_of_nothing_is_no_part_of_the_region(jobs: uswap.Pool) -> None:
    again = round_trip(jobs.zeros((10, 20), shared=True)[5:5])
    assert isinstance(again, np.ndarray)
    assert again.shape == (0, 20)


def test_other_views(jobs: uswap.Pool) -> None:
    a = jobs.zeros((4, 6), dtype="f4", order="F", shared=True)
    for view in (a.T, a.view("u4"), a.reshape(-1, order="F"), a[1:, 1:].T):
        again = round_trip(view)
        again[...] = 3
        assert (view == 3).all()
    records = jobs.zeros(100, dtype=[("x", "i4"), ("y", "f8")], shared=True)
    round_trip(records["y"])[:] = 2
    assert (records["y"] == 2).all()
    a.flags.writeable = False
    assert not round_trip(a).flags.writeable
    assert not round_trip(np.broadcast_to(a[0], (9, 6), subok=True)).flags.writeable


def test_what_is_computed_or_copied_is_no_part_of_the_region(jobs: uswap.Pool) -> None:
    a = jobs.full((100, 100), 2.0, shared=True)
    assert a.region is not None
    assert type(a + 1) is np.ndarray
    assert type(a[a > 1]) is np.ndarray
    assert isinstance(a.sum(), float)
    total = np.add(a, 1, out=a)
    assert total is a
    for copied in (a.copy(), copy.deepcopy(a), np.array(a), a.astype("f4")):
        assert getattr(copied, "region", None) is None
        again = round_trip(copied)
        assert type(again) is np.ndarray
        assert (again == 3).all()
    assert len(pickle.dumps(np.asarray(a))) > a.nbytes  # another class: by value


def test_private_memory_pickles_as_before(jobs: uswap.Pool) -> None:
    a = jobs.zeros(MIB)
    assert type(a) is np.ndarray
    assert len(pickle.dumps(a)) > a.nbytes
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(jobs.region("1MiB"))
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(jobs)


def test_one_that_is_not_exportable_pickles_by_its_name_only(jobs: uswap.Pool) -> None:
    named = jobs.region("1MiB", shared=True, name="x", exportable=False)
    assert round_trip(named) is named
    unnamed = jobs.zeros(10, shared=True, exportable=False)
    for thing in (unnamed, unnamed.region):
        with pytest.raises(TypeError, match="not exportable"):
            pickle.dumps(thing)


def test_what_has_ended_says_so(jobs: uswap.Pool) -> None:
    a, r = jobs.zeros(10, shared=True), jobs.region("1MiB", shared=True, name="x", exportable=False)
    pickled = [pickle.dumps(a), pickle.dumps(r)]
    del a, r
    gc.collect()
    other, another = jobs.zeros(10, shared=True), jobs.zeros(10, shared=True)
    for data in pickled:
        with pytest.raises(uswap.ClosedError, match="has ended"):
            pickle.loads(data)
    del other, another


def test_a_pool_that_has_ended_says_so(runtime_folder: Path, swap_directory: Path) -> None:
    pool = uswap.Pool("32MiB", name="jobs", swap=uswap.SwapArea(swap_directory, size="1GiB"))
    data = pickle.dumps(pool.zeros(10, shared=True))
    gc.collect()
    pool.close()
    with pytest.raises(uswap.PoolNotFoundError):
        pickle.loads(data)


def test_only_what_is_shared_is_reopened(jobs: uswap.Pool) -> None:
    a = jobs.zeros(10, shared=True)
    again = uswap.reopen(a)
    assert again is not a
    assert np.shares_memory(again, a)
    assert uswap.reopen(a.region) is a.region
    for thing in (np.zeros(3), a.copy(), jobs.region("1MiB"), None):
        with pytest.raises(TypeError, match="SharedRegion or a SharedArray"):
            uswap.reopen(thing)


# ---- to other processes ------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_the_workers_of_multiprocessing(method: str, runtime_folder: Path, swap_directory: Path) -> None:
    run_program(
        HEAD
        + f"""
    with mp.get_context({method!r}).Pool(2) as workers:
        tasks = [(a[i * 256:(i + 1) * 256], 1.0) for i in range(4)]
        pids = set(workers.starmap(shared_work.add, tasks, chunksize=1))
        assert os.getpid() not in pids
        assert (a == 2).all(), a
        name, total, users = workers.apply(shared_work.total, (a,))
        assert (name, total) == ("SharedArray", 2.0 * a.size), (name, total)
        assert users >= 2, users
        # Who has worked stays in the pool; what came with its work has gone again there, sooner or later.
        members = {{member.pid for member in pool.members()}} - {{os.getpid()}}
        assert pids <= members <= {{child.pid for child in mp.active_children()}}, (pids, members)
        r = pool.region("1MiB", shared=True)
        for text in (b"hello", b"world"):
            pid, same = workers.apply(shared_work.fill_region, (r, text))
            assert same and r[:5] == text
        workers.close()
        workers.join()
    del r
    """,
        swap_directory,
    )


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_the_workers_of_concurrent_futures(method: str, runtime_folder: Path, swap_directory: Path) -> None:
    run_program(
        HEAD
        + f"""
    from concurrent.futures import ProcessPoolExecutor
    with ProcessPoolExecutor(2, mp_context=mp.get_context({method!r})) as workers:
        list(workers.map(shared_work.add, [a[i::8] for i in range(8)], [1.0] * 8))
        assert (a == 2).all()
        assert workers.submit(shared_work.total, a[:3]).result()[:2] == ("SharedArray", 2.0 * 3 * 1024)
    """,
        swap_directory,
    )


def test_the_workers_of_joblib(runtime_folder: Path, swap_directory: Path) -> None:
    pytest.importorskip("joblib")
    run_program(
        HEAD
        + """
    from joblib import Parallel, delayed
    Parallel(n_jobs=2)(delayed(shared_work.add)(a[i::8], 1.0) for i in range(8))
    assert (a == 2).all()
    """,
        swap_directory,
    )


def test_arguments_that_a_forked_child_inherits_are_reopened(runtime_folder: Path, swap_directory: Path) -> None:
    run_program(
        HEAD
        + """
    child = mp.get_context("fork").Process(target=shared_work.reopened, args=(a, 4.0))
    child.start()
    child.join()
    assert child.exitcode == 0
    assert (a == 5).all()
    """,
        swap_directory,
    )


def test_what_a_forked_child_inherits_is_refused_and_its_end_harms_nobody(
    runtime_folder: Path, swap_directory: Path
) -> None:
    run_program(
        HEAD
        + """
    r = a.region
    pid = os.fork()
    if pid == 0:
        for call in (r.info, r.close, r.refresh, lambda: r.users(0), lambda: r.advise(uswap.Advice.PAGEOUT)):
            try:
                call()
            except uswap.ForkError:
                continue
            os._exit(1)
        assert len(pool.members()) == 2                    # the pool goes on
        inner = os.fork()                                  # nested, and by another way
        if inner == 0:
            again = pickle.loads(pickle.dumps(a))
            again += 1
            os._exit(0)
        status = os.waitpid(inner, 0)[1]
        del a, r
        gc.collect()
        sys.exit(status)                                   # through finalizers and atexit
    assert os.waitpid(pid, 0)[1] == 0
    assert (a == 2).all()
    del r
    """,
        swap_directory,
    )


def test_a_pool_without_a_name_and_a_named_one_beside_it_have_snapshots_in_children(
    runtime_folder: Path, swap_directory: Path
) -> None:
    run_program(
        HEAD
        + """
    plain = uswap.Pool("16MiB", swap=SWAP)
    private, of_member = plain.region("24MiB"), pool.region("1MiB")
    private[:] = b"x" * len(private)
    of_member[:] = b"m" * len(of_member)
    a[:] = 3
    pid = os.fork()
    if pid == 0:
        again = uswap.reopen(a)
        right = private[:] == b"x" * len(private) and of_member[:] == b"m" * len(of_member) and (again == 3).all()
        private[:] = bytes(len(private))
        of_member[:] = bytes(len(of_member))
        again += 1
        os._exit(not right)
    assert os.waitpid(pid, 0)[1] == 0
    assert (a == 4).all()
    assert private[:] == b"x" * len(private)
    assert of_member[:] == b"m" * len(of_member)
    plain.check()
    pool.check()
    private.close(), of_member.close()
    plain.close()
    """,
        swap_directory,
    )
