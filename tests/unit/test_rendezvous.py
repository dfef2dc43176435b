"""Where named pools meet: names, folders, who is let in, locks, and what is left behind."""

import os
import shutil
import stat
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import uswap
from uswap import _rendezvous as rendezvous


@pytest.fixture
def alive(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The names of the pools that are taken to be in use."""
    names: set[str] = set()
    monkeypatch.setattr(rendezvous, "is_alive", lambda folder: folder.name in names)
    return names


@pytest.fixture
def place() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="uswap-") as place:
        yield Path(place)


@pytest.mark.parametrize("name", ["jobs", "a", "x" * 63, "A-1_b.c", "-", "lock", "jobs.lock.1"])
def test_good_names(name: str) -> None:
    assert rendezvous.checked_pool_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        ".hidden",
        "a/b",
        "../jobs",
        "/jobs",
        "a\0b",
        "x" * 64,
        "zwölf",
        "a b",
        "jobs\n",
        "jobs.lock",
        "\u0661",
    ],
)
def test_names_that_could_escape_or_confuse_are_refused(name: str, runtime_folder: Path) -> None:
    for call in (rendezvous.checked_pool_name, uswap.attach, lambda name: uswap.Pool("16MiB", name=name)):
        with pytest.raises(ValueError, match="cannot be named"):
            call(name)
    with pytest.raises(TypeError, match="name must be text"):
        uswap.attach(7)  # type: ignore[arg-type]
    assert not runtime_folder.exists() or not list(runtime_folder.iterdir())


# ---- the runtime folder ------------------------------------------------------------------------------------


def test_it_is_made_for_its_user_alone(runtime_folder: Path) -> None:
    old = os.umask(0)
    try:
        assert rendezvous.runtime_folder() == runtime_folder
    finally:
        os.umask(old)
    assert stat.S_IMODE(runtime_folder.stat().st_mode) == 0o700
    runtime_folder.chmod(0o755)
    rendezvous.runtime_folder()
    assert stat.S_IMODE(runtime_folder.stat().st_mode) == 0o700


def test_it_is_not_made_to_look_into_it(runtime_folder: Path) -> None:
    assert rendezvous.pool_folders() == []
    assert rendezvous.stale_locks() == []
    assert not runtime_folder.exists()


def test_links_files_and_strangers_are_refused(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "real").mkdir(0o700)
    (place / "link").symlink_to(place / "real")
    (place / "file").touch()
    for name in ("link", "file"):
        monkeypatch.setenv("USWAP_RUNTIME_DIR", str(place / name))
        with pytest.raises(uswap.SystemCallError, match="a link, or no directory"):
            rendezvous.runtime_folder()
    monkeypatch.setenv("USWAP_RUNTIME_DIR", str(place / "real"))
    monkeypatch.setattr(os, "geteuid", lambda: 4321)
    with pytest.raises(uswap.SystemCallError, match="belongs to user"):
        rendezvous.runtime_folder()
    monkeypatch.setenv("USWAP_RUNTIME_DIR", str(place / "missing" / "r"))
    with pytest.raises(uswap.SystemCallError, match="does not exist"):
        rendezvous.runtime_folder()


def test_a_folder_of_the_pool_that_is_a_link_is_refused(runtime_folder: Path, place: Path, alive: set[str]) -> None:
    (place / "precious").touch()
    rendezvous.runtime_folder()
    (runtime_folder / "jobs").symlink_to(place)
    with pytest.raises(uswap.SystemCallError, match="a link"), rendezvous.making("jobs"):
        pass
    with pytest.raises(uswap.SystemCallError, match="a link"), rendezvous.joining("jobs"):
        pass
    assert rendezvous.pool_folders() == []
    assert (place / "precious").exists()
    (runtime_folder / "jobs").unlink()
    (runtime_folder / "jobs.lock").unlink()


def test_which_folder_is_chosen(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USWAP_RUNTIME_DIR", "relative")
    assert rendezvous._chosen_folder() == Path.cwd() / "relative"
    monkeypatch.delenv("USWAP_RUNTIME_DIR")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(place))
    assert rendezvous._chosen_folder() == place / "uswap"
    nowhere = [str(place / "missing"), "relative", ""]
    monkeypatch.setattr(rendezvous, "_is_own_directory", lambda path: str(path) not in ("/run", *nowhere[:1]))
    for value in nowhere:
        monkeypatch.setenv("XDG_RUNTIME_DIR", value)
        monkeypatch.setattr(os, "access", lambda path, _: str(path) == f"/run/user/{os.geteuid()}")
        assert rendezvous._chosen_folder() == Path(f"/run/user/{os.geteuid()}/uswap")
        monkeypatch.setattr(os, "access", lambda path, _: False)
        assert rendezvous._chosen_folder() == Path(tempfile.gettempdir()) / f"uswap-{os.geteuid()}"


def test_a_path_that_is_too_long_for_sockets_is_refused(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USWAP_RUNTIME_DIR", str(place / ("x" * 60)))
    rendezvous.folder_of("j")
    with pytest.raises(ValueError, match="too long for sockets"):
        rendezvous.folder_of("j" * 40)


# ---- coming, going and what is left ------------------------------------------------------------------------


def test_making_gives_an_empty_folder_of_this_user_alone(runtime_folder: Path, alive: set[str]) -> None:
    with rendezvous.making("jobs") as folder:
        assert folder == runtime_folder / "jobs"
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert list(folder.iterdir()) == []
        assert (runtime_folder / "jobs.lock").exists()
    assert rendezvous.pool_folders() == [folder]
    assert rendezvous.clean(folder)
    assert not rendezvous.clean(folder)


def test_a_name_in_use_is_refused_and_a_stale_one_taken_over(runtime_folder: Path, alive: set[str]) -> None:
    with rendezvous.making("jobs") as folder:
        os.mknod(folder / "socket", stat.S_IFSOCK | 0o600)
    alive.add("jobs")
    with pytest.raises(uswap.PoolExistsError, match=r"uswap.attach\('jobs'\)") as raised, rendezvous.making("jobs"):
        pass
    assert isinstance(raised.value, FileExistsError)
    with rendezvous.joining("jobs") as again:
        assert again == folder
    assert not rendezvous.clean(folder)
    assert (folder / "socket").exists()
    alive.clear()
    with pytest.raises(uswap.PoolNotFoundError) as missing, rendezvous.joining("jobs"):
        pass
    assert isinstance(missing.value, FileNotFoundError)
    with rendezvous.making("jobs"):
        assert list(folder.iterdir()) == []
    assert rendezvous.clean(folder)


def test_what_fails_in_the_making_leaves_nothing(runtime_folder: Path, alive: set[str]) -> None:
    def fail() -> None:
        with rendezvous.making("jobs") as folder:
            os.mknod(folder / "socket", stat.S_IFSOCK | 0o600)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert list(runtime_folder.iterdir()) == []
    with pytest.raises(uswap.PoolNotFoundError, match="makes one"):
        uswap.attach("jobs")
    assert list(runtime_folder.iterdir()) == []


def test_a_pool_that_cannot_be_made_leaves_nothing(runtime_folder: Path, alive: set[str]) -> None:
    with pytest.raises(uswap.SwapAreaError):
        uswap.Pool("16MiB", name="jobs", swap="/nonexistent/directory/file")
    for options in ({"limit": "auto"}, {"encrypt": True}):
        with pytest.raises(uswap.UnsupportedError, match="named pool"):
            uswap.Pool(name="jobs", **options)
    with pytest.raises(TypeError, match="limit"):
        uswap.attach("jobs", limit="1GiB")  # type: ignore[call-arg]
    assert list(runtime_folder.iterdir()) == []


def test_the_lock_excludes_and_is_not_waited_for_for_ever(runtime_folder: Path) -> None:
    folder = rendezvous.folder_of("jobs")
    with rendezvous.locked(folder):
        with pytest.raises(uswap.BusyError, match="is it stopped"), rendezvous.locked(folder, wait=0):
            pass
        rendezvous.forget_lock(folder)
    assert list(runtime_folder.iterdir()) == []


def test_a_lock_file_that_went_while_it_was_waited_for_is_made_again(runtime_folder: Path) -> None:
    folder = rendezvous.folder_of("jobs")
    inside = 0
    most = []

    def come_and_go() -> None:
        nonlocal inside
        for _ in range(50):
            with rendezvous.locked(folder, wait=60):
                inside += 1
                most.append(inside)
                inside -= 1

    threads = [threading.Thread(target=come_and_go) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 200


def test_locks_without_a_pool_are_stale(runtime_folder: Path, alive: set[str]) -> None:
    rendezvous.runtime_folder()
    (runtime_folder / "gone.lock").touch()
    assert rendezvous.stale_locks() == [runtime_folder / "gone.lock"]
    assert not rendezvous.clean(runtime_folder / "gone")
    assert rendezvous.stale_locks() == []


def test_what_no_pool_has_made_is_neither_removed_nor_taken_for_a_pool(runtime_folder: Path) -> None:
    """The runtime folder may be one that its user has for other things: a Pool once removed what was in there."""
    rendezvous.runtime_folder()
    for name, mode in (("private", 0o700), ("project", 0o755)):
        (runtime_folder / name).mkdir(mode)
        (runtime_folder / name / "thesis.txt").write_text("precious")
    (runtime_folder / "deep" / "er").mkdir(parents=True)
    assert rendezvous.pool_folders() == []
    with rendezvous.making("jobs") as jobs:
        pass
    assert rendezvous.clean(jobs)
    with pytest.raises(uswap.SystemCallError, match=r"no pool has made .thesis"), rendezvous.making("private"):
        pass
    for name in ("private", "project"):
        assert (runtime_folder / name / "thesis.txt").read_text() == "precious"
    assert sorted(entry.name for entry in runtime_folder.iterdir() if entry.is_dir()) == [
        "deep",
        "private",
        "project",
    ]
    shutil.rmtree(runtime_folder)
