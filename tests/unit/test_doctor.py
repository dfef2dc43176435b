"""uswap doctor: the probes leave nothing behind, and each remedy fits what refuses."""

import errno
import json
import os
import pwd
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import probe

import uswap
from uswap._core import ffi, lib, new_error
from uswap.commands import doctor


def may_lock_memory() -> bool:
    cap_ipc_lock = 14  # linux/capability.h
    return bool(int(doctor._status_field("CapEff") or "0", 16) >> cap_ipc_lock & 1)


def refused(number: int, **others: int) -> Any:
    """A probe of a machine where every way to a userfaultfd fails with this number."""
    names = ("uffd_syscall", "uffd_device", "uffd_user_only")
    tests = ("live_fault", "live_kernel_fault", "live_wp", "live_move", "live_poison")
    fields = {f"{name}_errno": number for name in names + tests}
    return SimpleNamespace(**fields | {"uffd_features": 0} | others)


def all_of(found: Any) -> list[doctor.Finding]:
    return [*doctor.userfaultfd_findings(found), *doctor.feature_findings(found), *doctor.live_findings(found)]


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Neither a container nor a seccomp filter, and a user without privileges."""
    monkeypatch.setattr(doctor, "looks_like_container", lambda: None)
    monkeypatch.setattr(doctor, "_has_seccomp_filter", lambda: False)
    monkeypatch.setattr(doctor, "_kernel_permits", lambda: False)
    return monkeypatch


def test_what_could_not_be_asked_is_not_called_missing(bare: pytest.MonkeyPatch) -> None:
    findings = all_of(refused(errno.EPERM))
    features = [finding for finding in findings if finding.key.startswith("feature_")]
    assert len(features) == len(doctor.FEATURES)
    assert all(": unknown: " in finding.summary for finding in features)
    assert not any("newer kernel" in finding.remedy for finding in findings)


def test_a_feature_the_kernel_lacks_asks_for_a_newer_kernel(bare: pytest.MonkeyPatch) -> None:
    old = refused(0, uffd_features=1, live_move_errno=errno.EINVAL, live_poison_errno=errno.EINVAL)
    findings = {finding.key: finding for finding in all_of(old)}
    assert findings["feature_pagefault_flag_wp"].level == doctor.OK
    for key in ("feature_move", "feature_poison", "live_move", "live_poison"):
        assert findings[key].level == doctor.WARNING
        assert "newer kernel" in findings[key].remedy


def test_the_remedy_for_a_user_names_that_user(bare: pytest.MonkeyPatch) -> None:
    bare.setenv("LOGNAME", "somebody-else")
    bare.setattr(os.path, "exists", lambda path: True)
    remedy = doctor._refusal_remedy(refused(errno.EPERM))
    assert f"setfacl -m u:{pwd.getpwuid(os.getuid()).pw_name}:rw /dev/userfaultfd" in remedy
    assert "sysctl -w vm.unprivileged_userfaultfd=1" in remedy


def test_a_kernel_without_userfaultfd_is_not_mended_by_a_permission(bare: pytest.MonkeyPatch) -> None:
    assert "CONFIG_USERFAULTFD" in doctor._refusal_remedy(refused(errno.ENOSYS))


def test_a_filter_is_not_mended_by_a_sysctl(bare: pytest.MonkeyPatch) -> None:
    bare.setattr(doctor, "_has_seccomp_filter", lambda: True)
    bare.setattr(doctor, "_kernel_permits", lambda: True)
    assert "SystemCallFilter" in doctor._refusal_remedy(refused(errno.EPERM))
    bare.setattr(doctor, "looks_like_container", lambda: "docker")
    remedy = doctor._refusal_remedy(refused(errno.EPERM))
    assert "--security-opt seccomp=" in remedy
    assert "sysctl" not in remedy


def test_a_remedy_is_said_once() -> None:
    same = [doctor.Finding(str(i), doctor.FAILURE, f"finding {i}", "do this") for i in range(3)]
    assert doctor.as_text(same).count("do this") == 1
    assert doctor.as_json(same).count("do this") == 3


def mapped_pages() -> int:
    """Counted in pages: mappings that lie side by side are one line of /proc/self/maps."""
    return int(Path("/proc/self/statm").read_text().split()[0])


def test_the_probes_leave_nothing_behind(swap_directory: Path) -> None:
    def run_both() -> None:
        assert lib.uswap_probe_run(ffi.new("uswap_probe *"), ffi.NULL) == 0
        out = [ffi.new("uint64_t *"), ffi.new("uint64_t *"), ffi.new("uint32_t *")]
        assert lib.uswap_probe_disk(os.fsencode(swap_directory), *out, ffi.NULL) == 0
        assert out[0][0] > 0
        assert out[1][0] > 0

    run_both()  # the first one loads what is loaded once
    descriptors, files = os.listdir("/proc/self/fd"), os.listdir(swap_directory)
    threads = len(os.listdir("/proc/self/task"))
    growth = []
    for _ in range(20):
        before = mapped_pages()
        run_both()
        growth.append(mapped_pages() - before)
    assert len(os.listdir("/proc/self/fd")) == len(descriptors)
    assert os.listdir(swap_directory) == files
    # A joined thread may be listed a moment longer, an allocator may grow now and then: a leak is there each time.
    assert len(os.listdir("/proc/self/task")) < threads + 20
    assert 0 in growth, growth


def test_a_disk_probe_that_fails_leaves_its_results_alone(tmp_path: Path) -> None:
    read_ns, write_ns, notes = ffi.new("uint64_t *", 7), ffi.new("uint64_t *", 7), ffi.new("uint32_t *", 7)
    error = new_error()
    place = os.fsencode(tmp_path / "not there")
    assert lib.uswap_probe_disk(place, read_ns, write_ns, notes, error) < 0
    assert (read_ns[0], write_ns[0], notes[0]) == (7, 7, 7)
    assert error.os_errno == errno.ENOENT


@pytest.mark.skipif(not may_lock_memory(), reason="this user may not lock all memory")
def test_the_self_tests_pass_in_a_program_that_locks_its_memory() -> None:
    program = """if True:
        import ctypes
        from uswap.commands import doctor
        assert ctypes.CDLL(None).mlockall(2) == 0  # MCL_FUTURE
        print(*(f.key for f in doctor.live_findings(doctor._probe()) if f.level == doctor.OK))
    """
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    here = [finding.key for finding in doctor.live_findings(probe()) if finding.level == doctor.OK]
    assert result.stdout.split() == here


def test_without_the_compiled_core_there_is_a_report_all_the_same(tmp_path: Path) -> None:
    source = Path(uswap.__file__).parent
    shutil.copytree(source, tmp_path / "uswap", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    words = [sys.executable, "-m", "uswap", "doctor", "--json"]
    result = subprocess.run(words, capture_output=True, text=True, timeout=60, env=environment, cwd=tmp_path)
    assert result.returncode == 1, result.stderr
    report = json.loads(result.stdout)
    assert report["ok"] is False
    (failure,) = [finding for finding in report["findings"] if finding["level"] == "failure"]
    assert failure["key"] == "core"
    assert "pip install" in failure["remedy"]
