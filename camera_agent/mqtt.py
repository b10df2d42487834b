"""MQTT 3.1.1 client as a protocol engine over a byte stream: no socket, no clock, no thread, no retries.

One incremental parser works in one receive buffer, so packets may arrive a byte at a time or many at once.
`poll(now)` reads what is there, at most a bounded number of packets, and returns. A packet that does not fit
the buffer goes where `on_large` says, or is drained and counted (brokers may push what nobody asked for); a
QoS 1 one is acknowledged all the same, so that it cannot block the broker's window. What MQTT does not allow ends the
connection with MqttError, and so does a peer that stays silent or never answers; the caller closes the stream.

    client = Client(receive_bytes=4300)
    client.on_message = f      # f(topic, payload, retain, qos, dup): memoryviews, valid only during the call
    client.on_large = f        # f(topic, size) -> bytearray(size) for a payload that does not fit, or None
    client.on_published = f    # f(packet_id): the broker has it (PUBACK)
    client.on_answered = f     # f(packet_id, refused): SUBACK, UNSUBACK; bit n: topic n was refused
    client.start(stream, now, client_id, ...)          # sends CONNECT
    client.poll(now)           # -> packets handled; `connected` turns True at CONNACK
    client.publish(topic, payload, qos, retain, now)   # -> packet id, 0 for QoS 0; ask `room()` first
    client.change(drop, add, now)                      # UNSUBSCRIBE and SUBSCRIBE in one write -> packet ids
    client.stop()              # sends DISCONNECT; forgets the stream

`now` is in milliseconds and never runs backwards. Not done: QoS 2, persistent sessions, re-sending (the
outbox above decides that).

RAM BUDGET: receive buffer (constructor) + transmit buffer (1 KB), both made once. Per received message two memoryviews,
per read at most one (32 bytes each on a 32-bit board), nothing for an idle poll. A packet larger than the transmit
buffer goes out in two writes.
"""

from camera_agent import packets
from camera_agent.heap import const
from camera_agent.packets import MqttError, qos_of

_CONNACK = const(0x20)
_PUBACK = const(0x40)
_SUBACK = const(0x90)
_UNSUBACK = const(0xB0)
_PINGRESP = const(0xD0)
_PINGREQ_PACKET = const(b"\xc0\x00")
_DISCONNECT_PACKET = const(b"\xe0\x00")

_PACKETS_PER_POLL = const(16)
_READS_PER_POLL = const(16)
_ASKED_MAX = const(24)  # SUBSCRIBE and UNSUBSCRIBE packets without an answer yet
_TOPICS_MAX = const(64)  # in one SUBSCRIBE

_CONNACK_MS = const(10000)
_PING_AFTER_MS = const(15000)
_SILENT_MS = const(10000)  # a ping is out and nothing at all came in for this long: dead
_ANSWER_MS = const(60000)  # the peer talks, but this answer never came: dead as well


