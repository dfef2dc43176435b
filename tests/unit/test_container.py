"""Memory limits of containers, on files laid out as the kernel does."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from uswap import _container, _options


def lay_out(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


@pytest.fixture
def cgroup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cgroup tree under tmp_path; tests say which version by what they write."""

    def mounts() -> dict[str, tuple[Path, str]]:
        return {kind: (tmp_path / kind, "/") for kind in ("v1", "v2") if (tmp_path / kind).exists()}

    monkeypatch.setattr(_container, "_mount_points", mounts)
    monkeypatch.setattr(_container, "_own_paths", lambda: {"v1": "/job/step", "v2": "/job/step"})
    return tmp_path


def test_the_least_limit_of_the_cgroups_around_counts_v2(cgroup: Path) -> None:
    lay_out(
        cgroup,
        {
            "v2/job/step/memory.max": "max\n",
            "v2/job/memory.max": "104857600\n",
            "v2/job/step/memory.current": "5000000\n",
            "v2/job/step/memory.stat": "anon 1\ninactive_file 1000000\n",
        },
    )
    assert _container.memory_limit_bytes() == 104857600
    assert _container.memory_used_bytes() == 4000000


def test_the_least_limit_of_the_cgroups_around_counts_v1(cgroup: Path) -> None:
    lay_out(
        cgroup,
        {
            "v1/job/step/memory.limit_in_bytes": "9223372036854771712\n",
            "v1/job/memory.limit_in_bytes": "52428800\n",
            "v1/job/step/memory.usage_in_bytes": "3000000\n",
        },
    )
    assert _container.memory_limit_bytes() == 52428800
    assert _container.memory_used_bytes() == 3000000


def test_no_cgroup_means_no_limit(cgroup: Path) -> None:
    assert _container.memory_limit_bytes() is None
    assert _container.memory_used_bytes() is None


@pytest.mark.parametrize(
    ("limit_file", "used_file", "cache"),
    [
        ("v1/job/step/memory.limit_in_bytes", "v1/job/step/memory.usage_in_bytes", "total_inactive_file"),
        ("v2/job/step/memory.max", "v2/job/step/memory.current", "inactive_file"),
    ],
)
def test_the_default_limit_is_what_the_cgroup_leaves_less_a_margin(
    cgroup: Path, monkeypatch: pytest.MonkeyPatch, limit_file: str, used_file: str, cache: str
) -> None:
    monkeypatch.delenv("USWAP_LIMIT", raising=False)
    limit, used, dropped = 512 << 20, 100 << 20, 30 << 20
    stat = str(Path(used_file).with_name("memory.stat"))
    lay_out(cgroup, {limit_file: f"{limit}\n", used_file: f"{used}\n", stat: f"{cache} {dropped}\n"})
    assert _options.default_limit() == limit - (used - dropped) - (128 << 20)


def dividable_cgroup() -> tuple[str, Path] | None:
    """A memory cgroup in which this process may make others, found without the code under test."""
    top = Path("/sys/fs/cgroup")
    v2_control = top / "cgroup.subtree_control"
    if v2_control.exists() and "memory" in v2_control.read_text().split():
        found = "memory.max", top
    elif (top / "memory" / "memory.limit_in_bytes").exists():
        found = "memory.limit_in_bytes", top / "memory"
    else:
        return None
    return found if os.access(found[1], os.W_OK) else None


@pytest.mark.skipif(dividable_cgroup() is None, reason="this user may not make memory cgroups here")
def test_a_limit_set_in_a_cgroup_around_is_found_by_a_process_in_it() -> None:
    """On the kernel's own files: two cgroups, the outer one limited, a process in the inner one."""
    place = dividable_cgroup()
    assert place is not None
    limit, top = place
    outer = top / f"uswap-test-{os.getpid()}"
    inner = outer / "inner"
    program = """if True:
        import sys
        open(sys.argv[1], "w").write("0")
        from uswap import _container
        print(_container.memory_limit_bytes(), _container.memory_used_bytes())
    """
    outer.mkdir()
    try:
        inner.mkdir()
        (outer / limit).write_text(str(256 << 20))
        words = [sys.executable, "-c", program, str(inner / "cgroup.procs")]
        result = subprocess.run(words, capture_output=True, text=True, timeout=60)
    finally:
        for folder in (inner, outer):
            if folder.exists():
                folder.rmdir()
    assert result.returncode == 0, result.stderr
    found, used = map(int, result.stdout.split())
    assert found == 256 << 20
    assert 0 < used < found
