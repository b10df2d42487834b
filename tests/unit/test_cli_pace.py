"""The pace of a push: calm without a word, exactly as told otherwise."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetd.cli.errors import CliError
from fleetd.cli.pace import CALM_SOAK_S, Wish, pace_of
from fleetd.domain.records import RolloutSettings
from fleetd.domain.rollout import check_settings
from fleetd.errors import InvalidError


@pytest.mark.parametrize(
    ("cameras", "said"),
    [
        (1, "100 %"),
        (3, "100 %"),
        (4, "1 camera, 100 %, each watched for 10 min"),
        (19, "1 camera, 100 %, each watched for 10 min"),
        (20, "1 camera, 5 %, 25 %, 100 %, each watched for 10 min"),
        (99, "1 camera, 5 %, 25 %, 100 %, each watched for 10 min"),
        (100, "1 camera, 5 %, 25 %, 50 %, 100 %, each watched for 10 min"),
    ],
)
def test_without_a_word_it_is_calm(cameras: int, said: str) -> None:
    assert str(pace_of(Wish(), cameras, 0.0)) == said


def test_what_was_said_is_done_and_nothing_else() -> None:
    told = pace_of(Wish(waves="50,100"), 1000, 0.0)
    assert (str(told), told.settings["soak_s"]) == ("50 %, 100 %", 0.0)
    all_at_once = pace_of(Wish(waves="100"), 1000, 0.0)
    assert str(all_at_once) == "100 %"
    hurried = pace_of(Wish(soak="0"), 30, 0.0)
    assert str(hurried) == "1 camera, 5 %, 25 %, 100 %"
    later = pace_of(Wish(start_in="2h", tolerated=5.0), 3, 1_000.0)
    assert (later.settings["start_at"], later.settings["tolerated"]) == (8_200.0, 0.05)


@pytest.mark.parametrize(
    "wish", [Wish(waves="5;100"), Wish(waves="100,5"), Wish(soak="soon"), Wish(start_in="x")]
)
def test_what_makes_no_sense_is_refused(wish: Wish) -> None:
    with pytest.raises((CliError, InvalidError)):
        pace_of(wish, 10, 0.0)


@given(
    st.integers(0, 5_000),
    st.builds(
        Wish,
        canaries=st.none() | st.integers(0, 9),
        soak=st.sampled_from([None, "0", "90s", "2h"]),
        at_once=st.none() | st.integers(1, 9),
        retries=st.none() | st.integers(0, 20),
        tolerated=st.none() | st.floats(0, 100),
        ignore=st.sampled_from([(), ("confidence",)]),
        window=st.sampled_from([None, "22:00-05:00 UTC"]),
    ),
)
def test_every_pace_is_one_that_fleetd_accepts(cameras: int, wish: Wish) -> None:
    pace = pace_of(wish, cameras, 0.0)
    facts: dict[str, Any] = {**pace.settings, "ignore": tuple(pace.settings["ignore"])}
    assert check_settings(RolloutSettings(**facts, canaries=pace.canaries))
    assert pace.settings["soak_s"] in (0.0, 90.0, 7_200.0, CALM_SOAK_S)
