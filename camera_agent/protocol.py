"""The contract with fleetd as the camera sees it: limits, topics, words and the checks of what comes down.

Mirrors fleetd/protocol; tests/contract keeps the two together. A message from the broker is looked at only
up to its ceiling, every field that is used has its type and range checked, and anything wrong is one
exception: ProtocolError with a short reason.

RAM BUDGET: about 5 KB of code and words. Parsing holds one copy of the payload (at most DOWN_BYTES) and
what `json.loads` makes of it; the number of lists and objects in it is limited before it is parsed.
"""

import json
import sys

from camera_agent.errors import AgentError
from camera_agent.heap import const

TOPIC_BYTES = const(128)
UP_BYTES = const(16384)
DOWN_BYTES = const(4096)
BLOCK_BYTES = const(4096)
MANIFEST_BYTES = const(8192)
LABELS = const(256)
LABEL_BYTES = const(64)
CONTENT_BYTES = const(16777216)
RESULTS_PER_MESSAGE = const(64)
TEXT_CHARS = const(2000)
SEQ_MAX = const(9007199254740991)
RELEASE_ID_CHARS = const(64)
ACK_RANGES = const(256)
WORD_CHARS = const(64)
TTL_MAX_S = const(86400)
SECONDS_MAX = const(1 << 40)

DEFAULT_PREFIX = "fleet/v1"

_ALNUM = const("abcdefghijklmnopqrstuvwxyz0123456789")
_HEX = const("0123456789abcdef")
_PREFIX = _ALNUM + "ABCDEFGHIJKLMNOPQRSTUVWXYZ_.-"
_CONTAINERS = ACK_RANGES + 64  # lists and objects in one message

_STYLE = {"separators": (",", ":")}
# how a Python writes what JSON has no word for; "inf" alone would be in every "inference_ms"
_MARKS = ("nan", "-inf", ":inf", ",inf", "[inf")
if sys.implementation.name == "cpython":
    _STYLE["ensure_ascii"] = False  # as MicroPython writes it anyway
    _MARKS = ("NaN", "Infinity")


class ProtocolError(AgentError):
    """A message is not what the contract says. `reason` is short and names the field."""


# --- names ------------------------------------------------------------------------------------------------


def _consists_of(text, chars):
    for char in text:
        if char not in chars:
            return False
    return True


def _is_name(text, most, extra):
    return (
        type(text) is str
        and 0 < len(text) <= most
        and text[0] in _ALNUM
        and _consists_of(text, _ALNUM + extra)
    )


def is_camera_id(text):
    """Whether `text` may name a camera."""
    return _is_name(text, 63, "-")


def is_release_id(text):
    """Whether `text` may name a release."""
    return _is_name(text, RELEASE_ID_CHARS, ".-")


def is_digest(text):
    """Whether `text` is a SHA-256 in lower case hex."""
    return type(text) is str and len(text) == 64 and _consists_of(text, _HEX)


def is_boot_id(text):
    """Whether `text` is a boot id: 8 bytes in lower case hex."""
    return type(text) is str and len(text) == 16 and _consists_of(text, _HEX)


def is_prefix(text):
    """Whether `text` may stand before all topics: one to four levels."""
    if type(text) is not str:
        return False
    levels = text.split("/")
    for level in levels:
        if not level or not _consists_of(level, _PREFIX):
            return False
    return len(levels) <= 4


# --- topics -----------------------------------------------------------------------------------------------


