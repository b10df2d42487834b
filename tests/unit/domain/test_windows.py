"""Windows: hours of the week, time zones and the change to summer time."""

import calendar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetd.domain.windows import DAY_S, DAYS, parse_window
from fleetd.errors import InvalidError
from fleetd.zones import ahead_of_utc


def at(text: str) -> float:
    """`2026-03-28 23:30` UTC as Unix seconds."""
    date, clock = text.split()
    year, month, day = map(int, date.split("-"))
    hour, minute = map(int, clock.split(":"))
    return float(calendar.timegm((year, month, day, hour, minute, 0)))


def is_open(window: str, moment: str) -> bool:
    found = parse_window(window)
    when = at(moment)
    return found.is_open(when, ahead_of_utc(found.zone, when))


def test_a_night_belongs_to_the_day_on_which_it_begins() -> None:
    """2026-11-27 is a Friday."""
    nights = "fri 22:00-05:00 UTC"
    assert not is_open(nights, "2026-11-27 21:59")
    assert is_open(nights, "2026-11-27 22:00")
    assert is_open(nights, "2026-11-28 04:59")
    assert not is_open(nights, "2026-11-28 05:00")
    assert not is_open(nights, "2026-11-27 04:00"), "that is Thursday's night"


def test_without_days_it_is_every_day_and_days_may_wrap_round_the_week() -> None:
    assert all(is_open("00:00-24:00 UTC", f"2026-11-{day} 12:00") for day in range(23, 30))
    weekend = "sat-mon 00:00-24:00 UTC"
    assert [is_open(weekend, f"2026-11-{day} 12:00") for day in range(27, 32 - 1)] == [
        False,
        True,
        True,
        True,
    ]


def test_several_spans_and_lists_of_days() -> None:
    window = "mon,wed 10:00-11:00; fri 12:00-13:00 UTC"
    assert is_open(window, "2026-11-23 10:30")
    assert not is_open(window, "2026-11-24 10:30")
    assert is_open(window, "2026-11-25 10:30")
    assert is_open(window, "2026-11-27 12:30")


def test_local_hours_follow_summer_time() -> None:
    """Berlin goes from UTC+1 to UTC+2 on 2026-03-29, and back on 2026-10-25."""
    window = "10:00-11:00 Europe/Berlin"
    assert is_open(window, "2026-03-28 09:30")
    assert is_open(window, "2026-03-29 08:30")
    assert not is_open(window, "2026-03-29 09:30")
    assert is_open(window, "2026-10-25 09:30")


def test_the_next_change_is_told_to_the_minute_over_the_change_of_clocks() -> None:
    window = parse_window("10:00-11:00 Europe/Berlin")
    berlin = lambda moment: ahead_of_utc("Europe/Berlin", moment)  # noqa: E731
    assert window.next_change(at("2026-03-28 12:00"), berlin) == at("2026-03-29 08:00")
    assert window.next_change(at("2026-03-29 08:30"), berlin) == at("2026-03-29 09:00")
    assert parse_window("00:00-24:00 UTC").next_change(0.0, lambda _: 0.0) is None


@given(st.floats(0, 4e9), st.sampled_from(["UTC", "Asia/Kolkata", "America/New_York", "Australia/Lord_Howe"]))
def test_a_window_and_its_complement_are_never_both_open(moment: float, zone: str) -> None:
    ahead = ahead_of_utc(zone, moment)
    day = parse_window(f"06:00-18:00 {zone}").is_open(moment, ahead)
    night = parse_window(f"18:00-06:00 {zone}").is_open(moment, ahead)
    assert day != night


@given(st.integers(0, 6), st.integers(0, 400))
def test_every_day_of_the_week_comes_every_seven_days(day: int, week: int) -> None:
    window = parse_window(f"{DAYS[day]} 00:00-24:00 UTC")
    begin = float(week * 7 * DAY_S)
    assert sum(window.is_open(begin + n * DAY_S, 0.0) for n in range(7)) == 1


@pytest.mark.parametrize(
    "text",
    [
        "",
        "22:00-05:00",
        "22-05 UTC",
        "25:00-26:00 UTC",
        "22:60-23:00 UTC",
        "xyz 22:00-05:00 UTC",
        "mon- 22:00-05:00 UTC",
        "22:00-05:00 UTC; ",
        "22:00-05:00 " + "x" * 300,
    ],
)
def test_what_is_no_window_is_refused_with_an_example_or_the_reason(text: str) -> None:
    with pytest.raises(InvalidError, match="Nothing was changed"):
        parse_window(text)


@pytest.mark.parametrize("zone", ["Mars/Olympus", "../../etc/passwd", "", "Europe"])
def test_an_unknown_zone_is_refused(zone: str) -> None:
    with pytest.raises(InvalidError, match="no time zone"):
        ahead_of_utc(zone, 0.0)
