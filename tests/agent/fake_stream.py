"""The other end of the camera's connection, in memory: a stream, a clock, and a broker that can misbehave."""

import random
from collections import deque
from collections.abc import Callable, Iterable, Iterator

CONNACK_OK = b"\x20\x02\x00\x00"
PINGRESP = b"\xd0\x00"


def length(size: int) -> bytes:
    """MQTT's variable length."""
    out = bytearray()
    while True:
        size, digit = divmod(size, 128)
        out.append(digit | (0x80 if size else 0))
        if not size:
            return bytes(out)


def publish(
    topic: bytes, payload: bytes, *, qos: int = 0, packet_id: int = 0, retain: bool = False, dup: bool = False
) -> bytes:
    """A PUBLISH packet as a broker sends it."""
    first = 0x30 | dup << 3 | qos << 1 | retain
    body = len(topic).to_bytes(2) + topic + (packet_id.to_bytes(2) if qos else b"") + payload
    return bytes([first]) + length(len(body)) + body


def puback(packet_id: int) -> bytes:
    """A PUBACK packet."""
    return b"\x40\x02" + packet_id.to_bytes(2)


def suback(packet_id: int, codes: Iterable[int] = (0,)) -> bytes:
    """A SUBACK packet."""
    body = packet_id.to_bytes(2) + bytes(codes)
    return b"\x90" + length(len(body)) + body


def unsuback(packet_id: int) -> bytes:
    """An UNSUBACK packet."""
    return b"\xb0\x02" + packet_id.to_bytes(2)