class Topics:
    """Every topic that one camera uses, as bytes, and the way back. ValueError for impossible names."""

    def __init__(self, camera, prefix=DEFAULT_PREFIX):
        if not is_camera_id(camera):
            raise ValueError("camera id: lower case letters, digits and dashes, 1 to 63")
        if not is_prefix(prefix):
            raise ValueError("topic prefix: one to four levels of letters, digits, _ . -")
        self._head = (prefix + "/").encode()
        self._up = self._head + camera.encode() + b"/up/"
        self._down = self._head + camera.encode() + b"/down/"
        self.most = len(self._head) + TOPIC_BYTES
        self.status = self.up("status")
        self.down_filter = self._down + b"#"
        self.daemon = self._head + b"_fleetd/status"

    def up(self, channel):
        """Where this camera publishes `channel`, e.g. "result" or "reply/snapshot"."""
        return self._up + channel.encode()

    def release(self, release):
        """Where the signed manifest of `release` is retained."""
        return self._head + b"_release/" + release.encode()

    def blob(self, digest, block):
        """Where block `block` of the content with this SHA-256 (hex) is retained."""
        return self._head + b"_blob/" + digest.encode() + b"/" + str(block).encode()

    def classify(self, topic):
        """What a received topic is: (kind, parts), or None when it is nothing this camera listens to.

        kinds: "desired" (), "ack" (), "fresh" (), "cmd" (name,), "daemon" (), "release" (id,), "blob" (digest, block).
        """
        if len(topic) > self.most:
            return None
        topic = bytes(topic)
        if topic.startswith(self._down):
            return _classify_down(topic[len(self._down) :])
        if topic == self.daemon:
            return "daemon", ()
        if not topic.startswith(self._head):
            return None
        try:
            parts = str(topic[len(self._head) :], "utf-8").split("/")
        except UnicodeError:
            return None
        if parts[0] == "_release" and len(parts) == 2 and is_release_id(parts[1]):
            return "release", (parts[1],)
        if parts[0] == "_blob" and len(parts) == 3 and is_digest(parts[1]):
            block = _block_number(parts[2])
            if block is not None:
                return "blob", (parts[1], block)
        return None


def _classify_down(channel):
    if channel == b"desired":
        return "desired", ()
    if channel == b"ack":
        return "ack", ()
    if channel == b"fresh":
        return "fresh", ()
    if channel.startswith(b"cmd/"):
        try:
            name = str(channel[4:], "utf-8")
        except UnicodeError:
            return None
        if _is_name(name, 32, "-"):
            return "cmd", (name,)
    return None


def _block_number(text):
    if not text or len(text) > 6 or not _consists_of(text, "0123456789"):
        return None
    return None if text[0] == "0" and len(text) > 1 else int(text)


# --- what comes down --------------------------------------------------------------------------------------


def _fail(reason):
    raise ProtocolError(reason)


def _object(payload):
    if len(payload) > DOWN_BYTES:
        _fail("too large")
    try:
        text = str(payload, "utf-8").strip()
    except UnicodeError:
        _fail("not UTF-8")
    if text[:1] != "{" or text[-1:] != "}":
        _fail("not an object")
    if text.count("{") + text.count("[") > _CONTAINERS:
        _fail("too many parts")
    try:
        value = json.loads(text)
    except Exception:  # ValueError, on MicroPython also MemoryError and others
        _fail("not JSON")
    if type(value) is not dict:
        _fail("not an object")
    return value


def _integer(value, least, most, name):
    if type(value) is not int or not least <= value <= most:
        _fail(name)
    return value


def _seconds(value, name):
    if type(value) not in (int, float) or not 0 <= value <= SECONDS_MAX:
        _fail(name)
    return value


def _word(value, name):
    if type(value) is not str or not 0 < len(value) <= WORD_CHARS or "\x00" in value:
        _fail(name)
    return value


def parse_desired(payload):
    """`down/desired` -> dict with generation, release or None, digest or None, config, deadline or None."""
    message = _object(payload)
    if "release" not in message:
        _fail("release")
    release = message["release"]
    digest = message.get("digest")
    deadline = message.get("deadline")
    if release is not None and not is_release_id(release):
        _fail("release")
    if digest is not None and not is_digest(digest):
        _fail("digest")
    if "config" in message and type(message["config"]) is not dict:
        _fail("config")
    return {
        "generation": _integer(message.get("generation"), 0, SEQ_MAX, "generation"),
        "release": release,
        "digest": digest,
        "config": message.get("config", {}),
        "deadline": None if deadline is None else _seconds(deadline, "deadline"),
    }


