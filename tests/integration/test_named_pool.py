"""Processes of one pool: how they come, share the limit, are stopped, die and go."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import struct
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from _support.members import Member, MemberError

import uswap
from uswap._core import lib

MIB = 1 << 20
DEADLINE_SECONDS = 60.0  # only against hangs
HELLO = 1
PEER_MAGIC, PEER_VERSION = 0x75777370, 1

needs_failpoints = pytest.mark.skipif(
    not lib.uswap_failpoints_built(), reason="the core was built without failpoints"
)


def until(condition: Callable[[], object]) -> None:
    """Returns when it is true."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.005)


def fill(process: Member, mib: int) -> None:
    """An array of so many MiB of pages that differ."""
    process("import numpy as np")
    process(f"a = pool.zeros({mib * MIB // 8}, dtype='u8'); a[:] = np.arange(len(a), dtype='u8')")


def read_until(process: Member, condition: Callable[[], object]) -> None:
    """It reads its array again and again, until that is true."""

    def once() -> object:
        assert process("int((a != np.arange(len(a), dtype='u8')).sum())") == 0
        return condition()

    until(once)


def is_stopped(process: Member) -> bool:
    return Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def limit_of(pool: uswap.Pool, pid: int) -> int:
    return next(one.limit for one in pool.members() if one.pid == pid)


def handed_out(pool: uswap.Pool) -> int:
    """All parts of the limit. Counted while they change hands, one may be missed, or be counted twice."""
    info = pool.group_info()
    return sum(one.limit for one in pool.members()) + info.free_bytes + info.shared_limit_bytes


# ---- the limit ------------------------------------------------------------------------------------------


def test_parts_add_up_to_the_limit_and_go_to_who_is_short(jobs: uswap.Pool, more: Callable[[], Member]) -> None:
    first, second = more(), more()
    fill(first, 40)
    read_until(first, lambda: limit_of(jobs, first.pid) > 30 * MIB)
    until(lambda: handed_out(jobs) == 64 * MIB)
    fill(second, 40)
    # What the first has is not missed, while the second reads the same again and again.
    read_until(second, lambda: limit_of(jobs, second.pid) > 24 * MIB)
    assert first("int((a != np.arange(len(a), dtype='u8')).sum())") == 0


def test_a_scan_takes_nothing_from_what_is_in_use(
    jobs: uswap.Pool, more: Callable[[], Member], tmp_path: Path
) -> None:
    hot, scan = more(), more()
    fill(hot, 24)
    stop = tmp_path / "stop"
    hot.send(
        "from pathlib import Path\n"
        f"stop = Path({str(stop)!r})\n"
        "while not stop.exists(): assert int((a != np.arange(len(a), dtype='u8')).sum()) == 0"
    )
    fill(scan, 256)
    kept = limit_of(jobs, hot.pid)  # while it still reads
    stop.touch()
    hot.answer()
    assert kept > 24 * MIB


def test_the_limit_can_be_changed_under_load(jobs: uswap.Pool, more: Callable[[], Member]) -> None:
    first, second = more(), more()
    fill(first, 40)
    fill(second, 40)
    jobs.limit = "32MiB"
    assert first("pool.limit") == 32 * MIB
    assert sum(one.limit for one in jobs.members()) <= 32 * MIB
    assert all(one.used <= one.limit for one in jobs.members())
    # Nobody touches a page now. What each of them really has:
    resident = [one("pool.stats().resident_bytes") for one in (first, second)]
    assert jobs.stats().resident_bytes + sum(resident) <= 32 * MIB
    with pytest.raises(uswap.LimitError):
        jobs.limit = "8MiB"
    jobs.limit = "64MiB"
    for process in (first, second):
        assert process("int((a != np.arange(len(a), dtype='u8')).sum())") == 0


