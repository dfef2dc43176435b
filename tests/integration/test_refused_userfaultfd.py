"""Where userfaultfd is refused, by a seccomp filter or to an unprivileged user, Pool says why and what to do."""

import json
import os
import platform
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
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


@pytest.fixture(params=["seccomp", "unprivileged"])
def refusal(request: pytest.FixtureRequest) -> str:
    if request.param == "seccomp":
        return SECCOMP
    if os.getuid() != 0:
        pytest.skip("only root can become another user")
    if sysctl_allows_everybody() or device_allows_everybody():
        pytest.skip("this machine lets every user use userfaultfd")
    return UNPRIVILEGED


def test_pool_names_the_cause_and_the_command(refusal: str) -> None:
    result = run(refusal, "pool")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "userfaultfd is not permitted" in result.stdout
    assert "sysctl -w vm.unprivileged_userfaultfd=1" in result.stdout
    assert "uswap doctor" in result.stdout


def test_doctor_says_that_no_pool_can_be_made(refusal: str) -> None:
    result = run(refusal, "doctor")
    assert result.returncode == 1, result.stdout + result.stderr
    assert "A pool cannot be made here." in result.stdout
    assert "mend it: " in result.stdout


def test_doctor_says_so_in_json(refusal: str) -> None:
    result = run(refusal, "doctor", "--json")
    assert result.returncode == 1, result.stdout + result.stderr
    report = json.loads(result.stdout)
    assert report["ok"] is False
    refused = {finding["key"]: finding for finding in report["findings"] if finding["level"] == "failure"}
    assert {"userfaultfd_syscall", "userfaultfd_device"} <= set(refused)
    assert all(finding["remedy"] for finding in refused.values())


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
