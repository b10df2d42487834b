"""The camera's connection to its broker: connect, subscribe, keep alive, back off, hand messages over.

One object, no thread: `step()` does a bounded amount of work and returns. Only `hal.open_socket` and
`Stream.write` may block, for at most `connect_timeout_ms`.

    outbox = Outbox(hal)                               # see camera_agent/outbox.py
    link = Link(hal, config, outbox, build_status)     # connects by itself on the first steps
    link.handlers["desired"] = f                       # f(kind, parts, payload); see below
    while True:
        link.step()                                    # True: something was received or sent, call again soon
        ...capture, classify, outbox.put("result", {...})

`config`: {"camera": "cam-07", "host": "10.0.0.2", "port": 1883, "password": "...", "prefix": "fleet/v1",
"connect_timeout_ms": 5000}; only camera and host are required. User name and client id are the camera's id.
`build_status()` -> dict: the body of `up/status` without the envelope and without `online`.

Handlers, by kind. They run inside `step()`; they may call `want`, `unwant`, `publish_status` and
`outbox.put`, never `step` or `close`. What they raise leaves `step()`; the connection stays usable.

    kind       parts              payload
    "desired"  ()                 dict  generation, release, digest, config, deadline (all keys are there)
    "daemon"   ()                 dict  online, instance, t, keys, after the link has taken note of it itself
    "fresh"    ()                 dict  nonce, t, generation, keys, mac
    "cmd"      (name,)            dict  id, t, ttl, args (all keys are there); retained ones are refused
    "release"  (release_id,)      memoryview of the signed manifest, valid only during the call; a bytearray,
                                  which the handler may keep; or None: there was no memory for it
    "blob"     (digest, n)        memoryview of the block, valid only during the call

    link.connected         True between SUBACK and the loss of the connection
    link.state             "no-network", "waiting", "connecting", "subscribing", "steady" or "closed"
    link.topics            protocol.Topics: topics.release(id) and topics.blob(digest, n) -> bytes
    link.want(topic)       subscribe (QoS 0) and stay subscribed over reconnects; wanting it again asks the
                           broker for the retained message again. False when WANTED_MAX topics are wanted
    link.unwant(topic)     unsubscribe; changes made between two steps go out in one write
    link.publish_status()  put a fresh status into the outbox (after a change of slots, release, ...)
    link.fleetd_online     True, False or None (not heard since the last connect)
    link.last_error        short reason why the last connection ended, or None
    link.on_lost           f(reason, detail): a connection ended, or did not come about
    link.stats()           dict of counters
    link.close(timeout_ms) status with online false, then DISCONNECT; blocks until the broker has the status or
                           the time is up; afterwards `step` does nothing

RAM BUDGET: 8 KB on a 32-bit board, of which 4.2 KB (receive) and 1 KB (transmit) are one piece each: make the link
early, before the heap is in pieces. A manifest of more than 4 KB gets memory of its own (at most 8 KB). A received
block costs 180 bytes of garbage, an idle step none; at most WANTED_MAX topics of 100 bytes are remembered. Payloads
are handed over where they lie.
"""

from camera_agent import mqtt, protocol
from camera_agent.heap import const

WANTED_MAX = const(16)
_AT_ONCE = const(4)  # topics in one UNSUBSCRIBE or SUBSCRIBE: what fits the transmit buffer with any prefix
_TRANSMIT = const(
    1024
)  # and the prefix of each; CONNECT needs less, what does not fit goes out in two writes
_SENDS_PER_STEP = const(4)
_GOOD_AFTER_MS = const(10000)  # a connection that ends sooner counts as failed
_BACKOFF_MS = const(1000)
_BACKOFF_DOUBLINGS = const(6)
_BACKOFF_MAX_MS = const(60000)
_REPEAT_WITHIN_MS = const(5000)
_BACKLOG_MS = const(30000)  # fleetd was away: time to read what the broker kept for it


