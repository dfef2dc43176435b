"""Libraries on top of NumPy, under uswap.limit: pandas, scikit-learn, PyTorch's tensors by the buffer protocol."""

from __future__ import annotations

from pathlib import Path

import pytest
from _support.program import run_program

import uswap

PANDAS = """
    import numpy as np, pandas as pd
    from uswap._sampler import ResidentPeak
    def work():
        random = np.random.default_rng(1)
        n = 800_000
        orders = pd.DataFrame({"customer": random.integers(0, 20_000, n), "day": random.integers(0, 365, n),
                               "amount": random.integers(0, 1000, n).astype("f8"), "tax": np.ones(n)})
        customers = pd.DataFrame({"customer": np.arange(20_000), "region": np.arange(20_000) % 7})
        merged = orders.merge(customers, on="customer")
        merged["net"] = merged["amount"] - merged["tax"]
        by_region = merged.groupby(["region", "day"])["net"].agg(["sum", "max", "count"])
        ordered = merged.sort_values(["day", "amount"], kind="stable")["net"].to_numpy()
        return by_region.to_numpy().sum(), ordered[:10].tolist(), float(ordered[:: 997].sum())
    expected = work()
    with uswap.limit("16MiB", swap=SWAP) as pool:
        assert work() == expected
        stats = pool.stats()
        pool.check()
    assert stats.peak_resident_bytes <= 16 << 20
    assert stats.pages_out > 4000, stats
"""


def test_pandas_merges_and_groups_within_the_limit(swap_directory: Path) -> None:
    run_program(PANDAS, swap_directory)


SKLEARN = """
    import numpy as np
    from sklearn.linear_model import LinearRegression
    def work():
        x = np.random.default_rng(1).random((200_000, 12))
        y = x @ np.arange(12.0) + 3
        model = LinearRegression().fit(x, y)
        return model.coef_.round(6).tolist(), round(float(model.intercept_), 6)
    with uswap.limit("12MiB", swap=SWAP) as pool:
        assert work() == (list(map(float, range(12))), 3.0)
        stats = pool.stats()
    assert stats.peak_resident_bytes <= 12 << 20
    assert stats.pages_out > 1000, stats
"""


def test_scikit_learn_fits_within_the_limit(swap_directory: Path) -> None:
    run_program(SKLEARN, swap_directory)


def test_tensors_share_managed_memory(pool: uswap.Pool) -> None:
    torch = pytest.importorskip("torch")
    import numpy as np

    with pool.numpy():
        tensor = torch.from_numpy(np.arange(1 << 22))
        while pool.evict("16MiB"):
            pass
        assert int(tensor.sum()) == (1 << 21) * ((1 << 22) - 1)
    region = pool.region("32MiB")
    of_region = torch.frombuffer(region, dtype=torch.float64)
    of_region.fill_(2.0)
    assert float(of_region.sum()) == float(len(of_region)) * 2
    del tensor, of_region
    region.close()
    pool.close()
