"""Ranges behave exactly like a set of integers, whatever the order of arrival."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from fleetd.domain.ranges import Ranges

NUMBERS = st.lists(st.integers(1, 60), max_size=80)


@given(NUMBERS)
def test_ranges_hold_exactly_what_was_added(numbers: list[int]) -> None:
    ranges, model = Ranges(), set[int]()
    for number in numbers:
        assert ranges.add(number) == (number not in model)
        model.add(number)
        assert number in ranges
    assert len(ranges) == len(model)
    assert [n for n in range(70) if n in ranges] == sorted(model)
    pairs = ranges.pairs()
    assert all(a[1] + 1 < b[0] for a, b in pairwise(pairs)), "sorted, disjoint, not adjacent"


@given(NUMBERS)
def test_ranges_survive_the_database(numbers: list[int]) -> None:
    ranges = Ranges((n, n) for n in numbers)
    assert Ranges.from_json(ranges.to_json()) == ranges


@given(NUMBERS, st.integers(0, 70))
def test_declaring_everything_below_low_as_done_counts_what_was_missing(numbers: list[int], low: int) -> None:
    ranges = Ranges((n, n) for n in numbers)
    missing = set(range(1, low)) - set(numbers)
    assert ranges.close_below(low) == len(missing)
    assert all(n in ranges for n in range(1, low))
    assert len(ranges) == len(set(numbers) | missing)


@given(NUMBERS, st.integers(1, 8))
def test_the_number_of_ranges_stays_bounded_and_closed_gaps_are_counted(
    numbers: list[int], most: int
) -> None:
    ranges = Ranges((n, n) for n in numbers)
    before = len(ranges)
    assert ranges.bound(most) == len(ranges) - before
    assert len(ranges.pairs()) <= most
    assert all(n in ranges for n in numbers)


@given(NUMBERS, st.integers(1, 60))
def test_a_copy_is_independent(numbers: list[int], extra: int) -> None:
    ranges = Ranges((n, n) for n in numbers)
    twin = ranges.copy()
    twin.add(extra)
    assert set(numbers) == {n for n in range(1, 61) if n in ranges}
