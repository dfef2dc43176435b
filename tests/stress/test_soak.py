"""A short soak (tests/_support/soak.py; `make soak` runs a long one): members are killed, and the disk fails at
times. USWAP_STRESS_SECONDS makes it longer."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from _support import soak

from uswap._core import lib

SECONDS = float(os.environ.get("USWAP_STRESS_SECONDS", "12"))


@pytest.mark.skipif(not lib.uswap_failpoints_built(), reason="the core was built without failpoints")
@pytest.mark.timeout(600 + 5 * SECONDS)
def test_nothing_is_lost_but_what_an_injected_error_must_lose(swap_directory: Path) -> None:
    figures = soak.run(swap_directory, seconds=SECONDS, threads=8, processes=4, seed=3)
    assert figures["words_wrong"] == 0
    assert figures["pages_lost"] == 0
    assert figures["kills"] > 0
    assert figures["read_errors_injected"] > 0
    assert figures["write_errors_injected"] > 0
    assert figures["contents_damaged"] > 0
    assert figures["stops_counted_exactly"] > 0
    assert figures["pages_in"] > figures["pages_out"] > 0
