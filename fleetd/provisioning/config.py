"""The camera's fleet/config.json: made of what is asked for, what fleetd knows, and what the drive already says.

Pure: facts in, settings out. The agent's own rules decide what is acceptable.
"""

import base64
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from typing import Any, Final, NamedTuple

from camera_agent import settings
from fleetd.provisioning.authority import read_ca
from fleetd.provisioning.disk import Room
from fleetd.provisioning.errors import ConfigRefusedError
from fleetd.provisioning.looking import CONFIG_BYTES

KEYS: Final = 8  # what a camera takes
DEFAULT_PREFIX: Final = str(settings.FIELDS["prefix"][1])
# What has an option of its own, or is fleetd's to say.
_NOT_TO_SET: Final = {
    "camera": "--camera",
    "host": "--broker-host",
    "port": "--broker-port",
    "wifi": "--wifi-ssid and --wifi-key-file",
    "tls": "--tls-ca and --tls-name",
    "country": "--country",
    "user": "--camera",
    "password": "--rotate",
    "fresh_key": "--rotate",
    "keys": "`fleetctl keys trust`",
    **dict.fromkeys(("recovery", "key_serial", "key_epoch"), "`fleetctl keys rotate`"),
    "prefix": "fleetd's own settings",
}
_PLAIN_PORT: Final = 1883
_TLS_PORT: Final = 8883
_SECRETS: Final = ("password", "fresh_key")
_PLACEHOLDER: Final = "x" * 40  # as long as a credential
_SLOT_MARGIN: Final = 64 * 1024  # what the agent itself leaves free
_LEAST_SLOT: Final = 49_152
_LARGEST_SLOT: Final = 4 * 1024 * 1024  # what it makes without being told
_BLOCK: Final = 4096
_ADDRESS: Final = re.compile(r"\[?([^\[\]]+)\]?:(\d{1,5})")


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the operator asked for; None: as it is on the drive, else the default."""

    wifi_ssid: str | None = None
    wifi_key: str | None = field(default=None, repr=False)
    country: str | None = None
    broker_host: str | None = None
    broker_port: int | None = None
    tls_ca: bytes | None = None  # a certificate as it lies in a file, PEM or DER
    tls_name: str | None = None
    no_tls: bool = False
    values: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FleetFacts:
    """What fleetd says: its broker as `host:port`, the topics' prefix, the keys in force.

    `tls`: the authority of its own broker (DER in base64) and the name in the broker's certificate.
    """

    broker: str | None
    prefix: str
    keys: Sequence[str]
    recovery: Sequence[str] = ()
    key_serial: int = 0
    key_epoch: int = 1
    tls: Mapping[str, str] | None = None


class Credential(NamedTuple):
    """What only fleetd and this camera know: `fresh_key` proves fleetd's answers, and the broker never sees it."""

    password: str
    fresh_key: str | None = None

    def __repr__(self) -> str:
        return "Credential(...)"


@dataclass(frozen=True, slots=True)
class Draft:
    """Settings without credential, and what an operator should know about them."""

    values: Mapping[str, Any] = field(repr=False)  # with the WiFi's password
    warnings: tuple[str, ...]

    def rendered(self, secret: Credential | None) -> bytes:
        """The file. Without a credential it has placeholders of the same length."""
        password, fresh_key = secret or (_PLACEHOLDER, "0" * 64)
        whole = {**self.values, "password": password}
        if fresh_key is not None:
            whole["fresh_key"] = fresh_key
        return json.dumps(whole, indent=1, ensure_ascii=False).encode() + b"\n"


def draft(camera: str, before: Mapping[str, Any] | None, wishes: Wishes, fleet: FleetFacts) -> Draft:
    """The settings of this camera. `before`: its earlier ones, if the drive has them. ConfigRefusedError."""
    warnings: list[str] = []
    values = {name: value for name, value in (before or {}).items() if name not in _SECRETS}
    values |= {"camera": camera, **_broker(before, wishes, fleet, warnings)}
    if len(fleet.keys) + len(fleet.recovery) > KEYS:
        raise ConfigRefusedError(
            f"fleetd accepts {len(fleet.keys)} keys, a camera takes {KEYS}. Revoke those that are not used "
            "any more: `fleetctl keys list`. Nothing was written."
        )
    values["keys"] = list(fleet.keys)
    for name, value, usual in (
        ("recovery", list(fleet.recovery), []),
        ("key_serial", fleet.key_serial, 0),
        ("key_epoch", fleet.key_epoch, 1),
    ):
        values.pop(name, None)
        if value != usual:
            values[name] = value
    if not fleet.keys:
        warnings.append(
            "fleetd accepts no key, so the camera will refuse every model: `fleetctl keys trust`."
        )
    values.pop("prefix", None)
    if fleet.prefix != DEFAULT_PREFIX:
        values["prefix"] = fleet.prefix
    _wifi(values, wishes, warnings)
    if wishes.country is not None:
        values["country"] = wishes.country.upper()
    for name, value in wishes.values.items():
        values.pop(name, None)
        if value is not None:
            values[name] = value
    _tls(values, _trusting(wishes, values, fleet), warnings)
    made = Draft(values, tuple(warnings))
    _check(made)
    return made


def leave_room(made: Draft, room: Room, package_cost: int) -> Draft:
    """The same, with slots that leave room on a small drive for a second copy of the agent.

    By itself the agent would fill the drive with its slots at the first start, and it could then not be replaced
    without being taken away first.
    """
    free = room.free - package_cost - room.cost(_BLOCK, _BLOCK)
    if "slot_bytes" in made.values or (free - _SLOT_MARGIN) // 3 >= _LARGEST_SLOT:
        return made
    size = (free - _SLOT_MARGIN - package_cost) // 3 // _BLOCK * _BLOCK
    if size < _LEAST_SLOT:
        return made
    return Draft({**made.values, "slot_bytes": size}, made.warnings)


