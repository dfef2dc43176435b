"""A data loader whose worker processes share one array that is larger than the memory it may take.

    python docs/examples/data_loader.py --images 8192 --limit 32MiB --workers 2

../example-data-loader.md goes through it.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from typing import Any

import numpy as np

import uswap

SIDE, CROP, CLASSES = 64, 56, 10
Pixels = np.ndarray[Any, np.dtype[np.uint8]]
Labels = np.ndarray[Any, np.dtype[np.int64]]
Batch = tuple[Pixels, Labels]


class Images:
    """A map-style dataset: it has a length, and a sample for each index. It pickles as what it holds does: a shared
    array by reference, any other by value."""

    def __init__(self, pixels: Pixels, labels: Labels) -> None:
        self.pixels, self.labels = pixels, labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Pixels, int]:
        """A part of the image, for every other one of them mirrored; which part is up to the index."""
        chosen = index * 2654435761 >> 8
        top, left = chosen % (SIDE - CROP), chosen // 16 % (SIDE - CROP)
        part = self.pixels[index, top : top + CROP, left : left + CROP]
        return part[:, ::-1] if chosen & 1 << 20 else part, int(self.labels[index])


def collate(samples: list[tuple[Pixels, int]]) -> Batch:
    """One batch of many samples."""
    return np.stack([np.asarray(pixels) for pixels, _ in samples]), np.array([label for _, label in samples])


class DataLoader:
    """Batches of a dataset in random order, another one each time it is gone through, made by worker processes
    ahead of need. A context manager: the workers end with the block.

    dataset: sent to each worker once. start: how workers are made, "spawn", "forkserver" or "fork". worker_init: is
    called in each worker with its number and its dataset.
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int,
        *,
        workers: int,
        seed: int = 0,
        start: str = "spawn",
        worker_init: Callable[[int, Any], None] | None = None,
    ) -> None:
        self._dataset, self._batch_size, self._ahead = dataset, batch_size, 2 * workers
        self._random = np.random.default_rng(seed)
        context = multiprocessing.get_context(start)
        numbers = context.Value("i", 0)
        self._workers = ProcessPoolExecutor(workers, context, _begin, (dataset, numbers, worker_init))

    def __len__(self) -> int:
        return -(-len(self._dataset) // self._batch_size)

    def __iter__(self) -> Iterator[Batch]:
        order = self._random.permutation(len(self._dataset)).tolist()
        waiting: deque[Future[Batch]] = deque()
        try:
            for first in range(0, len(order), self._batch_size):
                waiting.append(self._workers.submit(_load, order[first : first + self._batch_size]))
                if len(waiting) > self._ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for batch in waiting:
                batch.cancel()

    def __enter__(self) -> DataLoader:
        return self

    def __exit__(self, *_: object) -> None:
        self._workers.shutdown()


# ---- in the workers ----------------------------------------------------------------------------------------

_dataset: Any = None


def _begin(dataset: Any, numbers: Any, worker_init: Callable[[int, Any], None] | None) -> None:
    global _dataset
    _dataset = dataset
    with numbers.get_lock():
        number, numbers.value = numbers.value, numbers.value + 1
    if worker_init is not None:
        worker_init(number, dataset)


def _load(indices: list[int]) -> Batch:
    return collate([_dataset[index] for index in indices])


def open_images(number: int, dataset: Images) -> None:
    """For worker_init. A forked worker has inherited the dataset, but not the memory of its array: reopen finds it,
    and changes nothing in any other."""
    dataset.pixels = uswap.reopen(dataset.pixels)


# ---- the job -----------------------------------------------------------------------------------------------


def draw(pixels: Pixels, labels: Labels, seed: int = 0) -> None:
    """Noise, in which each class has rows of its own brighter than the rest."""
    random = np.random.default_rng(seed)
    labels[:] = random.integers(CLASSES, size=len(labels))
    for first in range(0, len(labels), 256):
        part = labels[first : first + 256]
        noise = random.integers(0, 128, size=(len(part), *pixels.shape[1:]), dtype=np.uint8)
        for row in range(4):
            noise[np.arange(len(part)), 12 + 4 * part + row] += 40
        pixels[first : first + 256] = noise


def train(batches: DataLoader, weights: np.ndarray[Any, Any], rate: float = 0.5) -> float:
    """One epoch of softmax regression on the brightness of rows, in place; => the mean loss."""
    losses = []
    for pixels, labels in batches:
        rows = pixels.mean(axis=(2, 3)) / 16 - 4
        scores = rows @ weights
        odds = np.exp(scores - scores.max(axis=1, keepdims=True))
        odds /= odds.sum(axis=1, keepdims=True)
        right = np.arange(len(labels)), labels
        losses.append(-np.log(odds[right]).mean())
        odds[right] -= 1
        weights -= rate * rows.T @ odds / len(labels)
    return float(np.mean(losses))


def main() -> None:
    """Trains for some epochs, and says how large the array and the memory for it are."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=8192, help="12 KiB each (default: %(default)s)")
    parser.add_argument("--limit", default="32MiB", help="of all processes together (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=2, help="default: %(default)s")
    parser.add_argument("--epochs", type=int, default=2, help="default: %(default)s")
    parser.add_argument("--start", default="spawn", choices=multiprocessing.get_all_start_methods())
    options = parser.parse_args()

    with uswap.Pool(limit=options.limit, name=f"data-loader-{os.getpid()}") as pool:
        pixels = pool.empty((options.images, SIDE, SIDE, 3), np.uint8, shared=True)
        labels = np.empty(options.images, np.int64)
        draw(pixels, labels)

        dataset = Images(pixels, labels)
        weights = np.zeros((CROP, CLASSES))
        with DataLoader(
            dataset, 64, workers=options.workers, start=options.start, worker_init=open_images
        ) as batches:
            for epoch in range(options.epochs):
                print(f"epoch {epoch + 1}: loss {train(batches, weights):.4f}")
            processes = len(pool.members())
        print(f"{processes} processes, {pixels.nbytes >> 20} MiB under a limit of {pool.limit >> 20} MiB")


if __name__ == "__main__":
    main()
