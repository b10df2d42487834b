"""What the camera has said and fleetd has not yet confirmed: kept here until its receipt comes.

A message is encoded once, by `put`, which also gives it its envelope: boot, seq (from 1), up_ms, t when the
clock is trusted, and low (the lowest seq still held) in status and telemetry. It stays until `down/ack` names
its boot and seq; the broker's PUBACK alone does not remove it, because brokers forget. Until then it is sent
again after every reconnect, when fleetd comes back as a new instance, and 30 s after the PUBACK (doubling to
300 s) while fleetd is known to be online.

The box is bounded in messages and in bytes. When it overflows, the oldest of the least important class goes
first: image, then telemetry, then result, then led, then update, then event, reply and status; never the newest status.
What goes is counted per class in `dropped`. A new status replaces older ones: whoever subscribes later must
not be told an old state, and the new one says everything anew (counted in `replaced`).

    outbox = Outbox(hal)
    outbox.put("result", {"results": [...]})   # -> seq; 0 when refused (no JSON, too large, no memory)
    outbox.low, len(outbox), outbox.bytes, outbox.dropped, outbox.stats()

The link uses next, sent, published, connection_lost, repeat and ack.

RAM BUDGET: `most_bytes` of payloads + about 110 bytes per message on a 32-bit board; `put` needs about three
times the message's size for a moment. Nothing here is sized by what comes off the wire.
"""

from binascii import hexlify

from camera_agent import protocol
from camera_agent.errors import StorageError
from camera_agent.heap import const, load

_CLASSES = ("image", "telemetry", "result", "led", "update")  # drop order; everything else comes after these
_WITH_LOW = ("status", "telemetry")
_RESEND_MS = const(30000)
_RESEND_MAX_MS = const(300000)

WAITS, IN_FLIGHT, PUBLISHED = 0, 1, 2  # not sent on this connection; sent; the broker has it


class Message:
    """One encoded message on its way."""

    def __init__(self, seq, channel, payload):
        self.seq = seq
        self.channel = channel  # "result", "reply/snapshot", ...
        self.payload = payload
        self.state = WAITS
        self.packet_id = 0
        self.was_sent = False  # on any connection
        self.wait = 0  # ms between PUBACK and the next try
        self.due = 0  # ms; when a published one is sent again

    @property
    def retain(self):
        """Only the status is retained by the broker."""
        return self.channel == "status"


