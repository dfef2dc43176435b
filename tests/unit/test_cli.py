"""The command line: doctor, demo, and how it answers bad usage."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import probe

import uswap
from uswap.cli import main
from uswap.commands import doctor


def test_doctor_finds_that_a_pool_can_be_made(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    assert capsys.readouterr().out.endswith("A pool can be made here.\n")


def test_doctor_in_json_has_every_feature_and_self_test(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    findings = {finding["key"]: finding for finding in report["findings"]}
    assert report["ok"] is True
    assert {f"feature_{name.lower()}" for name, _ in doctor.FEATURES.values()} <= set(findings)
    for key in ("live_fault", "live_kernel_fault", "live_wp", "live_move", "swap_latency", "memory_limit"):
        assert key in findings
    for finding in report["findings"]:
        assert set(finding) == {"key", "level", "summary", "remedy"}
        assert finding["level"] == "ok" or finding["remedy"], finding


def test_doctor_names_a_remedy_for_each_thing_that_is_missing() -> None:
    class Nothing:
        uffd_syscall_errno = uffd_device_errno = uffd_user_only_errno = 1
        live_fault_errno = live_kernel_fault_errno = live_wp_errno = live_move_errno = live_poison_errno = 1
        uffd_features = 0
        uring_errno, uring_built, memlock_bytes = 1, 1, 65536
        encrypt_errno, key_locked = 38, 0

    findings = [
        *doctor.userfaultfd_findings(Nothing),
        *doctor.feature_findings(Nothing),
        *doctor.live_findings(Nothing),
        *doctor.io_findings(Nothing),
        *doctor.encryption_findings(Nothing),
    ]
    refused = [finding for finding in findings if finding.level != doctor.OK]
    assert len(refused) >= 10
    assert all(finding.remedy for finding in refused)


def test_doctor_needs_a_directory_for_swap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USWAP_DIR", "/nonexistent/directory")
    (finding,) = doctor.swap_findings()
    assert finding.level == doctor.FAILURE
    assert "/nonexistent/directory" in finding.summary
    assert finding.remedy


def test_the_probe_of_this_machine_can_be_repeated() -> None:
    probe.cache_clear()
    assert probe().uffd_features == probe().uffd_features


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"uswap {uswap.__version__}\n"


@pytest.mark.parametrize("words", [[], ["no-such-verb"], ["doctor", "--no-such-option"]])
def test_bad_usage_is_status_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert "usage: uswap" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "value"), [("--size", "12XB"), ("--limit", "1KiB"), ("--swap", "/no/such/file")]
)
def test_the_demo_says_in_one_line_what_is_wrong(
    option: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["demo", "--size", "16MiB", option, value]) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1
    assert error[0].startswith("uswap demo: ")


def test_the_demo_gets_the_right_answer_within_the_limit(swap_directory: Path) -> None:
    command = [sys.executable, "-m", "uswap", "demo", "--size", "64MiB", "--limit", "16MiB", "--json"]
    result = subprocess.run([*command, "--swap", str(swap_directory)], capture_output=True, text=True, timeout=110)
    assert result.returncode == 0, result.stdout + result.stderr
    report = json.loads(result.stdout)
    assert report["right"] is True
    assert report["within"] is True
    assert report["samples"] > 10
    assert report["stats"]["evictions"] * 4096 > report["data_bytes"]
