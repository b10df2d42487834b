"""Outgoing MQTT packets, put together in one fixed buffer so that each leaves in one write; what a first byte and a
refusal mean; and the one exception of the whole connection.

RAM BUDGET: the buffer, made once; one memoryview per packet.
"""

from camera_agent.errors import AgentError

REFUSALS = {
    1: "refused-version",
    2: "refused-client-id",
    3: "refused-unavailable",
    4: "refused-password",
    5: "refused-not-authorized",
}


class MqttError(AgentError):
    """The connection cannot be used any more. `reason` is a short word for counters and telemetry."""


def qos_of(first):
    """The QoS in the first byte of a PUBLISH. MqttError for one that nobody asked for."""
    qos = first >> 1 & 0x03
    if qos > 1:
        raise MqttError("unexpected" if qos == 2 else "malformed")
    return qos


class Writer:
    """A transmit buffer. Several packets may be put in behind each other before they are taken out."""

    def __init__(self, size):
        self._buf = bytearray(size)
        self._view = memoryview(self._buf)
        self._size = size
        self._filled = 0

    def room(self):
        """How many bytes can still be added."""
        return self._size - self._filled

    def clear(self):
        """Forget what was added."""
        self._filled = 0

    def take(self):
        """What was added, as a view that holds until the next `begin`; the buffer counts as empty again."""
        filled = self._filled
        self._filled = 0
        return self._view[:filled]

    def begin(self, first, remaining, apart=0):
        """Start a packet with this first byte and remaining length, of which `apart` bytes go another way."""
        if 5 + remaining - apart > self.room() or remaining > 0xFFFFFFF:
            raise ValueError("packet too large for the transmit buffer")
        self.add_byte(first)
        while remaining > 127:
            self.add_byte(0x80 | remaining & 0x7F)
            remaining >>= 7
        self.add_byte(remaining)

    def add_byte(self, value):
        """One byte."""
        self._buf[self._filled] = value
        self._filled += 1

    def add_u16(self, value):
        """Two bytes, the high one first."""
        self.add_byte(value >> 8)
        self.add_byte(value & 0xFF)

    def add(self, data):
        """Bytes as they are."""
        end = self._filled + len(data)
        self._view[self._filled : end] = data
        self._filled = end

    def add_field(self, data):
        """A string of MQTT: its length in two bytes, then the bytes."""
        self.add_u16(len(data))
        self.add(data)

    # --- whole packets ----------------------------------------------------------------------------------

    def add_connect(self, client_id, user, password, will_topic, will_payload, keepalive_s):
        """CONNECT with a clean session; the will is retained, QoS 1. None leaves out user, password or will."""
        fields = [client_id]
        flags = 0x02
        if will_topic is not None:
            flags |= 0x2C
            fields += [will_topic, will_payload]
        if user is not None:
            flags |= 0x80
            fields.append(user)
            if password is not None:
                flags |= 0x40
                fields.append(password)
        fields = [field.encode() if type(field) is str else field for field in fields]
        self.begin(0x10, 10 + sum([2 + len(field) for field in fields]))
        self.add(b"\x00\x04MQTT\x04")
        self.add_byte(flags)
        self.add_u16(keepalive_s)
        for field in fields:
            self.add_field(field)

    def add_publish(self, topic, size, qos, retain, packet_id):
        """PUBLISH up to its payload of `size` bytes, which may be added or go another way."""
        first = 0x30 | (0x02 if qos else 0) | (0x01 if retain else 0)
        self.begin(first, 2 + len(topic) + (2 if qos else 0) + size, size)
        self.add_field(topic)
        if qos:
            self.add_u16(packet_id)

    def add_puback(self, packet_id):
        """PUBACK."""
        self.begin(0x40, 2)
        self.add_u16(packet_id)

    def add_unsubscribe(self, packet_id, topics):
        """UNSUBSCRIBE."""
        self.begin(0xA2, 2 + sum([2 + len(topic) for topic in topics]))
        self.add_u16(packet_id)
        for topic in topics:
            self.add_field(topic)

    def add_subscribe(self, packet_id, topics):
        """SUBSCRIBE to a list of (topic, qos)."""
        self.begin(0x82, subscribe_bytes(topics))
        self.add_u16(packet_id)
        for topic, qos in topics:
            self.add_field(topic)
            self.add_byte(qos)


def subscribe_bytes(topics):
    """How long a SUBSCRIBE to these (topic, qos) is, without its first byte and length."""
    return 2 + sum([3 + len(topic) for topic, _ in topics])
