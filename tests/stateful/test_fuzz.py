"""The state machines of uswap.testing, a bounded part of what `uswap fuzz` runs. Quietly: about a minute under
CI."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from conftest import probe
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from uswap.testing import Machine, machine_for

EXAMPLES, STEPS = (16, 60) if os.environ.get("CI") else (4, 40)


def run(machine: type[Machine]) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            print_blob=True,
        ),
    )


@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore::uswap.UswapWarning")  # of errors that are injected
@pytest.mark.parametrize(
    ("transport", "io", "faults", "encrypt"),
    [
        ("move", "uring", None, False),
        ("move", "sync", None, False),
        ("copy", "uring", None, False),
        ("copy", "sync", None, False),
        ("move", "uring", "inline", False),
        ("copy", "sync", "inline", False),
        ("move", "uring", None, True),
        ("copy", "sync", "inline", True),
    ],
)
def test_programs_do_what_their_model_says(transport: str, io: str, faults: str | None, encrypt: bool) -> None:
    if transport == "move" and probe().live_move_errno:
        pytest.skip("UFFDIO_MOVE is not there")
    if io == "uring" and probe().uring_errno:
        pytest.skip("io_uring is not there")
    if encrypt and probe().encrypt_errno:
        pytest.skip("swap cannot be encrypted: no libcrypto")
    run(machine_for(transport=transport, io=io, faults=faults, encrypt=encrypt))


@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore::uswap.UswapWarning")
def test_programs_in_named_pools_do_what_their_model_says(runtime_folder: Path) -> None:
    run(machine_for(shared=True))


@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore::uswap.UswapWarning")
@pytest.mark.parametrize("policy", ["fifo", "s3-fifo", "by-region"])
def test_programs_under_each_policy_do_what_their_model_says(policy: str) -> None:
    run(machine_for(policy=policy))
