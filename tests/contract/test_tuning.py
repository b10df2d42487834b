"""Settings from afar: what fleetd lets through, the camera takes; and both know the same names."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from camera_agent import netconfig, tuning
from camera_agent.settings import FIELDS
from fleetd.domain.tuning import NAMES, check_tuning, shown
from fleetd.errors import InvalidError

CHECKS = {**tuning.CHANGEABLE, **{name: FIELDS[name][0] for name in netconfig.NAMES}}
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-1, 90_000_000),
    st.integers(-1, 130),
    st.floats(allow_nan=True),
    st.floats(0, 1),
    st.sampled_from(["every", "on_change", "VGA", "QVGA", "DE", "de", "", "a" * 40]),
    st.lists(st.integers(-5, 105), min_size=3, max_size=5),
    st.fixed_dictionaries({"ssid": st.text(max_size=34)}, optional={"key": st.text(max_size=66)}),
)


def allowed(values: dict[str, Any]) -> bool:
    try:
        check_tuning(values)
    except InvalidError:
        return False
    return True


def test_both_know_the_same_names() -> None:
    assert set(NAMES) == set(CHECKS)


@given(st.sampled_from(NAMES), VALUES)
def test_what_fleetd_lets_through_the_camera_takes(name: str, value: Any) -> None:
    if allowed({name: value}):
        heard = json.loads(json.dumps(value))
        assert CHECKS[name](heard) or (heard is None and name in netconfig.NAMES), (name, heard)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("publish", "summary"),
        ("threshold", 0.5),
        ("threshold", None),
        ("roi", [10, 10, 80, 80]),
        ("frame_size", "VGA"),
        ("interval_ms", 86_400_000),
        ("batch", 64),
        ("scores", True),
        ("awake_s", 10),
        ("country", "DE"),
        ("wifi", {"ssid": "hall 4", "key": "its password"}),
    ],
)
def test_ordinary_values_pass_both(name: str, value: Any) -> None:
    assert allowed({name: value})
    assert CHECKS[name](value)


def test_a_wrong_setting_is_named_with_what_is_known() -> None:
    with pytest.raises(
        InvalidError, match=r"treshold: no such setting.*Known: publish, .*Nothing was changed"
    ):
        check_tuning({"treshold": 0.5})
    with pytest.raises(InvalidError, match="batch"):
        check_tuning({"batch": 0})
    with pytest.raises(InvalidError, match="inside the picture"):
        check_tuning({"roi": [50, 0, 60, 50]})


@pytest.mark.parametrize(
    "values",
    [
        {"threshold": "0.5"},
        {"threshold": True},
        {"threshold": float("nan")},
        {"wifi": {"ssid": "hall", "key": "short"}},
        {"wifi": {"ssid": "\u00e4" * 17, "key": "long enough"}},
    ],
    ids=["text", "flag", "nan", "short-key", "long-name-in-bytes"],
)
def test_what_would_cost_cameras_restarts_or_refusals_is_refused_here(values: dict[str, Any]) -> None:
    assert not allowed(values)


def test_a_wifi_key_is_not_shown() -> None:
    assert shown({"wifi": {"ssid": "hall", "key": "secret"}, "batch": 1}) == {
        "wifi": {"ssid": "hall", "key": "***"},
        "batch": 1,
    }
