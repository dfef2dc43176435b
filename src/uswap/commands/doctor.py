"""uswap doctor: what this machine can do for uswap, and the command that mends what it cannot.

The findings come from doing it (the core's probes), not from version numbers.
"""

from __future__ import annotations

import argparse
import errno
import json
import os
import platform
import pwd
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from uswap._container import looks_like_container, memory_limit_bytes, memory_used_bytes
from uswap._core import check_error, ffi, lib, new_error, require_core
from uswap._errors import UnsupportedError, UswapError
from uswap._filesystem import file_system_of, free_bytes, is_memory_backed
from uswap._options import default_directory
from uswap._sizes import format_size

OK, WARNING, FAILURE = "ok", "warning", "failure"
_NO_LIMIT = 2**64 - 1
_CAP_SYS_PTRACE = 19  # linux/capability.h
_NEWER_KERNEL = "boot a newer kernel (6.12 or later is best)"

# bit of struct uffdio_api.features -> name, what it buys (linux/userfaultfd.h)
FEATURES = {
    0: ("PAGEFAULT_FLAG_WP", "write-protection (5.7): the copy transport, for kernels before 6.8"),
    1: ("EVENT_FORK", "not used: regions are kept out of forks"),
    2: ("EVENT_REMAP", "not used: regions are moved by uswap itself"),
    3: ("EVENT_REMOVE", "not used: discards go through uswap"),
    4: ("MISSING_HUGETLBFS", "not used"),
    5: ("MISSING_SHMEM", "regions that processes share"),
    6: ("EVENT_UNMAP", "not used"),
    7: ("SIGBUS", "faults served in the thread that has them"),
    8: ("THREAD_ID", "which thread faulted"),
    9: ("MINOR_HUGETLBFS", "not used"),
    10: ("MINOR_SHMEM", "regions that processes share"),
    11: ("EXACT_ADDRESS", "not used: pages are what counts"),
    12: ("WP_HUGETLBFS_SHMEM", "write-protection of shared regions"),
    13: ("WP_UNPOPULATED", "write-protection of untouched pages"),
    14: ("POISON", "lost pages raise SIGBUS (6.6); without it SIGSEGV"),
    15: ("WP_ASYNC", "dirty tracking without messages"),
    16: ("MOVE", "the move transport (6.8): no copies, and safe against direct I/O in flight"),
}


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        key: stable name, for --json.
        level: "ok", "warning" (uswap works, with less) or "failure" (no pool can be made).
        summary: what was found.
        remedy: the command that mends it; "" if nothing is to be mended.
    """

    key: str
    level: str
    summary: str
    remedy: str = ""


def _reason(error_number: int) -> str:
    return os.strerror(error_number)


def _read(path: str) -> str | None:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return None


def _status_field(name: str) -> str | None:
    for line in (_read("/proc/self/status") or "").splitlines():
        if line.startswith(name + ":"):
            return line.split(":", 1)[1].strip()
    return None


def _probe() -> Any:
    require_core()
    probe, error = ffi.new("uswap_probe *"), new_error()
    check_error(lib.uswap_probe_run(probe, error), error)
    return probe


# ---- userfaultfd -----------------------------------------------------------------------------------------


def _user() -> str:
    """This user's name, or number; not from the environment, which survives a change of user."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def _is_allowed(probe: Any) -> bool:
    """Whether a userfaultfd for all faults can be had, in one way or the other."""
    return 0 in (probe.uffd_syscall_errno, probe.uffd_device_errno)


def _is_answered(probe: Any) -> bool:
    """Whether the kernel could be asked for its features at all: then a pool can be made, too."""
    return _is_allowed(probe) or probe.uffd_user_only_errno == 0


def _has_seccomp_filter() -> bool:
    return _status_field("Seccomp") not in (None, "0")


def _kernel_permits() -> bool:
    """Whether the kernel's own check lets this user have userfaultfd(2): then only a filter can refuse it."""
    capabilities = int(_status_field("CapEff") or "0", 16)
    return bool(capabilities >> _CAP_SYS_PTRACE & 1) or _read("/proc/sys/vm/unprivileged_userfaultfd") == "1"


