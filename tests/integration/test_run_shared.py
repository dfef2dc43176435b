"""One limit for all processes of a program: `uswap run --shared`."""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from _support.forks import await_true, pss_bytes
from _support.native import program, shared_object
from _support.pss_watch import family, stopped

import uswap
from uswap._group_info import MemberInfo
from uswap._group_look import look
from uswap._rendezvous import locked, sweep
from uswap.running import prepare

SOURCE = Path(__file__).resolve().parents[1] / "_support" / "run_shared.c"
LIMIT = 64 << 20
# A process without the limit: its code, stacks, what libc and the runtime have for themselves.
EACH = 16 << 20


class Running:
    """A program under a limit of 64 MiB for all of it, and the folder in which its processes meet."""

    def __init__(
        self,
        words: list[str],
        swap: Path,
        runtime: Path,
        limit: int | str = LIMIT,
        env: Mapping[str, str] | None = None,
    ) -> None:
        executable, words, variables = prepare(words, limit=limit, swap=swap, shared=True, env=env)
        self.folder = Path(variables["USWAP_RUN_POOL"])
        assert self.folder.parent == runtime
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        self.process = subprocess.Popen(words, executable=executable, env=variables, text=True, **pipes)

    def pids(self, count: int) -> list[int]:
        """What so many processes say when they have written their memory once."""
        assert self.process.stdout
        return [int(self.process.stdout.readline()) for _ in range(count)]

    def members(self) -> dict[int, MemberInfo]:
        """By pid; with the keeper."""
        found = look(self.folder)
        return {} if found is None else {member.pid: member for member in found.members}

    def keeper(self) -> int:
        """The one that is none of the program's own."""
        (pid,) = (pid for pid in self.members() if Path(f"/proc/{pid}/comm").read_text() == "uswap-keeper\n")
        return pid

    def end(self) -> int:
        assert self.process.stdin
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        return self.process.wait(60)

    def close(self) -> None:
        self.end()
        for pipe in (self.process.stdout, self.process.stderr):
            assert pipe
            pipe.close()


def kill(pid: int) -> Callable[[], None]:
    """=> what returns when it has died, and nothing of it is open any more."""
    fd = os.pidfd_open(pid)
    os.kill(pid, signal.SIGKILL)

    def await_end() -> None:
        with contextlib.closing(open(fd, closefd=True)):
            assert select.select([fd], [], [], 60)[0]

    return await_end


@contextlib.contextmanager
def running(
    words: list[str], swap: Path, runtime: Path, limit: int | str = LIMIT, env: Mapping[str, str] | None = None
) -> Iterator[Running]:
    """At the end nothing is left of it: no process, no folder."""
    one = Running(words, swap, runtime, limit, env)
    try:
        yield one
    finally:
        one.close()
        await_true(lambda: list(runtime.iterdir()) == [], "the keeper goes")


@pytest.mark.parametrize("way", ["fork", "exec", "spawn"])
def test_processes_that_write_more_than_the_limit_keep_to_it_together(
    swap_directory: Path, runtime_folder: Path, way: str
) -> None:
    with running([program(SOURCE), way, "40", "40", "40"], swap_directory, runtime_folder) as one:
        pids = one.pids(3)
        keeper = one.keeper()
        assert sorted(one.members()) == sorted([*pids, keeper])
        for _ in range(10):
            with stopped(one.process.pid) as found:
                assert sorted(found) == sorted(pids)
                together = pss_bytes([*pids, keeper])
            assert LIMIT / 2 < together < LIMIT * 1.01 + EACH * len(pids)
        assert one.end() == 0


def test_what_a_killed_child_had_comes_back(swap_directory: Path, runtime_folder: Path) -> None:
    with running([program(SOURCE), "spawn", "40", "40", "40"], swap_directory, runtime_folder) as one:
        pids = one.pids(3)
        children = [pid for pid in pids if pid != one.process.pid]
        for child in children:
            os.kill(child, signal.SIGKILL)
        # Its own 40 MiB and the floors of both: more than there was for it before.
        await_true(lambda: sorted(one.members()) == sorted([one.process.pid, one.keeper()]), "the dead are buried")
        await_true(lambda: one.members()[one.process.pid].used > 36 << 20, "the other has all of its memory")
        one.end()


