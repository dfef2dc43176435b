"""The sampler of the benchmark's zipf pattern draws ranks as often as it should."""

import ctypes
import sys
from collections import Counter
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.mark.parametrize("exponent", [0.8, 0.99, 1.2])
def test_ranks_come_as_often_as_zipf_says(monkeypatch: pytest.MonkeyPatch, exponent: float) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import harness

    ranks, draws = 1000, 400_000
    with harness.native_library() as path:
        drawn = (ctypes.c_uint64 * draws)()
        library = ctypes.CDLL(path)
        library.zipf_ranks(
            ctypes.c_uint64(ranks),
            ctypes.c_double(exponent),
            ctypes.c_uint64(88172645463325252),
            drawn,
            ctypes.c_uint64(draws),
        )
    found = Counter(drawn)
    weights = [rank**-exponent for rank in range(1, ranks + 1)]
    expected = [draws * weight / sum(weights) for weight in weights]
    assert set(found) <= set(range(1, ranks + 1))
    chi_square = sum((found[rank] - mean) ** 2 / mean for rank, mean in enumerate(expected, 1))
    # 999 degrees of freedom: mean 999, standard deviation 45; the seed is fixed.
    assert chi_square < 999 + 4 * 45
    sys.modules.pop("harness", None)