def packets(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(first byte, body) of each packet in `data`, which must end with a packet."""
    at = 0
    while at < len(data):
        first, at, size, shift = data[at], at + 1, 0, 0
        while True:
            byte, at = data[at], at + 1
            size |= (byte & 0x7F) << shift
            shift += 7
            if byte < 128:
                break
        assert at + size <= len(data), "the packet is cut short"
        yield first, data[at : at + size]
        at += size


def strings(body: bytes) -> list[bytes]:
    """The strings (two bytes of length each) that make up `body`."""
    found = []
    while body:
        size = int.from_bytes(body[:2])
        found.append(body[2 : 2 + size])
        body = body[2 + size :]
    return found


class FakeStream:
    """What `hal.open_socket` answers. Each chunk fed to it comes out in reads of its own."""

    def __init__(self) -> None:
        self.incoming: deque[bytes] = deque()
        self.writes: list[bytes] = []
        self.eof = False  # after what is there, the peer is gone
        self.broken = False  # writes fail
        self.closed = False
        self.on_write: Callable[[bytes], None] | None = None

    def feed(self, *chunks: bytes) -> None:
        """Let these bytes arrive."""
        self.incoming.extend(chunk for chunk in chunks if chunk)

    def readinto(self, view: memoryview) -> int:
        """As much of the next chunk as fits."""
        assert not self.closed
        assert len(view), "a read into nothing would look like silence"
        if not self.incoming:
            if self.eof:
                raise ConnectionResetError("gone")
            return 0
        chunk = self.incoming.popleft()
        taken = chunk[: len(view)]
        if len(taken) < len(chunk):
            self.incoming.appendleft(chunk[len(taken) :])
        view[: len(taken)] = taken
        return len(taken)

    def write(self, view: memoryview) -> None:
        """All of it, or OSError."""
        assert not self.closed
        if self.broken:
            raise TimeoutError("no room")
        data = bytes(view)
        self.writes.append(data)
        if self.on_write is not None:
            self.on_write(data)

    def close(self) -> None:
        """The camera is done with it."""
        self.closed = True

    def sent(self) -> list[tuple[int, bytes]]:
        """Every packet the camera has written."""
        return list(packets(b"".join(self.writes)))


class FakeBroker:
    """Answers as a broker does, unless told not to. Without `answering` it only listens."""

    def __init__(self) -> None:
        self.streams: list[FakeStream] = []
        self.retained: dict[bytes, bytes] = {}
        self.subscribed: dict[bytes, int] = {}
        self.published: list[tuple[bytes, bytes, bool]] = []  # topic, payload, retain
        self.connects: list[bytes] = []
        self.asked: list[tuple[str, list[bytes]]] = []
        self.accepts = True  # TCP connections
        self.connack = CONNACK_OK
        self.answering = True
        self.pubacks = True
        self.kicks = False  # right after CONNACK
        self.refuses: set[bytes] = set()  # topics

    @property
    def stream(self) -> FakeStream:
        """The newest connection."""
        return self.streams[-1]

    def open(self) -> FakeStream:
        """A new connection."""
        if not self.accepts:
            raise ConnectionRefusedError("nobody listens")
        stream = FakeStream()
        self.subscribed.clear()
        self.streams.append(stream)
        stream.on_write = lambda data: self._on_write(stream, data)
        self._cut = b""
        return stream

    def send(self, topic: bytes, payload: bytes, *, qos: int = 0, retain: bool = False) -> None:
        """A message for the camera."""
        self.stream.feed(publish(topic, payload, qos=qos, packet_id=77 if qos else 0, retain=retain))

    def _on_write(self, stream: FakeStream, data: bytes) -> None:
        data = self._cut + data
        try:
            found = list(packets(data))
        except (AssertionError, IndexError):
            self._cut = data  # the rest comes with the next write
            return
        self._cut = b""
        for first, body in found:
            self._on_packet(stream, first, body)

    def _on_packet(self, stream: FakeStream, first: int, body: bytes) -> None:
        kind = first & 0xF0
        if kind == 0x10:
            self.connects.append(body)
        elif kind == 0x30:
            size = int.from_bytes(body[:2])
            qos = first >> 1 & 3
            self.published.append((body[2 : 2 + size], body[2 + size + (2 if qos else 0) :], bool(first & 1)))
        if not self.answering:
            return
        packet_id = int.from_bytes(body[:2])
        if kind == 0x10:
            stream.feed(self.connack)
            stream.eof = self.kicks
        elif kind == 0x30 and first & 2 and self.pubacks:
            stream.feed(puback(int.from_bytes(body[2 + size : 4 + size])))
        elif kind == 0x80:
            self._subscribe(stream, packet_id, body[2:])
        elif kind == 0xA0:
            topics = strings(body[2:])
            self.asked.append(("unsubscribe", topics))
            for topic in topics:
                self.subscribed.pop(topic, None)
            stream.feed(unsuback(packet_id))
        elif kind == 0xC0:
            stream.feed(PINGRESP)

    def _subscribe(self, stream: FakeStream, packet_id: int, body: bytes) -> None:
        topics: list[bytes] = []
        codes: list[int] = []
        while body:
            size = int.from_bytes(body[:2])
            topics.append(body[2 : 2 + size])
            codes.append(0x80 if topics[-1] in self.refuses else body[2 + size])
            body = body[3 + size :]
        self.asked.append(("subscribe", topics))
        self.subscribed.update(zip(topics, codes, strict=True))
        stream.feed(suback(packet_id, codes))
        for topic in topics:
            if topic in self.retained:
                stream.feed(publish(topic, self.retained[topic], retain=True))


class FakeHal:
    """A clock that the test moves, random numbers from a seed, and a broker behind `open_socket`."""

    def __init__(self, broker: FakeBroker | None = None, seed: int = 1) -> None:
        self.broker = broker or FakeBroker()
        self.now = 1000
        self.clock: int | None = None
        self.network = True
        self._random = random.Random(seed)

    def ticks_ms(self) -> int:
        return self.now

    def ticks_us(self) -> int:
        return 1000 * self.now

    def unix(self) -> int | None:
        return self.clock

    def set_unix(self, seconds: int) -> None:
        self.clock = seconds

    def sleep_ms(self, duration: int) -> None:
        self.now += duration

    def urandom(self, size: int) -> bytes:
        return self._random.randbytes(size)

    def network_step(self) -> bool:
        return self.network

    def open_socket(self, host: str, port: int, timeout_ms: int) -> FakeStream:
        return self.broker.open()