def test_a_process_that_becomes_another_program_gives_back_what_it_had(
    swap_directory: Path, runtime_folder: Path
) -> None:
    words = [program(SOURCE), "become", "48", "0", "/bin/sleep"]
    with running(words, swap_directory, runtime_folder) as one:
        assert one.process.stdin
        (pid,) = one.pids(1)
        await_true(lambda: one.members()[pid].used > 40 << 20, "it has its memory")
        before = one.members()[pid].member
        one.process.stdin.write("\n")
        one.process.stdin.flush()
        assert one.pids(1) == [pid]
        await_true(lambda: one.members()[pid].used < 8 << 20, "the second program has little")
        assert one.members()[pid].member != before
        assert len(one.members()) == 2


def test_a_program_that_uswap_cannot_get_into_is_no_member(
    swap_directory: Path, runtime_folder: Path, tmp_path: Path
) -> None:
    """The process goes on, and has nothing of the limit any more."""
    idle = tmp_path / "idle"
    (tmp_path / "idle.c").write_text(
        "#include <unistd.h>\nint main(void) { char c; return read(0, &c, 1) != 0; }\n"
    )
    subprocess.run(["cc", "-static", "-o", str(idle), str(tmp_path / "idle.c")], check=True)
    with running([program(SOURCE), "become", "48", str(idle)], swap_directory, runtime_folder) as one:
        assert one.process.stdin
        (pid,) = one.pids(1)
        await_true(lambda: one.members()[pid].used > 40 << 20, "it has its memory")
        one.process.stdin.write("\n")
        one.process.stdin.flush()
        # Nobody is in the pool then but its keeper, which goes.
        await_true(lambda: not one.folder.exists(), "it is no member any more")
        assert one.process.poll() is None
        assert one.end() == 0


@pytest.mark.parametrize("way", ["fork", "exec"])
def test_nothing_is_left_of_a_program_that_is_killed(swap_directory: Path, runtime_folder: Path, way: str) -> None:
    with running([program(SOURCE), way, "24", "24", "24"], swap_directory, runtime_folder) as one:
        one.pids(3)
        keeper = os.pidfd_open(one.keeper())
        for pid in family(one.process.pid):
            os.kill(pid, signal.SIGKILL)
        assert one.process.wait(60) == -signal.SIGKILL
        with contextlib.closing(open(keeper, closefd=True)):
            await_true(lambda: not one.folder.exists(), "the folder goes")


def test_without_its_keeper_a_program_goes_on(swap_directory: Path, runtime_folder: Path) -> None:
    """Members let others in; the one process that executes a program has a keeper again."""
    words = [program(SOURCE), "become", "24", "24"]
    with running(words, swap_directory, runtime_folder) as one:
        assert one.process.stdin
        one.pids(1)
        first = one.keeper()
        os.kill(first, signal.SIGKILL)
        await_true(lambda: list(one.members()) == [one.process.pid], "the keeper is buried")
        one.process.stdin.write("\n")
        one.process.stdin.flush()
        assert one.pids(1) == [one.process.pid]
        assert one.keeper() != first
        assert one.end() == 0


def test_what_is_left_when_all_are_killed_goes_when_the_next_is_started(
    swap_directory: Path, runtime_folder: Path
) -> None:
    one = Running([program(SOURCE), "fork", "24", "24"], swap_directory, runtime_folder)
    one.pids(2)
    for end in [kill(pid) for pid in (one.keeper(), *family(one.process.pid))]:
        end()
    assert one.end() == -signal.SIGKILL
    one.close()
    assert one.folder.exists()
    with running(["true"], swap_directory, runtime_folder) as other:
        assert other.end() == 0
    assert not one.folder.exists()


