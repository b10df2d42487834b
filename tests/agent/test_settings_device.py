"""The camera's config.json: what is taken, what is refused and how that is said."""

import base64
import json
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from camera_agent import settings, tuning
from camera_agent.settings import SettingsError
from tests.agent.micropython import ROOT

CA = base64.b64encode(b"\x30\x82\x01\x00" + bytes(256)).decode()  # has the form of a certificate
LEAST = {"camera": "cam-07", "host": "10.0.0.2"}
KEY = "0f" * 64


def refusal(found: Any, path: Path) -> SettingsError:
    path.write_text(found if isinstance(found, str) else json.dumps(found))
    with pytest.raises(SettingsError) as caught:
        settings.load(str(path))
    return caught.value


def test_a_camera_needs_only_its_name_and_a_host(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text(json.dumps(LEAST))
    found = settings.load(str(file))
    assert (found["camera"], found["host"]) == ("cam-07", "10.0.0.2")
    assert (found["port"], found["prefix"], found["interval_ms"]) == (1883, "fleet/v1", 1000)
    assert found["keys"] == []
    assert found["ignored"] == []


def test_everything_that_can_be_set_is_taken() -> None:
    given_ = {
        **LEAST,
        "port": 8883,
        "tls": {"ca": CA, "name": "broker"},
        "user": "cam-07",
        "password": "s" * 27,
        "prefix": "site/a",
        "keys": [KEY],
        "recovery": [KEY],
        "key_serial": 3,
        "key_epoch": 2,
        "fresh_key": "ab" * 32,
        "wifi": {"ssid": "hall 3", "key": "secret"},
        "country": "DE",
        "ntp": "pool.ntp.org",
        "publish": "on_change",
        "publish_s": 10,
        "sleep_s": 600,
        "awake_s": 30,
        "snapshot_below": 0.5,
        "snapshots_per_day": 5,
        "change_frames": 3,
        "threshold": 0.6,
        "roi": [0, 10, 100, 90],
        "frame_size": "VGA",
        "interval_ms": 0,
        "batch": 1,
        "batch_ms": 0,
        "scores": True,
        "telemetry_s": 10,
        "outbox_messages": 100,
        "outbox_bytes": 8000,
        "connect_timeout_ms": 3000,
        "offline_reset_s": 600,
        "spool_bytes": 65536,
        "slot_bytes": 1_000_000,
        "watchdog_s": 0,
        "debug": True,
    }
    assert set(given_) == set(settings.FIELDS)
    found = settings.check(given_)
    assert found["keys"] == found["recovery"] == [bytes.fromhex(KEY)]
    given_["keys"] = given_["recovery"] = [bytes.fromhex(KEY)]
    assert {name: found[name] for name in given_} == given_


def test_tls_has_a_port_of_its_own_unless_another_is_named() -> None:
    assert settings.check({**LEAST, "tls": {"ca": CA}})["port"] == 8883
    assert settings.check({**LEAST, "tls": {"ca": CA}, "port": 1883})["port"] == 1883


def test_null_means_the_default_where_there_is_none() -> None:
    found = settings.check({**LEAST, "wifi": None, "password": None, "slot_bytes": None})
    assert (found["wifi"], found["password"], found["slot_bytes"]) == (None, None, None)


def test_a_missing_file_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        settings.load(str(tmp_path / "config.json"))
    assert caught.value.reason == "config-missing"


@pytest.mark.parametrize("text", ["", "{", "[1]", "12", '"camera"', "null", '{"camera": "a"', " " * 9000])
def test_what_is_no_object_is_unreadable(text: str, tmp_path: Path) -> None:
    assert refusal(text, tmp_path / "config.json").reason == "config-unreadable"


def test_bytes_that_are_no_text_are_unreadable(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(b'{"camera": "\xff\xfe"}')
    with pytest.raises(SettingsError) as caught:
        settings.load(str(tmp_path / "config.json"))
    assert caught.value.reason == "config-unreadable"


@pytest.mark.parametrize("field", ["camera", "host"])
def test_what_is_required_is_named_when_it_is_missing(field: str, tmp_path: Path) -> None:
    error = refusal({name: value for name, value in LEAST.items() if name != field}, tmp_path / "config.json")
    assert (error.reason, error.detail) == ("config-invalid", f"{field} is missing")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("camera", "Cam 7"),
        ("camera", "_fleetd"),
        ("camera", None),
        ("host", ""),
        ("host", 7),
        ("port", 0),
        ("port", "1883"),
        ("port", True),
        ("user", "cam-08"),
        ("password", ""),
        ("prefix", "fleet/+"),
        ("keys", "0f"),
        ("keys", [KEY[:-1]]),
        ("keys", [KEY.upper()]),
        ("keys", [KEY] * 9),
        ("wifi", "hall 3"),
        ("wifi", {"key": "secret"}),
        ("wifi", {"ssid": "x" * 33}),
        ("country", "de"),
        ("country", "DEU"),
        ("ntp", 1),
        ("offline_reset_s", 299),
        ("threshold", 1.5),
        ("threshold", "0.5"),
        ("roi", [0, 0, 100]),
        ("roi", [0, 0, 0, 0]),
        ("roi", [50, 0, 60, 100]),
        ("frame_size", "4K"),
        ("publish_s", 0),
        ("tls", True),
        ("tls", {}),
        ("tls", {"ca": CA[:-8]}),
        ("tls", {"ca": "-----BEGIN CERTIFICATE-----" + CA}),
        ("tls", {"ca": CA, "name": ""}),
        ("tls", {"ca": "A" * 5000}),
        ("publish", "sometimes"),
        ("interval_ms", -1),
        ("batch", 0),
        ("batch", 65),
        ("scores", 1),
        ("outbox_bytes", 100),
        ("watchdog_s", 5),
        ("debug", "yes"),
        ("slot_bytes", 100),
    ],
)
def test_a_wrong_value_is_named(field: str, value: object, tmp_path: Path) -> None:
    error = refusal({**LEAST, field: value}, tmp_path / "config.json")
    assert error.reason == "config-invalid"
    assert error.detail.startswith(field)