def test_who_finds_no_floor_cannot_join(
    runtime_folder: Path, swap: uswap.SwapArea, more: Callable[[], Member]
) -> None:
    with uswap.Pool("16MiB", name="jobs", swap=swap) as pool:
        with pytest.raises(MemberError, match="LimitError"):
            [more() for _ in range(5)]
        assert handed_out(pool) <= 16 * MIB
        assert all(one.limit >= pool.group_info().floor_bytes for one in pool.members())


# ---- death, and worse -----------------------------------------------------------------------------------


def test_a_killed_member_gives_its_part_back(jobs: uswap.Pool, more: Callable[[], Member]) -> None:
    dead, alive = more(), more()
    fill(dead, 40)
    dead.kill()
    until(lambda: [one.pid for one in jobs.members()] == [os.getpid(), alive.pid])
    fill(alive, 48)
    read_until(alive, lambda: limit_of(jobs, alive.pid) > 40 * MIB)
    until(lambda: handed_out(jobs) == 64 * MIB)


def test_who_made_the_pool_is_nothing_special(
    runtime_folder: Path, swap_directory: Path, swap: uswap.SwapArea
) -> None:
    with Member() as maker:
        maker(f"swap = uswap.SwapArea({str(swap_directory)!r}, size='1GiB')")
        maker("pool = uswap.Pool('64MiB', name='jobs', swap=swap)")
        pool = uswap.attach("jobs", swap=swap)
        maker.kill()
        until(lambda: len(pool.members()) == 1)
        with Member() as late:
            late("pool = uswap.attach('jobs')")
            assert late("len(pool.members())") == 2
            late("pool.close()")
        pool.close()
    assert not (runtime_folder / "jobs").exists()


def test_beside_a_stopped_member_others_come_and_go(jobs: uswap.Pool, more: Callable[[], Member]) -> None:
    stopped = more()
    fill(stopped, 20)
    stopped.stop()
    try:
        for _ in range(3):
            process = more()
            fill(process, 20)
            assert process("int((a != np.arange(len(a), dtype='u8')).sum())") == 0
            process("del a; pool.close()")
        assert limit_of(jobs, stopped.pid) >= jobs.group_info().floor_bytes
        until(lambda: next(one.silent_seconds for one in jobs.members() if one.pid == stopped.pid) > 0.5)
    finally:
        stopped.go_on()
    assert stopped("int((a != np.arange(len(a), dtype='u8')).sum())") == 0
    assert stopped("len(pool.members())") == 2


def test_a_newcomer_gets_memory_though_a_page_is_held_in_most_of_it(
    runtime_folder: Path, swap: uswap.SwapArea, more: Callable[[], Member]
) -> None:
    """Shared memory comes free in chunks of many pages. One page that cannot leave (here it is locked; it may be in
    work by who is stopped) keeps its chunk: then another is emptied."""
    with uswap.Pool("20MiB", name="jobs", swap=swap) as pool:
        region = pool.region("13MiB", shared=True)
        for page in range(0, len(region), 4096):
            region[page] = 1
        for page in range(0, 9 * MIB, 192 << 10):
            region.lock(page, 4096)
        assert pool.group_info().free_bytes < pool.group_info().floor_bytes
        process = more()
        assert limit_of(pool, process.pid) >= pool.group_info().floor_bytes
        process("pool.close()")
        region.close()


def test_only_stopped_members_cannot_let_anybody_in(runtime_folder: Path, swap_directory: Path) -> None:
    with Member() as maker:
        maker(f"pool = uswap.Pool('64MiB', name='jobs', swap=uswap.SwapArea({str(swap_directory)!r}, size='1GiB'))")
        maker.stop()
        with pytest.raises(uswap.BusyError):
            uswap.attach("jobs")
        maker.go_on()
        uswap.attach("jobs").close()
        maker("pool.close()")


