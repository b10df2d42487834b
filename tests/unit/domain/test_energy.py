"""What a classification costs, checked against the published figures and against physics."""

import csv
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetd.domain.energy import (
    RT1062,
    Duty,
    Supply,
    battery_days,
    cost_of,
    figures_for,
    frames_per_charge,
    mah_per_day,
    mean_ma,
    published_rows,
    with_own,
)
from fleetd.errors import InvalidError

# The table as it was published, where it lies beside the checkout.
CSV = Path(__file__).resolve().parents[4] / "shared" / "data" / "rt1062-energy.csv"
SUPPLY = Supply(active_ma=200.0, idle_ma=110.0, volts=5.0)


def test_the_published_figures_are_the_published_figures() -> None:
    found = [(one.size, one.inference_ms, one.fps, one.current_ma) for one in RT1062.measured]
    assert found == [
        (240, 74, 11.23, 200),
        (320, 75, 10.43, 200),
        (640, 78, 6.16, 200),
        (1024, 85, 3.18, 210),
    ]
    assert RT1062.idle_ma == 110


@pytest.mark.skipif(not CSV.exists(), reason="the published table is not on this machine")
def test_the_published_figures_equal_the_table_they_came_from() -> None:
    with CSV.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [
        (f"{one.size}x{one.size}", one.fps, one.inference_ms, one.current_ma) for one in RT1062.measured
    ] == [
        (row["resolution"], float(row["fps"]), float(row["inference_ms"]), float(row["current_ma"]))
        for row in rows
    ]


def test_the_published_table_is_reproduced_from_its_own_numbers() -> None:
    """By hand: 200 mA for 74 ms are 0.0041 mAh, at 5 V 74 mJ; a frame at 11.23 fps takes 89 ms and 89 mJ."""
    rows = published_rows(RT1062, 5.0)
    shown = [
        (
            one.size,
            round(one.frame_ms, 1),
            round(one.rest_ms, 1),
            round(inference.mj, 1),
            round(inference.above_idle_mj, 2),
            round(inference.mah, 5),
            round(frame.mj, 1),
        )
        for one, inference, frame in rows
    ]
    assert shown == [
        (240, 89.0, 15.0, 74.0, 33.3, 0.00411, 89.0),
        (320, 95.9, 20.9, 75.0, 33.75, 0.00417, 95.9),
        (640, 162.3, 84.3, 78.0, 35.1, 0.00433, 162.3),
        (1024, 314.5, 229.5, 89.2, 42.5, 0.00496, 330.2),
    ]
    for one, _, frame in rows:
        assert 1000 / (frame.mj / (one.current_ma * 5.0) * 1000) == pytest.approx(one.fps)


def test_currents_between_measured_sizes_are_in_proportion_and_outside_the_nearest() -> None:
    assert RT1062.active_ma(96) == 200
    assert RT1062.active_ma(640) == 200
    assert RT1062.active_ma(832) == pytest.approx(205)
    assert RT1062.active_ma(1024) == RT1062.active_ma(2048) == 210


def test_own_measurements_take_the_place_of_published_ones() -> None:
    own = with_own(RT1062, board="OMVRT1060", active_ma=180.0)
    assert [own.active_ma(size) for size in (96, 240, 1024)] == [180, 180, 180]
    assert (own.idle_ma, own.sleep_ma) == (110, 0.03)
    assert "your own (active), else R. Bandini" in own.source
    rest = with_own(RT1062, board="OMVRT1060", idle_ma=90.0, sleep_ma=0.12)
    assert (rest.active_ma(1024), rest.idle_ma, rest.sleep_ma) == (210, 90, 0.12)


def test_a_board_that_nobody_measured_needs_both_currents() -> None:
    own = with_own(None, board="OMV4", active_ma=150.0, idle_ma=100.0)
    assert (own.active_ma(240), own.idle_ma, own.sleep_ma) == (150, 100, None)
    for lacking in ({"active_ma": 150.0}, {"idle_ma": 100.0}, {"sleep_ma": 1.0}):
        with pytest.raises(InvalidError, match="No currents are known for 'OMV4'"):
            with_own(None, board="OMV4", **lacking)


