"""Outgoing MQTT packets, put together in one fixed buffer so that each leaves in one write.

RAM BUDGET: the buffer, made once; one memoryview per packet.
"""


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