class Link:
    """One camera's connection, kept up for as long as `step` is called. See the module's docstring."""

    def __init__(self, hal, config, outbox, build_status):
        self._hal = hal
        self._outbox = outbox
        self._build_status = build_status
        self._camera = config["camera"]
        self._host = config["host"]
        self._port = config.get("port", 1883)
        self._password = config.get("password")
        self._timeout_ms = config.get("connect_timeout_ms", 5000)
        prefix = config.get("prefix", protocol.DEFAULT_PREFIX)
        self.topics = protocol.Topics(self._camera, prefix)
        self._mqtt = mqtt.Client(protocol.receive_bytes(prefix), _TRANSMIT + _AT_ONCE * len(prefix))
        self._mqtt.on_message = self._on_message
        self._mqtt.on_large = self._room_for
        self._mqtt.on_published = self._on_published
        self._mqtt.on_answered = self._on_answered
        self._stream = None
        self._connected_at = None  # ms of CONNACK
        self._attempts = 0  # failed or short connections in a row
        self._retry_at = 0
        self._base_id = 0  # packet id of the SUBSCRIBE that every connection begins with
        self._wanted = {}  # topic -> (kind, parts)
        self._to_add = []
        self._to_drop = []
        self.handlers = {}
        self.on_lost = None
        self.state = "waiting"
        self.fleetd_online = None
        self.fleetd_instance = None
        self.last_error = None
        self.last_bad = None
        self.connects = 0
        self.kicked = 0  # closed by the broker within 10 s
        self.dead = 0  # noticed by silence
        self.failed = 0  # no connection came about
        self.bad = 0  # messages that are not what the contract says
        self.unwanted = 0  # messages on topics that nobody asked for
        self.refused = 0  # subscriptions that the broker did not give

    @property
    def connected(self):
        """Whether messages flow."""
        return self.state == "steady"

    @property
    def reconnects(self):
        """How often the connection had to be made again."""
        return max(0, self.connects - 1)

    def stats(self):
        """Counters since boot, for telemetry and for people."""
        return {
            "connects": self.connects,
            "reconnects": self.reconnects,
            "kicked": self.kicked,
            "dead": self.dead,
            "failed": self.failed,
            "bad": self.bad,
            "unwanted": self.unwanted,
            "refused": self.refused,
            "oversize": self._mqtt.oversize,
            "strays": self._mqtt.strays,
            "last_error": self.last_error,
        }

    # --- for the updater and the agent ------------------------------------------------------------------

    def want(self, topic):
        """Subscribe to the topic of a release or block; wanted already: ask for its retained message again."""
        if topic not in self._wanted:
            found = self.topics.classify(topic)
            if found is None or found[0] not in ("release", "blob"):
                raise ValueError("not the topic of a release or block")
            if len(self._wanted) >= WANTED_MAX:
                return False
            self._wanted[topic] = found
        if self.connected and topic not in self._to_add:
            self._to_add.append(topic)
        return True

    def unwant(self, topic):
        """Unsubscribe. What still arrives on this topic is thrown away."""
        if self._wanted.pop(topic, None) is None:
            return
        if topic in self._to_add:
            self._to_add.remove(topic)
        if self.connected and topic not in self._to_drop:
            self._to_drop.append(topic)

    def publish_status(self, online=True):
        """Put the status of this moment into the outbox; returns its seq."""
        body = dict(self._build_status())
        body["online"] = online
        return self._outbox.put("status", body)

    # --- the state machine ------------------------------------------------------------------------------

    def step(self):
        """A bounded amount of work. True when something came or went: there may be more."""
        if self.state == "closed":
            return False
        has_network = self._hal.network_step()
        now = self._hal.ticks_ms()
        if not has_network:
            if self._stream is not None:
                self._lost("network-lost", now)
            self.state = "no-network"
            return False
        try:
            return self._advance(now)
        except mqtt.MqttError as error:
            self._lost(error.reason, self._hal.ticks_ms(), error.detail)
            return True

    def _advance(self, now):
        if self._stream is None:
            self.state = "waiting"
            if now < self._retry_at:
                return False
            self._open()
            return True
        busy = self._mqtt.poll(now) > 0
        if self.state == "connecting" and self._mqtt.connected:
            self._connected_at = now
            self.state = "subscribing"
            topics = [(self.topics.down_filter, 1), (self.topics.daemon, 0)]
            self._base_id = self._mqtt.change([], topics, now)[1]
            return True
        if self.state == "steady":
            busy = self._send_changes(now) or busy
            busy = self._send_messages(now) or busy
        return busy

    def _open(self):
        self.state = "connecting"
        self._connected_at = None
        try:
            self._stream = self._hal.open_socket(self._host, self._port, self._timeout_ms)
        except OSError as error:
            raise mqtt.MqttError(getattr(error, "why", "connect-failed"), str(error)) from None
        self._mqtt.start(
            self._stream,
            self._hal.ticks_ms(),
            self._camera,
            self._camera if self._password is not None else None,
            self._password,
            self.topics.status,
            protocol.will(self._outbox.boot),
        )

    def _lost(self, reason, now, detail=None):
        self.last_error = reason
        if self.on_lost is not None:
            self.on_lost(reason, detail)
        was_connected = self._mqtt.connected
        self._close_stream()
        self.state = "waiting"
        self.fleetd_online = None
        self._to_add = []
        self._to_drop = []
        alive = 0 if self._connected_at is None else now - self._connected_at
        if not was_connected:
            self.failed += 1
        elif reason in ("closed-by-peer", "write-failed") and alive < _GOOD_AFTER_MS:
            self.kicked += 1
        elif reason in ("no-pingresp", "no-answer"):
            self.dead += 1
        self._outbox.connection_lost()
        if alive >= _GOOD_AFTER_MS:
            self._attempts = 0
        most = min(_BACKOFF_MS << self._attempts, _BACKOFF_MAX_MS)
        self._attempts = min(self._attempts + 1, _BACKOFF_DOUBLINGS)
        self._retry_at = now + self._random(most)
        self._connected_at = None

    def _close_stream(self):
        self._mqtt.abandon()
        if self._stream is not None:
            stream = self._stream
            self._stream = None
            try:
                stream.close()
            except OSError:
                pass  # it is given up anyway

    def close(self, timeout_ms=3000):
        """Say goodbye: status with online false through the outbox, then DISCONNECT."""
        try:
            if self.connected:
                seq = self.publish_status(False)
                until = self._hal.ticks_ms() + timeout_ms
                while self._hal.ticks_ms() < until and not self._outbox.is_published(seq):
                    if not self._advance(self._hal.ticks_ms()):
                        self._hal.sleep_ms(10)
                self._mqtt.stop()
        except mqtt.MqttError as error:
            self.last_error = error.reason
        finally:
            self._close_stream()
            self._outbox.connection_lost()
            self.state = "closed"

    def _random(self, most):
        return int.from_bytes(self._hal.urandom(3), "big") % (most + 1)

    # --- what goes out ----------------------------------------------------------------------------------

    def _send_changes(self, now):
        busy = False
        while (self._to_drop or self._to_add) and self._mqtt.can_ask():
            drop = self._to_drop[:_AT_ONCE]
            add = [(topic, 0) for topic in self._to_add[:_AT_ONCE]]
            self._to_drop = self._to_drop[_AT_ONCE:]
            self._to_add = self._to_add[_AT_ONCE:]
            self._mqtt.change(drop, add, now)
            busy = True
        return busy

    def _send_messages(self, now):
        sent = 0
        while sent < _SENDS_PER_STEP and self._mqtt.room() > 0:
            message = self._outbox.next(now, self.fleetd_online is True)
            if message is None:
                break
            topic = self.topics.up(message.channel)
            packet_id = self._mqtt.publish(topic, message.payload, 1, message.retain, now)
            self._outbox.sent(message, packet_id)
            sent += 1
        return sent > 0

    # --- what comes in ----------------------------------------------------------------------------------

    def _on_published(self, packet_id):
        self._outbox.published(packet_id, self._hal.ticks_ms())

    def _on_answered(self, packet_id, refused):
        if refused:
            self.refused += 1
        if packet_id != self._base_id or self.state != "subscribing":
            return
        if refused & 1:
            raise mqtt.MqttError("subscription-refused")
        self.state = "steady"
        self.connects += 1
        self._to_add = list(self._wanted)
        self.publish_status()

    def _on_message(self, topic, payload, retain, _qos, _dup):
        found = None
        if len(topic) <= self.topics.most:
            topic = bytes(topic)
            found = self._wanted.get(topic)
            if found is None:
                found = self.topics.classify(topic)
                if found is not None and found[0] in ("release", "blob"):
                    found = None  # some brokers push retained messages to everyone
        if found is None:
            self.unwanted += 1
        elif payload:  # an empty one only says that a retained message was cleared
            try:
                self._dispatch(found[0], found[1], payload, retain)
            except protocol.ProtocolError as error:
                self.bad += 1
                self.last_bad = found[0] + ": " + error.reason

    def _room_for(self, topic, size):
        """Memory for a manifest that does not fit the receive buffer; None for everything else."""
        kind, parts = self._wanted.get(topic, (None, None))
        if kind != "release" or size > protocol.MANIFEST_BYTES:
            return None
        try:
            return bytearray(size)
        except MemoryError:
            self.handlers[kind](kind, parts, None)
            return None

    def _dispatch(self, kind, parts, payload, retain):
        if kind == "ack":
            boot, ranges = protocol.parse_ack(payload)
            self._outbox.ack(boot, ranges)
            return
        if kind == "daemon":
            payload = protocol.parse_daemon_status(payload)
            self._on_daemon(payload)
            if kind not in self.handlers:
                return
        elif kind == "fresh":
            payload = protocol.parse_fresh(payload)
        elif kind == "desired":
            payload = protocol.parse_desired(payload)
        elif kind == "cmd":
            if retain:
                raise protocol.ProtocolError("retained")  # it would be done again after every reconnect
            payload = protocol.parse_command(payload)
        elif len(payload) > (protocol.BLOCK_BYTES if kind == "blob" else protocol.MANIFEST_BYTES):
            raise protocol.ProtocolError("too large")
        handler = self.handlers.get(kind)
        if handler is None:
            self.unwanted += 1
        else:
            handler(kind, parts, payload)

    def _on_daemon(self, status):
        was_online = self.fleetd_online
        self.fleetd_online = status["online"]
        if not self.fleetd_online:
            return
        now = self._hal.ticks_ms()
        if status["instance"] != self.fleetd_instance:
            self.fleetd_instance = status["instance"]
            self._outbox.repeat(now + self._random(_REPEAT_WITHIN_MS))
        elif not was_online:
            self._outbox.postpone(now + _BACKLOG_MS)