def test_boards_are_known_by_the_first_word_of_their_name() -> None:
    assert figures_for("OMVRT1060 32768 SDRAM") is RT1062
    assert figures_for("OMV4 H7 1024") is None
    assert figures_for(None) is None


def test_one_frame_a_minute_awake_costs_nearly_what_idling_costs() -> None:
    duty = Duty(interval_s=60, frame_ms=1000 / 11.23)
    assert duty.share == pytest.approx(0.089 / 60, rel=1e-3)
    assert mean_ma(duty, SUPPLY) == pytest.approx(110.13, abs=0.01)
    assert mah_per_day(duty, SUPPLY) == pytest.approx(2643.2, abs=0.1)
    assert battery_days(2000, duty, SUPPLY) == pytest.approx(0.757, abs=0.001)
    assert frames_per_charge(2000, duty, SUPPLY) == pytest.approx(0.7567 * 1440, rel=1e-3)


def test_deep_sleep_between_frames_pays_when_waking_is_short_against_the_interval() -> None:
    awake = Duty(interval_s=600, frame_ms=89)
    asleep = Duty(interval_s=600, frame_ms=89, sleep_ma=RT1062.sleep_ma, wake_s=10)
    assert mean_ma(asleep, SUPPLY) == pytest.approx(3.39, abs=0.01)
    assert battery_days(2000, asleep, SUPPLY) > 30 * battery_days(2000, awake, SUPPLY)
    restless = Duty(interval_s=10, frame_ms=89, sleep_ma=RT1062.sleep_ma, wake_s=10)
    assert restless.share == 1.0
    assert mean_ma(restless, SUPPLY) == SUPPLY.active_ma


def test_a_camera_that_never_rests_draws_its_working_current() -> None:
    duty = Duty(interval_s=0, frame_ms=89)
    assert mah_per_day(duty, SUPPLY) == pytest.approx(200 * 24)
    assert frames_per_charge(2000, duty, SUPPLY) == pytest.approx(10 * 3600 / 0.089)


def test_part_of_a_battery_lasts_for_part_of_the_time() -> None:
    duty = Duty(interval_s=60, frame_ms=89)
    assert battery_days(2000, duty, SUPPLY, usable=0.8) == pytest.approx(
        0.8 * battery_days(2000, duty, SUPPLY)
    )


@pytest.mark.parametrize("wrong", [(0, 110, 5), (200, 0, 5), (200, 110, 0), (100, 110, 5), (200, -1, 5)])
def test_currents_that_cannot_be_are_refused(wrong: tuple[float, float, float]) -> None:
    with pytest.raises(InvalidError, match="cannot draw"):
        Supply(*wrong)


@pytest.mark.parametrize(("capacity", "usable"), [(0, 1), (-5, 1), (2000, 0), (2000, 1.2)])
def test_batteries_that_cannot_be_are_refused(capacity: float, usable: float) -> None:
    with pytest.raises(InvalidError, match="battery"):
        battery_days(capacity, Duty(60, 89), SUPPLY, usable=usable)


@pytest.mark.parametrize("wrong", [(-1.0, 89.0, 1), (60.0, 0.0, 1), (60.0, 89.0, 0)])
def test_duty_cycles_that_cannot_be_are_refused(wrong: tuple[float, float, int]) -> None:
    with pytest.raises(InvalidError):
        Duty(*wrong)


currents = st.floats(1, 1000)


@given(
    active=currents,
    idle=currents,
    interval=st.floats(0, 86_400),
    frame=st.floats(1, 5000),
    frames=st.integers(1, 50),
)
def test_the_mean_lies_between_rest_and_work_and_charge_adds_up(
    active: float, idle: float, interval: float, frame: float, frames: int
) -> None:
    supply = Supply(max(active, idle), min(active, idle), 3.7)
    duty = Duty(interval, frame, frames)
    mean = mean_ma(duty, supply)
    assert supply.idle_ma <= mean * (1 + 1e-9)
    assert mean <= supply.active_ma * (1 + 1e-9)
    period = max(interval, duty.busy_s)
    work = frames * cost_of(frame, supply).mah
    rest = (period - duty.busy_s) / 3600 * supply.idle_ma
    assert mah_per_day(duty, supply) == pytest.approx((work + rest) * 86_400 / period)
