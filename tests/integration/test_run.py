"""Unmodified programs under a limit: what they compute is what they compute without."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from _support.native import program

import uswap

MIB = 1 << 20
SUPPORT = Path(__file__).resolve().parents[1] / "_support"


def output(command: list[str], swap: Path, limit: str | None, **options: object) -> str:
    """What the command prints, under a limit or (None) without; it must end well."""
    if limit is None:
        done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    else:
        done = uswap.run(command, limit=limit, swap=swap, capture_output=True, text=True, timeout=100, **options)
    assert done.returncode == 0, done.stderr
    return str(done.stdout)


@pytest.mark.parametrize("seed", range(1, 7))
def test_mappings_are_what_the_kernel_makes_of_them(swap_directory: Path, seed: int) -> None:
    command = [str(program(SUPPORT / "run_mappings.c")), str(seed), "400"]
    assert output(command, swap_directory, "8MiB") == output(command, swap_directory, None)


def test_blocks_keep_their_contents_beside_threads_and_forks(swap_directory: Path) -> None:
    command = [str(program(SUPPORT / "run_heap.c")), "3", "3000", "5"]
    assert output(command, swap_directory, "24MiB") == output(command, swap_directory, None)


def test_python_and_its_objects(swap_directory: Path) -> None:
    script = (
        "d = {i: (i, str(i)) for i in range(400000)}\n"
        "print(sum(v[0] for v in d.values()), sum(len(v[1]) for v in d.values()))"
    )
    command = [sys.executable, "-c", script]
    assert output(command, swap_directory, "32MiB") == output(command, swap_directory, None)


def test_sort(swap_directory: Path) -> None:
    text = "".join(f"{(i * 7919) % 300007:012d} {i}\n" for i in range(300000))
    (swap_directory / "lines").write_text(text)
    command = ["sort", "-S", "60M", "--parallel=2", str(swap_directory / "lines")]
    assert output(command, swap_directory, "16MiB") == output(command, swap_directory, None)


def test_a_shell_script_with_many_forks(swap_directory: Path) -> None:
    script = 'for i in 1 2 3 4 5 6 7 8; do x="$x$(echo $((i * i)))"; done; (exit 3); echo "$x $?"'
    assert output(["bash", "-c", script], swap_directory, "8MiB") == "1491625364964 3\n"


# ---- the limit -------------------------------------------------------------------------------------------------

WATCHED = """
import os, re
block = bytearray(os.urandom(1 << 20)) * 96
total = sum(block[::4096]) + sum(block[1::4096])
status = open("/proc/self/status").read()
print(re.search(r"RssAnon:\\s+(\\d+)", status)[1])
"""


def test_what_is_resident_stays_within_the_limit(swap_directory: Path) -> None:
    resident = int(output([sys.executable, "-c", WATCHED], swap_directory, "16MiB")) * 1024
    assert resident <= 16 * MIB * 1.01 + 16 * MIB


def test_the_report(swap_directory: Path) -> None:
    done = uswap.run(
        [sys.executable, "-c", "b = bytearray(64 << 20); b[::4096] = b'x' * len(b[::4096])"],
        limit="16MiB",
        swap=swap_directory,
        stats=True,
        capture_output=True,
        text=True,
        timeout=100,
    )
    line, *places = done.stderr.splitlines()
    assert any(re.match(r"  waited [\d.]+ s in memory of .*python", place) for place in places)
    found = re.match(r"uswap run: python[\d.]*\[\d+\]: peak ([\d.]+) MiB of 16\.0 MiB; (\d+) faults, ", line)
    assert found is not None
    assert 8 < float(found[1]) <= 16
    assert int(found[2]) > 0


def test_more_than_there_is_swap_for_is_refused(swap_directory: Path) -> None:
    script = "try:\n    b = bytearray(256 << 20)\nexcept MemoryError:\n    print('refused')"
    area = uswap.SwapArea(swap_directory, size="64MiB")
    done = uswap.run([sys.executable, "-c", script], limit="16MiB", swap=area, capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("refused\n", 0)


def test_locked_memory_counts(swap_directory: Path) -> None:
    script = """