def test_unknown_fields_are_reported_and_do_no_harm() -> None:
    assert settings.check({**LEAST, "zoom": 2, "colour": "red"})["ignored"] == ["colour", "zoom"]


@given(
    st.dictionaries(
        st.sampled_from(sorted(settings.FIELDS)), st.none() | st.booleans() | st.integers() | st.text()
    )
)
def test_no_value_of_any_type_gets_past_unchecked(changes: dict[str, Any]) -> None:
    with suppress(SettingsError):
        found = settings.check({**LEAST, **changes})
        assert set(found) == {*settings.FIELDS, "ignored"}
        for name, value in changes.items():
            default = settings.FIELDS[name][1]
            assert value == default or settings.FIELDS[name][0](value)


def test_fleetd_may_change_what_concerns_results_and_nothing_else() -> None:
    found = settings.check(LEAST)
    refused = tuning.override(
        found, {"interval_ms": 250, "batch": 99, "host": "evil", "publish": "on_change", "nonsense": 1}
    )
    assert refused == ["batch", "host", "nonsense"]
    assert (found["interval_ms"], found["publish"]) == (250, "on_change")
    assert (found["batch"], found["host"]) == (10, "10.0.0.2")


def test_the_document_explains_every_field_with_its_default() -> None:
    document = (ROOT / "docs" / "cameras.md").read_text()
    rows = dict(re.findall(r"^\| `([a-z_]+)` \| ([^|]+?) \|", document, re.MULTILINE))
    for name, (_check, default) in settings.FIELDS.items():
        assert name in rows, f"docs/cameras.md does not explain {name}"
        shown = (
            "required"
            if name in settings.REQUIRED
            else json.dumps(default).replace("null", "none").strip('"')
        )
        assert rows[name].replace(" ", "").replace(",", "") == shown, (
            f"{name}: {rows[name]} instead of {shown}"
        )
