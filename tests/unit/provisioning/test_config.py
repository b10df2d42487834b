"""The settings that go onto a drive: from options, from fleetd, and from what the drive says already."""

import datetime
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from camera_agent import settings
from fleetd import certificates
from fleetd.provisioning import config, looking
from fleetd.provisioning.config import Credential, Draft, FleetFacts, Wishes
from fleetd.provisioning.disk import Room
from fleetd.provisioning.errors import ConfigRefusedError
from tests.agent.certificates import Authority

KEY = "0f" * 64
FLEET = FleetFacts("10.0.0.2:1884", "fleet/v1", [KEY])
TLS_FLEET = FleetFacts("10.0.0.2:1883", "fleet/v1", [KEY])
LOCAL = FleetFacts("127.0.0.1:1883", "fleet/v1", [KEY])
WIFI = Wishes(wifi_ssid="hall 3", wifi_key="long enough")
BEFORE = {
    "camera": "cam-07",
    "host": "10.9.9.9",
    "port": 1999,
    "password": "old",
    "keys": ["aa" * 64],
    "wifi": {"ssid": "old", "key": "old-password"},
    "interval_ms": 500,
    "prefix": "elsewhere",
}


def draft(
    wishes: Wishes = WIFI, fleet: FleetFacts = FLEET, before: dict[str, Any] | None = None
) -> tuple[dict[str, Any], tuple[str, ...]]:
    made = config.draft("cam-07", before, wishes, fleet)
    return dict(made.values), made.warnings


def test_a_new_camera_gets_what_fleetd_and_the_options_say() -> None:
    values, warnings = draft()
    assert values == {
        "camera": "cam-07",
        "host": "10.0.0.2",
        "port": 1884,
        "keys": [KEY],
        "wifi": {"ssid": "hall 3", "key": "long enough"},
    }
    assert warnings == ()


def test_the_agent_can_read_what_is_rendered() -> None:
    made = config.draft("cam-07", None, Wishes(wifi_ssid="Küche ☕"), FLEET)
    found = settings.check(json.loads(made.rendered(Credential("the credential"))))
    assert (found["password"], found["wifi"]["ssid"], found["ignored"]) == ("the credential", "Küche ☕", [])
    assert b"\\u" not in made.rendered(Credential("x"))  # MicroPython reads UTF-8, but no surrogate pairs
    assert len(made.rendered(None)) == len(made.rendered(Credential("x" * 40, "0" * 64)))


def test_a_camera_that_comes_back_keeps_its_settings_except_for_keys_and_prefix() -> None:
    values, _ = draft(Wishes(), before=BEFORE)
    assert values == {
        "camera": "cam-07",
        "host": "10.9.9.9",
        "port": 1999,
        "keys": [KEY],
        "wifi": {"ssid": "old", "key": "old-password"},
        "interval_ms": 500,
    }
    values, _ = draft(
        Wishes(wifi_ssid="new", wifi_key="new-password", broker_host="b", values={"interval_ms": None}),
        before=BEFORE,
    )
    assert (values["host"], values["port"], values["wifi"]["ssid"]) == ("b", 1884, "new")
    assert "interval_ms" not in values


