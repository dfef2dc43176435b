"""NumPy arrays on managed memory: what they are, where they come from, when they end."""

import gc
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import uswap
from uswap._small import SMALL_BYTES

np = pytest.importorskip("numpy")

MIB = 1 << 20


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((3,), "f8"),
        (5, "u1"),
        ((), "i4"),
        ((7, 11, 13), "c16"),
        ((1 << 16, 3), "f4"),
        ((700, 700), [("key", "<u4"), ("value", "<f8")]),
        (1000, "S7"),
        ((2, 2), "U3"),
        (10, "datetime64[s]"),
        (4, np.dtype(("f4", (2, 3)))),
        (np.int64(9), np.bool_),
    ],
)
def test_zeros_is_numpy_zeros(pool: uswap.Pool, shape: object, dtype: object, order: str) -> None:
    managed = pool.zeros(shape, dtype, order)
    plain = np.zeros(shape, dtype, order)
    assert (managed.shape, managed.dtype, managed.strides) == (plain.shape, plain.dtype, plain.strides)
    assert managed.flags.writeable
    assert managed.flags.aligned
    assert managed.tobytes() == plain.tobytes()


@pytest.mark.parametrize("shape", [0, (0,), (3, 0, 2)])
def test_zero_size_works_and_takes_no_memory(pool: uswap.Pool, shape: object) -> None:
    for array in (pool.zeros(shape), pool.empty(shape), pool.full(shape, 1), pool.array(np.ones(shape))):
        assert array.shape == np.zeros(shape).shape
        assert array.size == 0
    assert pool.zeros(3, "S0").shape == (3,)
    assert pool.regions() == []


@pytest.mark.parametrize("dtype", [object, "O", [("a", "i4"), ("b", object)], [("a", [("b", "O")])]])
def test_objects_are_a_type_error(pool: uswap.Pool, dtype: object) -> None:
    for make in (pool.zeros, pool.empty):
        with pytest.raises(TypeError, match="Python objects"):
            make(3, dtype)
    with pytest.raises(TypeError, match="Python objects"):
        pool.full(3, None)
    with pytest.raises(TypeError, match="Python objects"):
        pool.array([None, 1])
    assert pool.regions() == []


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (((-1,),), ValueError),
        (((3, -1),), ValueError),
        (((1 << 40, 1 << 40),), ValueError),
        (((1.5,),), TypeError),
        (("x",), TypeError),
        ((3, "f8", "K"), ValueError),
        ((3, "no such type"), TypeError),
        ((3, "f8", "C"), None),
    ],
)
def test_bad_arguments_are_refused(
    pool: uswap.Pool, arguments: tuple[object, ...], error: type[Exception] | None
) -> None:
    if error is None:
        assert pool.zeros(*arguments).shape == (3,)
        return
    with pytest.raises(error):
        pool.zeros(*arguments)


def test_full_and_array_have_numpy_s_types(pool: uswap.Pool) -> None:
    assert pool.full(3, 7).dtype == np.full(3, 7).dtype
    assert pool.full((2, 2), 1.5, "f4").tolist() == [[1.5, 1.5], [1.5, 1.5]]
    source = np.arange(6).reshape(2, 3)
    copied = pool.array(source, dtype="f8", order="F")
    assert copied.flags.f_contiguous
    assert copied.tolist() == source.tolist()
    source[0, 0] = 99
    assert copied[0, 0] == 0
    assert pool.array([[1, 2], [3, 4]]).tolist() == [[1, 2], [3, 4]]
    assert pool.array(5).shape == ()


