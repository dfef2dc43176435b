"""The stress of checked words (`make stress`): a short run of each kind, and that it finds what is wrong."""

from __future__ import annotations

import ctypes
from pathlib import Path

import pytest
from _support.word_stress import PAGE, Plan, Words, WrongWordError, run
from conftest import probe

OPERATIONS = 4_000_000


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("transport", "io", "faults", "encrypt"),
    [
        ("move", "uring", "thread", False),
        ("copy", "sync", "thread", False),
        ("move", "uring", "inline", False),
        ("copy", "uring", "inline", True),
    ],
)
def test_no_word_is_wrong(transport: str, io: str, faults: str, encrypt: bool, swap_directory: Path) -> None:
    if transport == "move" and probe().live_move_errno:
        pytest.skip("UFFDIO_MOVE is not there")
    if io == "uring" and probe().uring_errno:
        pytest.skip("io_uring is not there")
    if encrypt and probe().encrypt_errno:
        pytest.skip("swap cannot be encrypted: no libcrypto")
    plan = Plan(
        OPERATIONS,
        seed=7,
        transport=transport,
        io=io,
        faults=faults,
        encrypt=encrypt,
        directory=str(swap_directory),
    )
    result = run(plan)
    assert result.operations == result.loads + result.stores == OPERATIONS
    assert result.pool["major_faults"] > 1000
    assert result.pool["evictions_api"] > 0


class Plain:
    """Words in ordinary memory, which is easily damaged."""

    def __init__(self, threads: int = 3) -> None:
        self.memory = bytearray(8 * PAGE)
        self.words = Words(self.memory, Plan(0, threads=threads, seed=5))
        for number in range(threads):
            assert self.words.work(number, 20_000)
        self.at = (ctypes.c_uint64 * (len(self.memory) // 8)).from_buffer(self.memory)

    def found(self) -> str:
        """What the check of all words says."""
        with pytest.raises(WrongWordError) as caught:
            self.words.check_all()
        return str(caught.value)


@pytest.mark.parametrize("threads", [1, 3, 8, 63])
def test_words_that_nobody_damages_are_right(threads: int) -> None:
    plain = Plain(threads)
    assert plain.words.check_all() == len(plain.memory) // 8
    counted = sum(int(writer.loads + writer.stores) for writer in plain.words.writers)
    assert counted == threads * 20_000


def test_a_store_that_is_lost_is_found() -> None:
    plain = Plain()
    word = next(word for word in range(len(plain.at)) if plain.at[word] >> 6 & 0xFFFFFFFF > 1)
    plain.at[word] -= 1 << 6  # as it was before the last store
    assert plain.found().startswith(f"word {word} ")


def test_a_word_in_another_ones_place_is_found() -> None:
    plain = Plain()
    plain.at[9] = plain.at[9 + 3 * 512]  # of the same writer
    assert "word 9 " in plain.found()


def test_a_page_of_zeroes_is_found() -> None:
    plain = Plain()
    plain.memory[3 * PAGE : 4 * PAGE] = bytes(PAGE)
    assert "(page 3)" in plain.found()


def test_a_wrong_word_stops_all_writers() -> None:
    plain = Plain()
    plain.memory[:] = b"\1" * len(plain.memory)
    assert not plain.words.work(1, 1000)
    assert not plain.words.work(0, 1000)
    assert "found by thread 1" in plain.found()


def test_so_many_threads_are_refused() -> None:
    with pytest.raises(ValueError, match="from 1 to 63, not 64"):
        Words(bytearray(PAGE), Plan(1, threads=64))
