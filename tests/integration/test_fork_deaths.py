"""Who is dead in a family, and who only looks so: programs that are executed, places that are taken anew, no
descriptor left to look by."""

from __future__ import annotations

from pathlib import Path

import pytest
from _support.program import run_program

from uswap._core import lib

HEAD = """
    import os, signal, sys, warnings
    warnings.simplefilter("ignore", DeprecationWarning)
    from _support.forks import await_alone, await_true, child, end_of
    from _support.workload import Pages
    def signpost():
        # => two functions: says it; waits until it is said.
        read, write = os.pipe()
        def await_it():
            assert os.read(read, 1) == b"x"
        return lambda: os.write(write, b"x"), await_it
    def write_anew(version):
        # What the last fork has lent is still somebody's, so it stays lent.
        pages.fill(version)
        assert end_of(child(lambda: None)) == 0    # all of it is out, and who is dead is looked for
        pages.fill(version)
        await_true(lambda: pool.stats().swap_lent_bytes == len(pages.view), "it is lent")
"""


def run(program: str, swap_directory: Path) -> str:
    done = run_program(HEAD + program, swap_directory, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.parametrize("named", [False, True], ids=["unnamed", "named"])
def test_places_come_free_of_programs_whose_parents_are_gone(
    named: bool, runtime_folder: Path, swap_directory: Path
) -> None:
    """The first of the family forks and is another program then; so is, in each round, a grandchild whose parent
    has ended. Their relatives go on, for more rounds than there are places, with a limit that three need."""
    out = run(
        f"""
    ROUNDS = 64
    idle, keeps = os.pipe()            # closes with the last of the family: then the other programs end
    been, says = os.pipe()             # by the program that somebody has become: nothing of what he was is left
    def become_another():
        os.dup2(idle, 0)
        os.dup2(says, 1)
        os.execv("/bin/sh", ["sh", "-c", "echo; exec cat > /dev/null"])
    def grandchild(parent_lives, parent_ends):
        os.close(parent_ends)
        os.read(parent_lives, 1)
        assert pages.wrong(1) == 0
        become_another()
    def parent():
        lives, ends = os.pipe()
        if os.fork() == 0:
            grandchild(lives, ends)
    def await_another():
        assert os.read(been, 1) == b"\\n"
    pid = os.fork()
    if pid == 0:
        pool = uswap.Pool("16MiB", swap=SWAP{", name='jobs'" if named else ""})
        pages = Pages(pool.region("1MiB"))
        pages.fill(1)
        if os.fork() > 0:
            become_another()
        signal.alarm(60)               # else the others would outlive a failure
        await_another()
        for number in range(ROUNDS):
            assert end_of(child(parent)) == 0
            await_another()
        pool.check()
        print(ROUNDS, "rounds", flush=True)
        del pages
        pool.close()
        os._exit(0)
    os.close(keeps)
    os.close(idle)
    end_of(pid)
    """,
        swap_directory,
    )
    assert out == "64 rounds\n"


def test_nobody_is_dead_to_a_process_without_descriptors(swap_directory: Path) -> None:
    """Its last one is a relative's pidfd; when that relative was started is not to be asked any more."""
    run(
        """
    import resource
    pool = uswap.Pool("24MiB", swap=SWAP)
    pages = Pages(pool.region("8MiB"))
    pages.fill(1)
    (short, await_short), (born, await_born) = signpost(), signpost()
    (looked, await_looked), (over, await_over) = signpost(), signpost()
    def link(number):
        try:
            return os.readlink("/proc/self/fd/" + number)
        except FileNotFoundError:      # of the listing itself
            return ""
    def without_descriptors():
        signal.alarm(60)
        pages.fill(5)                  # nothing of its parent's any more
        await_true(lambda: "anon_inode:[pidfd]" in map(link, os.listdir("/proc/self/fd")), "its parent is watched")
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (512, hard))
        taken = []
        try:
            while True:
                taken.append(os.dup(0))
        except OSError:
            os.close(taken.pop())
        short()
        await_born()
        if os.fork() == 0:             # it looks at all its relatives first; this one has no memory
            os._exit(0)
        looked()
        await_over()
    def relative():
        signal.alarm(60)
        born()
        await_over()
        assert pages.wrong(1) == 0
    looker = child(without_descriptors)
    await_short()
    other = child(relative)
    await_looked()
    write_anew(2)
    over(), over()
    assert end_of(other) == 0
    assert end_of(looker) == 0
    assert pages.wrong(2) == 0
    await_alone(pool)
    pool.check()
    """,
        swap_directory,
    )


@pytest.mark.skipif(not lib.uswap_failpoints_built(), reason="the core was built without failpoints")
def test_a_place_that_is_taken_anew_is_not_mistaken_for_the_dead(swap_directory: Path) -> None:
    """One relative sees a death, and is late; another buries the dead meanwhile, and the place is taken by the
    next."""
    run(
        """
    from _support.failpoints import Action, await_stopped, release, set_failpoint
    PLACES = 63
    pool = uswap.Pool("24MiB", swap=SWAP)
    pages = Pages(pool.region("8MiB"))
    pages.fill(1)
    (ready, await_ready), (seen, await_seen), (taken, await_taken) = signpost(), signpost(), signpost()
    (late, await_late), (over, await_over) = signpost(), signpost()
    def looker():
        signal.alarm(60)
        pages.fill(5)                  # nothing of its parent's any more
        set_failpoint("peer.death", Action.STOP)
        ready()
        await_stopped("peer.death")
        seen()
        await_taken()
        release("peer.death")
        assert end_of(child(lambda: None)) == 0     # after the other thread has done
        late()
    def relative():
        signal.alarm(60)
        await_over()
        assert pages.wrong(2) == 0
    first = child(looker)
    await_ready()
    dead = child(signal.pause)
    pages.fill(2)
    set_failpoint("peer.death", Action.STOP)       # not buried before both have seen it
    os.kill(dead, signal.SIGKILL)
    end_of(dead)
    await_seen()
    await_stopped("peer.death")
    release("peer.death")
    await_alone(pool)                  # it is buried
    for number in range(PLACES - 3):   # in the other places; but for its own, and those of the two that live
        assert end_of(child(lambda: None)) == 0
    next = child(relative)
    taken()
    await_late()
    write_anew(4)
    over()
    assert end_of(next) == 0
    assert end_of(first) == 0
    assert pages.wrong(4) == 0
    await_alone(pool)
    pool.check()
    """,
        swap_directory,
    )