def test_the_limits_are_the_agents_own(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    for keys, blanks in ((config.KEYS, 0), (1, looking.CONFIG_BYTES)):
        made = config.draft(
            "cam-07", None, WIFI, FleetFacts("b:1", "fleet/v1", [f"{n:0128x}" for n in range(keys)])
        )
        file.write_bytes(made.rendered(None).rstrip().ljust(blanks))
        assert settings.load(str(file))["camera"] == "cam-07"
    file.write_bytes(file.read_bytes() + b" ")
    with pytest.raises(settings.SettingsError):
        settings.load(str(file))
    with pytest.raises(settings.SettingsError):
        settings.check({"camera": "c", "host": "h", "keys": [KEY] * (config.KEYS + 1)})


def test_a_prefix_of_its_own_reaches_the_camera() -> None:
    assert draft(fleet=FleetFacts("b:1", "site/a", [KEY]))[0]["prefix"] == "site/a"


@pytest.mark.parametrize(
    "address", ["127.0.0.1:1883", "localhost:1", "[::1]:1883", "::1:1883", "0.0.0.0:1", None, "x"]
)
def test_a_broker_that_only_fleetd_can_reach_is_not_written_into_a_camera(address: str | None) -> None:
    fleet = FleetFacts(address, "fleet/v1", [KEY])
    with pytest.raises(ConfigRefusedError, match="--broker-host"):
        draft(fleet=fleet)
    values, _ = draft(Wishes(wifi_ssid="x", broker_host="10.0.0.9"), fleet)
    assert values["host"] == "10.0.0.9"


def test_a_broker_port_can_be_named() -> None:
    values, _ = draft(Wishes(broker_host="b", broker_port=8883), LOCAL)
    assert (values["host"], values["port"]) == ("b", 8883)


@pytest.mark.parametrize(
    ("wishes", "fleet", "part"),
    [
        (Wishes(), FLEET, "Ethernet"),
        (Wishes(wifi_ssid="x"), FLEET, "open network"),
        (Wishes(wifi_ssid="x", wifi_key="short"), FLEET, "8 to 63"),
        (WIFI, FleetFacts("b:1", "fleet/v1", []), "keys trust"),
        (Wishes(wifi_ssid="x", wifi_key="long enough", broker_host="localhost"), FLEET, "in itself"),
    ],
)
def test_what_may_be_an_oversight_is_said(wishes: Wishes, fleet: FleetFacts, part: str) -> None:
    _, warnings = draft(wishes, fleet)
    assert [part in warning for warning in warnings] == [True]


@pytest.mark.parametrize(
    ("wishes", "fleet", "part"),
    [
        (Wishes(country="DEU"), FLEET, "country"),
        (Wishes(wifi_key="only a key"), FLEET, "--wifi-ssid"),
        (Wishes(wifi_ssid="ü" * 17), FLEET, "32 bytes"),
        (Wishes(wifi_ssid="x", wifi_key="y" * 65), FLEET, "wifi"),
        (Wishes(values={"batch": 0}), FLEET, "batch"),
        (Wishes(values={"watchdog_s": 5}), FLEET, "watchdog_s"),
        (Wishes(broker_host="h" * 300), FLEET, "host"),
        (WIFI, FleetFacts("b:1", "fleet/v1", [f"{n:0128x}" for n in range(9)]), "Revoke"),
    ],
)
def test_what_the_agent_could_not_use_is_refused(wishes: Wishes, fleet: FleetFacts, part: str) -> None:
    with pytest.raises(ConfigRefusedError, match=part):
        draft(wishes, fleet)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("interval_ms=500", ("interval_ms", 500)),
        ("scores=true", ("scores", True)),
        ("ntp=pool.ntp.org", ("ntp", "pool.ntp.org")),
        ("ntp=null", ("ntp", None)),
        ("publish=on_change", ("publish", "on_change")),
    ],
)
def test_a_setting_is_json_or_text(text: str, value: tuple[str, Any]) -> None:
    assert config.setting(text) == value


@pytest.mark.parametrize("text", ["interval_ms", "colour=1", "password=x", "camera=x", "keys=[]", "=1", ""])
def test_no_setting_or_one_with_an_option_of_its_own_is_refused(text: str) -> None:
    with pytest.raises(ConfigRefusedError):
        config.setting(text)


@given(st.text(max_size=30))
def test_any_text_is_a_setting_or_refused(text: str) -> None:
    try:
        name, _ = config.setting(text)
    except ConfigRefusedError:
        return
    assert name in settings.FIELDS


def test_no_secret_shows_in_what_might_be_logged() -> None:
    made = config.draft("cam-07", None, WIFI, FLEET)
    assert "long enough" not in repr(made)
    assert "long enough" not in repr(WIFI)


def test_a_small_drive_keeps_room_for_the_next_agent_and_a_large_one_its_default() -> None:
    made = Draft({"camera": "cam-07"}, ())
    cost = 128 * 1024
    small = config.leave_room(made, Room(4_000_000, 4_200_000, 4096), cost)
    slot = small.values["slot_bytes"]
    assert 1_300_000 > slot > 1_200_000
    # agent, three slots with their spare block, three small files: what is left takes another agent
    assert 4_000_000 - cost - 3 * (slot + 4096) - 3 * 8192 > cost + 6 * 4096
    assert "slot_bytes" not in config.leave_room(made, Room(10**9, 10**9, 4096), cost).values
    assert "slot_bytes" not in config.leave_room(made, Room(300_000, 300_000, 512), cost).values
    own = Draft({"camera": "cam-07", "slot_bytes": 65536}, ())
    assert config.leave_room(own, Room(4_000_000, 4_200_000, 4096), cost) is own


