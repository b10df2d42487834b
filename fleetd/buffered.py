"""paho with buffered reads and acknowledgements in bulk.

Stock paho asks the socket for every packet three times (one byte, one byte, the rest) and sends every PUBACK by
itself; that is most of what a message costs. Here the socket is read in large pieces, PUBLISH packets that are
complete in the buffer are handed over many at a time, and acknowledgements of a batch go out in one write. All
other packets, and a PUBLISH that is cut by the end of the buffer, go through paho as always.

This leans on private names of paho. `supported()` looks for all of them, and `broker.py` falls back to the stock
client with a warning when one is missing.
"""

import inspect
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import paho.mqtt.client as mqtt
from paho.mqtt.enums import MQTTErrorCode, MQTTProtocolVersion

READ_BYTES = 256 * 1024
PACKETS_PER_READ = 2_000  # then paho has its turn: pings, writes, disconnecting
_HOOKS = ("_create_socket", "_packet_read", "_loop_rc_handle", "_packet_queue", "loop_read")
_PUBLISH, _PUBACK = 0x30, 0x40


class Published(NamedTuple):
    """One PUBLISH packet. `mid` is 0 at QoS 0."""

    topic: bytes
    payload: bytes
    retained: bool
    mid: int


def supported() -> bool:
    """Whether this paho has everything that is used here, with the arguments that are expected."""
    if not all(callable(getattr(mqtt.Client, name, None)) for name in _HOOKS):
        return False
    queue = list(inspect.signature(mqtt.Client._packet_queue).parameters)  # that is the question
    return queue[:5] == ["self", "command", "packet", "mid", "qos"]


class BufferedSocket:
    """A socket that is read in large pieces. Everything but reading is the socket's own."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.buffer = b""
        self.offset = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def pending(self) -> int:
        """Bytes that were read and not yet taken; paho does not wait in select while there are some."""
        held = len(self.buffer) - self.offset
        if not held and (inside := getattr(self._inner, "pending", None)) is not None:
            return int(inside())  # TLS has decrypted more than it was asked for
        return held

    def recv(self, size: int) -> bytes:
        """At most `size` bytes, from the buffer or, when that is empty, from the network."""
        if self.offset == len(self.buffer):
            self.fill()
            if not self.buffer:
                return b""
        piece = self.buffer[self.offset : self.offset + size]
        self.offset += len(piece)
        return piece

    def fill(self) -> None:
        """Reads what the network has. BlockingIOError: nothing; an empty buffer: the peer is gone."""
        self.buffer = self._inner.recv(READ_BYTES)
        self.offset = 0

    def take_publishes(self, *, v5: bool, most: int) -> list[Published]:
        """The PUBLISH packets of QoS 0 and 1 that come next and are complete in the buffer."""
        buffer, at, end = self.buffer, self.offset, len(self.buffer)
        taken: list[Published] = []
        while len(taken) < most and at < end:
            head = buffer[at]
            if head & 0xF4 != _PUBLISH:  # another packet, or QoS 2
                break
            here, length, shift = at + 1, 0, 0
            while here < end and shift <= 21:
                byte = buffer[here]
                here += 1
                length |= (byte & 127) << shift
                shift += 7
                if byte < 128:
                    break
            else:
                break  # the length itself is cut, or damaged: paho's affair
            stop = here + length
            if stop > end:
                break
            packet = _publish(buffer, head, here, stop, v5=v5)
            if packet is None:
                break  # paho finds the words for a damaged packet
            taken.append(packet)
            at = stop
        self.offset = at
        return taken


def _publish(buffer: bytes, head: int, here: int, stop: int, *, v5: bool) -> Published | None:
    if here + 2 > stop:
        return None
    topic_end = here + 2 + (buffer[here] << 8 | buffer[here + 1])
    topic = buffer[here + 2 : topic_end]
    here = topic_end
    mid = 0
    if head & 0x02:
        if here + 2 > stop:
            return None
        mid = buffer[here] << 8 | buffer[here + 1]
        here += 2
        if not mid:
            return None
    if v5:  # no property means anything to us; no topic alias was allowed
        size, shift = 0, 0
        while here < stop and shift <= 21:
            byte = buffer[here]
            here += 1
            size |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                break
        else:
            return None
        here += size
    if here > stop or not topic:
        return None
    return Published(topic, buffer[here:stop], bool(head & 1), mid)


class BufferedClient(mqtt.Client):
    """A paho client that hands PUBLISH packets to `on_batch` many at a time."""

    on_batch: Callable[["BufferedClient", Sequence[Published]], None] | None = None

    def _create_socket(self) -> Any:
        return BufferedSocket(super()._create_socket())

    def loop_read(self, max_packets: int = 1) -> MQTTErrorCode:  # noqa: ARG002  # paho's signature
        """Takes everything that has arrived, in turns with paho."""
        left = PACKETS_PER_READ
        v5 = self._protocol == MQTTProtocolVersion.MQTTv5
        while left > 0:
            link = self._sock
            if link is None:
                return MQTTErrorCode.MQTT_ERR_NO_CONN
            if (
                self.on_batch is not None
                and not self._in_packet["command"]
                and isinstance(link, BufferedSocket)
            ):
                batch = link.take_publishes(v5=v5, most=left)
                if batch:
                    left -= len(batch)
                    self.on_batch(self, batch)
                    with self._msgtime_mutex:
                        self._last_msg_in = time.monotonic()
                    if not link.pending():
                        break
                    continue
            code = self._packet_read()
            left -= 1
            if code > 0:
                return self._loop_rc_handle(code)
            if code == MQTTErrorCode.MQTT_ERR_AGAIN or self._sock is None:
                break
            if isinstance(link, BufferedSocket) and not link.pending():
                break
        return MQTTErrorCode.MQTT_ERR_SUCCESS

    def acknowledge_all(self, mids: Sequence[int]) -> None:
        """PUBACK for all of them, in this order, in one write."""
        acks = bytearray()
        for mid in mids:
            acks += b"\x40\x02" + mid.to_bytes(2, "big")
        if acks:
            self._packet_queue(_PUBACK, acks, 0, 0)