import ctypes, errno, mmap
libc = ctypes.CDLL(None, use_errno=True)
m = mmap.mmap(-1, 32 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
at = ctypes.addressof(ctypes.c_char.from_buffer(m))
print(libc.mlock(ctypes.c_void_p(at), 4 << 20), libc.munlock(ctypes.c_void_p(at), 4 << 20))
print(libc.mlock(ctypes.c_void_p(at), 32 << 20), errno.errorcode[ctypes.get_errno()])
print(libc.mlockall(1), errno.errorcode[ctypes.get_errno()])
"""
    assert output([sys.executable, "-c", script], swap_directory, "16MiB").split() == [
        "0",
        "0",
        "-1",
        "ENOMEM",
        "-1",
        "ENOMEM",
    ]


# ---- what programs do to their surroundings --------------------------------------------------------------------

CLOSES = """
import ctypes, os, subprocess, sys
def over(fd):
    try:
        os.dup2(2, fd)
    except OSError:
        pass
kept = bytearray(48 << 20)
kept[::4096] = b"y" * len(kept[::4096])
{close}
assert kept.count(b"y") == len(kept) // 4096
again = bytearray(48 << 20)
again[::4096] = b"z" * len(again[::4096])
assert again.count(b"z") == len(again) // 4096
sys.stdout.write("right")
"""


@pytest.mark.parametrize(
    "close",
    [
        "os.closerange(3, 70000)",
        "ctypes.CDLL(None).closefrom(3)",
        "[over(int(fd)) for fd in os.listdir('/proc/self/fd')[3:]]",
        "subprocess.run(['true'], close_fds=True, preexec_fn=lambda: None, check=True)",
        "os.fork() and os.wait() or (os.closerange(3, 70000), kept.count(b'y'), os._exit(0))",
    ],
)
def test_a_program_that_closes_everything(swap_directory: Path, close: str) -> None:
    script = CLOSES.format(close=close)
    assert output([sys.executable, "-c", script], swap_directory, "16MiB") == "right"


PRINTS_SETTINGS = (
    "import os; print(os.environ.get('USWAP_RUN_LIMIT'), 'libuswap-run' in open('/proc/self/maps').read())"
)


@pytest.mark.parametrize(
    "start",
    [
        "subprocess.run([sys.executable, '-c', code], env={})",
        "subprocess.run([sys.executable, '-c', code], env={}, preexec_fn=lambda: None)",
        "os.waitpid(os.posix_spawn(sys.executable, [sys.executable, '-c', code], {'LD_PRELOAD': ''}), 0)",
        "os.execve(sys.executable, [sys.executable, '-c', code], {})",
        "os.environ.clear(); os.execv(sys.executable, [sys.executable, '-c', code])",
    ],
)
def test_the_limit_goes_with_what_is_executed(swap_directory: Path, start: str) -> None:
    script = f"import os, subprocess, sys\ncode = {PRINTS_SETTINGS!r}\n{start}"
    assert output([sys.executable, "-c", script], swap_directory, "16MiB") == f"{16 * MIB} True\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can change its groups")
def test_every_thread_changes_its_groups(swap_directory: Path) -> None:
    """libc has all threads make the call, and so look at the list: the runtime's cannot wait for themselves."""
    script = """
import os
os.setgroups(list(range(5, 3005)))
print(len(os.getgroups()))
os.initgroups("root", 7)
print(7 in os.getgroups())
"""
    assert output([sys.executable, "-c", script], swap_directory, "16MiB").split() == ["3000", "True"]


def test_signals_end_a_program_as_ever(swap_directory: Path) -> None:
    script = "import os; b = bytearray(64 << 20); os.kill(os.getpid(), 15)"
    done = uswap.run([sys.executable, "-c", script], limit="16MiB", swap=swap_directory)
    assert done.returncode == -signal.SIGTERM


def test_uswap_in_the_program_is_the_one_in_front_of_it(swap_directory: Path) -> None:
    script = """
import uswap
whole = uswap.process_pool()
block = bytearray(b"x") * (100 << 20)
print(whole.limit >> 20, whole.stats().evictions > 10000, whole is uswap.process_pool())
with uswap.Pool(limit="8MiB") as pool:
    a = pool.zeros((1 << 22,), dtype="f8")
    b = whole.zeros((1 << 22,), dtype="f8")
    a += 1
    b += 2
    print(a.sum(), b.sum(), pool.stats().peak_resident_bytes <= pool.limit)
whole.limit = "32MiB"
print(whole.stats().limit_bytes >> 20, block.count(b"x"))
"""
    assert output([sys.executable, "-c", script], swap_directory, "64MiB").split() == [
        "64", "True", "True", "4194304.0", "8388608.0", "True", "32", str(100 << 20),
    ]  # fmt: skip


ARROW = """
import re
import pyarrow as pa, pyarrow.compute as pc
numbers = pa.array(range(1_000_000), type=pa.int64())
tripled = pc.multiply(numbers, 3)
print(pc.sum(tripled).as_py(), pa.table({"a": numbers, "b": tripled}).sort_by([("a", "descending")])["b"][0])
"""

TORCH = """
import torch
a = torch.arange(4_000_000, dtype=torch.float64)
print(float((a * 2).sum()))
"""


@pytest.mark.parametrize(("module", "script"), [("pyarrow", ARROW), ("torch", TORCH)])
def test_libraries_with_allocators_of_their_own(swap_directory: Path, module: str, script: str) -> None:
    """Arrow's pools, of whatever kind, and PyTorch's CPU tensors come from mmap and malloc in the end."""
    pytest.importorskip(module)
    command = [sys.executable, "-c", script]
    assert output(command, swap_directory, "24MiB") == output(command, swap_directory, None)


# ---- bad use ---------------------------------------------------------------------------------------------------


def refused(*words: str) -> str:
    """The one line that `uswap run` says; the program must not have been started."""
    done = subprocess.run(
        [sys.executable, "-m", "uswap", "run", *words], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("uswap run: ")
    return line


def test_bad_use_is_one_line_before_the_program_starts(swap_directory: Path, tmp_path: Path) -> None:
    echo = ["echo", "started"]
    swap = ["--swap", str(swap_directory)]
    assert "below the least" in refused("--limit", "100KiB", *swap, "--", *echo)
    assert "not a size" in refused("--limit", "much", *swap, "--", *echo)
    assert "no directory" in refused("--limit", "16MiB", "--swap", str(tmp_path / "missing"), "--", *echo)
    assert "is no directory" in refused("--limit", "16MiB", "--swap", __file__, "--", *echo)
    assert "no program" in refused("--limit", "16MiB", *swap, "--", "no-such-program")
    assert "no program" in refused("--limit", "16MiB", *swap)
    assert "cannot share the limit" in refused("--limit", "4MiB", "--shared", *swap, "--", *echo)
    assert "may not be executed" in refused(
        "--limit", "16MiB", *swap, "--", os.path.abspath(SUPPORT / "workload.c")
    )


def test_programs_that_no_library_can_be_put_in_front_of(swap_directory: Path, tmp_path: Path) -> None:
    source = tmp_path / "main.c"
    source.write_text("int main(void) { return 0; }\n")
    static = tmp_path / "static"
    subprocess.run([os.environ.get("CC", "cc"), "-static", str(source), "-o", str(static)], check=True)
    arguments = ["--limit", "16MiB", "--swap", str(swap_directory), "--"]
    assert "static program" in refused(*arguments, str(static))
    small = tmp_path / "small"
    head = bytearray(Path(sys.executable).read_bytes()[:4096])
    head[4] = 1
    small.write_bytes(head)
    small.chmod(0o755)
    assert "32-bit" in refused(*arguments, str(small))
    script = tmp_path / "script"
    script.write_text(f"#!{static}\n")
    script.chmod(0o755)
    assert "static program" in refused(*arguments, str(script))
    if os.geteuid() == 0:
        other = tmp_path / "other"
        shutil.copy("/bin/true", other)
        os.chown(other, 65534, 65534)
        other.chmod(0o4755)
        assert "rights of its own" in refused(*arguments, str(other))


def test_a_bad_command() -> None:
    with pytest.raises(TypeError, match="one by one"):
        uswap.run("ls -l")  # type: ignore[arg-type]
    with pytest.raises(uswap.ArgumentError, match="no program"):
        uswap.run([])