# --- TLS --------------------------------------------------------------------------------------------------

AUTHORITY = Authority.make()


def test_a_ca_in_either_form_goes_into_the_settings_and_brings_its_port() -> None:
    for written in (AUTHORITY.pem, AUTHORITY.der, b"a remark\n" + AUTHORITY.pem):
        values, warnings = draft(Wishes(wifi_ssid="hall", wifi_key="long enough", tls_ca=written), TLS_FLEET)
        assert values["tls"] == {"ca": AUTHORITY.setting}
        assert values["port"] == 8883
        assert warnings == ()
    values, _ = draft(
        Wishes(wifi_ssid="h", wifi_key="long enough", tls_ca=AUTHORITY.der, tls_name="broker", broker_port=9)
    )
    assert (values["tls"]["name"], values["port"]) == ("broker", 9)


def test_the_authority_of_fleetds_own_broker_reaches_every_camera_by_itself(tmp_path: Path) -> None:
    own = certificates.Authority(tmp_path / "ca")
    own.make(["site.example"], 1.8e9)
    told = {"ca": own.for_cameras(), "name": certificates.BROKER_NAME}
    fleet = FleetFacts("10.0.0.2:18883", "fleet/v1", [KEY], tls=told)
    values, warnings = draft(WIFI, fleet)
    assert (values["tls"], values["port"], warnings) == (told, 18883, ())
    again, _ = draft(Wishes(), fleet, BEFORE)
    assert (again["tls"], again["port"]) == (told, 18883), "a camera from before there was TLS"
    plain, _ = draft(Wishes(wifi_ssid="h", wifi_key="long enough", no_tls=True, broker_port=1883), fleet)
    assert "tls" not in plain
    other = {"ca": AUTHORITY.setting, "name": "another broker's"}
    kept, _ = draft(Wishes(), fleet, {**BEFORE, "tls": other})
    assert (kept["tls"], kept["port"]) == (other, 1999)


def test_tls_stays_with_a_camera_until_it_is_taken_away() -> None:
    before = {**BEFORE, "port": 8883, "tls": {"ca": AUTHORITY.setting, "name": "broker"}}
    values, _ = draft(Wishes(), before=before)
    assert (values["tls"], values["port"]) == (before["tls"], 8883)
    values, _ = draft(Wishes(tls_name="other"), before=before)
    assert values["tls"]["name"] == "other"
    values, _ = draft(Wishes(no_tls=True), before=before)
    assert "tls" not in values
    assert values["port"] == 1883


def test_a_ca_that_a_clockless_camera_would_not_believe_yet_is_pointed_out() -> None:
    young = Authority.make(
        valid_from=datetime.datetime(2026, 6, 1, tzinfo=datetime.UTC)
    ).pem  # as the library wants it
    _, warnings = draft(Wishes(wifi_ssid="h", wifi_key="long enough", tls_ca=young))
    assert any("without a clock" in warning for warning in warnings)
    _, warnings = draft(
        Wishes(wifi_ssid="h", wifi_key="long enough", tls_ca=young, values={"ntp": "10.0.0.2"})
    )
    assert warnings == ()


@pytest.mark.parametrize(
    ("wishes", "words"),
    [
        (Wishes(tls_name="broker"), "--tls-ca"),
        (Wishes(tls_ca=b""), "no certificate"),
        (Wishes(tls_ca=b"nonsense"), "no certificate"),
        (Wishes(tls_ca=b"x" * 100_000), "too large"),
        (Wishes(tls_ca=AUTHORITY.pem * 2), "exactly one"),
        (Wishes(tls_ca=b"-----BEGIN CERTIFICATE-----\n?\n-----END CERTIFICATE-----"), "no certificate"),
    ],
)
def test_what_is_no_single_ca_is_refused(wishes: Wishes, words: str) -> None:
    with pytest.raises(ConfigRefusedError, match=words):
        draft(wishes)


def test_the_brokers_own_certificate_is_not_taken_for_its_cas(tmp_path: Path) -> None:
    pem = AUTHORITY.issue(tmp_path).read_bytes()
    with pytest.raises(ConfigRefusedError, match="not a CA's"):
        draft(Wishes(tls_ca=pem[pem.index(b"-----BEGIN CERTIFICATE") :]))
