"""Where a seccomp filter refuses userfaultfd, Pool says why and what to do. An unprivileged user gets a pool that
serves its faults inline, and is told what fails."""

import json
import os
import platform
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from _support.program import run_program
from conftest import probe

# A filter that lets everything pass but userfaultfd(2) and the ioctl that makes one from /dev/userfaultfd:
# these get EPERM (seccomp(2); the numbers are those of linux/filter.h and linux/seccomp.h).
SECCOMP = """
    import ctypes, struct
    NUMBERS = {"x86_64": (323, 16), "aarch64": (282, 29)}[MACHINE]
    IOC_NEW, EPERM = 0xAA00, 1
    LOAD, EQUAL, RETURN = 0x20, 0x15, 0x06
    def step(code, yes, no, value): return struct.pack("HBBI", code, yes, no, value)
    allow, refuse = 0x7FFF0000, 0x00050000 | EPERM
    steps = [
        step(LOAD, 0, 0, 0),                  # the number of the system call
        step(EQUAL, 4, 0, NUMBERS[0]),
        step(EQUAL, 0, 2, NUMBERS[1]),
        step(LOAD, 0, 0, 24),                 # its second argument: the ioctl
        step(EQUAL, 1, 0, IOC_NEW),
        step(RETURN, 0, 0, allow),
        step(RETURN, 0, 0, refuse),
    ]
    program = b"".join(steps)
    buffer = ctypes.create_string_buffer(program, len(program))
    class Program(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]
    prog = Program(len(steps), ctypes.addressof(buffer))
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(38, 1, 0, 0, 0) == 0
    assert libc.prctl(22, 2, ctypes.byref(prog), 0, 0) == 0, ctypes.get_errno()
"""

UNPRIVILEGED = """
    import os
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
    os.environ["HOME"] = "/nonexistent"
"""

CHECK = """
    import sys, warnings
    import uswap
    from uswap.cli import main
    if sys.argv[1] == "pool":
        try:
            uswap.Pool("16MiB")
        except uswap.UnsupportedError as error:
            print(error)
            sys.exit(0)
        sys.exit("a pool was made")
    sys.exit(main(["doctor", *sys.argv[2:]]))
"""


# One examination first: Python imports lazily, and the unprivileged user need not be able to read this Python.
WARM = """
    import contextlib, io, pwd, traceback
    from uswap.cli import main
    with contextlib.redirect_stdout(io.StringIO()):
        main(["doctor", "--json"])
"""


def run(refusal: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    parts = (WARM, refusal.replace("MACHINE", repr(platform.machine())), CHECK)
    program = "".join(map(textwrap.dedent, parts))
    return subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, timeout=60)


def sysctl_allows_everybody() -> bool:
    return Path("/proc/sys/vm/unprivileged_userfaultfd").read_text().strip() != "0"


def device_allows_everybody() -> bool:
    device = Path("/dev/userfaultfd")
    return device.exists() and bool(device.stat().st_mode & 0o006)


@pytest.fixture
def unprivileged() -> str:
    if os.getuid() != 0:
        pytest.skip("only root can become another user")
    if sysctl_allows_everybody() or device_allows_everybody():
        pytest.skip("this machine lets every user use userfaultfd")
    return UNPRIVILEGED


def test_pool_names_the_cause_and_the_command() -> None:
    result = run(SECCOMP, "pool")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "userfaultfd is not permitted" in result.stdout
    assert "sysctl -w vm.unprivileged_userfaultfd=1" in result.stdout
    assert "uswap doctor" in result.stdout


def test_doctor_says_that_no_pool_can_be_made() -> None:
    result = run(SECCOMP, "doctor")
    assert result.returncode == 1, result.stdout + result.stderr
    assert "A pool cannot be made here." in result.stdout
    assert "mend it: " in result.stdout


def test_doctor_says_so_in_json() -> None:
    result = run(SECCOMP, "doctor", "--json")
    assert result.returncode == 1, result.stdout + result.stderr
    report = json.loads(result.stdout)
    assert report["ok"] is False
    refused = {finding["key"]: finding for finding in report["findings"] if finding["level"] == "failure"}
    assert {"userfaultfd_syscall", "userfaultfd_device"} <= set(refused)
    assert all(finding["remedy"] for finding in refused.values())


NOBODY = """
    import ctypes, os, warnings
    import numpy as np
    from _support.workload import Pages
    def make(**options):
        return uswap.Pool("4MiB", swap=uswap.SwapArea("/var/tmp", size="1GiB"), **options)
    def as_nobody():
        os.setgroups([]); os.setgid(65534); os.setuid(65534)
        os.environ["HOME"] = "/nonexistent"
        assert ctypes.CDLL(None).prctl(4, 1, 0, 0, 0) == 0    # PR_SET_DUMPABLE: else /proc/self/mem is root's
    def refused(call):
        try:
            call()
        except uswap.UnsupportedError as error:
            return str(error)
        raise AssertionError("not refused")
    Pages(bytearray(4096)).fill(1)     # what is imported or compiled late is there before the user changes
    with make() as warm:
        warm.zeros(100_000)
    del warm
    as_nobody()
"""


