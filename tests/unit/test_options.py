"""Limits, swap areas and directories: what is taken, what is refused, what is chosen."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

import uswap
from uswap import _options
from uswap._core import lib
from uswap._options import CoreOptions, SwapArea, default_directory, default_limit, swap_areas


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("USWAP_LIMIT", "USWAP_SWAP", "USWAP_DIR"):
        monkeypatch.delenv(name, raising=False)


# ---- the limit ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", ["12XB", 0, -4096, "-1GiB", "nan", float("nan"), True])
def test_a_limit_that_is_no_size_is_a_value_error(limit: object) -> None:
    with pytest.raises(ValueError, match="limit"):
        uswap.Pool(limit)  # type: ignore[arg-type]


@pytest.mark.parametrize("limit", [1.5, b"1GiB", [1]])
def test_a_limit_of_another_type_is_a_type_error(limit: object) -> None:
    with pytest.raises(TypeError, match="limit"):
        uswap.Pool(limit)  # type: ignore[arg-type]


def test_a_limit_below_the_least_is_a_limit_error_that_names_the_least() -> None:
    with pytest.raises(uswap.LimitError, match="below the least possible"):
        uswap.Pool(limit=_options.minimum_limit() - 1)


def test_a_limit_above_the_memory_there_is_warns(make_pool: Callable[..., uswap.Pool]) -> None:
    with pytest.warns(uswap.UswapWarning, match="more than the memory"):
        make_pool(_options.total_memory() + (1 << 30), overcommit=True)


def test_the_limit_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USWAP_LIMIT", "48MiB")
    with uswap.Pool() as pool:
        assert pool.limit == 48 << 20


def test_a_bad_limit_in_the_environment_names_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USWAP_LIMIT", "plenty")
    with pytest.raises(ValueError, match="USWAP_LIMIT"):
        default_limit()


def test_the_default_limit_leaves_a_margin() -> None:
    limit = default_limit()
    assert _options.minimum_limit() <= limit <= _options.total_memory() - (128 << 20)


def test_the_default_limit_follows_the_container(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_options, "memory_limit_bytes", lambda: 1 << 30)
    monkeypatch.setattr(_options, "memory_used_bytes", lambda: 256 << 20)
    assert default_limit() == (1 << 30) - (256 << 20) - (128 << 20)
    monkeypatch.setattr(_options, "memory_used_bytes", lambda: 1 << 30)
    assert default_limit() == _options.minimum_limit()


def test_the_limit_changes_live(pool: uswap.Pool) -> None:
    pool.limit = "24MiB"  # type: ignore[assignment]
    assert pool.limit == 24 << 20
    with pytest.raises(uswap.LimitError):
        pool.limit = 1
    assert pool.limit == 24 << 20


# ---- the other options ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"transport": "teleport"}, ValueError),
        ({"io": "aio"}, ValueError),
        ({"fault_around": 0}, ValueError),
        ({"read_ahead": -1}, ValueError),
        ({"reclaim_batch": 0}, ValueError),
        ({"read_ahead": 1.5}, TypeError),
        ({"fault_around": True}, TypeError),
        ({"name": "../jobs"}, ValueError),
        ({"name": "jobs", "encrypt": True}, uswap.UnsupportedError),
        ({"swap": []}, ValueError),
    ],
)
def test_bad_options_are_refused(options: dict[str, object], error: type[Exception]) -> None:
    with pytest.raises(error):
        uswap.Pool("32MiB", **options)  # type: ignore[arg-type]


def test_options_reach_the_core() -> None:
    raw = CoreOptions(1 << 25, "copy", "sync", True, True, 3, 0, 1, False, False).to_core()
    assert raw.limit_bytes == 1 << 25
    assert (raw.transport, raw.io_kind) == (lib.USWAP_TRANSPORT_COPY, lib.USWAP_IO_SYNC)
    assert (raw.recycle, raw.overcommit, raw.background, raw.verify) == (1, 1, 0, 0)
    assert (raw.fault_around_pages, raw.read_ahead_pages, raw.reclaim_batch_pages) == (3, 0, 1)
    assert (raw.write_ahead, raw.awake, raw.encrypt) == (1, 1, 0)
    off = CoreOptions(1 << 25, write_ahead=False, awake=False, encrypt=True).to_core()
    assert (off.write_ahead, off.awake, off.encrypt) == (0, 0, 1)


def test_transport_and_backend_are_what_was_asked_for(
    make_pool: Callable[..., uswap.Pool], transport: str, io: str
) -> None:
    stats = make_pool(transport=transport, io=io).stats()
    assert (stats.transport, stats.io_kind) == (transport, io)


# ---- where swap goes ------------------------------------------------------------------------------------


def test_paths_and_areas_and_lists_of_them_are_taken(tmp_path: Path) -> None:
    one, two = tmp_path / "one", SwapArea(tmp_path / "two", size="1GiB", priority=3)
    assert swap_areas(one) == [SwapArea(one)]
    assert swap_areas(str(one)) == [SwapArea(str(one))]
    assert swap_areas(two) == [two]
    assert swap_areas([one, two]) == [SwapArea(one), two]


def test_swap_comes_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USWAP_SWAP", f"{tmp_path / 'a'}:{tmp_path / 'b'}")
    assert [str(area.path) for area in swap_areas(None)] == [str(tmp_path / "a"), str(tmp_path / "b")]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"path": ""}, ValueError),
        ({"path": "x", "size": "12XB"}, ValueError),
        ({"path": "x", "size": 0}, ValueError),
        ({"path": "x", "priority": 2**31}, ValueError),
        ({"path": "x", "priority": "high"}, TypeError),
        ({"path": 7}, TypeError),
    ],
)
def test_bad_areas_are_refused_when_they_are_written(arguments: dict[str, object], error: type[Exception]) -> None:
    with pytest.raises(error):
        SwapArea(**arguments)  # type: ignore[arg-type]


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(uswap.SwapAreaError, match="does not exist") as caught:
        uswap.Pool("32MiB", swap=tmp_path / "nowhere" / "x.swap")
    assert caught.value.path == str(tmp_path / "nowhere")


def test_uswap_dir_is_taken_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USWAP_DIR", str(tmp_path))
    assert default_directory() == str(tmp_path)


def test_a_missing_uswap_dir_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USWAP_DIR", str(tmp_path / "nowhere"))
    with pytest.raises(uswap.SwapAreaError, match="USWAP_DIR"):
        default_directory()


def test_directories_in_memory_and_missing_ones_are_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_memory, disk = tmp_path / "memory", tmp_path / "disk"
    in_memory.mkdir()
    disk.mkdir()
    candidates = [str(tmp_path / "nowhere"), str(in_memory), str(disk)]
    monkeypatch.setattr(_options, "default_swap_directories", lambda: candidates)
    monkeypatch.setattr(_options, "is_memory_backed", lambda path: os.fspath(path) == str(in_memory))
    assert default_directory() == str(disk)
    candidates.pop()
    with pytest.raises(uswap.SwapAreaError, match="lies in memory") as caught:
        default_directory()
    assert "USWAP_DIR" in caught.value.hint


def test_what_is_no_path_is_no_swap_area() -> None:
    for nothing in (5, b"/var/tmp", 1.5):
        with pytest.raises(TypeError, match="swap must be a path"):
            uswap.Pool("32MiB", swap=nothing)  # type: ignore[arg-type]
    for path in ("", "/var/tmp/a\0b"):
        with pytest.raises(ValueError, match="needs a path"):
            uswap.Pool("32MiB", swap=path)


def test_the_default_swap_file_has_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USWAP_DIR", str(tmp_path))
    with uswap.Pool("32MiB") as pool:
        (area,) = pool.areas()
        assert area.unlinked
        assert list(tmp_path.iterdir()) == []


def test_areas_can_be_added(pool: uswap.Pool, swap_directory: Path) -> None:
    path = swap_directory / f"added-{os.getpid()}.swap"
    added = pool.swapon(path, size="64MiB", priority=5)
    try:
        assert (added.path, added.priority, added.unlinked) == (str(path), 5, False)
        assert [area.path for area in pool.areas()][1:] == [str(path)]
        assert path.stat().st_mode & 0o777 == 0o600
        with pytest.raises(uswap.SwapAreaError):
            uswap.Pool("32MiB", swap=path)
    finally:
        path.unlink()


def test_somebody_s_data_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "thesis.txt"
    path.write_text("not a swap file")
    path.chmod(0o644)
    with pytest.raises(uswap.SwapAreaError, match="holds data"):
        uswap.Pool("32MiB", swap=path)
    assert path.read_text() == "not a swap file"
    assert path.stat().st_mode & 0o777 == 0o644


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="no /dev/shm")
def test_swap_in_memory_warns() -> None:
    with pytest.warns(uswap.UswapWarning, match="lies in memory"):
        pool = uswap.Pool("32MiB", swap=SwapArea("/dev/shm", size="16MiB"))
    pool.close()
