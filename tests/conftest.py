"""Fixtures for all tests: pools over both transports and both I/O backends, and what to do about skips."""

from __future__ import annotations

import contextlib
import functools
import gc
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from _support.guardian import guard_this_process
from _support.members import Member
from hypothesis import HealthCheck, settings
from variants.unfit import reason_for

import uswap
from uswap._core import ffi, lib

# With USWAP_NO_SKIPS=1 (CI) a skip for any other reason is a failure.
ALLOWED_SKIPS: tuple[str, ...] = (
    "no loop device",
    "could not import 'torch'",
    "could not import 'pyarrow'",
    "no `test` package of Python's",
)

# A sanitizer makes everything several times slower: that says nothing about a test.
settings.register_profile("variant", deadline=None, suppress_health_check=[HealthCheck.too_slow])
if os.environ.get("USWAP_VARIANT"):
    settings.load_profile("variant")

PoolFactory = Callable[..., uswap.Pool]


@functools.cache
def probe() -> Any:
    """What this machine can do: the core's own probe."""
    result, error = ffi.new("uswap_probe *"), ffi.new("uswap_error *")
    if lib.uswap_probe_run(result, error) < 0:
        raise RuntimeError(ffi.string(error.detail).decode())
    return result


def _skip_unless_there(what: str, error_number: int) -> None:
    if error_number != 0:
        pytest.skip(f"{what} is not there: {os.strerror(error_number)}")


@pytest.fixture(params=["move", "copy"])
def transport(request: pytest.FixtureRequest) -> str:
    """Each way in which pages enter and leave regions."""
    name: str = request.param
    if name == "move":
        _skip_unless_there("UFFDIO_MOVE", probe().live_move_errno)
    else:
        _skip_unless_there("userfaultfd write-protection", probe().live_wp_errno)
    return name


@pytest.fixture(params=["uring", "sync"])
def io(request: pytest.FixtureRequest) -> str:
    """Each I/O backend."""
    name: str = request.param
    if name == "uring":
        _skip_unless_there("io_uring", probe().uring_errno)
    return name


@contextlib.contextmanager
def directory_on_disk(folder: Path) -> Iterator[Path]:
    """The folder, or one for the block alone if that lies in memory."""
    from uswap._filesystem import is_memory_backed
    from uswap._options import default_directory

    if not is_memory_backed(str(folder)):
        yield folder
        return
    with tempfile.TemporaryDirectory(dir=default_directory()) as elsewhere:
        yield Path(elsewhere)


@pytest.fixture
def swap_directory(tmp_path: Path) -> Path:
    """A directory on a disk: pytest's own may lie in memory."""
    from uswap._filesystem import is_memory_backed
    from uswap._options import default_directory

    return Path(default_directory()) if is_memory_backed(str(tmp_path)) else tmp_path


@pytest.fixture
def runtime_folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A place of their own for named pools, also in the processes that a test starts. Its path is short, for
    sockets. At the end nothing may be left in it."""
    with tempfile.TemporaryDirectory(prefix="uswap-") as place:
        folder = Path(place) / "r"
        monkeypatch.setenv("USWAP_RUNTIME_DIR", str(folder))
        yield folder
        gc.collect()
        left = [path.name for path in folder.iterdir()] if folder.is_dir() else []
        assert left == []


@pytest.fixture
def make_pool(swap_directory: Path) -> Iterator[PoolFactory]:
    """Makes pools that swap to a disk; at the end each must pass the core's check and close."""
    pools: list[uswap.Pool] = []

    def make(limit: int | str = "16MiB", **options: Any) -> uswap.Pool:
        options.setdefault("swap", uswap.SwapArea(swap_directory, size="1GiB"))
        pool = uswap.Pool(limit, **options)
        pools.append(pool)
        return pool

    yield make
    gc.collect()
    while pools:
        pool = pools.pop()
        if not pool._core.freed:
            pool.check()
            pool.close()


@pytest.fixture
def pool_factory(make_pool: PoolFactory, transport: str, io: str) -> PoolFactory:
    """make_pool over every transport and backend."""
    return functools.partial(make_pool, transport=transport, io=io)


@pytest.fixture
def pool(make_pool: PoolFactory) -> uswap.Pool:
    """One pool of 16 MiB, with the best transport and backend there is."""
    return make_pool()


def _refuse_skip(report: Any, where: str) -> None:
    """Turns a skip for a reason that is not on the list into a failure, where that is asked for."""
    if not report.skipped or hasattr(report, "wasxfail") or not os.environ.get("USWAP_NO_SKIPS"):
        return
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    if not any(allowed in reason for allowed in ALLOWED_SKIPS):
        report.outcome = "failed"
        report.longrepr = f"{where}: unexpected skip: {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    """Skips of tests."""
    report = yield
    _refuse_skip(report, item.nodeid)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Any:
    """Skips of whole files (importorskip)."""
    report = yield
    _refuse_skip(report, collector.nodeid)
    return report


def pytest_configure(config: pytest.Config) -> None:
    """In a worker of pytest-xdist's."""
    if hasattr(config, "workerinput"):
        guard_this_process()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """In a variant of the core (tests/variants/run.py), leaves out what it cannot run."""
    variant = os.environ.get("USWAP_VARIANT")
    if not variant:
        return
    unfit = [item for item in items if reason_for(variant, item.nodeid)]
    items[:] = [item for item in items if not reason_for(variant, item.nodeid)]
    config.hook.pytest_deselected(items=unfit)


# ---- named pools ----------------------------------------------------------------------------------------


@pytest.fixture
def swap(swap_directory: Path) -> uswap.SwapArea:
    return uswap.SwapArea(swap_directory, size="1GiB")


@pytest.fixture
def jobs(runtime_folder: Path, swap: uswap.SwapArea) -> Iterator[uswap.Pool]:
    """A named pool of 64 MiB."""
    pool = uswap.Pool("64MiB", name="jobs", swap=swap)
    yield pool
    gc.collect()
    if not pool._core.freed:
        pool.check()
        pool.close()


@pytest.fixture
def more(swap_directory: Path) -> Iterator[Callable[[], Member]]:
    """Makes members of it, each with the pool as `pool`."""
    with contextlib.ExitStack() as stack:

        def make() -> Member:
            process = stack.enter_context(Member())
            process("from _support.failpoints import *")
            process(f"swap = uswap.SwapArea({str(swap_directory)!r}, size='1GiB')")
            process("pool = uswap.attach('jobs', swap=swap)")
            return process

        yield make
