"""Evidence that may be looked at at any time: no false alarms however often, and real changes are found."""

import random

from hypothesis import given
from hypothesis import strategies as st

from fleetd.domain.evidence import against_chance, together

NUMBERS = st.lists(st.floats(-1e6, 1e6), max_size=40)


def test_a_clear_change_is_found_within_ten_numbers() -> None:
    before = [n % 7 for n in range(40)]
    assert against_chance(before, [9.0] * 10) > 350


def test_no_change_is_no_evidence() -> None:
    before = [n * 0.618 % 1 for n in range(40)]
    assert against_chance(before, [n * 0.618 % 1 for n in range(40, 80)]) < 20
    assert against_chance([3.0] * 40, [3.0] * 40) < 20


def test_the_same_numbers_are_the_same_evidence() -> None:
    """Equal numbers are ranked by lot, and the lots never change."""
    assert len({against_chance([3.0, 3.0, 1.0, 2.0, 3.0], [3.0, 3.0, 4.0]) for _ in range(5)}) == 1


def test_looking_after_every_number_gives_few_false_alarms() -> None:
    """At the factor 20 at most one series in twenty may ever get there; 1,000 series of 60 looks each."""
    chance = random.Random(11)
    alarms = 0
    for _ in range(1_000):
        series = [chance.gauss(0, 1) for _ in range(100)]
        alarms += against_chance(series[:40], series[40:]) >= 20
    assert alarms <= 50


def test_the_distribution_does_not_matter() -> None:
    chance = random.Random(12)
    alarms = 0
    for _ in range(500):
        series = [chance.paretovariate(0.7) * chance.choice((-1, 1)) for _ in range(80)]
        alarms += against_chance(series[:40], series[40:]) >= 20
    assert alarms <= 25


@given(NUMBERS, NUMBERS)
def test_more_to_look_at_never_takes_evidence_back(before: list[float], after: list[float]) -> None:
    evidence = [against_chance(before, after[:end]) for end in range(len(after) + 1)]
    assert evidence == sorted(evidence)
    assert all(one >= 1.0 for one in evidence)


@given(NUMBERS.filter(lambda past: len(past) >= 5), st.floats(0.1, 1e3))
def test_units_do_not_matter(before: list[float], unit: float) -> None:
    after = [max(before) + 1.0] * 5
    scaled = against_chance([one * unit for one in before], [one * unit for one in after])
    assert scaled == against_chance(before, after)


def test_too_short_a_past_says_nothing() -> None:
    assert against_chance([1.0] * 4, [9.0] * 50) == 1.0


def test_several_series_are_one_bet() -> None:
    assert together([]) == 1.0
    assert together([1.0, 1.0, 400.0, 1.0]) == 100.75
