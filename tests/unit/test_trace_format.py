"""Trace files: what was written is read back, with and without NumPy, and damaged ones say what is wrong."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import uswap
from uswap.trace import Header, Kind, Trace, TraceWriter, records, sampling

HEADER = Header(
    sample=0.5, window_pages=64, limit_bytes=1 << 26, program=("a.py", "--x"), regions={3: {"name": "täble"}}
)


@pytest.fixture(params=["numpy", "no numpy"])
def _numpy(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test with and without it."""
    if request.param == "no numpy":
        for module in (records, sampling):
            monkeypatch.setattr(module, "numpy_or_none", lambda: None)


def write(path: Path, complete: bool = True) -> Path:
    writer = TraceWriter(path, HEADER)
    writer.touch(5, 3, kind=Kind.FIRST, store=True)
    writer.time(1_000_000)
    writer.touch(5, 3, kind=Kind.SOFT)
    writer.touch(6, 3, kind=Kind.AROUND)
    writer.record(Kind.LOST, 17)
    writer.time(4_000_000)
    writer.touch((1 << 36) - 1, (1 << 18) - 1, kind=Kind.READ, store=True)
    writer.touch(5, 3, kind=Kind.EVICTED)
    if complete:
        writer.close(elapsed_ns=5_000_000, stats={"major_faults": 1})
    else:
        writer.abandon()
    return path


@pytest.mark.usefixtures("_numpy")
def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    trace = Trace.open(write(tmp_path / "t"))
    assert trace.header == HEADER
    (part,) = trace.records()
    assert list(part.kinds) == [1, 0, 3, 5, 15, 0, 2, 6]
    assert [int(part.pages[at]) for at in (0, 2, 3, 6)] == [5, 5, 6, (1 << 36) - 1]
    assert [int(part.regions[at]) for at in (0, 2, 3, 6)] == [3, 3, 3, (1 << 18) - 1]
    assert [int(part.stores[at]) for at in (0, 2, 3, 6)] == [1, 0, 0, 1]
    assert list(part.times_ns) == [0, 10**6, 10**6, 10**6, 10**6, 4 * 10**6, 4 * 10**6, 4 * 10**6]
    assert list(trace.touches()) == [[~(5 << 18 | 3), 5 << 18 | 3, (1 << 54) - 1]]
    assert trace.counted == (3, 2)
    assert trace.pages_touched == 4
    end = trace.end
    assert (end.complete, end.records, end.lost, end.damaged_bytes, end.elapsed_ns) == (True, 8, 17, 0, 5_000_000)
    assert end.stats == {"major_faults": 1}


@pytest.mark.usefixtures("_numpy")
def test_chunks_of_any_size_say_the_same(tmp_path: Path) -> None:
    trace = Trace.open(write(tmp_path / "t"))
    times = [int(ns) for part in trace.records(1) for ns in part.times_ns]
    assert times == [int(ns) for part in trace.records() for ns in part.times_ns]
    assert [len(part) for part in trace.records(3)] == [3, 3, 2]


@pytest.mark.usefixtures("_numpy")
def test_a_killed_process_leaves_no_end_and_half_a_record(tmp_path: Path) -> None:
    path = write(tmp_path / "t", complete=False)
    path.write_bytes(path.read_bytes() + b"abc")
    trace = Trace.open(path)
    assert trace.counted == (3, 2)
    assert (trace.end.complete, trace.end.damaged_bytes, trace.end.elapsed_ns) == (False, 3, 4_000_000)
    assert [" ".join(said.split()[:4]) for said in trace.warnings()] == [
        "the trace has no",
        "the last 3 bytes",
        "17 records were lost",
    ]


@given(cut=st.integers(0, 400))
@settings(deadline=None)
def test_a_file_cut_anywhere_is_read_or_refused_with_a_trace_error(
    tmp_path_factory: pytest.TempPathFactory, cut: int
) -> None:
    folder = tmp_path_factory.mktemp("cut")
    data = write(folder / "t").read_bytes()
    (folder / "cut").write_bytes(data[:cut])
    trace: Trace | None = None
    with contextlib.suppress(uswap.TraceError):
        trace = Trace.open(folder / "cut")
    if trace is None:
        assert cut < 16 + len(HEADER.to_json())
        return
    assert trace.end.records <= 8
    assert sum(len(part) for part in trace.records()) == trace.end.records


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "is no trace of uswap"),
        (b"PK\3\4 something else entirely", "is no trace of uswap"),
        (b"USWTRACE\2\0\0\0\0\0\0\0", "is a trace of version 2; this uswap reads version 1"),
        (b"USWTRACE\1\0\0\0\xff\xff\xff\xff{}", "ends within its header"),
        (b"USWTRACE\1\0\0\0\x08\0\0\0{}      ", "header cannot be read"),
        (b"USWTRACE\1\0\0\0\x05\0\0\0{}   ", "no multiple of 8"),
        (b"USWTRACE\1\0\0\0\x08\0\0\0\xff\xfe      ", "header cannot be read"),
        (b"USWTRACE\1\0\0\0\x02\0\0\0[]", "no multiple of 8"),
    ],
)
def test_what_is_no_trace_is_refused(tmp_path: Path, data: bytes, said: str) -> None:
    path = tmp_path / "t"
    path.write_bytes(data)
    with pytest.raises(uswap.TraceError, match=said):
        Trace.open(path)
    with pytest.raises(ValueError, match=said):
        Trace.open(path)


@pytest.mark.parametrize("wrong", [{"sample": 0}, {"sample": 1.5}, {"page_bytes": 0}, {"page_bytes": "many"}])
def test_a_header_that_cannot_be_is_refused(tmp_path: Path, wrong: dict[str, object]) -> None:
    text = json.dumps({"page_bytes": 4096, "sample": 1.0} | wrong).encode()
    text += b" " * (-len(text) % 8)
    (tmp_path / "t").write_bytes(b"USWTRACE\1\0\0\0" + len(text).to_bytes(4, "little") + text)
    with pytest.raises(uswap.TraceError, match="header"):
        Trace.open(tmp_path / "t")


@pytest.mark.usefixtures("_numpy")
def test_a_record_of_no_kind_is_told_with_its_place(tmp_path: Path) -> None:
    with TraceWriter(tmp_path / "t") as writer:
        writer.touch(1)
        writer.record(9, 4711)
    trace = Trace.open(tmp_path / "t")
    with pytest.raises(uswap.TraceError, match="kind 9") as raised:
        list(trace.touches())
    assert raised.value.offset == (tmp_path / "t").read_bytes().index((9 << 60 | 4711).to_bytes(8, "little"))


def test_a_damaged_report_is_left_out(tmp_path: Path) -> None:
    path = write(tmp_path / "t")
    path.write_bytes(path.read_bytes()[:-5])
    end = Trace.open(path).end
    assert (end.complete, end.stats, end.elapsed_ns) == (True, {}, 4_000_000)
    assert end.damaged_bytes > 0


def test_the_sample_is_the_same_with_and_without_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    touches = [key << 18 | 1 for key in range(2000)] + [~(key << 18 | 1) for key in range(2000)]
    fast = list(sampling.thin_out([touches], 0.1))
    monkeypatch.setattr(sampling, "numpy_or_none", lambda: None)
    assert list(sampling.thin_out([touches], 0.1)) == fast
    assert 300 < len(fast[0]) < 500
    assert sampling.page_hash(0x9E3779B97F4A7C15) == 0xE220A8397B1DCDAF  # splitmix64's first number of seed 0
