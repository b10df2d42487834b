"""The camera's own settings: `<storage>/fleet/config.json`, checked field by field, read once at the start.

    settings = load(path)          # a dict with every field of FIELDS; SettingsError says what is wrong

What fleetd may change while the camera runs is in camera_agent/tuning.py.
A field with a wrong value makes the whole file unusable: half a configuration is harder to find than none. Fields
this agent does not know are reported (`ignored`) and otherwise left alone, so that a newer tool can write the file.

RAM BUDGET: 4 KB of code, forgotten after the start; the file (at most 8 KB) and what json.loads makes of it while it is
read, keys for good.
"""

import json
import os
from binascii import a2b_base64, unhexlify

from camera_agent import protocol
from camera_agent.errors import AgentError
from camera_agent.heap import const
from camera_agent.tuning import CHANGEABLE, between, is_flag

_FILE_BYTES = const(8192)
_KEYS = const(8)
_CA_CHARS = const(4096)
_TLS_PORT = const(8883)
_OFFLINE_LEAST_S = const(300)
_OUTBOX_LEAST = const(2048)


class SettingsError(AgentError):
    """The file cannot be used. `reason`: config-missing, config-unreadable or config-invalid; `detail` says why."""


def _is_text(value, least=1, most=64):
    return type(value) is str and least <= len(value) <= most and "\x00" not in value


def _is_password(value):
    return _is_text(value, 1, 128)


def _is_wifi(value):
    return (
        type(value) is dict and _is_text(value.get("ssid"), 1, 32) and _is_text(value.get("key", ""), 0, 64)
    )


def _is_tls(value):
    if type(value) is not dict or not _is_text(value.get("ca"), 64, _CA_CHARS):
        return False
    if value.get("name") is not None and not _is_text(value["name"], 1, 253):
        return False
    try:
        der = a2b_base64(value["ca"])
    except ValueError:
        return False
    return der[:2] == b"\x30\x82" and len(der) == 4 + (der[2] << 8 | der[3])  # one certificate, in full


def _is_keys(value):
    if type(value) is not list or len(value) > _KEYS:
        return False
    for key in value:
        if type(key) is not str or len(key) != 128 or not protocol.is_digest(key[:64]):
            return False
        if not protocol.is_digest(key[64:]):
            return False
    return True


def _is_country(value):
    return _is_text(value, 2, 2) and value.isalpha() and value.upper() == value


# name: (check, default). A default of None may also be written as null. docs/cameras.md explains each.
FIELDS = {
    "camera": (protocol.is_camera_id, None),
    "host": (lambda value: _is_text(value, 1, 253), None),
    "port": (between(1, 65535), 1883),
    "tls": (_is_tls, None),
    "user": (protocol.is_camera_id, None),
    "password": (_is_password, None),
    "prefix": (protocol.is_prefix, protocol.DEFAULT_PREFIX),
    "keys": (_is_keys, []),
    "fresh_key": (protocol.is_digest, None),
    "recovery": (_is_keys, []),
    "key_serial": (between(0, 2**31 - 1), 0),
    "key_epoch": (between(1, 2**31 - 1), 1),
    "wifi": (_is_wifi, None),
    "country": (_is_country, None),
    "ntp": (_is_text, None),
    "publish": (CHANGEABLE["publish"], "every"),
    "publish_s": (CHANGEABLE["publish_s"], 60),
    "change_frames": (CHANGEABLE["change_frames"], 1),
    "threshold": (CHANGEABLE["threshold"], None),
    "roi": (CHANGEABLE["roi"], None),
    "frame_size": (CHANGEABLE["frame_size"], None),
    "snapshot_below": (CHANGEABLE["snapshot_below"], None),
    "snapshots_per_day": (CHANGEABLE["snapshots_per_day"], 20),
    "interval_ms": (CHANGEABLE["interval_ms"], 1000),
    "batch": (CHANGEABLE["batch"], 10),
    "batch_ms": (CHANGEABLE["batch_ms"], 2000),
    "scores": (CHANGEABLE["scores"], False),
    "telemetry_s": (CHANGEABLE["telemetry_s"], 30),
    "outbox_messages": (between(8, 10_000), 64),
    "outbox_bytes": (between(_OUTBOX_LEAST, 16_777_216), 24_576),
    "spool_bytes": (between(16_384, 4_194_304), None),
    "connect_timeout_ms": (between(200, 10_000), 2000),
    "sleep_s": (CHANGEABLE["sleep_s"], 0),
    "awake_s": (CHANGEABLE["awake_s"], 60),
    "offline_reset_s": (between(0, 604_800), 3600),
    "slot_bytes": (between(49_152, protocol.CONTENT_BYTES + 12_288), None),
    "watchdog_s": (between(0, 128), 60),
    "debug": (is_flag, False),
}
REQUIRED = ("camera", "host")


def load(path):
    """The settings in this file. Raises SettingsError."""
    try:
        size = os.stat(path)[6]
        if size > _FILE_BYTES:
            raise SettingsError("config-unreadable", "longer than %d bytes" % _FILE_BYTES)
        with open(path) as file:
            text = file.read(size)
    except OSError:
        raise SettingsError("config-missing", path) from None
    except (ValueError, UnicodeError):
        raise SettingsError("config-unreadable", "not UTF-8 text") from None
    try:
        found = json.loads(text)
    except ValueError:
        raise SettingsError("config-unreadable", "not JSON") from None
    if type(found) is not dict:
        raise SettingsError("config-unreadable", "not a JSON object")
    return check(found)


def check(found):
    """Settings from a parsed file. Raises SettingsError for the first field that is wrong."""
    settings = {}
    for name, (is_good, default) in FIELDS.items():
        value = found.get(name, default)
        if value is None and name in REQUIRED:
            raise SettingsError("config-invalid", name + " is missing")
        if value is not default and not (value is None and default is None) and not is_good(value):
            raise SettingsError("config-invalid", name)
        settings[name] = value
    if settings["user"] not in (None, settings["camera"]):
        raise SettingsError("config-invalid", "user: it has to be the camera's name")
    if 0 < settings["watchdog_s"] < 30:
        raise SettingsError("config-invalid", "watchdog_s: 0 (none) or at least 30")
    if 0 < settings["offline_reset_s"] < _OFFLINE_LEAST_S:
        raise SettingsError("config-invalid", "offline_reset_s: 0 (never) or at least %d" % _OFFLINE_LEAST_S)
    if settings["tls"] and "port" not in found:
        settings["port"] = _TLS_PORT
    for name in ("keys", "recovery"):
        settings[name] = [unhexlify(key) for key in settings[name]]
    settings["ignored"] = sorted([str(name) for name in found if name not in FIELDS])
    return settings