def setting(text: str) -> tuple[str, Any]:
    """`name=value` as an operator writes it; the value is JSON, or else text. ConfigRefusedError."""
    name, equals, written = text.partition("=")
    if not equals:
        raise ConfigRefusedError(f"{text!r} is no setting: write name=value.")
    if name in _NOT_TO_SET:
        raise ConfigRefusedError(f"{name} is not set like this, but by {_NOT_TO_SET[name]}.")
    if name not in settings.FIELDS:
        known = ", ".join(sorted(set(settings.FIELDS) - set(_NOT_TO_SET)))
        raise ConfigRefusedError(f"The agent has no setting {name!r}. It has {known}.")
    try:
        return name, json.loads(written)
    except (ValueError, RecursionError):
        return name, written


def is_loopback(host: str) -> bool:
    """Whether a host is only this machine itself, or no address that somebody else could use."""
    try:
        address = ip_address(host)
    except ValueError:
        return host.lower().rstrip(".") == "localhost"
    return address.is_loopback or address.is_unspecified


def split_address(text: str | None) -> tuple[str, int] | None:
    """`host:port`, taken apart."""
    found = _ADDRESS.fullmatch(text or "")
    return (found[1], int(found[2])) if found and 0 < int(found[2]) < 65536 else None


def _broker(
    before: Mapping[str, Any] | None, wishes: Wishes, fleet: FleetFacts, warnings: list[str]
) -> dict[str, Any]:
    known = split_address(fleet.broker)
    if wishes.broker_host is not None:
        host, port = wishes.broker_host, known[1] if known else _PLAIN_PORT
        if is_loopback(host):
            warnings.append(f"{host} is this machine: a camera would look for the broker in itself.")
    elif before is not None:
        host, port = before["host"], before.get("port", _PLAIN_PORT)
    elif known is None or is_loopback(known[0]):
        where = f"fleetd reaches its broker at {fleet.broker}, which" if known else "fleetd's broker"
        why = "is this machine only" if known else "is not known"
        raise ConfigRefusedError(
            f"{where} {why}: no camera can use that. Say where cameras find the broker, with --broker-host. "
            "Nothing was written."
        )
    else:
        host, port = known
    return {"host": host, "port": wishes.broker_port or port}


def _trusting(wishes: Wishes, values: Mapping[str, Any], fleet: FleetFacts) -> Wishes:
    """With the authority of fleetd's own broker, unless another one is named or the camera has one already."""
    if fleet.tls is None or wishes.no_tls or wishes.tls_ca is not None or values.get("tls"):
        return wishes
    known = split_address(fleet.broker)
    return replace(
        wishes,
        tls_ca=base64.b64decode(fleet.tls["ca"]),
        tls_name=wishes.tls_name or fleet.tls["name"],
        broker_port=wishes.broker_port or (known[1] if known else None),
    )


def _tls(values: dict[str, Any], wishes: Wishes, warnings: list[str]) -> None:
    before = values.get("tls") or {}
    if wishes.no_tls:
        if values.pop("tls", None) and wishes.broker_port is None and values["port"] == _TLS_PORT:
            values["port"] = _PLAIN_PORT
        return
    if wishes.tls_ca is None and not before:
        if wishes.tls_name is not None:
            raise ConfigRefusedError("--tls-name needs --tls-ca. Nothing was written.")
        return
    made = dict(before)
    if wishes.tls_ca is not None:
        made["ca"], found = read_ca(wishes.tls_ca, has_clock=bool(values.get("ntp")))
        warnings.extend(found)
        if not before and wishes.broker_port is None and values["port"] == _PLAIN_PORT:
            values["port"] = _TLS_PORT
        if wishes.broker_port is not None:
            values["port"] = wishes.broker_port
    if wishes.tls_name is not None:
        made["name"] = wishes.tls_name
    values["tls"] = made


def _wifi(values: dict[str, Any], wishes: Wishes, warnings: list[str]) -> None:
    if wishes.wifi_ssid is None:
        if wishes.wifi_key is not None:
            raise ConfigRefusedError("--wifi-key-file needs --wifi-ssid. Nothing was written.")
        if not values.get("wifi"):
            warnings.append("Without --wifi-ssid the camera uses Ethernet, which few boards have.")
        return
    if len(wishes.wifi_ssid.encode()) > 32:
        raise ConfigRefusedError("The WiFi name is longer than 32 bytes. Nothing was written.")
    key = wishes.wifi_key or ""
    if not key:
        warnings.append("Without --wifi-key-file the camera looks for an open network.")
    elif not 8 <= len(key) <= 63:
        warnings.append("The WiFi password does not have 8 to 63 characters, as WPA asks for.")
    values["wifi"] = {"ssid": wishes.wifi_ssid, "key": key}


def _check(made: Draft) -> None:
    """Asks the agent itself."""
    try:
        settings.check(json.loads(made.rendered(None)))
    except settings.SettingsError as error:
        raise ConfigRefusedError(
            f"The camera could not use these settings: {error.detail}. docs/cameras.md has what each may be. "
            "Nothing was written."
        ) from error
    size = len(made.rendered(None))
    if size > CONFIG_BYTES:
        raise ConfigRefusedError(
            f"The settings are {size} bytes long, a camera reads {CONFIG_BYTES}. Nothing was written."
        )
