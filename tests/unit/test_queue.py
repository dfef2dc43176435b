"""Queue against a model, what counts as stays, and policies by name."""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import uswap
from uswap.policy import Answer, Batch, Fifo, Need, Policy, Queue, SecondChance, by_name, make_policy
from uswap.policy.queue import as_array

STAYS = st.lists(st.integers(0, (1 << 64) - 1), max_size=40)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("push"), STAYS, st.integers(0, 3)),
        st.tuples(st.just("pop"), st.integers(-3, 60)),
        st.tuples(st.just("pop_tagged"), st.integers(-3, 60)),
        st.tuples(st.just("tidy")),
    ),
    max_size=40,
)


class EvenView:
    """Odd stays are out of date."""

    capacity = 1 << 20

    def regions(self) -> Mapping[int, uswap.RegionInfo]:
        return {}

    def current(self, stays: Any) -> array[int]:
        return array("Q", [stay for stay in stays if stay % 2 == 0])


@given(STEPS)
def test_a_queue_is_a_deque_of_stays_with_tags(steps: list[tuple[Any, ...]]) -> None:
    queue, model = Queue(), deque[tuple[int, int]]()
    for kind, *arguments in steps:
        if kind == "push":
            stays, tag = arguments
            queue.push(stays, tag)
            model.extend((stay, tag) for stay in stays)
        elif kind == "tidy":
            queue.tidy(EvenView())
            model = deque(entry for entry in model if entry[0] % 2 == 0)
        else:
            expected = [model.popleft() for _ in range(min(max(arguments[0], 0), len(model)))]
            if kind == "pop":
                assert list(queue.pop(arguments[0])) == [stay for stay, _ in expected]
            else:
                parts = queue.pop_tagged(arguments[0])
                assert [(stay, tag) for stays, tag in parts for stay in stays] == expected
        assert len(queue) == len(model)
    assert list(queue.pop(1 << 62)) == [stay for stay, _ in model]
    assert not queue


def test_what_is_pushed_is_copied() -> None:
    queue, stays = Queue(), array("Q", [1, 2, 3])
    queue.push(stays)
    stays[0] = 9
    popped = queue.pop(2)
    popped[0] = 8
    assert list(queue.pop(3)) == [3]
    queue.push(memoryview(stays))
    stays[0] = 7
    assert list(queue.pop(3)) == [9, 2, 3]


def test_stays_are_any_buffer_of_u64_or_integers() -> None:
    numpy = pytest.importorskip("numpy")
    some = numpy.arange(6, dtype="u8")
    for stays in (
        some,
        memoryview(some),
        some.tolist(),
        iter(range(6)),
        array("Q", range(6)),
        array("L", range(6)),
    ):
        assert as_array(stays).tolist() == list(range(6))
    assert as_array(some[::-2]).tolist() == [5, 3, 1]
    assert not as_array(())


@pytest.mark.parametrize(
    "stays", [b"12345678", "text", 5, None, [1.0], ["1"], array("q", [1]), array("I", [1]), array("d", [1.0]), [-1]]
)
def test_what_is_no_stay_is_refused(stays: Any) -> None:
    with pytest.raises((TypeError, OverflowError)):
        as_array(stays)


class Mine(Policy):
    def decide(self, seen: Batch, need: Need) -> Answer | None:
        return None


class NeedsMore(Policy):
    def __init__(self, what: int) -> None:
        self.what = what

    def decide(self, seen: Batch, need: Need) -> Answer | None:
        return None


def test_policies_by_name_class_or_instance() -> None:
    mine = Mine()
    assert make_policy(mine) is mine
    assert make_policy(None) is None
    assert isinstance(make_policy(Mine), Mine)
    assert isinstance(make_policy("fifo"), Fifo)
    assert isinstance(make_policy("uswap.policy.second_chance:SecondChance"), SecondChance)
    assert make_policy("fifo") is not make_policy("fifo"), "each pool has its own"


@pytest.mark.parametrize(
    "name",
    ["", "no such", "FIFO", ":", "uswap.policy:", ":Fifo", "no.such.module:Fifo", "uswap.policy:Nothing",
     "uswap.policy:Queue", "uswap.policy:by_name", "os:sep"],
)  # fmt: skip
def test_a_name_of_no_policy_says_so(name: str) -> None:
    with pytest.raises(uswap.ArgumentError, match="policy"):
        by_name(name)
    with pytest.raises(ValueError, match="policy"):
        uswap.Pool("4MiB", policy=name)


@pytest.mark.parametrize("policy", [5, Queue, Queue(), b"fifo", ["fifo"], Answer()])
def test_what_is_no_policy_is_refused(policy: Any) -> None:
    with pytest.raises(TypeError, match="policy"):
        make_policy(policy)


@pytest.mark.parametrize("policy", [Policy, NeedsMore])
def test_a_class_that_cannot_be_made_without_arguments_is_refused(policy: Any) -> None:
    with pytest.raises(TypeError):
        make_policy(policy)