def _refusal_remedy(probe: Any) -> str:
    """What mends a refused userfaultfd, by what refuses it."""
    if _has_seccomp_filter() and (_kernel_permits() or not _is_answered(probe)):
        if looks_like_container():
            return (
                "start the container with a seccomp profile that allows userfaultfd: docker run --security-opt "
                "seccomp=PROFILE.json ...  (to find out whether that is it: seccomp=unconfined)"
            )
        return (
            "let the seccomp filter pass userfaultfd and ioctl; in a systemd unit: sudo systemctl edit UNIT, "
            "[Service] SystemCallFilter=userfaultfd"
        )
    if probe.uffd_syscall_errno == errno.ENOSYS:
        return "boot a kernel with CONFIG_USERFAULTFD=y"
    return _permission_remedy()


def _permission_remedy() -> str:
    if looks_like_container():
        return (
            "start the container with: docker run --device /dev/userfaultfd ...  (kernel 6.1+), or with a "
            "seccomp profile that allows userfaultfd: --security-opt seccomp=PROFILE.json, and on the host: "
            "sudo sysctl -w vm.unprivileged_userfaultfd=1"
        )
    device = os.path.exists("/dev/userfaultfd")
    mend_device = f"sudo setfacl -m u:{_user()}:rw /dev/userfaultfd  or: " if device else ""
    return f"{mend_device}sudo sysctl -w vm.unprivileged_userfaultfd=1"


def userfaultfd_findings(probe: Any) -> Iterator[Finding]:
    """Whether faults may be served at all, by which way, and what stands in it."""
    sysctl = _read("/proc/sys/vm/unprivileged_userfaultfd")
    allowed = _is_allowed(probe)
    for key, name, number in (
        ("userfaultfd_syscall", "userfaultfd(2)", probe.uffd_syscall_errno),
        ("userfaultfd_device", "/dev/userfaultfd", probe.uffd_device_errno),
    ):
        level = OK if number == 0 else (WARNING if _is_answered(probe) else FAILURE)
        remedy = "" if allowed else _refusal_remedy(probe)
        yield Finding(key, level, f"{name}: {'works' if number == 0 else _reason(number)}", remedy)
    yield Finding("unprivileged_userfaultfd", OK, f"sysctl vm.unprivileged_userfaultfd = {sysctl or 'not there'}")
    if _has_seccomp_filter():
        verdict = "" if allowed else ": it is what refuses" if _kernel_permits() else ": it may be what refuses"
        yield Finding(
            "seccomp",
            OK if allowed else WARNING if _is_answered(probe) else FAILURE,
            f"a seccomp filter is at work (mode {_status_field('Seccomp')}){verdict}",
            "" if allowed else _refusal_remedy(probe),
        )
    if allowed:
        yield Finding("fault_mode", OK, "faults: by the pool's thread, or inline where that is asked for")
    elif _is_answered(probe):
        yield Finding(
            "fault_mode",
            WARNING,
            "faults: inline only: system calls on managed memory that is swapped out get EFAULT",
            _refusal_remedy(probe),
        )
    else:
        yield Finding("fault_mode", FAILURE, "faults: cannot be served", _refusal_remedy(probe))


def feature_findings(probe: Any) -> Iterator[Finding]:
    """Each feature bit of this kernel's userfaultfd, and what it buys."""
    for bit, (name, use) in FEATURES.items():
        there = bool(probe.uffd_features >> bit & 1)
        missed = not there and name in ("PAGEFAULT_FLAG_WP", "MOVE", "POISON")
        if not _is_answered(probe):  # "no" would blame the kernel for what a filter or a permission hides
            level, remedy = (WARNING, _refusal_remedy(probe)) if missed else (OK, "")
            yield Finding(f"feature_{name.lower()}", level, f"{name}: unknown: {use}", remedy)
            continue
        level = (FAILURE if name == "PAGEFAULT_FLAG_WP" else WARNING) if missed else OK
        remedy = _NEWER_KERNEL if missed else ""
        yield Finding(f"feature_{name.lower()}", level, f"{name}: {'yes' if there else 'no'}: {use}", remedy)


