"""scikit-learn: k-means (Lloyd) on managed float32 samples, in place. Every iteration goes through all of them."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning

from workloads.base import Allocate, Program, checksum

# Wide samples: what scikit-learn makes for each of them is little beside its data.
_FEATURES = 256
_CLUSTERS = 8
_ITERATIONS = 3
_CHUNK_ROWS = 1 << 12
_SEED = 17


def prepare(allocate: Allocate, size: int) -> Callable[[], int]:
    """Samples around as many centres as there are clusters; the work is some iterations from the first samples."""
    rows = size // (4 * _FEATURES)
    samples = allocate((rows, _FEATURES), np.float32)
    random = np.random.default_rng(_SEED)
    centres = random.normal(size=(_CLUSTERS, _FEATURES)).astype(np.float32)
    for first in range(0, rows, _CHUNK_ROWS):
        part = samples[first : first + _CHUNK_ROWS]
        random.standard_normal(out=part, dtype=np.float32)
        part += centres[random.integers(0, _CLUSTERS, len(part))]

    def work() -> int:
        # From given samples: the usual way to choose them reads all samples once for every cluster.
        model = KMeans(
            _CLUSTERS, init=samples[:_CLUSTERS].copy(), n_init=1, max_iter=_ITERATIONS, tol=0, copy_x=False
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(samples)
        return checksum(model.labels_, checksum(model.cluster_centers_))

    return work


PROGRAM = Program(prepare)
