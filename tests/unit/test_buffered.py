"""Reading PUBLISH packets out of a buffer: the same messages however the network cuts the stream."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from fleetd.buffered import BufferedSocket, Published, supported

PINGRESP = b"\xd0\x00"


class Network:
    """A socket that delivers a stream in the pieces it is told."""

    def __init__(self, pieces: list[bytes]) -> None:
        self.pieces = pieces

    def recv(self, _size: int) -> bytes:
        if not self.pieces:
            raise BlockingIOError
        return self.pieces.pop(0)


def _length(size: int) -> bytes:
    out = bytearray()
    while True:
        size, low = size >> 7, size & 127
        out.append(low | 128 if size else low)
        if not size:
            return bytes(out)


def encode(packet: Published, *, v5: bool, properties: bytes = b"") -> bytes:
    body = len(packet.topic).to_bytes(2, "big") + packet.topic
    if packet.mid:
        body += packet.mid.to_bytes(2, "big")
    if v5:
        body += _length(len(properties)) + properties
    body += packet.payload
    return bytes([0x30 | (2 if packet.mid else 0) | packet.retained]) + _length(len(body)) + body


def read_all(link: BufferedSocket, *, v5: bool) -> tuple[list[Published], bytes]:
    """Takes turns like the client does; what is no complete PUBLISH in the buffer is read byte by byte."""
    taken: list[Published] = []
    rest = bytearray()
    while True:
        batch = link.take_publishes(v5=v5, most=5)
        if batch:
            taken += batch
            continue
        try:
            rest += link.recv(1)
        except BlockingIOError:
            return taken, bytes(rest)


PACKETS = st.lists(
    st.builds(
        Published,
        topic=st.binary(min_size=1, max_size=40),
        payload=st.binary(max_size=300),
        retained=st.booleans(),
        mid=st.sampled_from([0, 1, 77, 65535]),
    ),
    max_size=12,
)


@given(PACKETS, st.booleans(), st.binary(max_size=20))
def test_packets_that_arrive_together_are_taken_together(
    packets: list[Published], v5: bool, properties: bytes
) -> None:
    stream = b"".join(encode(packet, v5=v5, properties=properties) for packet in packets) + PINGRESP
    link = BufferedSocket(Network([stream]))
    taken, rest = read_all_from_filled(link, v5=v5)
    assert taken == packets
    assert rest == PINGRESP


def read_all_from_filled(link: BufferedSocket, *, v5: bool) -> tuple[list[Published], bytes]:
    link.fill()
    return read_all(link, v5=v5)


@given(PACKETS, st.booleans(), st.data())
def test_a_stream_cut_anywhere_loses_and_invents_nothing(
    packets: list[Published], v5: bool, data: st.DataObject
) -> None:
    stream = b"".join(encode(packet, v5=v5) for packet in packets)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    link = BufferedSocket(Network([piece for piece in pieces if piece]))
    if not stream:
        return
    link.fill()
    at = 0
    whole = {}
    for packet in packets:  # where each packet begins
        whole[at] = packet
        at += len(encode(packet, v5=v5))
    taken: list[Published] = []
    position = 0
    while True:
        batch = link.take_publishes(v5=v5, most=100)
        for packet in batch:
            assert whole[position] == packet
            position += len(encode(packet, v5=v5))
            taken.append(packet)
        if position >= len(stream):
            break
        # paho reads one whole packet, over the cut
        packet = whole[position]
        want = encode(packet, v5=v5)
        got = b""
        while len(got) < len(want):
            got += link.recv(len(want) - len(got))
        assert got == want
        position += len(want)
        taken.append(packet)
    assert taken == packets


@given(st.binary(max_size=200), st.booleans())
def test_arbitrary_bytes_never_raise_and_never_run_past_the_buffer(noise: bytes, v5: bool) -> None:
    link = BufferedSocket(Network([noise] if noise else []))
    link.buffer = noise
    taken = link.take_publishes(v5=v5, most=1000)
    assert link.offset <= len(noise)
    assert sum(len(packet.topic) + len(packet.payload) for packet in taken) <= len(noise)


def test_the_installed_paho_has_what_buffered_reading_leans_on() -> None:
    assert supported()


def test_another_paho_is_noticed(monkeypatch: Any) -> None:
    import paho.mqtt.client as mqtt

    monkeypatch.delattr(mqtt.Client, "_packet_queue")
    assert not supported()
