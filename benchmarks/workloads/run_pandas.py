"""A merge and a group-by. Argument: rows."""

import sys

import numpy as np
import pandas as pd

rows = int(sys.argv[1])
numbers = np.random.default_rng(0)
left = pd.DataFrame({"key": numbers.integers(0, rows // 10, rows), "x": numbers.random(rows)})
right = pd.DataFrame({"key": np.arange(rows // 10), "y": numbers.random(rows // 10)})
both = left.merge(right, on="key")
groups = both.groupby("key").agg({"x": "sum", "y": "mean"})
print(len(both), round(groups.x.sum(), 3), round(groups.y.sum(), 3))