class Client:
    """One connection at a time over one pair of buffers. See the module's docstring."""

    def __init__(self, receive_bytes, transmit_bytes=1024, window=8, keepalive_s=30):
        self._buf = bytearray(receive_bytes)
        self._view = memoryview(self._buf)
        self._size = receive_bytes
        self._out = packets.Writer(transmit_bytes)
        self._window = window
        self._keepalive_s = keepalive_s
        self._flight = {}  # packet id -> when it was sent, QoS 1 publishes
        self._asked = {}  # packet id -> (when, packet type that answers, number of topics)
        self._packet_id = 0
        self._polling = False
        self.on_message = None
        self.on_large = None
        self.on_published = None
        self.on_answered = None
        self.oversize = 0  # packets drained because they did not fit
        self.strays = 0  # PUBACKs for nothing we sent
        self.abandon()

    def abandon(self):
        """Forgets the stream without a word: after an error, or to make the broker publish the will."""
        self._stream = None
        self._start = 0  # buf[start:end] is read, but not handled
        self._end = 0
        self._skip = 0  # bytes of an oversize packet still to come
        self._large = None  # (topic, payload, flags) of the one that is received into memory of its own
        self._flight.clear()
        self._asked.clear()
        self._out.clear()
        self._ping_sent = None
        self.connected = False

    # --- opening and closing ----------------------------------------------------------------------------

    def start(self, stream, now, client_id, user=None, password=None, will_topic=None, will_payload=b""):
        """Sends CONNECT (clean session; the will is retained, QoS 1). Raises MqttError."""
        self.abandon()
        self._stream = stream
        self._started = self._received = self._sent = self._checked = self._drained = now
        self._out.add_connect(client_id, user, password, will_topic, will_payload, self._keepalive_s)
        self._flush(now)

    def stop(self):
        """Sends DISCONNECT, after which the broker forgets the will. The caller closes the stream."""
        stream = self._stream
        connected = self.connected
        self.abandon()
        if stream is not None and connected:
            try:
                stream.write(_DISCONNECT_PACKET)
            except OSError:
                pass  # it is gone already, which is what was asked for

    # --- sending ----------------------------------------------------------------------------------------

    def room(self):
        """How many QoS 1 messages may be published now."""
        return self._window - len(self._flight) if self.connected else 0

    def can_ask(self):
        """Whether `change` may be called now."""
        return self.connected and len(self._asked) + 2 <= _ASKED_MAX

    def publish(self, topic, payload, qos, retain, now):
        """Sends one message and returns its packet id (0 for QoS 0). Raises MqttError."""
        if qos and self.room() <= 0:
            raise ValueError("the window is full: ask room() first")
        out = self._out
        packet_id = self._new_id() if qos else 0
        size = len(payload)
        out.add_publish(topic, size, qos, retain, packet_id)
        if qos:
            self._flight[packet_id] = now
        room = out.room()
        if size <= room:
            out.add(payload)
            self._flush(now)
        else:
            rest = memoryview(payload)
            out.add(rest[:room])
            self._flush(now)
            self._write(rest[room:], now)
        return packet_id

    def change(self, drop, add, now):
        """Sends UNSUBSCRIBE for the topics `drop` and SUBSCRIBE for `add`, a list of (topic, qos), together.

        Returns (packet id of the UNSUBSCRIBE, packet id of the SUBSCRIBE); 0 for one that was not needed.
        """
        out = self._out
        dropped = added = 0
        if drop:
            dropped = self._new_id()
            out.add_unsubscribe(dropped, drop)
            self._asked[dropped] = (now, _UNSUBACK, len(drop))
        if add:
            if dropped and 5 + packets.subscribe_bytes(add) > out.room():
                self._flush(now)
            added = self._new_id()
            out.add_subscribe(added, add)
            self._asked[added] = (now, _SUBACK, len(add))
        if dropped or added:
            self._flush(now)
        return dropped, added

    def _new_id(self):
        while True:
            self._packet_id = self._packet_id + 1 if self._packet_id < 65535 else 1
            if self._packet_id not in self._flight and self._packet_id not in self._asked:
                return self._packet_id

    def _flush(self, now):
        self._write(self._out.take(), now)

    def _write(self, data, now):
        if self._stream is None:
            raise MqttError("closed")
        try:
            self._stream.write(data)
        except OSError as error:
            raise MqttError(getattr(error, "why", "write-failed"), str(error)) from None
        self._sent = now

    # --- receiving --------------------------------------------------------------------------------------

    def poll(self, now):
        """Reads and handles what is there, answers pings, checks deadlines. Returns the number of packets
        handled. Raises MqttError; an exception of a callback passes through and leaves the client usable."""
        if self._stream is None:
            raise MqttError("closed")
        if self._polling:
            return 0  # called from a callback
        self._polling = True
        try:
            handled = self._work(now)
        finally:
            self._polling = False
        if self._stream is not None:
            self._check_times(now)
        return handled

    def _work(self, now):
        handled = reads = 0
        while self._stream is not None:
            while handled < _PACKETS_PER_POLL and self._handle_packet(now):
                handled += 1
                if self._stream is None:  # a callback stopped us
                    return handled
            if handled >= _PACKETS_PER_POLL or reads >= _READS_PER_POLL or not self._read(now):
                break
            reads += 1
        return handled

    def _read(self, now):
        if self._start == self._end:
            self._start = self._end = 0
        elif self._end == self._size:
            left = self._end - self._start
            self._view[:left] = self._view[self._start : self._end]
            self._start = 0
            self._end = left
        if self._large:
            into = memoryview(self._large[1])[-self._skip :]
        else:
            into = self._view[self._end :] if self._end else self._view
        try:
            count = self._stream.readinto(into)
        except OSError:
            raise MqttError("closed-by-peer") from None
        if not count:
            return False
        self._received = now
        if self._large:
            self._skip -= count
            self._drained = now
            return True
        self._end += count
        if self._skip:
            gone = min(self._skip, self._end)  # start is 0 here: nothing else is kept while draining
            self._skip -= gone
            self._start = gone
            self._drained = now
        return True

    def _handle_packet(self, now):
        """Handles one packet. False when it is not there in full."""
        if self._large and not self._skip:
            large = self._large
            self._large = None
            self._deliver(large[0], large[1], large[2])
            return True
        start = self._start
        have = self._end - start
        if have < 2:
            return False
        buf = self._buf
        first = buf[start]
        size = 0
        at = start + 1
        shift = 0
        while True:
            if at == self._end:
                return False
            byte = buf[at]
            at += 1
            size |= (byte & 0x7F) << shift
            if byte < 128:
                break
            shift += 7
            if shift > 21:
                raise MqttError("malformed")
        if not self._is_plausible(first, size):
            raise MqttError("unexpected")
        body_end = at + size
        if body_end > self._end:
            if body_end - start > self._size:
                return self._drain(first, at, body_end, now)
            return False
        self._start = body_end  # before any callback: what it raises must not repeat the packet
        if first & 0xF0 == 0x30:
            self._on_publish(first, at, body_end, now)
        elif first == _PUBACK:
            self._on_puback(at)
        elif first == _PINGRESP:
            self._ping_sent = None
        elif first == _CONNACK:
            self._on_connack(at)
        else:
            self._on_answer(first, at, size)
        return True

    def _is_plausible(self, first, size):
        """Whether such a packet may come now. Judged by its header alone: only PUBLISH can be large."""
        if not self.connected:
            return first == _CONNACK and size == 2
        if first & 0xF0 == 0x30:
            return size > 2
        if first == _SUBACK:
            return 2 < size <= 2 + _TOPICS_MAX
        return size == 2 if first in (_PUBACK, _UNSUBACK) else first == _PINGRESP and size == 0

    def _drain(self, first, at, body_end, now):
        """A PUBLISH that cannot fit: acknowledge it, and let the rest run through or into memory of its own."""
        if at + 2 > self._end:
            return False
        topic_end = at + 2 + self._u16(at)
        payload_at = topic_end + 2 if qos_of(first) else topic_end
        if payload_at > body_end:
            raise MqttError("malformed")
        room = None
        if payload_at - self._start <= self._size:  # a topic that fills the buffer is beyond help
            if payload_at > self._end:
                return False
            if qos_of(first):
                self._acknowledge(topic_end, now)
            topic = bytes(self._view[at + 2 : topic_end])
            room = self.on_large and self.on_large(topic, body_end - payload_at)
        self._skip = body_end - self._end
        if room is None:
            self.oversize += 1
        else:
            room[: self._end - payload_at] = self._view[payload_at : self._end]
            self._large = (topic, room, first)
        self._start = self._end
        return True

    def _on_publish(self, first, at, body_end, now):
        qos = qos_of(first)
        topic_end = at + 2 + self._u16(at)
        payload_at = topic_end + 2 if qos else topic_end
        if topic_end == at + 2 or payload_at > body_end:
            raise MqttError("malformed")
        if qos:
            self._acknowledge(topic_end, now)
        self._deliver(self._view[at + 2 : topic_end], self._view[payload_at:body_end], first)

    def _deliver(self, topic, payload, first):
        if self.on_message is not None:
            self.on_message(topic, payload, bool(first & 0x01), qos_of(first), bool(first & 0x08))

    def _acknowledge(self, id_at, now):
        if not self._u16(id_at):
            raise MqttError("malformed")
        self._out.add_puback(self._u16(id_at))
        self._flush(now)

    def _on_puback(self, at):
        packet_id = self._u16(at)
        if self._flight.pop(packet_id, None) is None:
            self.strays += 1  # harmless: some brokers repeat themselves
        elif self.on_published is not None:
            self.on_published(packet_id)

    def _on_answer(self, first, at, size):
        packet_id = self._u16(at)
        asked = self._asked.pop(packet_id, None)
        topics = size - 2 if first == _SUBACK else 0
        if asked is None or asked[1] != first or (first == _SUBACK and asked[2] != topics):
            raise MqttError("unexpected")
        refused = 0
        for nth in range(topics):
            code = self._buf[at + 2 + nth]
            if code == 0x80:
                refused |= 1 << nth
            elif code > 2:
                raise MqttError("malformed")
        if self.on_answered is not None:
            self.on_answered(packet_id, refused)

    def _on_connack(self, at):
        code = self._buf[at + 1]
        if code:
            raise MqttError(packets.REFUSALS.get(code, "refused"))
        if self._buf[at] > 1:  # 1: it kept a session that we did not ask for, which does no harm
            raise MqttError("malformed")
        self.connected = True

    def _u16(self, at):
        return self._buf[at] << 8 | self._buf[at + 1]

    # --- time -------------------------------------------------------------------------------------------

    def _check_times(self, now):
        if not self.connected:
            if now - self._started >= _CONNACK_MS:
                raise MqttError("no-connack")
            return
        silent = now - self._received
        if self._ping_sent is None:
            if silent >= _PING_AFTER_MS or now - self._sent >= _PING_AFTER_MS:
                self._write(_PINGREQ_PACKET, now)
                self._ping_sent = now
        elif now - self._ping_sent >= _SILENT_MS and silent >= _SILENT_MS:
            raise MqttError("no-pingresp")
        elif self._is_overdue(self._ping_sent, now):
            raise MqttError("no-answer")
        if now - self._checked >= 1000:
            self._checked = now
            for packet_id in self._flight:
                if self._is_overdue(self._flight[packet_id], now):
                    raise MqttError("no-answer")
            for packet_id in self._asked:
                if self._is_overdue(self._asked[packet_id][0], now):
                    raise MqttError("no-answer")

    def _is_overdue(self, since, now):
        return now - max(since, self._drained) >= _ANSWER_MS  # answers queue behind what is drained
