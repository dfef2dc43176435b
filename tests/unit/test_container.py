"""Memory limits of containers, on files laid out as the kernel does."""

from pathlib import Path

import pytest

from uswap import _container


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


def test_this_machine_can_be_asked() -> None:
    limit = _container.memory_limit_bytes()
    assert limit is None or limit > 0