def parse_ack(payload):
    """`down/ack` -> (boot id, list of inclusive ranges [first seq, last seq])."""
    message = _object(payload)
    boot = message.get("boot")
    ranges = message.get("seq")
    if not is_boot_id(boot):
        _fail("boot")
    if type(ranges) is not list or len(ranges) > ACK_RANGES:
        _fail("seq")
    for pair in ranges:
        if type(pair) is not list or len(pair) != 2:
            _fail("seq")
        _integer(pair[0], 0, SEQ_MAX, "seq")
        _integer(pair[1], 0, SEQ_MAX, "seq")
    return boot, ranges


def parse_command(payload):
    """`down/cmd/<cmd>` -> dict with id, t (fleetd's clock), ttl (seconds from t) and args."""
    message = _object(payload)
    if "args" in message and type(message["args"]) is not dict:
        _fail("args")
    return {
        "id": _word(message.get("id"), "id"),
        "t": _seconds(message.get("t"), "t"),
        "ttl": _integer(message.get("ttl"), 1, TTL_MAX_S, "ttl"),
        "args": message.get("args", {}),
    }


def parse_fresh(payload):
    """`down/fresh` -> dict with nonce, t (whole seconds), generation, keys and mac. Who made it is not checked here."""
    message = _object(payload)
    nonce = message.get("nonce")
    if type(nonce) is not str or len(nonce) != 32 or not _consists_of(nonce, _HEX):
        _fail("nonce")
    if not is_digest(message.get("mac")):
        _fail("mac")
    return {
        "nonce": nonce,
        "t": _integer(message.get("t"), 0, SECONDS_MAX, "t"),
        "generation": _integer(message.get("generation"), 0, SEQ_MAX, "generation"),
        "keys": _integer(message.get("keys"), 0, SEQ_MAX, "keys"),
        "mac": message["mac"],
    }


def parse_daemon_status(payload):
    """`_fleetd/status` -> dict with online, instance, t (seconds) or None, keys (the newest key record or 0)."""
    message = _object(payload)
    online = message.get("online")
    if type(online) is not bool:
        _fail("online")
    return {
        "online": online,
        "instance": _word(message.get("instance"), "instance"),
        "t": _seconds(message["t"], "t") if "t" in message else None,
        "keys": _integer(message.get("keys", 0), 0, SEQ_MAX, "keys"),
    }


# --- what goes up -----------------------------------------------------------------------------------------


def _is_finite(value):
    return abs(value) < float("inf")  # false for not-a-number too


def _finite(value):
    """A copy without the numbers that JSON cannot say; the field or list item is left out."""
    if type(value) is dict:
        kept = {}
        for key in value:
            if type(value[key]) is not float or _is_finite(value[key]):
                kept[key] = _finite(value[key])
        return kept
    if type(value) in (list, tuple):
        return [_finite(item) for item in value if type(item) is not float or _is_finite(item)]
    return value


def encode(message):
    """The message as compact JSON bytes. Not-a-number and infinite values are left out: a broken sensor costs
    its own field, not the message. Raises ProtocolError when it is no JSON or larger than UP_BYTES."""
    try:
        text = json.dumps(message, **_STYLE)
        for mark in _MARKS:
            if mark in text:
                text = json.dumps(_finite(message), **_STYLE)
                break
        payload = text.encode()
    except (TypeError, ValueError):
        _fail("not JSON")
    if len(payload) > UP_BYTES:
        _fail("too large")
    return payload


def clip(text, most=TEXT_CHARS):
    """`text` as fleetd takes it: at most `most` characters, no NUL."""
    return str(text)[:most].replace("\x00", " ")


def will(boot):
    """The last will, published by the broker when this camera vanishes. Sequence 0 belongs to no order."""
    return encode({"boot": boot, "seq": 0, "up_ms": 0, "online": False})


def receive_bytes(prefix):
    """How large a packet that the camera wants can be: the largest payload, its topic, the MQTT header. Only a manifest
    may be larger; it is received into memory of its own."""
    return max(BLOCK_BYTES, DOWN_BYTES) + len(prefix) + 1 + TOPIC_BYTES + 9


def blocks_of(size):
    """How many blocks `size` bytes are."""
    return -(-size // BLOCK_BYTES)
