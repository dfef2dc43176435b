"""The rules of the auto limit, on samples made by hand."""

from collections.abc import Callable
from itertools import pairwise

import pytest

from uswap import _auto_rules as rules_of
from uswap._auto_rules import Rules, Sample, with_room
from uswap.auto_limit import Counters, Meter, recommended

MIB = 1 << 20
MOST = 4096 * MIB
TARGET = 0.02

Program = Callable[[int], Sample]


def new_rules() -> Rules:
    return Rules(TARGET, MOST)


def still(limit: int, resident: int = 256 * MIB, **fields: float) -> Sample:
    """A quarter of a second in which nothing happened."""
    return Sample(0.25, limit, min(limit, resident), **fields)  # type: ignore[arg-type]


def hurting(limit: int, stall: float = 0.5) -> Sample:
    return Sample(0.25, limit, limit, stall=stall, evicted=MIB, read=MIB)


def run(rules: Rules, limit: int, program: Program, samples: int) -> list[int]:
    """The limits that follow from limit."""
    limits = [limit]
    for _ in range(samples):
        limits.append(rules.next_limit(program(limits[-1])))
    return limits


def that_needs(working_set: int, touched: int = 256 * MIB) -> Program:
    """A program that waits for half of its time as soon as less than its working set and an eighth is there."""

    def program(limit: int) -> Sample:
        return hurting(limit) if limit < with_room(working_set) else still(limit, touched)

    return program


# ---- down


def test_nothing_is_done_before_there_is_something_to_go_by() -> None:
    assert run(new_rules(), MOST, still, rules_of.RECENT - 1) == [MOST] * rules_of.RECENT


def test_what_is_not_there_goes_at_once_and_the_rest_by_small_steps() -> None:
    limits = run(new_rules(), MOST, still, 40)
    first = limits[rules_of.RECENT]
    assert first == with_room(256 * MIB)
    for before, after in pairwise(limits[rules_of.RECENT :]):
        assert 0 < before - after <= 256 * MIB * rules_of.STEP_SHARE


def test_steps_of_large_pools_are_bounded() -> None:
    limits = run(Rules(TARGET, 1 << 40), 1 << 38, lambda limit: still(limit, 1 << 38), 12)
    assert max(before - after for before, after in pairwise(limits)) == rules_of.STEP_BYTES


def test_a_pool_that_is_being_filled_is_left_alone() -> None:
    rules = new_rules()
    sizes = [32 * MIB * (number + 1) for number in range(40)]
    assert all(rules.next_limit(still(MOST, size)) == MOST for size in sizes)


def test_a_pool_that_holds_next_to_nothing_is_left_alone() -> None:
    assert run(new_rules(), MOST, lambda limit: still(limit, 8 * MIB), 40)[-1] == MOST


def test_it_never_goes_below_the_least_or_what_is_held() -> None:
    assert run(new_rules(), MOST, still, 400)[-1] == rules_of.LEAST_BYTES
    held = run(new_rules(), MOST, lambda limit: still(limit, held=100 * MIB), 400)
    assert held[-1] == with_room(100 * MIB)


def test_the_nearer_to_the_target_the_smaller_the_step() -> None:
    calm, worse = (
        run(new_rules(), MOST, lambda limit, stall=stall: still(limit, stall=stall), 10)  # type: ignore[misc]
        for stall in (0.0, TARGET / 2)
    )
    assert calm[-2] - calm[-1] > (worse[-2] - worse[-1]) * 3 // 2 > 0


def test_a_program_that_sleeps_keeps_its_memory() -> None:
    assert run(new_rules(), MOST, lambda limit: still(limit, running=0.0), 40)[-1] == with_room(256 * MIB)


def test_a_pool_that_reads_much_back_is_not_lowered_even_if_nobody_waits() -> None:
    limits = run(new_rules(), MOST, lambda limit: still(limit, read=8 * MIB, evicted=8 * MIB), 40)
    assert limits[-1] == with_room(256 * MIB)


