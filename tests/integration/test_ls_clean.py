"""uswap ls and clean: what lives is shown and left alone, what is stale is shown and goes."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from _support.members import Member

import uswap
from uswap.cli import main

MIB = 1 << 20


@pytest.fixture
def live(runtime_folder: Path) -> Iterator[Member]:
    """A process with the pool "live" and two shared regions."""
    with Member() as process:
        process("pool = uswap.Pool('32MiB', name='live')")
        process("r = pool.region('2MiB', shared=True, name='table'); s = pool.region('1MiB', shared=True)")
        process("r[:] = b'x' * len(r); r.lock(0, 1 << 20)")
        yield process


@pytest.fixture
def stale(runtime_folder: Path) -> Path:
    """The folder of a pool whose only process was killed."""
    with Member() as process:
        process("pool = uswap.Pool('32MiB', name='stale'); r = pool.region('1MiB', shared=True)")
        process.kill()
    return runtime_folder / "stale"


def output(capsys: pytest.CaptureFixture[str], *words: str, status: int = 0) -> str:
    assert main(words) == status
    return capsys.readouterr().out


def test_nothing_is_there(runtime_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert output(capsys, "ls") == f"no named pools in {runtime_folder}\n"
    assert json.loads(output(capsys, "ls", "--json")) == {"pools": [], "stale_locks": []}
    assert output(capsys, "clean") == "nothing was stale\n"
    assert not runtime_folder.exists()


def test_what_lives_is_shown(live: Member, capsys: pytest.CaptureFixture[str]) -> None:
    (pool,) = json.loads(output(capsys, "ls", "--json"))["pools"]
    assert (pool["name"], pool["stale"], pool["problem"]) == ("live", False, "")
    assert pool["group"]["limit_bytes"] == 32 * MIB
    (member,) = pool["members"]
    assert (member["pid"], member["state"]) == (live.pid, "alive")
    regions = {region["name"]: region for region in pool["regions"]}
    assert regions["table"]["size"] == regions["table"]["resident"] == 2 * MIB
    assert regions["table"]["users"] == 1
    assert regions["table"]["locked"] == MIB
    assert regions["table"]["faults"] > 0
    assert regions["table"]["poisoned_pages"] == 0
    assert regions[""]["id"] == live("s.id")

    text = output(capsys, "ls")
    lines = text.splitlines()
    assert lines[0].startswith("live: limit 32 MiB")
    assert any(line.split()[:2] == [str(live.pid), "alive"] for line in lines)
    shown = next(line.split() for line in lines if line.split()[0] == "table")
    assert " ".join(shown[1:9]) == "2 MiB 2 MiB 0 B 1 MiB"
    assert "stale" not in text


def test_a_name_that_a_terminal_would_obey_is_quoted(live: Member, capsys: pytest.CaptureFixture[str]) -> None:
    live("t = pool.region('1MiB', shared=True, name='\\x1b[2Jgone\\n')")
    text = output(capsys, "ls")
    assert "'\\x1b[2Jgone\\n'" in text
    assert "\x1b" not in text


def test_what_is_stale_is_shown_and_goes_and_what_lives_stays(
    live: Member, stale: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (stale.parent / "lonely.lock").touch()
    assert stale.is_dir()
    found = {pool["name"]: pool["stale"] for pool in json.loads(output(capsys, "ls", "--json"))["pools"]}
    assert found == {"live": False, "stale": True}
    text = output(capsys, "ls")
    assert "stale: stale: no living process is in it" in text
    assert "`uswap clean` removes" in text

    removed = json.loads(output(capsys, "clean", "--json"))
    assert set(removed["removed"]) == {str(stale), str(stale.parent / "lonely.lock")}
    assert removed["failed"] == []
    assert not stale.exists()
    assert output(capsys, "clean") == "nothing was stale\n"
    assert live("len(pool.members())") == 1
    assert live("len(uswap.attach('live').members())") == 2


def test_a_stopped_pool_lives(live: Member, capsys: pytest.CaptureFixture[str]) -> None:
    live.stop()
    try:
        assert output(capsys, "clean") == "nothing was stale\n"
        (pool,) = json.loads(output(capsys, "ls", "--json"))["pools"]
        assert not pool["stale"]
        with pytest.raises(uswap.BusyError, match="stopped"):
            uswap.attach("live")
        with pytest.raises(uswap.PoolExistsError):
            uswap.Pool("16MiB", name="live")
    finally:
        live.go_on()


def test_a_runtime_folder_that_is_not_ours_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    monkeypatch.setenv("USWAP_RUNTIME_DIR", str(tmp_path / "link"))
    for verb in ("ls", "clean"):
        assert main([verb]) == 2
        assert "a link" in capsys.readouterr().err