def test_a_program_that_finds_no_floor_is_told_so(swap_directory: Path, runtime_folder: Path) -> None:
    """Of 12 MiB the keeper and one process have their floors."""
    with running([program(SOURCE), "spawn", "1", "1"], swap_directory, runtime_folder, "12MiB") as one:
        one.pids(1)
        assert one.process.stderr
        line = one.process.stderr.readline()
        assert line.startswith(
            "uswap run: this process cannot share the limit of the others: the pool's limit is not enough"
        )
        assert one.end() == 1  # its child ended with a status
        assert one.process.stderr.read() == ""


def test_a_fork_without_a_floor_fails(swap_directory: Path, runtime_folder: Path) -> None:
    with running([program(SOURCE), "fork", "1", "1"], swap_directory, runtime_folder, "12MiB") as one:
        assert one.process.wait(60) == 4
        assert one.process.stderr
        assert one.process.stderr.readline() == "fork: Cannot allocate memory\n"


# ---- who makes the pool ----


class HeldKeeper:
    """The keeper of a program that is started with this environment stops when its folder is there, and nobody can
    find it yet."""

    def __init__(self, place: Path) -> None:
        self._here, self._go = place / "here", place / "go"
        for fifo in (self._here, self._go):
            os.mkfifo(fifo)
        hold = {"RUN_HOLD_HERE": str(self._here), "RUN_HOLD_GO": str(self._go)}
        self.environment = {**os.environ, **hold, "LD_PRELOAD": shared_object(SOURCE.with_name("run_hold.c"))}

    def await_it(self) -> None:
        assert self._here.read_bytes() == b""

    def release(self) -> None:
        self._go.open("wb").close()


def test_what_is_being_made_is_not_swept(swap_directory: Path, runtime_folder: Path, tmp_path: Path) -> None:
    """By another program of the user's that is just being started."""
    keeper = HeldKeeper(tmp_path)
    with running([program(SOURCE), "fork", "1"], swap_directory, runtime_folder, env=keeper.environment) as one:
        keeper.await_it()
        try:
            sweep(runtime_folder / "another")
            assert one.folder.exists()
        finally:
            keeper.release()
        assert one.pids(1) == [one.process.pid]
        assert one.end() == 0


def test_a_keeper_whose_program_was_killed_goes(swap_directory: Path, runtime_folder: Path, tmp_path: Path) -> None:
    """Before there was a pool; and nobody else made one meanwhile, beside it."""
    keeper = HeldKeeper(tmp_path)
    with running([program(SOURCE), "fork", "1"], swap_directory, runtime_folder, env=keeper.environment) as one:
        keeper.await_it()
        one.process.kill()
        assert one.process.wait(60) == -signal.SIGKILL
        try:
            with pytest.raises(uswap.BusyError), locked(one.folder, wait=0):
                pass
        finally:
            keeper.release()


def test_a_keeper_that_is_stopped_holds_up_no_other_program(
    swap_directory: Path, runtime_folder: Path, tmp_path: Path
) -> None:
    keeper = HeldKeeper(tmp_path)
    with running([program(SOURCE), "fork", "1"], swap_directory, runtime_folder, env=keeper.environment) as one:
        keeper.await_it()
        try:
            done = uswap.run(
                ["echo", "started"],
                limit=LIMIT,
                swap=swap_directory,
                shared=True,
                capture_output=True,
                text=True,
                timeout=20,
            )
        finally:
            keeper.release()
        assert (done.stdout, done.stderr, done.returncode) == ("started\n", "", 0)
        assert one.pids(1) == [one.process.pid]
        assert one.end() == 0