# ---- up


def test_a_stall_while_frames_are_free_changes_nothing() -> None:
    rules = new_rules()
    limit = run(rules, MOST, still, 40)[-1]
    assert rules.next_limit(still(limit, stall=0.9)) == limit
    assert rules.hurt is None


def calm_at(rules: Rules, limit: int) -> int:
    """Where the limit is after some time without a step."""
    return run(rules, limit, lambda now: still(now, running=0.0), 20)[-1]


def test_a_change_of_phase_raises_it_at_once_and_faster_and_faster() -> None:
    rules = new_rules()
    limit = calm_at(rules, run(rules, MOST, still, 60)[-1])
    limits = run(rules, limit, hurting, 5)
    growth = [after / before for before, after in pairwise(limits)]
    assert growth == pytest.approx([1.125, 1.25, 1.5, 2.0, 2.0], rel=0.01)


def test_it_is_never_raised_beyond_the_most() -> None:
    assert run(new_rules(), MOST // 8, hurting, 20)[-1] == MOST


def test_a_stall_just_after_a_step_is_waited_out_for_a_moment_only() -> None:
    rules = new_rules()
    limit = run(rules, MOST, still, 20)[-1]
    limits = run(rules, limit, hurting, 6)
    waited = limits.count(limit) - 1
    assert 0 < waited * 0.25 <= rules_of.GRACE_SECONDS
    assert limits[-1] > limit


def waited_seconds(taken: int, back: int) -> float:
    """How long a stall is waited out after a step that takes so many bytes away, of which so many a sample are read
    back, as many as leave then."""
    rules = new_rules()
    limit = run(rules, MOST, still, 20)[-1]
    stalling = Sample(0.25, limit, limit, stall=0.5, evicted=taken, read=0)
    limits = [rules.next_limit(stalling)]
    while limits[-1] == limit and len(limits) < 100:
        in_grace = len(limits) * 0.25 < rules_of.GRACE_SECONDS
        limits.append(rules.next_limit(stalling._replace(evicted=0 if in_grace else 1, read=back)))
    assert limits[-1] > limit
    return 0.25 * (len(limits) - 1)


def test_a_stall_is_waited_out_while_pages_come_back_that_a_step_took() -> None:
    """On a slow disk, or a busy machine, that takes longer."""
    assert waited_seconds(8 * MIB, 8 * MIB) <= rules_of.GRACE_SECONDS
    assert waited_seconds(8 * MIB, MIB) == pytest.approx(2.0, abs=0.3)
    assert waited_seconds(8 * MIB, 1 << 12) == pytest.approx(rules_of.RETURN_SECONDS, abs=0.3)


def test_at_a_level_known_to_hurt_nothing_is_waited_out() -> None:
    rules = new_rules()
    limit = run(rules, MOST, still, 20)[-1]
    rules.hurt = limit
    assert rules.next_limit(hurting(limit)) > limit


def test_after_it_hurt_it_stays_above_that_level_until_its_patience_ends() -> None:
    rules = new_rules()
    program = that_needs(96 * MIB)
    limits = run(rules, MOST, program, 2000)
    assert rules.hurt is not None
    assert min(limits) >= 96 * MIB, "far below what is needed"
    late = limits[1000:]
    assert with_room(96 * MIB) <= sorted(late)[len(late) // 2] < 144 * MIB
    assert sum(limit < with_room(96 * MIB) for limit in late) < 0.04 * len(late)


def test_patience_doubles_each_time_the_same_level_hurts_and_is_bounded() -> None:
    rules = new_rules()
    seen = []
    for _ in range(9):
        rules.next_limit(hurting(100 * MIB))
        seen.append(rules.patience)
        rules.next_limit(still(112 * MIB))
    assert seen == [10, 20, 40, 80, 160, 320, 600, 600, 600]


def test_a_level_that_has_ceased_to_hurt_is_forgotten() -> None:
    rules = new_rules()
    limit = run(rules, MOST, that_needs(128 * MIB), 400)[-1]
    assert rules.hurt is not None
    limit = run(rules, limit, that_needs(48 * MIB), 3000)[-1]
    assert with_room(48 * MIB) <= limit < 80 * MIB


def test_the_mean_stall_keeps_to_the_target() -> None:
    rules = new_rules()
    program = that_needs(96 * MIB)
    limit, stalled, time = MOST, 0.0, 0.0
    for _ in range(4000):
        sample = program(limit)
        stalled += sample.stall * sample.seconds
        time += sample.seconds
        limit = rules.next_limit(sample)
    assert stalled / time <= TARGET


def test_a_debt_of_stall_is_paid_before_the_next_step() -> None:
    rules = new_rules()
    limit = run(rules, MOST, still, 12)[-1]
    rules.next_limit(hurting(limit, stall=1.0))
    calm = run(rules, limit, still, 100)
    assert calm[8] == limit
    assert calm[-1] < limit


def test_a_level_that_hurt_is_tried_again_by_smaller_steps() -> None:
    rules = new_rules()
    limit = run(rules, MOST, still, 20)[-1]
    limit = run(rules, limit, hurting, 6)[-1]
    assert rules.hurt is not None
    hurt, careful = rules.hurt, 0
    while rules.hurt is not None:
        before, limit = limit, rules.next_limit(still(limit))
        if before < hurt and rules.hurt is not None:
            careful = max(careful, before - limit)
    assert 0 < careful <= hurt * rules_of.STEP_SHARE / 4


def test_a_refused_step_is_not_tried_again_at_once() -> None:
    rules = new_rules()
    limit = run(rules, MOST, still, 20)[-1]
    rules.refused()
    limits = run(rules, limit, still, 20)
    assert limits[4] == limit
    assert limits[-1] < limit


# ---- the meter


START = Counters(*[0] * len(Counters._fields))
SECOND = 1_000_000_000


def test_stall_is_a_share_of_wall_time_for_one_thread_and_a_mean_for_several() -> None:
    one = Meter(START).sample(START._replace(time_ns=SECOND, cpu_ns=SECOND * 9 // 10, stall_ns=SECOND // 10))
    assert one.stall == pytest.approx(0.1)
    eight = Meter(START).sample(START._replace(time_ns=SECOND, cpu_ns=SECOND * 72 // 10, stall_ns=SECOND * 8 // 10))
    assert eight.stall == pytest.approx(0.1)
    assert eight.running == pytest.approx(8)
    asleep = Meter(START).sample(START._replace(time_ns=SECOND, cpu_ns=0, stall_ns=SECOND // 100))
    assert asleep.stall == pytest.approx(0.01)


def test_first_touches_are_no_stall() -> None:
    meter = Meter(START)
    filled = START._replace(time_ns=SECOND, stall_ns=SECOND // 2, faults=1000, zero_fills=1000)
    assert meter.sample(filled).stall == 0
    both = filled._replace(
        time_ns=2 * SECOND, cpu_ns=SECOND // 2, stall_ns=SECOND, faults=1600, zero_fills=1500, evictions=100
    )
    assert meter.sample(both).stall == pytest.approx(0.25)


def test_the_recommended_number_is_the_steady_limit_and_what_else_there_is() -> None:
    peak = Sample(60.0, 4096 * MIB, 600 * MIB, other=80 * MIB + 1)
    steady = [Sample(0.25, 64 * MIB, 60 * MIB, other=40 * MIB)] * 40
    assert recommended([peak, *steady]) == (64 + 81) * MIB
    assert recommended([peak, *steady[:20]]) == (675 + 81) * MIB


def test_what_is_not_resident_is_not_recommended() -> None:
    assert recommended([Sample(0.25, MOST, 160 * MIB, other=20 * MIB)]) == 200 * MIB