def test_many_come_at_once_and_die_at_once(jobs: uswap.Pool, swap_directory: Path) -> None:
    with contextlib.ExitStack() as stack:
        crowd = [stack.enter_context(Member()) for _ in range(6)]
        for process in crowd:
            process.send(f"pool = uswap.attach('jobs', swap=uswap.SwapArea({str(swap_directory)!r}, size='1GiB'))")
        for process in crowd:
            process.answer()
        assert len(jobs.members()) == 7
        for process in crowd:
            process.kill()
        until(lambda: len(jobs.members()) == 1)
    until(lambda: handed_out(jobs) == 64 * MIB)


@needs_failpoints
@pytest.mark.parametrize("name", ["group.joining", "group.leaving", "grant.lower", "grant.give"])
def test_killed_on_the_way_it_leaves_nothing(
    name: str, jobs: uswap.Pool, more: Callable[[], Member], swap_directory: Path
) -> None:
    with Member() as victim:
        victim("from _support.failpoints import Action, set_failpoint")
        if name != "group.joining":
            victim(f"pool = uswap.attach('jobs', swap=uswap.SwapArea({str(swap_directory)!r}, size='1GiB'))")
        victim(f"set_failpoint({name!r}, Action.KILL)")
        if name == "group.joining":
            victim.send("pool = uswap.attach('jobs')")
        elif name == "group.leaving":
            victim.send("pool.close()")
        else:  # it has more than it needs, and others are short
            other = more()
            fill(victim, 40)
            fill(other, 40)
            read_until(other, lambda: not victim.alive)
        until(lambda: not victim.alive)
        until(lambda: victim.pid not in [one.pid for one in jobs.members()])
        until(lambda: handed_out(jobs) == 64 * MIB)


@needs_failpoints
def test_killed_while_it_makes_the_pool_another_makes_it(runtime_folder: Path, swap: uswap.SwapArea) -> None:
    with Member() as victim:
        victim("from _support.failpoints import Action, set_failpoint")
        victim("set_failpoint('group.made', Action.KILL)")
        victim.send("pool = uswap.Pool('64MiB', name='jobs')")
        until(lambda: not victim.alive)
    with pytest.raises(uswap.PoolNotFoundError):
        uswap.attach("jobs")
    with uswap.Pool("64MiB", name="jobs", swap=swap) as pool:
        assert len(pool.members()) == 1


@needs_failpoints
@pytest.mark.parametrize("name", ["group.joining", "member.joined"])
def test_stopped_while_it_joins_others_join(
    name: str, jobs: uswap.Pool, more: Callable[[], Member], swap_directory: Path
) -> None:
    with Member() as victim:
        victim("from _support.failpoints import Action, set_failpoint")
        victim(f"set_failpoint({name!r}, Action.FREEZE)")
        victim.send(f"pool = uswap.attach('jobs', swap=uswap.SwapArea({str(swap_directory)!r}, size='1GiB'))")
        until(lambda: is_stopped(victim))
        others = [more(), more()]
        fill(others[0], 40)
        others[1]("pool.close()")
        victim.go_on()
        victim.answer()
        assert victim.pid in [one.pid for one in jobs.members()]
        victim("pool.close()")


@needs_failpoints
@pytest.mark.parametrize("name", ["group.leaving", "peer.hello", "peer.joined", "grant.lower", "grant.give"])
def test_stopped_there_the_others_come_and_go(
    name: str, jobs: uswap.Pool, more: Callable[[], Member], swap_directory: Path
) -> None:
    victim, other = more(), more()
    victim("from _support.failpoints import Action, set_failpoint")
    victim(f"set_failpoint({name!r}, Action.FREEZE)")
    if name == "group.leaving":
        victim.send("pool.close()")
        until(lambda: is_stopped(victim))
    fill(other, 40)
    for _ in range(4):
        process = more()
        process("pool.close()")
    assert other("int((a != np.arange(len(a), dtype='u8')).sum())") == 0
    if name == "group.leaving":
        victim.go_on()
        victim.answer()
    victim.kill()
    until(lambda: victim.pid not in [one.pid for one in jobs.members()])