def live_findings(probe: Any) -> Iterator[Finding]:
    """The self-tests: pages really served, protected, moved."""
    tests = (
        ("live_fault", "a missing page was served to a thread", probe.live_fault_errno, FAILURE),
        (
            "live_kernel_fault",
            "the same inside a system call",
            probe.live_kernel_fault_errno,
            FAILURE if _is_allowed(probe) or not _is_answered(probe) else WARNING,
        ),
        ("live_wp", "a store to a protected page was reported", probe.live_wp_errno, WARNING),
        ("live_move", "a page was moved out and back", probe.live_move_errno, WARNING),
        ("live_poison", "a page was poisoned", probe.live_poison_errno, WARNING),
    )
    for key, what, number, level in tests:
        if number == 0:
            yield Finding(key, OK, f"self-test: {what}")
        else:
            # Not allowed, the tests run as far as faults of user code go; a system call's is refused then.
            refused = not _is_answered(probe) or (key == "live_kernel_fault" and not _is_allowed(probe))
            remedy = _refusal_remedy(probe) if refused else _NEWER_KERNEL
            yield Finding(key, level, f"self-test failed: {what}: {_reason(number)}", remedy)


def self_memory_findings(probe: Any) -> Iterator[Finding]:
    """/proc/self/mem: how the copy transport reads pages. Without it a pool needs the move transport."""
    try:
        os.close(os.open("/proc/self/mem", os.O_RDONLY))
    except OSError as failure:
        level = WARNING if probe.live_move_errno == 0 else FAILURE
        yield Finding(
            "self_memory",
            level,
            f"/proc/self/mem: {failure.strerror}: no copy transport",
            "start the program as the user it runs as: one that changes its user may not read itself",
        )
    else:
        yield Finding("self_memory", OK, "/proc/self/mem: can be read")


# ---- the rest --------------------------------------------------------------------------------------------


def machine_findings() -> Iterator[Finding]:
    """Kernel, architecture, page size."""
    yield Finding("kernel", OK, f"Linux {platform.release()}")
    machine = platform.machine()
    known = machine in ("x86_64", "aarch64")
    yield Finding("architecture", OK if known else WARNING, machine + ("" if known else ": not tested"))
    page = os.sysconf("SC_PAGESIZE")
    level = OK if page == 4096 else FAILURE
    remedy = "" if page == 4096 else "boot a kernel with pages of 4 KiB"
    yield Finding("page_size", level, f"pages of {page} bytes", remedy)
    container = looks_like_container()
    yield Finding("container", OK, f"container: {container or 'none seen'}")


def io_findings(probe: Any) -> Iterator[Finding]:
    """io_uring and what may be locked in memory."""
    disabled = _read("/proc/sys/kernel/io_uring_disabled")
    if probe.uring_errno == 0:
        yield Finding("io_uring", OK, "io_uring: works")
    elif not probe.uring_built:
        yield Finding(
            "io_uring",
            WARNING,
            "io_uring: uswap was built without liburing; I/O is synchronous",
            "sudo apt-get install liburing-dev && pip install --force-reinstall --no-binary uswap uswap",
        )
    else:
        remedy = (
            "sudo sysctl -w kernel.io_uring_disabled=0"
            if disabled not in (None, "0")
            else "allow io_uring_setup, _enter and _register in the container's seccomp profile"
        )
        yield Finding("io_uring", WARNING, f"io_uring: {_reason(probe.uring_errno)}; I/O is synchronous", remedy)
    memlock = probe.memlock_bytes
    yield Finding("memlock", OK, f"RLIMIT_MEMLOCK: {'no limit' if memlock == _NO_LIMIT else format_size(memlock)}")


def encryption_findings(probe: Any) -> Iterator[Finding]:
    """Whether swap can be encrypted, and the keys be kept from other swap."""
    if probe.encrypt_errno != 0:
        built = probe.encrypt_errno != errno.ENOSYS
        reason = _reason(probe.encrypt_errno) if built else "uswap was built without libcrypto"
        yield Finding(
            "encryption",
            WARNING,
            f"encryption: {reason}; no Pool(encrypt=True)",
            "sudo apt-get install libssl-dev && pip install --force-reinstall --no-binary uswap uswap",
        )
        return
    remedy = "" if probe.key_locked else "raise RLIMIT_MEMLOCK: ulimit -l 8192"
    summary = "its keys are locked in memory" if probe.key_locked else "its keys cannot be locked in memory"
    yield Finding("encryption", OK if probe.key_locked else WARNING, f"encryption: works; {summary}", remedy)