def test_a_keeper_that_is_stopped_is_one_line(swap_directory: Path, runtime_folder: Path, tmp_path: Path) -> None:
    """Until it goes on it has the lock: nobody makes a pool there beside it."""
    keeper = HeldKeeper(tmp_path)
    with running([program(SOURCE), "fork", "1"], swap_directory, runtime_folder, env=keeper.environment) as one:
        keeper.await_it()
        try:
            assert one.process.wait(60) == 2
            with pytest.raises(uswap.BusyError), locked(one.folder, wait=0):
                pass
        finally:
            keeper.release()
        assert one.process.stderr
        (line,) = one.process.stderr.read().splitlines()
        assert line.startswith("uswap run: this process cannot share the limit of the others: ")
        assert line.endswith("the process that keeps the pool has been making it for long. Is it stopped?")


def test_a_pool_that_another_is_making_for_ever_is_one_line(swap_directory: Path, runtime_folder: Path) -> None:
    executable, words, variables = prepare(["echo", "started"], limit=LIMIT, swap=swap_directory, shared=True)
    with locked(Path(variables["USWAP_RUN_POOL"])):
        done = subprocess.run(
            words, executable=executable, env=variables, capture_output=True, text=True, timeout=60
        )
    assert (done.stdout, done.returncode) == ("", 2)
    (line,) = done.stderr.splitlines()
    assert line.startswith("uswap run: this process cannot share the limit of the others: ")
    assert line.endswith(".lock is locked: another process has been making this pool for long. Is it stopped?")
    assert list(runtime_folder.iterdir()) == []


def test_a_limit_that_is_too_low_is_refused(swap_directory: Path, runtime_folder: Path) -> None:
    done = uswap.run(["true"], limit="4MiB", swap=swap_directory, shared=True, capture_output=True, text=True)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "cannot share the limit" in line
    assert "4194304 bytes is below" in line
    await_true(lambda: list(runtime_folder.iterdir()) == [], "nothing is left")


def test_the_figures_are_those_of_all_together(swap_directory: Path, runtime_folder: Path) -> None:
    command = [program(SOURCE), "spawn", "40", "40", "40"]
    done = uswap.run(
        command, limit=LIMIT, swap=swap_directory, shared=True, stats=True, input="", capture_output=True, text=True
    )
    assert done.returncode == 0
    *own, last = (line for line in done.stderr.splitlines() if line.startswith("uswap run: "))
    assert len(own) == 3
    assert all(" of 64.0 MiB; " in line for line in own)
    found = re.fullmatch(r"uswap run: 3 processes together: peak ([\d.]+) MiB of 64\.0 MiB; (\d+) faults, .*", last)
    assert found, done.stderr
    assert 24 < float(found[1]) <= 64
    said = sum(int(re.findall(r"(\d+) faults", line)[0]) for line in own)
    assert said <= int(found[2]) <= said + 100  # what comes after its own words is counted, too
    await_true(lambda: list(runtime_folder.iterdir()) == [], "the keeper goes")


def test_a_python_program_sees_the_limit_of_all(swap_directory: Path, runtime_folder: Path) -> None:
    code = """
import uswap, subprocess, sys
pool = uswap.process_pool()
print(pool.limit, pool.name == pool.name, len(pool.members()))
pool.limit = "96MiB"
print(uswap.process_pool().limit, pool.stats().limit_bytes < 96 << 20)
"""
    done = uswap.run(
        [sys.executable, "-c", code], limit=LIMIT, swap=swap_directory, shared=True, capture_output=True, text=True
    )
    assert (done.stdout, done.stderr) == (f"{LIMIT} True 2\n{96 << 20} True\n", "")
    await_true(lambda: list(runtime_folder.iterdir()) == [], "the keeper goes")


def test_numbers_of_descriptors_are_the_programs_while_members_come(
    swap_directory: Path, runtime_folder: Path
) -> None:
    """What others send has the lowest numbers for an instant."""
    command = [program(SOURCE.with_name("run_numbers.c")), "10"]
    done = uswap.run(command, limit=LIMIT, swap=swap_directory, shared=True, capture_output=True, text=True)
    assert (done.stdout, done.stderr, done.returncode) == ("right\n", "", 0)
    await_true(lambda: list(runtime_folder.iterdir()) == [], "the keeper goes")