@needs_failpoints
@pytest.mark.parametrize("name", ["peer.hello", "peer.joined"])
def test_killed_while_it_answers_it_is_passed_over(name: str, jobs: uswap.Pool, more: Callable[[], Member]) -> None:
    victim = more()
    victim("from _support.failpoints import Action, set_failpoint")
    victim(f"set_failpoint({name!r}, Action.KILL)")
    for _ in range(4):
        process = more()
        process("pool.close()")
    until(lambda: len(jobs.members()) == 1 + victim.alive)


@needs_failpoints
@pytest.mark.parametrize(("out", "where"), [(False, "shared.committed"), (True, "shared.unnamed")])
def test_a_discard_does_not_wait_for_who_is_stopped_in_one(
    jobs: uswap.Pool, more: Callable[[], Member], out: bool, where: str
) -> None:
    region = jobs.region("1MiB", shared=True, name="x")
    region[:] = b"x" * len(region)
    if out:
        region.advise(uswap.Advice.PAGEOUT)
    victim = more()
    victim("from _support.failpoints import Action, set_failpoint; r = pool.open_region('x')")
    victim(f"set_failpoint({where!r}, Action.FREEZE)")
    victim.send("r.advise(uswap.Advice.DONTNEED, 0, 4096)")
    until(lambda: is_stopped(victim))
    region.advise(uswap.Advice.DONTNEED, 0, 4096)
    assert region[:4096] == bytes(4096)
    region[0] = 1
    assert region[4096:8192] == b"x" * 4096
    victim.go_on()
    victim.answer()
    assert region[:4096] == b"\1" + bytes(4095)  # stored after the page had been discarded
    jobs.check()


# ---- who may not ----------------------------------------------------------------------------------------


def say_hello(folder: Path, version: int = PEER_VERSION) -> int | None:
    """The status that a member answers to a hello; None: it hangs up."""
    (name,) = [path for path in folder.iterdir() if path.name.endswith(f"-{os.getpid()}")]
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        connection.settimeout(DEADLINE_SECONDS)
        connection.connect(str(name))
        connection.send(struct.pack("=IIQIIIIII", PEER_MAGIC, version, 0, HELLO, os.getpid(), 0, 0, 0, 0))
        try:
            answer = connection.recv(4096)
        except ConnectionResetError:
            return None
    return struct.unpack_from("=i", answer, 16)[0] if answer else None


def test_another_build_is_refused(jobs: uswap.Pool, runtime_folder: Path) -> None:
    assert say_hello(runtime_folder / "jobs", PEER_VERSION + 1) == -errno.EPROTO
    assert say_hello(runtime_folder / "jobs") == -errno.EPROTO  # the same version, with another layout
    assert len(jobs.members()) == 1


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be somebody else")
def test_another_user_is_refused_even_if_he_gets_at_the_socket(jobs: uswap.Pool, runtime_folder: Path) -> None:
    folder = runtime_folder / "jobs"
    pid = os.getpid()
    (name,) = [str(path) for path in folder.iterdir() if path.name.endswith(f"-{pid}")]
    for path in (runtime_folder.parent, runtime_folder, folder, Path(name)):
        path.chmod(0o777)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            os.setgroups([])
            os.setresuid(65534, 65534, 65534)
            result = b"refused"
            try:
                connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                connection.settimeout(DEADLINE_SECONDS)
                connection.connect(name)
                connection.send(struct.pack("=IIQIIIIII", PEER_MAGIC, 1, 0, HELLO, os.getpid(), 0, 0, 0, 0))
                result = b"answered" if connection.recv(4096) else b"refused"
            except (ConnectionResetError, BrokenPipeError):
                pass
            os.write(write, result)
        os._exit(0)
    os.close(write)
    os.waitpid(child, 0)
    assert os.read(read, 100) == b"refused"
    os.close(read)
    for path in (folder, runtime_folder, runtime_folder.parent):
        path.chmod(0o700)
    until(lambda: len(jobs.members()) == 1)  # the child was a member, by its birth, for as long as it lived


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder away")
def test_a_folder_of_somebody_else_is_refused(jobs: uswap.Pool, runtime_folder: Path) -> None:
    folder = runtime_folder / "jobs"
    with Member() as process:
        os.chown(folder, 65534, 65534)
        with pytest.raises(MemberError):
            process("uswap.attach('jobs') and None")
        os.chown(folder, 0, 0)
        process("uswap.attach('jobs').close()")


