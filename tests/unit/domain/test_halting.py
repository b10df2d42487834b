"""Halting on outcomes: a bound that grows with evidence, exact chances of a false alarm, silence weighs more."""

import math
from statistics import NormalDist

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetd.domain.halting import Dark, at_least, at_most, darkness, deviations, excess

SHARES = st.floats(0.0, 0.5)


@st.composite
def outcomes(draw: st.DrawFn) -> tuple[int, int]:
    number = draw(st.integers(1, 5_000))
    return draw(st.integers(0, number)), number


def halts(bad: int, number: int, tolerated: float, free: int = 1) -> bool:
    return excess("harm", bad, number, free=free, tolerated=tolerated) is not None


@given(outcomes(), st.floats(0.1, 5.0))
def test_the_true_share_lies_between_the_bounds(counted: tuple[int, int], z: float) -> None:
    bad, number = counted
    assert 0.0 <= at_least(bad, number, z) <= bad / number + 1e-12
    assert bad / number - 1e-12 <= at_most(bad, number, z) <= 1.0


def test_the_bounds_are_wilsons() -> None:
    """The example of many textbooks: 10 of 20 at 95 % is 0.299 to 0.701."""
    z = NormalDist().inv_cdf(0.975)
    assert at_least(10, 20, z) == pytest.approx(0.2993, abs=1e-4)
    assert at_most(10, 20, z) == pytest.approx(0.7007, abs=1e-4)
    assert (at_least(0, 0, z), at_most(0, 0, z)) == (0.0, 1.0)


@given(outcomes(), SHARES)
def test_one_more_failure_never_takes_a_halt_back(counted: tuple[int, int], tolerated: float) -> None:
    bad, number = counted
    if halts(bad, number, tolerated) and bad < number:
        assert halts(bad + 1, number, tolerated)


@given(outcomes(), SHARES)
def test_the_same_outcomes_say_the_same_however_often_one_looks(
    counted: tuple[int, int], tolerated: float
) -> None:
    assert len({halts(*counted, tolerated) for _ in range(5)}) == 1


def test_two_of_three_say_much_and_two_of_three_hundred_little() -> None:
    assert halts(2, 3, 0.02)
    assert halts(2, 8, 0.02)
    assert not halts(2, 300, 0.02)
    assert halts(30, 300, 0.02)


@given(st.integers(0, 200), st.integers(0, 20))
def test_without_a_tolerated_share_the_first_one_too_many_halts(good: int, free: int) -> None:
    assert not halts(free, free + good, 0.0, free) if free + good else True
    assert halts(free + 1, free + 1 + good, 0.0, free)


def test_the_excess_says_how_many_of_how_many() -> None:
    found = excess("silence", 4, 20, free=1, tolerated=0.005)
    assert found is not None
    assert str(found).startswith("4 of 20 cameras that finished fell silent")
    assert "0.5% are tolerated" in str(found)


def chance_of_a_halt(share: float, tolerated: float, cameras: int, z_of: object = deviations) -> float:
    """Exactly, over all orders in which outcomes can come in, looking after each of them."""
    assert callable(z_of)
    alive, halted = {0: 1.0}, 0.0
    for number in range(1, cameras + 1):
        z = z_of(number)
        following: dict[int, float] = {}
        for bad, weight in alive.items():
            for more, part in ((bad + 1, weight * share), (bad, weight * (1 - share))):
                if part > 1e-13:
                    following[more] = following.get(more, 0.0) + part
        alive = {}
        for bad, weight in following.items():
            if bad > 1 and at_least(bad, number, z) > tolerated:
                halted += weight
            else:
                alive[bad] = weight
    return halted


@pytest.mark.parametrize("tolerated", [0.005, 0.02, 0.05, 0.1])
def test_fewer_than_one_good_rollout_in_twenty_ever_halts(tolerated: float) -> None:
    """At the very edge of what is tolerated, over 1,000 cameras, looked at after every single one."""
    assert chance_of_a_halt(tolerated, tolerated, 1_000) < 0.05


def test_a_bound_for_a_single_look_would_stop_a_third_of_them() -> None:
    once = NormalDist().inv_cdf(0.95)
    assert chance_of_a_halt(0.02, 0.02, 1_000, lambda _number: once) > 0.3


def test_a_release_that_breaks_one_in_ten_is_stopped_almost_surely() -> None:
    assert chance_of_a_halt(0.1, 0.02, 200) > 0.99


def test_silence_after_success_is_compared_with_those_who_do_not_run_it() -> None:
    bad = Dark(running=20, silent=6, others=100, others_silent=1)
    assert darkness(bad, free=1, tolerated=0.005) is not None
    outage = Dark(running=20, silent=6, others=100, others_silent=30)
    assert darkness(outage, free=1, tolerated=0.005) is None, "the whole site is away"
    alone = Dark(running=20, silent=6, others=0, others_silent=0)
    assert darkness(alone, free=1, tolerated=0.005) is None, "a fleet that sleeps says nothing"


def test_nothing_is_sure_without_outcomes() -> None:
    assert math.isinf(deviations(0))