def memory_findings() -> Iterator[Finding]:
    """What the container allows."""
    limit, used = memory_limit_bytes(), memory_used_bytes()
    if limit is None:
        yield Finding("memory_limit", OK, "memory limit of the container (cgroup): none")
    else:
        yield Finding(
            "memory_limit",
            OK,
            f"memory limit of the container (cgroup): {format_size(limit)}, used {format_size(used or 0)}",
        )


def swap_findings() -> Iterator[Finding]:
    """The default swap directory: file system, room, latency."""
    try:
        directory = default_directory()
        read_ns, write_ns, notes = ffi.new("uint64_t *"), ffi.new("uint64_t *"), ffi.new("uint32_t *")
        error = new_error()
        check_error(lib.uswap_probe_disk(os.fsencode(directory), read_ns, write_ns, notes, error), error)
    except (UswapError, OSError) as failure:
        yield Finding("swap_directory", FAILURE, f"no swap directory: {failure}", "export USWAP_DIR=/a/disk")
        return
    in_memory = is_memory_backed(directory)
    yield Finding(
        "swap_directory",
        WARNING if in_memory else OK,
        f"swap directory {directory}: {file_system_of(directory)}, {format_size(free_bytes(directory))} free",
        "export USWAP_DIR=/a/directory/on/a/disk   (this one lies in memory)" if in_memory else "",
    )
    rate = 2**20 / write_ns[0] * 1000
    yield Finding(
        "swap_latency",
        OK,
        f"reads 4 KiB in {read_ns[0] / 1000:.0f} us, writes 1 MiB at {rate:.0f} MB/s (medians)",
    )
    direct = not notes[0] & lib.USWAP_AREA_NO_O_DIRECT
    remedy = "" if direct else "export USWAP_DIR=/a/directory/on/ext4/or/xfs"
    summary = "works" if direct else "refused: swap goes through the page cache"
    yield Finding("swap_direct_io", OK if direct else WARNING, f"O_DIRECT: {summary}", remedy)


def core_finding() -> Finding:
    """Whether the compiled core is there, and what it was built with. Without it nothing can be probed."""
    try:
        require_core()
    except UnsupportedError as failure:
        return Finding("core", FAILURE, str(failure), "pip install .   (in the folder of the sources)")
    return Finding("core", OK, f"core: {ffi.string(lib.uswap_build_info()).decode()}")


def examine() -> list[Finding]:
    """All findings, in the order of the report. Takes well under a second on a good disk."""
    core = core_finding()
    if core.level == FAILURE:
        return [*machine_findings(), core, *memory_findings()]
    probe = _probe()
    return [
        *machine_findings(),
        core,
        *userfaultfd_findings(probe),
        *feature_findings(probe),
        *live_findings(probe),
        *self_memory_findings(probe),
        *io_findings(probe),
        *encryption_findings(probe),
        *memory_findings(),
        *swap_findings(),
    ]


def as_text(findings: list[Finding]) -> str:
    """The report for people."""
    marks = {OK: "ok  ", WARNING: "warn", FAILURE: "FAIL"}
    lines, said = [], ""
    for finding in findings:
        lines.append(f"{marks[finding.level]}  {finding.summary}")
        if finding.remedy:
            lines.append(f"      mend it: {'as above' if finding.remedy == said else finding.remedy}")
            said = finding.remedy
    failed = any(finding.level == FAILURE for finding in findings)
    lines.append("A pool cannot be made here." if failed else "A pool can be made here.")
    return "\n".join(lines)


def as_json(findings: list[Finding]) -> str:
    """The report for programs: {"ok": bool, "findings": [{"key", "level", "summary", "remedy"}, ...]}."""
    failed = any(finding.level == FAILURE for finding in findings)
    return json.dumps({"ok": not failed, "findings": [asdict(finding) for finding in findings]}, indent=2)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """--json."""
    parser.add_argument("--json", action="store_true", help="the report as one JSON document")


def run(options: argparse.Namespace) -> int:
    """Prints the report; => 0 if a pool can be made here, else 1."""
    findings = examine()
    print(as_json(findings) if options.json else as_text(findings))
    return int(any(finding.level == FAILURE for finding in findings))