# ---- fork -----------------------------------------------------------------------------------------------


def kept_of(child: int, parent: int) -> list[str]:
    """What the child has open of its parent's membership."""
    links = []
    for fd in os.listdir(f"/proc/{child}/fd"):
        with contextlib.suppress(FileNotFoundError):  # it is closing them now
            links.append(os.readlink(f"/proc/{child}/fd/{fd}"))
    sockets = Path(f"/proc/{child}/net/unix").read_text().splitlines()
    listening = {f"socket:[{line.split()[6]}]" for line in sockets if line.endswith(f"-{parent}")}
    kinds = ("userfaultfd", "uswap-commons", "pidfd")
    return [link for link in links if link in listening or any(kind in link for kind in kinds)]


def test_a_forked_child_keeps_nothing_of_its_parent_alive(jobs: uswap.Pool, more: Callable[[], Member]) -> None:
    process = more()
    process("pool.close()\npool = uswap.attach('jobs', snapshots=False)")  # else the child is a member by itself
    process(
        "import os, signal, warnings\n"
        "warnings.simplefilter('ignore')\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    signal.pause()\n"
    )
    child = process("child")
    try:
        # Its handler may not have run yet.
        until(lambda: not kept_of(child, process.pid))
        process.kill()
        until(lambda: len(jobs.members()) == 1)
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_child_can_join_by_itself(jobs: uswap.Pool, more: Callable[[], Member]) -> None:
    process = more()
    code = process(
        "import os, warnings\n"
        "warnings.simplefilter('ignore')\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    try:\n"
        "        other = uswap.attach('jobs')\n"
        "        status = 0 if len(other.members()) == 4 else 2\n"  # it is one already, by its parent's pool
        "        other.close()\n"
        "        os._exit(status)\n"
        "    finally:\n"
        "        os._exit(3)\n"
        "status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])"
    )
    assert code is None
    assert process("status") == 0


def test_threads_with_small_stacks_make_join_and_leave_pools(
    runtime_folder: Path, swap: uswap.SwapArea, swap_directory: Path
) -> None:
    with Member() as member:
        member(f"swap = uswap.SwapArea({str(swap_directory)!r}, size='1GiB')")
        member("import os, pickle, threading; failed = []; threading.excepthook = failed.append")
        member(SMALL_STACK)
        member("threading.stack_size(256 << 10); thread = threading.Thread(target=work); thread.start()")
        member("thread.join()")
        assert member("[str(one.exc_value) for one in failed]") == []


SMALL_STACK = """
def work():
    pool = uswap.Pool("64MiB", name="jobs", swap=swap)
    a = pool.zeros(1 << 20, dtype="u1", shared=True, name="a")
    a[:] = 3
    other = uswap.attach("jobs", swap=swap)
    same = other.open_region("a")
    assert bytes(same[:2]) == b"\\3\\3" == bytes(pickle.loads(pickle.dumps(a))[:2])
    same.advise(uswap.Advice.PAGEOUT)
    pool.members(), pool.group_info(), a.region.users(0)
    same.close()
    other.close()
    child = os.fork()
    if child == 0:
        os._exit(pool.open_region("a")[0])
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3
    del a
    pool.check()
    pool.close()
"""