class Outbox:
    """Bounded store of messages that are not receipted. See the module's docstring."""

    def __init__(self, hal, most_messages=64, most_bytes=24576, boot=None):
        self._hal = hal
        self._most_messages = most_messages
        self._most_bytes = most_bytes
        self._held = []  # by seq
        self._waiting = 0  # how many of them are in state WAITS
        self._next_due = None  # ms; no published message is due before
        self._seq = 0
        self.boot = boot or str(hexlify(hal.urandom(8)), "ascii")
        self.bytes = 0
        self.dropped = {}  # class -> how many were given up because the box was full
        self.refused = 0
        self.replaced = 0
        self.resent = 0
        self.receipted = 0
        self.problem = None  # a word for the status

    def __len__(self):
        return len(self._held)

    @property
    def low(self):
        """The lowest seq still held; everything below was stored by fleetd or is given up."""
        return self._held[0].seq if self._held else self._seq + 1

    def stats(self):
        """Counters since boot, for telemetry and for people."""
        return {
            "queue": len(self._held),
            "bytes": self.bytes,
            "dropped": dict(self.dropped),
            "refused": self.refused,
            "replaced": self.replaced,
            "resent": self.resent,
            "receipted": self.receipted,
        }

    # --- what the agent does ----------------------------------------------------------------------------

    def put(self, channel, body, data=None):
        """Takes a message. Returns its seq, or 0 when it cannot be encoded or is too large (counted). `data`: bytes
        that follow behind the JSON's line."""
        seq = self._seq + 1
        message = dict(body)
        message["boot"] = self.boot
        message["seq"] = seq
        message["up_ms"] = self._hal.ticks_ms()
        unix = self._hal.unix()
        if unix is not None:
            message["t"] = unix
        if channel in _WITH_LOW:
            message["low"] = self.low
        try:
            payload = protocol.encode(message)
            if data is not None:
                payload = b"".join((payload, b"\n", data))
        except (protocol.ProtocolError, MemoryError):
            payload = None
        if payload is None or len(payload) > self._most_bytes:
            self.refused += 1
            return 0
        if channel == "status":
            self._replace_status()
        self._seq = seq
        self._held.append(self._new(seq, channel, payload))
        self._waiting += 1
        self.bytes += len(payload)
        while len(self._held) > self._most_messages or self.bytes > self._most_bytes:
            self._drop_one()
        return seq

    def is_crowded(self):
        """Whether what is large should wait."""
        return 2 * self.bytes > self._most_bytes or 2 * len(self._held) > self._most_messages

    def _new(self, seq, channel, payload):
        return Message(seq, channel, payload)

    def _replace_status(self):
        for at in range(len(self._held) - 1, -1, -1):
            if self._held[at].channel == "status":
                self._take_out(at)
                self.replaced += 1

    def _drop_one(self):
        victim = 0
        least = len(_CLASSES) + 1
        for at in range(len(self._held)):
            channel = self._held[at].channel
            if channel.startswith("image/"):
                channel = "image"
            rank = _CLASSES.index(channel) if channel in _CLASSES else len(_CLASSES)
            if rank < least and (channel != "status" or len(self._held) == 1):
                victim = at
                least = rank
        self._give_up(self._held[victim])
        self._take_out(victim)

    def _give_up(self, message):
        name = message.channel.split("/")[0]
        self.dropped[name] = self.dropped.get(name, 0) + 1

    def _take_out(self, at):
        message = self._held.pop(at)
        self.bytes -= len(message.payload)
        if message.state == WAITS:
            self._waiting -= 1

    # --- what the link does -----------------------------------------------------------------------------

    def next(self, now, online):
        """The message to send now, or None: the status first, then by seq. `online`: fleetd is known to be
        there, so that what it did not receipt in time may be repeated."""
        if online and self._next_due is not None and now >= self._next_due:
            self._make_due(now)
        if not self._waiting:
            return None
        first = None
        for message in self._held:
            if message.state == WAITS:
                if message.channel == "status":
                    return message
                if first is None:
                    first = message
        return first

    def sent(self, message, packet_id):
        """The message went out with this packet id."""
        if message.was_sent:
            self.resent += 1
        message.was_sent = True
        message.state = IN_FLIGHT
        message.packet_id = packet_id
        self._waiting -= 1

    def published(self, packet_id, now):
        """The broker has it: from now on the wait for fleetd's receipt runs."""
        for message in self._held:
            if message.state == IN_FLIGHT and message.packet_id == packet_id:
                message.state = PUBLISHED
                message.wait = min(2 * message.wait or _RESEND_MS, _RESEND_MAX_MS)
                self._set_due(message, now + message.wait)
                return

    def is_published(self, seq):
        """Whether the broker has it, or it is gone altogether."""
        for message in self._held:
            if message.seq == seq:
                return message.state == PUBLISHED
        return True

    def connection_lost(self):
        """Everything is to be sent again on the next connection."""
        for message in self._held:
            message.state = WAITS
            message.wait = 0
        self._waiting = len(self._held)
        self._next_due = None

    def repeat(self, at):
        """Everything that the broker has, but fleetd did not receipt, is due at `at` (ms) at the latest."""
        for message in self._held:
            message.wait = 0
            if message.state == PUBLISHED and message.due > at:
                self._set_due(message, at)

    def postpone(self, at):
        """Nothing that the broker has is repeated before `at` (ms): fleetd was away and reads its backlog."""
        self._next_due = None
        for message in self._held:
            if message.state == PUBLISHED:
                self._set_due(message, max(message.due, at))

    def ack(self, boot, ranges):
        """Takes out what fleetd has stored: inclusive ranges of seq. Returns how many. What was never sent is
        kept whatever is claimed, other boots are ignored."""
        before = len(self._held)
        for at in range(before - 1, -1, -1):
            message = self._held[at]
            if self._is_of(message, boot) and message.was_sent and _covers(ranges, message.seq):
                self._take_out(at)
                self._received(message)
        gone = before - len(self._held)
        self.receipted += gone
        return gone

    def _is_of(self, _message, boot):
        return boot == self.boot

    def _received(self, message):
        """It has its receipt."""

    def tidy(self, now):
        """Nothing to do without a spool: camera_agent/spooling.py."""

    def flush(self):
        """Nothing to do without a spool."""

    def _set_due(self, message, due):
        message.due = due
        if self._next_due is None or due < self._next_due:
            self._next_due = due

    def _make_due(self, now):
        self._next_due = None
        for message in self._held:
            if message.state == PUBLISHED:
                if message.due <= now:
                    message.state = WAITS
                    self._waiting += 1
                else:
                    self._set_due(message, message.due)


def _covers(ranges, seq):
    for pair in ranges:
        if pair[0] <= seq <= pair[1]:
            return True
    return False


def make(hal, settings):
    """The outbox that the settings ask for, with a spool or without."""
    size, messages, most = settings["spool_bytes"], settings["outbox_messages"], settings["outbox_bytes"]
    if size:
        try:
            return load("spooling").SpooledOutbox(hal, messages, most, load("spool").open_spool(hal, size))
        except StorageError as error:
            outbox = Outbox(hal, messages, most)
            outbox.problem = "spool-needs-card" if error.reason == "spool-needs-card" else "spool-failed"
            return outbox
    return Outbox(hal, messages, most)
