"""What bench_policies.py runs and computes: strings, programs, misses by part, simulations, tables."""

import ctypes
import itertools
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import uswap

np = pytest.importorskip("numpy")

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
FRAMES = 1024
MIB = 1 << 20
STRINGS = ("zipf_0.8", "zipf_0.99", "loop", "loop_shuffled", "scan_hot", "phases")
PROGRAMS = ("pagerank", "groupby_merge", "kmeans")


@pytest.fixture(autouse=True)
def scripts_importable(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The scripts import each other as they do when they are run: k-means in one thread adds up in one order."""
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield
    for name in [name for name, module in sys.modules.items() if _is_script(module)]:
        del sys.modules[name]


def _is_script(module: ModuleType) -> bool:
    return BENCHMARKS in Path(getattr(module, "__file__", None) or "/").parents


def make_string(name: str, seed: int = 1, frames: int = FRAMES) -> Any:
    import workloads

    return workloads.string_named(name)(frames, seed)


# ---- strings -----------------------------------------------------------------------------------------------


def test_the_registry_has_all_workloads() -> None:
    import workloads

    assert tuple(workloads.STRINGS) == STRINGS
    assert tuple(workloads.PROGRAMS) == PROGRAMS


@pytest.mark.parametrize("name", STRINGS)
def test_a_string_is_decided_by_its_seed_and_stays_in_its_pages(name: str) -> None:
    string, again, other = make_string(name), make_string(name), make_string(name, seed=2)
    assert string.order.dtype == np.uint32
    assert np.array_equal(string.order, again.order)
    assert name == "loop" or not np.array_equal(string.order, other.order)
    assert int(string.order.max()) < string.pages == other.pages
    assert 0 < string.warm < len(string.order)
    assert string.counted + string.warm == len(string.order)
    assert np.array_equal(string.with_fill()[: string.pages], np.arange(string.pages))


@pytest.mark.parametrize(("name", "exponent"), [("zipf_0.8", 0.8), ("zipf_0.99", 0.99)])
def test_zipf_has_its_popularity_scattered(name: str, exponent: float) -> None:
    string = make_string(name)
    assert string.pages == 4 * FRAMES
    counts = np.bincount(string.order, minlength=string.pages)
    popular = np.argsort(counts)[::-1][: string.pages // 10]
    weights = np.arange(1, string.pages + 1) ** -exponent
    expected = weights[: len(popular)].sum() / weights.sum()
    # The pages that came most often, of a sample, have a little more than their share.
    assert expected - 0.01 < counts[popular].sum() / len(string.order) < expected + 0.06
    assert abs(popular.mean() / string.pages - 0.5) < 0.1


@pytest.mark.parametrize("name", ["loop", "loop_shuffled"])
def test_every_round_of_a_loop_is_the_same_and_has_every_page(name: str) -> None:
    string = make_string(name)
    assert string.pages == int(1.1 * FRAMES)
    rounds = string.order.reshape(-1, string.pages)
    assert (rounds == rounds[0]).all()
    assert np.array_equal(np.sort(rounds[0]), np.arange(string.pages))
    in_order = (np.diff(rounds[0].astype("i8")) == 1).mean()
    assert in_order == 1 if name == "loop" else in_order < 0.02


def test_half_of_the_accesses_are_hot_and_the_scan_goes_round() -> None:
    string = make_string("scan_hot")
    assert string.parts == {"hot": FRAMES // 2, "scan": 4 * FRAMES}
    hot = string.is_watched(string.order)
    assert abs(hot.mean() - 0.5) < 0.02
    assert string.watched_accesses == hot[string.warm :].sum()
    scan = string.order[~hot].astype("i8") - FRAMES // 2
    assert set(np.diff(scan) % (4 * FRAMES)) == {1}
    counts = np.bincount(string.order[hot], minlength=FRAMES // 2)
    assert counts.min() > 0
    assert counts.max() < 3 * counts.mean()


def test_phases_keep_to_a_working_set_that_moves() -> None:
    string = make_string("phases")
    length = string.warm
    sets = [set(string.order[first : first + length].tolist()) for first in range(0, len(string.order), length)]
    assert len(sets) == 5
    assert all(0.85 * FRAMES < len(one) <= 0.9 * FRAMES for one in sets)
    assert not any(one & following for one, following in itertools.pairwise(sets))
    assert sets[0] & sets[4]


# ---- programs ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_gives_the_same_in_a_small_pool_as_in_plain_memory(name: str, swap_directory: Path) -> None:
    import workloads

    program, size = workloads.program_named(name), 8 * MIB
    allocated = []

    def plain(shape: Any, dtype: Any) -> Any:
        allocated.append(np.zeros(shape, dtype))
        return allocated[-1]

    expected = program.run(plain, size)
    assert 0.9 * size < sum(array.nbytes for array in allocated) < 1.1 * size
    with uswap.Pool("16MiB", swap=swap_directory) as pool:
        pool.limit = pool.minimum_limit
        assert program.run(pool.zeros, size) == expected
        stats = pool.stats()
        assert stats.pages_in > 0
        assert stats.resident_bytes <= stats.limit_bytes == pool.minimum_limit


def test_a_managed_frame_copies_nothing(swap_directory: Path) -> None:
    from workloads import groupby_merge

    with uswap.Pool("16MiB", swap=swap_directory) as pool:
        frame, values = groupby_merge.managed_frame(pool.zeros, ("a", "b"), 100_000)
        values[1] = 7
        assert np.shares_memory(frame["b"].to_numpy(), values)
        assert (frame["b"] == 7).all()


def test_every_node_has_an_edge_and_few_have_most() -> None:
    from workloads import pagerank

    graph = pagerank.Graph(np.zeros, 120_000)
    counts = np.diff(graph.start)
    assert counts.min() >= 1
    assert graph.edges == counts.sum() > 1_000_000
    assert graph.edges > 0.97 * len(graph.source)
    assert counts.max() > 100 * counts.mean()
    assert graph.outgoing.sum() == graph.edges
    popular = np.sort(graph.outgoing)[::-1]
    assert popular[: graph.nodes // 100].sum() > 0.15 * graph.edges


# ---- misses live and simulated -----------------------------------------------------------------------------


class Fifo:
    """A cache as libcachesim has them."""

    def __init__(self, frames: int) -> None:
        self._frames, self._pages = frames, dict[int, None]()

    def get(self, request: Any) -> bool:
        if request.obj_id in self._pages:
            return True
        if len(self._pages) == self._frames:
            del self._pages[next(iter(self._pages))]
        self._pages[request.obj_id] = None
        return False


@pytest.fixture
def native() -> Iterator[Any]:
    """workload.c."""
    import harness

    with harness.native_library() as path:
        yield ctypes.CDLL(path)


def test_misses_are_counted_by_part_and_add_up(native: Any, swap_directory: Path) -> None:
    import policy_worker

    string = make_string("scan_hot", frames=1024)
    with uswap.Pool("4MiB", swap=swap_directory, read_ahead=0) as pool:
        side = policy_worker.UswapSide(pool, None)
        walker = policy_worker.Walker(native, side, string)
        before = side.counters()["misses"]
        found = walker.walk(0, string.warm, 60, False)
        assert found["accesses"] == found["of"] == string.warm
        assert sum(found["misses_of_part"].values()) == side.counters()["misses"] - before
        assert found["misses_of_part"]["scan"] > 0
        assert 0 < found["misses_of_part"]["hot"] < found["watched_accesses"]


@pytest.mark.parametrize("name", ["zipf_0.99", "scan_hot"])
def test_a_pool_that_is_first_in_first_out_misses_what_a_simulation_of_that_does(
    name: str, native: Any, swap_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import policy_simulation
    import policy_worker

    string = make_string(name, frames=1024)
    exact: dict[str, Any] = {"read_ahead": 0, "background": False, "write_ahead": False, "reclaim_batch": 1}
    with uswap.Pool("4MiB", swap=swap_directory, **exact) as pool:
        walker = policy_worker.Walker(native, policy_worker.UswapSide(pool, None), string)
        walker.walk(0, string.warm, 60, False)
        before = pool.stats().major_faults
        walker.walk(string.warm, len(string.order), 60, False)
        misses, frames = pool.stats().major_faults - before, pool.stats().capacity_frames
    library: Any = ModuleType("libcachesim")
    library.LRU, library.Request = Fifo, type("Request", (), {})
    monkeypatch.setitem(sys.modules, "libcachesim", library)
    simulated = policy_simulation.counted(
        string, policy_simulation.reference_misses("LRU", string.with_fill(), frames)
    )
    assert misses == simulated.misses


def test_a_wrong_word_is_found(native: Any, swap_directory: Path) -> None:
    import policy_worker

    string = make_string("loop", frames=256)
    with uswap.Pool("16MiB", swap=swap_directory) as pool:
        walker = policy_worker.Walker(native, policy_worker.UswapSide(pool, None), string)
        walker.walk(0, string.warm, 60, False)
        walker._buffers[0][5 * 4096] ^= 1
        with pytest.raises(ValueError, match=r"2 of .* words were wrong"):
            walker.walk(0, string.warm, 60, False)
        walker.walk(0, string.warm, 60, True)
        assert walker.walk(0, string.warm, 60, False)["accesses"] == string.warm


def test_a_pool_that_knows_no_policies_is_used_without() -> None:
    import policy_worker

    job = policy_worker.PolicyJob("uswap", "loop", 16 * MIB, 4096, MIB, "/var/tmp", 1.0, 1, "", policy="fifo")
    pool, policy = policy_worker.make_pool(job)
    with pool:
        assert policy in (None, "fifo")


def test_simulated_misses_are_those_that_count(monkeypatch: pytest.MonkeyPatch) -> None:
    import policy_simulation
    import workloads

    library: Any = ModuleType("libcachesim")
    for name in policy_simulation.REFERENCES.values():
        setattr(library, name, Fifo)
    library.Request = type("Request", (), {})
    monkeypatch.setitem(sys.modules, "libcachesim", library)
    order = np.array([0, 1, 0, 1, 0, 3, 0, 3], dtype=np.uint32)
    string = workloads.Reference({"hot": 2, "cold": 2}, order, warm=2, watched="hot")
    # Behind the fill 2 and 3 are in; the warm-up brings 0 and 1; 3 takes the place of 0, and 0 that of 1.
    found = policy_simulation.simulate_references(string, 2)
    assert found["LRU"] == policy_simulation.Simulated(misses=2, watched=1)
    assert set(found) == set(policy_simulation.REFERENCES)


def test_what_counts_of_our_policies_is_what_comes_after_the_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    import policy_simulation
    import workloads

    order = np.array([0, 2, 3, 2], dtype=np.uint32)
    string = workloads.Reference({"hot": 2, "cold": 2}, order, warm=1)
    asked = []

    def simulate(keys: list[int], policy: str, frames: int) -> Any:
        asked.append((policy, frames, len(keys)))
        return type("Result", (), {"misses": 10 * len(keys)})

    monkeypatch.setattr(policy_simulation, "uswap_simulator", lambda: simulate)
    found = policy_simulation.simulate_policies(string, ["fifo", policy_simulation.NO_POLICY], 99)
    assert found == {"fifo": policy_simulation.Simulated(30), "uswap": policy_simulation.Simulated(30)}
    assert asked == [("fifo", 99, 8), ("fifo", 99, 5), ("core", 99, 8), ("core", 99, 5)]
    # Each part is a region of its own, and its pages begin at 0.
    pages = [(key >> 18, key & 0x3FFFF) for key in policy_simulation.page_keys(string).tolist()]
    assert pages == [(0, 1), (1, 1), (0, 2), (1, 2), (0, 1), (0, 2), (1, 2), (0, 2)]


def test_next_touches_look_ahead() -> None:
    import policy_simulation

    never = policy_simulation._NEVER_AGAIN
    assert policy_simulation.next_touches(np.array([4, 4, 2, 4])).tolist() == [1, 3, never, never]


def test_the_tables_compare_with_the_kernel_and_with_simulation() -> None:
    import policy_table

    def run(side: str, seconds: float, misses: int) -> dict[str, Any]:
        about = {"workload": "scan_hot", "read_ahead": "0", "side": side, "of": 100, "accesses": 50}
        watched = {"misses_of_part": {"hot": 1, "scan": misses - 1}, "watched_accesses": 25}
        return about | watched | {"seconds": seconds, "counters": {"disk_reads": misses, "misses": misses}}

    runs = [run("fifo", 1.0, 11), run("fifo", 3.0, 10), run("fifo", 2.0, 12), run("kernel", 4.0, 44)]
    rows = policy_table.summarize_live(runs, {"scan_hot": "hot"})
    fifo = rows[0]
    # Half of the string was done in time: the whole would have taken twice as much.
    assert (fifo["seconds"], fifo["misses"], fifo["cut"]) == (4.0, 22, True)
    assert (fifo["seconds_of_kernel"], fifo["disk_reads_of_kernel"], fifo["watched_share"]) == (0.5, 0.25, 0.04)
    references = {"LRU": {"misses": 30, "watched": 5}}
    of_string = {"frames": 9, "accesses": 100, "watched_accesses": 50, "references": references}
    simulation = {"scan_hot": of_string | {"policies": {"fifo": {"misses": 20, "watched": 2}}}}
    compared = policy_table.summarize_simulation(simulation, rows)
    assert [row["difference"] for row in compared] == pytest.approx([0.1])
    report = {"title": "t", "live": rows, "simulation": simulation, "compared": compared, "killed": {}}
    text = policy_table.text_of(report | {"unavailable": {"kernel": "no root"}})
    assert "10.00%" in text
    assert "kernel: left out: no root" in text