def test_an_array_larger_than_the_limit_is_right(pool_factory: Callable[..., uswap.Pool]) -> None:
    pool = pool_factory()
    array = pool.empty(64 * MIB // 8, dtype="u8", name="large")
    step = MIB // 8
    for start in range(0, len(array), step):
        array[start : start + step] = np.arange(start, start + step, dtype="u8")
    for start in range(0, len(array), step):
        assert (array[start : start + step] == np.arange(start, start + step, dtype="u8")).all()
    stats = pool.stats()
    assert stats.peak_resident_bytes <= stats.limit_bytes
    assert stats.over_limit_events == 0
    assert [info.name for info in pool.regions()] == ["large"]


# ---- small arrays


def test_thousands_of_small_arrays_share_a_few_regions(pool: uswap.Pool) -> None:
    arrays = [pool.full(3, number, "i8") for number in range(20_000)]
    assert len(pool.regions()) == 1
    addresses = {array.ctypes.data for array in arrays}
    assert len(addresses) == len(arrays)
    assert all(address % 64 == 0 for address in addresses)
    assert [int(array.sum()) for array in arrays] == [3 * number for number in range(20_000)]
    del arrays, addresses
    gc.collect()
    assert pool.regions() == []


def test_a_freed_block_is_zero_when_it_is_used_again(pool: uswap.Pool) -> None:
    keep = pool.zeros(1)  # keeps the slab
    first = pool.full(1000, -1, "i8")
    address = first.ctypes.data
    del first
    second = pool.empty(1000, "i8")
    assert second.ctypes.data == address
    assert not second.any()
    assert keep[0] == 0


def test_blocks_do_not_overlap_and_merge_again(pool: uswap.Pool) -> None:
    rng = np.random.default_rng(1)
    alive: dict[int, object] = {}
    for step in range(4000):
        if alive and rng.random() < 0.5:
            number = int(rng.choice(list(alive)))
            array = alive.pop(number)
            assert (array == number % 251).all()
        else:
            alive[step] = pool.full(int(rng.integers(1, SMALL_BYTES)), step % 251, "u1")
        while sum(array.nbytes for array in alive.values()) > 24 * MIB:
            alive.pop(next(iter(alive)))
    for number, array in alive.items():
        assert (array == number % 251).all()
    del array
    alive.clear()
    gc.collect()
    assert pool.regions() == []


def test_views_keep_the_memory(pool: uswap.Pool) -> None:
    for size in (100, MIB):
        view = pool.full(size, 7, "u1").reshape(2, -1)[1, 3:9].view("i2")
        gc.collect()
        assert len(pool.regions()) == 1
        assert view.tolist() == [0x0707] * 3
        with pytest.raises(BufferError, match="in use"):
            pool.close()
        del view
        assert pool.regions() == []


def test_small_arrays_that_end_in_the_collector_are_freed(pool: uswap.Pool) -> None:
    for _ in range(200):
        cycle: list[object] = [pool.full(64, 3)]
        cycle.append(cycle)
        del cycle
    gc.collect()
    assert pool.regions() == []


def test_a_region_or_array_made_in_a_finalizer_works(pool: uswap.Pool) -> None:
    made: list[float] = []

    class Late:
        def __init__(self) -> None:
            self.me = self

        def __del__(self) -> None:
            made.append(float(pool.full(8, 2.0).sum()))
            pool.region(MIB).close()

    threshold = gc.get_threshold()
    gc.set_threshold(1)
    try:
        for _ in range(50):
            Late()
            pool.zeros(16)
            pool.zeros(MIB)
    finally:
        gc.set_threshold(*threshold)
    gc.collect()
    assert made == [16.0] * 50
    assert pool.regions() == []


# ---- by value, and from files


def test_an_array_pickles_by_value(pool: uswap.Pool) -> None:
    for size in (10, MIB):
        array = pool.full(size, 3, "i4")
        again = pickle.loads(pickle.dumps(array))
        assert (again == array).all()
        again[0] = 4
        assert array[0] == 3


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("shape", [(), (0, 3), (3,), (700, 1001)])
def test_load_reads_what_save_wrote(
    pool_factory: Callable[..., uswap.Pool], tmp_path: Path, shape: tuple[int, ...], order: str
) -> None:
    pool = pool_factory()
    source = np.asarray(np.arange(int(np.prod(shape)), dtype="f8").reshape(shape), order=order)
    np.save(tmp_path / "x.npy", source)
    loaded = pool.load(tmp_path / "x.npy")
    assert (loaded.shape, loaded.dtype) == (source.shape, source.dtype)
    assert loaded.flags.f_contiguous == source.flags.f_contiguous
    assert (loaded == source).all()
    np.save(tmp_path / "y.npy", loaded)
    assert (np.load(tmp_path / "y.npy") == source).all()


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_every_version_of_npy_is_read(pool: uswap.Pool, tmp_path: Path, version: tuple[int, int]) -> None:
    source = np.arange(10, dtype="i2")
    if version == (3, 0):
        source = source.view([("größe", "i2")])
    with open(tmp_path / "x.npy", "wb") as file:
        np.lib.format.write_array(file, source, version=version)
    assert (pool.load(tmp_path / "x.npy") == source).all()


def test_bad_files_are_refused_and_leave_nothing(pool: uswap.Pool, tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    with pytest.raises(FileNotFoundError):
        pool.load(path)
    path.write_bytes(b"not an array at all")
    with pytest.raises(ValueError, match="magic"):
        pool.load(path)
    np.save(path, np.ones(MIB))
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(ValueError, match="8 bytes early"):
        pool.load(path)
    np.save(path, np.array([None]))
    with pytest.raises(TypeError, match="Python objects"):
        pool.load(path)
    gc.collect()
    assert pool.regions() == []


def test_fromfile_reads_items_from_an_offset(pool: uswap.Pool, tmp_path: Path) -> None:
    path = tmp_path / "x.bin"
    np.arange(1 << 20, dtype="u4").tofile(path)
    assert (pool.fromfile(path, "u4") == np.arange(1 << 20)).all()
    assert pool.fromfile(path, "u4", count=3, offset=8).tolist() == [2, 3, 4]
    # Half an item at the end is left out.
    assert pool.fromfile(path, "u4", offset=(4 << 20) - 6).size == 1
    assert pool.fromfile(path, "u4", offset=8 << 20).size == 0
    for bad in ({"count": -2}, {"offset": -1}, {"count": (1 << 20) + 1}):
        with pytest.raises(ValueError, match=r"count|offset|items"):
            pool.fromfile(path, "u4", **bad)


def test_without_numpy_regions_work_and_arrays_say_what_to_install(swap_directory: Path) -> None:
    program = f"""
import sys
sys.modules["numpy"] = None
import uswap
with uswap.Pool("16MiB", swap=uswap.SwapArea({str(swap_directory)!r}, size="64MiB")) as pool:
    region = pool.region("1MiB")
    region[:2] = b"ok"
    for make in (lambda: pool.zeros(3), lambda: pool.full(3, 1), lambda: pool.array([1])):
        try:
            make()
        except ImportError as error:
            assert isinstance(error, uswap.NumpyMissingError)
            assert "uswap[numpy]" in str(error)
        else:
            raise SystemExit("no error")
    print(bytes(region[:2]).decode())
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stdout, result.stderr) == (0, "ok\n", "")
