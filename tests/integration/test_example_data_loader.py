"""The example of docs/example-data-loader.md: it runs, however workers are made, and the page quotes it rightly."""

import gc
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("numpy")

DOCS = Path(__file__).resolve().parents[2] / "docs"
PROGRAM = DOCS / "examples" / "data_loader.py"
PAGE = DOCS / "example-data-loader.md"


def run(start: str) -> list[str]:
    """=> the lines that the program prints."""
    arguments = ["--images", "2048", "--limit", "16MiB", "--workers", "2", "--start", start]
    done = subprocess.run(
        # Threads that only wait are no danger to a forked child, but Python warns of any.
        [sys.executable, "-W", "error", "-W", "ignore::DeprecationWarning", str(PROGRAM), *arguments],
        capture_output=True,
        text=True,
        timeout=100,
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize("start", ["spawn", "forkserver", "fork"])
def test_it_learns_the_same_from_workers_made_in_any_way(start: str, runtime_folder: Path) -> None:
    first, second, summary = run(start)
    losses = [float(line.rpartition(" ")[2]) for line in (first, second)]
    assert losses[1] < losses[0] < 2.4, losses  # ln 10 is what guessing costs
    assert summary == "3 processes, 24 MiB under a limit of 16 MiB"


def test_shared_and_plain_memory_give_the_same_batches(
    runtime_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(PROGRAM.parent))
    import data_loader
    import numpy as np

    import uswap

    def batches(dataset: data_loader.Images) -> list[tuple[bytes, bytes]]:
        # Without processes: the same steps, in the order that a loader of that seed has.
        order = np.random.default_rng(0).permutation(len(dataset)).tolist()
        made = [data_loader.collate([dataset[index] for index in order[i : i + 64]]) for i in range(0, 2048, 64)]
        return [(pixels.tobytes(), labels.tobytes()) for pixels, labels in made]

    shape, labels = (2048, data_loader.SIDE, data_loader.SIDE, 3), np.empty(2048, np.int64)
    with uswap.Pool("16MiB", name=f"example-{os.getpid()}") as pool:
        shared, plain = pool.empty(shape, np.uint8, shared=True), np.empty(shape, np.uint8)
        for pixels in (shared, plain):
            data_loader.draw(pixels, labels)
        assert batches(data_loader.Images(shared, labels)) == batches(data_loader.Images(plain, labels))
        with data_loader.DataLoader(data_loader.Images(shared, labels), 64, workers=1) as loader:
            loaded = [(pixels.tobytes(), labels.tobytes()) for pixels, labels in loader]
        assert loaded == batches(data_loader.Images(plain, labels))
        del shared, pixels, loader
        gc.collect()
        pool.close()  # and not when its last array happens to go
    sys.modules.pop("data_loader")


def test_what_the_page_quotes_is_in_the_program() -> None:
    def lines(text: str) -> str:
        return "\n".join(line.strip() for line in text.splitlines())

    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    quotes = [block for block in blocks if not block.startswith(">>>")]
    assert len(quotes) == 4
    for quote in quotes:
        assert lines(quote) in lines(PROGRAM.read_text()), quote
