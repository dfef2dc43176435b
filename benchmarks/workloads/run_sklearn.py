"""A fit of k-means and of gradient boosting. Argument: rows."""

import sys

import numpy as np
from sklearn.cluster import MiniBatchKMeans
from sklearn.linear_model import SGDRegressor

rows = int(sys.argv[1])
numbers = np.random.default_rng(0)
data = numbers.random((rows, 16))
means = MiniBatchKMeans(8, batch_size=4096, n_init=1, max_iter=2, random_state=0).fit(data)
line = SGDRegressor(max_iter=2, tol=None, random_state=0).fit(data, data @ np.arange(16.0))
print(round(float(means.inertia_), 3), round(float(line.coef_.sum()), 6))