def run_as_nobody(program: str, swap_directory: Path) -> subprocess.CompletedProcess[str]:
    return run_program(textwrap.dedent(NOBODY) + textwrap.dedent(program), swap_directory)


def test_an_unprivileged_user_is_warned_once_and_has_a_pool(
    unprivileged: str, swap_directory: Path, transport: str
) -> None:
    result = run_as_nobody(
        f"""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            pools = [make(transport={transport!r}) for _ in range(2)]
        (warning,) = caught
        assert warning.category is uswap.UserModeWarning and issubclass(uswap.UserModeWarning, UserWarning)
        assert warning.filename == "<string>", warning.filename
        print(warning.message)
        for pool in pools:
            stats = pool.stats()
            assert (stats.fault_mode, stats.user_mode_only, stats.transport) == ("inline", True, {transport!r})
        pages = Pages(pool.region("16MiB"))
        pages.fill(1)
        assert pages.wrong(1) == 0
        assert pages.wrong_at_random(1, 7, 2000) == 0
        a = pool.full(1 << 20, 3.0)
        assert a.sum() == 3.0 * (1 << 20)
        assert pool.stats().peak_resident_bytes <= 4 << 20
        pool.check()
        """,
        swap_directory,
    )
    assert "EFAULT" in result.stdout
    assert "resident()" in result.stdout


def test_an_unprivileged_user_who_asked_for_inline_is_not_warned(unprivileged: str, swap_directory: Path) -> None:
    run_as_nobody(
        """
        pool = make(faults="inline")       # a warning would be an error here
        region = pool.region("1MiB")
        region[:5] = b"hello"
        region.advise(uswap.Advice.PAGEOUT)
        ends = os.pipe()
        with memoryview(region) as view:
            try:
                os.write(ends[1], view[:5])
            except OSError as error:
                assert error.errno == 14
            else:
                raise AssertionError("no EFAULT")
            with region.resident(0, 5):
                assert os.write(ends[1], view[:5]) == 5
        assert os.read(ends[0], 5) == b"hello"
        """,
        swap_directory,
    )


def test_an_unprivileged_user_who_asks_for_the_fault_thread_is_refused(
    unprivileged: str, swap_directory: Path
) -> None:
    result = run_as_nobody(
        """
        print(refused(lambda: make(faults="thread")))
        pool = make(faults="inline")
        print(refused(lambda: pool.region("1MiB", faults="thread")))
        assert pool.stats().regions == 0
        """,
        swap_directory,
    )
    for line in result.stdout.strip().splitlines():
        assert "userfaultfd is not permitted" in line
        assert "sysctl -w vm.unprivileged_userfaultfd=1" in line


def test_doctor_tells_an_unprivileged_user_what_fails(unprivileged: str) -> None:
    result = run(unprivileged, "doctor", "--json")
    assert result.returncode == 0, result.stdout + result.stderr
    findings = {finding["key"]: finding for finding in json.loads(result.stdout)["findings"]}
    assert findings["fault_mode"]["level"] == "warning"
    assert "EFAULT" in findings["fault_mode"]["summary"]
    for key in ("fault_mode", "userfaultfd_syscall", "userfaultfd_device", "live_kernel_fault"):
        assert findings[key]["level"] == "warning"
        assert "vm.unprivileged_userfaultfd=1" in findings[key]["remedy"]
    assert findings["live_fault"]["level"] == "ok"


def test_doctor_does_not_blame_the_kernel_for_what_a_filter_does() -> None:
    report = json.loads(run(SECCOMP, "doctor", "--json").stdout)
    findings = {finding["key"]: finding for finding in report["findings"]}
    assert ": unknown: " in findings["feature_move"]["summary"]
    assert not any("newer kernel" in finding["remedy"] for finding in report["findings"])
    if os.getuid() == 0:  # the kernel would have permitted it
        assert "it is what refuses" in findings["seccomp"]["summary"]


def test_doctor_sees_that_a_ring_which_can_be_made_cannot_be_used() -> None:
    """The filter refuses io_uring_enter only (426 everywhere) and an ioctl that nobody uses."""
    if probe().uring_errno != 0:
        pytest.skip(f"io_uring is not there: {os.strerror(probe().uring_errno)}")
    enter = SECCOMP.replace("(323, 16)", "(426, 16)").replace("(282, 29)", "(426, 29)").replace("0xAA00", "0xFFFF")
    result = run(enter, "doctor", "--json")
    assert result.returncode == 0, result.stdout + result.stderr
    findings = {finding["key"]: finding for finding in json.loads(result.stdout)["findings"]}
    assert findings["io_uring"]["level"] == "warning"
    assert findings["io_uring"]["remedy"]
