"""Whether what the camera hears is the newest that fleetd has to say, without a clock of its own.

With every connection, and every hour, the status carries a nonce; fleetd answers on `down/fresh` with its time, the
number of the newest desired state for this camera and of the newest key record, and an HMAC-SHA256 over all of it with
a key that only the two of them know (`fresh_key` in config.json; the broker does not). So a broker cannot bring back a
desired state that was taken back, nor hold one back without this camera noticing.

    fresh = attach(hal, settings, link, on_keys)     # after handlers["desired"] is set: it stands in front of it
    fresh.ask(status) -> status, fresh.step(), fresh.problems(generation)

What is desired waits ten seconds for the answer at most: updates work while fleetd is away.

RAM BUDGET: 2 KB of code, only where there is a key.
"""

import hashlib
from binascii import unhexlify

from camera_agent.crypto import hexed
from camera_agent.heap import const

_WAIT_MS = const(10_000)
_LATE_MS = const(60_000)  # then it is a problem
_AGAIN_MS = const(300_000)
_EVERY_MS = const(3_600_000)
_BLOCK_BYTES = const(64)


def mac(key, text):
    """HMAC-SHA256 in hex."""
    key = key + bytes(_BLOCK_BYTES - len(key))
    inner = hashlib.sha256(bytes([byte ^ 0x36 for byte in key]))
    inner.update(text)
    outer = hashlib.sha256(bytes([byte ^ 0x5C for byte in key]))
    outer.update(inner.digest())
    return hexed(outer.digest())


def attach(hal, settings, link, on_keys):
    """A Fresh that listens to this link."""
    fresh = Fresh(hal, settings["camera"], settings["fresh_key"])
    fresh.attach(link, on_keys)
    return fresh


class Fresh:
    """See the module's docstring."""

    def __init__(self, hal, camera, key):
        """`key`: 64 hex digits."""
        self._hal = hal
        self._camera = camera
        self._key = unhexlify(key)
        self._link = None
        self._on_desired = None
        self._on_keys = None
        self._held = None  # what is desired and not acted on yet
        self._connects = 0
        self._nonce = None
        self._asked_ms = hal.ticks_ms()
        self._told_ms = None  # when the last answer came
        self.generation = 0  # of the newest desired state, as far as fleetd has said

    def attach(self, link, on_keys):
        """Stand between the link and whoever handles what is desired."""
        self._link = link
        self._on_keys = on_keys
        self._on_desired = link.handlers["desired"]
        link.handlers["desired"] = self._look_at_desired
        link.handlers["fresh"] = self._on_answer

    def ask(self, status):
        """The status with the nonce: the same one until it is answered or the connection is another."""
        if self._link.connects != self._connects:
            self._connects = self._link.connects
            self._renew()
        if self._nonce:
            status["nonce"] = self._nonce
        return status

    def step(self):
        """Act on what was held back; ask again after a while."""
        if self._held:
            self._look_at_desired(None, None, self._held)
        after = _AGAIN_MS if self._nonce else _EVERY_MS
        if self._link.connected and self._hal.ticks_ms() >= self._asked_ms + after:
            self._renew()
            self._link.publish_status()

    def problems(self, generation):
        """What is wrong, as words. `generation`: of the desired state that the camera goes by."""
        now = self._hal.ticks_ms()
        if self._told_ms is not None and generation < self.generation and now >= self._told_ms + _LATE_MS:
            return ["stale"]
        if self._nonce and self._link.fleetd_online and now >= self._asked_ms + _LATE_MS:
            return ["stale-unanswered"]
        return []

    def _renew(self):
        self._nonce = hexed(self._hal.urandom(16))
        self._asked_ms = self._hal.ticks_ms()

    def _look_at_desired(self, kind, parts, message):
        """Pass it on, unless fleetd has said something newer, or its first answer is still awaited."""
        is_waiting = self._told_ms is None and self._hal.ticks_ms() < self._asked_ms + _WAIT_MS
        if is_waiting or message["generation"] < self.generation:
            self._held = message
        else:
            self._held = None
            self._on_desired(kind, parts, message)

    def _on_answer(self, _kind, _parts, message):
        """Believe it if it answers what was asked and fleetd has made it."""
        if self._nonce is None or message["nonce"] != self._nonce:
            return
        text = "fleetd-fresh-1|%s|%s|%d|%d|%d" % (
            self._camera,
            self._nonce,
            message["t"],
            message["generation"],
            message["keys"],
        )
        if mac(self._key, text.encode()) != message["mac"]:
            return
        self._nonce = None
        self._told_ms = self._hal.ticks_ms()
        self.generation = message["generation"]
        if self._hal.unix() is None:
            self._hal.set_unix(message["t"])
        if message["keys"]:
            self._on_keys(message["keys"])
        if self._held:
            self._look_at_desired(None, None, self._held)
