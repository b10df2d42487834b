"""The MQTT engine against a broker that is slow, hostile, broken or gone."""

import tracemalloc
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from camera_agent.mqtt import Client, MqttError
from tests.agent.fake_stream import (
    CONNACK_OK,
    PINGRESP,
    FakeStream,
    length,
    packets,
    puback,
    publish,
    strings,
    suback,
    unsuback,
)

RECEIVE = 300


class Session:
    """A client with its stream; remembers what the callbacks were told."""

    def __init__(self, connected: bool = True, receive_bytes: int = RECEIVE, **settings: int) -> None:
        self.client: Any = Client(receive_bytes, **settings)
        self.stream = FakeStream()
        self.now = 1000
        self.messages: list[tuple[bytes, bytes, bool, int, bool]] = []
        self.published: list[int] = []
        self.answered: list[tuple[int, int]] = []
        self.client.on_message = self._on_message
        self.client.on_published = self.published.append
        self.client.on_answered = lambda packet_id, refused: self.answered.append((packet_id, refused))
        self.client.start(self.stream, self.now, "cam-07")
        if connected:
            self.stream.feed(CONNACK_OK)
            self.poll()
            assert self.client.connected
            self.stream.writes.clear()

    def _on_message(self, topic: memoryview, payload: memoryview, retain: bool, qos: int, dup: bool) -> None:
        self.messages.append((bytes(topic), bytes(payload), retain, qos, dup))

    def poll(self, after_ms: int = 0) -> int:
        self.now += after_ms
        return int(self.client.poll(self.now))

    def poll_all(self) -> None:
        """Until nothing is left to read; the bound is part of the test."""
        for _ in range(10_000):
            if not self.poll() and not self.stream.incoming:
                return
        pytest.fail("it never ends")

    def reason(self, after_ms: int = 0) -> str:
        with pytest.raises(MqttError) as caught:
            self.poll(after_ms)
        return str(caught.value.reason)


# --- connecting -------------------------------------------------------------------------------------------


def test_connect_carries_a_clean_session_keepalive_will_user_and_password() -> None:
    client: Any = Client(RECEIVE, keepalive_s=30)
    stream = FakeStream()
    client.start(stream, 0, "cam-07", "cam-07", "secret", b"fleet/v1/cam-07/up/status", b'{"online":false}')
    assert len(stream.writes) == 1
    [(first, body)] = stream.sent()
    assert first == 0x10
    assert body[:7] == b"\x00\x04MQTT\x04"
    assert body[7] == 0x80 | 0x40 | 0x20 | 0x08 | 0x04 | 0x02  # user, password, will retained at QoS 1, clean
    assert body[8:10] == b"\x00\x1e"
    will = [b"fleet/v1/cam-07/up/status", b'{"online":false}']
    assert strings(body[10:]) == [b"cam-07", *will, b"cam-07", b"secret"]


def test_connect_without_account_and_will_sets_no_such_flags() -> None:
    session = Session(connected=False)
    [(_, body)] = session.stream.sent()
    assert body[7] == 0x02
    assert strings(body[10:]) == [b"cam-07"]


@pytest.mark.parametrize(
    ("code", "reason"),
    [(1, "refused-version"), (4, "refused-password"), (5, "refused-not-authorized"), (200, "refused")],
)
def test_a_refused_connection_says_why(code: int, reason: str) -> None:
    session = Session(connected=False)
    session.stream.feed(bytes([0x20, 2, 0, code]))
    assert session.reason() == reason
    assert not session.client.connected


def test_no_connack_within_ten_seconds_is_a_dead_link() -> None:
    session = Session(connected=False)
    assert session.poll(9_999) == 0
    assert session.reason(1) == "no-connack"


def test_nothing_can_be_published_before_connack() -> None:
    session = Session(connected=False)
    assert session.client.room() == 0
    assert not session.client.can_ask()


# --- receiving --------------------------------------------------------------------------------------------

MESSAGE = st.tuples(
    st.binary(min_size=1, max_size=40),
    st.one_of(st.binary(max_size=60), st.integers(0, 900).map(bytes)),  # small, or anything up to oversize
    st.booleans(),
    st.sampled_from([0, 1]),
    st.booleans(),
)


@given(st.lists(MESSAGE, max_size=12), st.lists(st.integers(1, 80), max_size=40))
def test_the_same_messages_come_out_however_the_bytes_are_cut(
    messages: list[tuple[bytes, bytes, bool, int, bool]], cuts: list[int]
) -> None:
    session = Session()
    wire = b""
    fitting = []
    ids = []
    for number, (topic, payload, retain, qos, dup) in enumerate(messages, start=1):
        packet = publish(topic, payload, qos=qos, packet_id=number, retain=retain, dup=dup)
        wire += packet
        if len(packet) <= RECEIVE:
            fitting.append((topic, payload, retain, qos, dup))
        if qos:
            ids.append(number)
    for cut in cuts:
        session.stream.feed(wire[:cut])
        wire = wire[cut:]
    session.stream.feed(wire)
    session.poll_all()
    assert session.messages == fitting
    assert session.client.oversize == len(messages) - len(fitting)
    assert session.stream.sent() == [(0x40, number.to_bytes(2)) for number in ids]


@given(st.lists(MESSAGE, max_size=12), st.lists(st.integers(1, 80), max_size=40))
def test_messages_that_do_not_fit_come_out_in_their_order_where_somebody_has_memory_for_them(
    messages: list[tuple[bytes, bytes, bool, int, bool]], cuts: list[int]
) -> None:
    session = Session()
    session.client.on_large = lambda _topic, size: bytearray(size)
    wire = b""
    for number, (topic, payload, retain, qos, dup) in enumerate(messages, start=1):
        wire += publish(topic, payload, qos=qos, packet_id=number, retain=retain, dup=dup)
    for cut in cuts:
        session.stream.feed(wire[:cut])
        wire = wire[cut:]
    session.stream.feed(wire)
    session.poll_all()
    assert session.messages == messages
    assert session.client.oversize == 0
    acknowledged = [number.to_bytes(2) for number, message in enumerate(messages, start=1) if message[3]]
    assert session.stream.sent() == [(0x40, body) for body in acknowledged]


def test_a_message_that_does_not_fit_is_forgotten_with_its_connection() -> None:
    session = Session()
    session.client.on_large = lambda _topic, size: bytearray(size)
    session.stream.feed(publish(b"some/topic", bytes(5000))[:1000])
    session.poll_all()
    session.client.start(session.stream, session.now, "cam-07")
    session.stream.feed(CONNACK_OK, publish(b"t", b"after"))
    session.poll_all()
    assert [message[1] for message in session.messages] == [b"after"]


def test_packets_that_arrive_a_byte_at_a_time_are_understood() -> None:
    session = Session()
    packet = publish(b"a/b", b"hello", qos=1, packet_id=258, retain=True)
    for byte in packet:
        session.stream.feed(bytes([byte]))
        session.poll()
    assert session.messages == [(b"a/b", b"hello", True, 1, False)]
    assert session.stream.sent() == [(0x40, b"\x01\x02")]


def test_a_packet_that_fills_the_buffer_to_the_last_byte_is_delivered_behind_another() -> None:
    session = Session()
    payload = bytes(RECEIVE - len(publish(b"t", b"")) - 1)
    assert len(publish(b"t", payload)) == RECEIVE
    session.stream.feed(publish(b"t", b"x") + publish(b"t", payload) + publish(b"t", b"y"))
    session.poll_all()
    assert [len(message[1]) for message in session.messages] == [1, len(payload), 1]
    assert session.client.oversize == 0


VALID = [
    publish(b"fleet/v1/cam-07/down/desired", b"{}", qos=1, packet_id=9, retain=True),
    publish(b"t", bytes(700)),
    puback(1),
    suback(2, [0, 1]),
    unsuback(3),
    PINGRESP,
    CONNACK_OK,
    b"\x50\x02\x00\x01",
]


def _survives(session: Session, data: bytes) -> None:
    session.stream.feed(data)
    for _ in range(len(data) + 2):  # each poll that has bytes handles a packet, reads, or raises
        try:
            if not session.poll() and not session.stream.incoming:
                return
        except MqttError:
            return
    pytest.fail("it never ends")


@given(st.binary(max_size=600), st.booleans())
@example(b"\x30\x80\x80\x80\x80\x01", True)
@example(b"\x30\xff\xff\xff\x7f\x00\x01t", True)
def test_arbitrary_bytes_raise_nothing_but_mqtt_error_and_never_hang(data: bytes, connected: bool) -> None:
    _survives(Session(connected=connected), data)


@given(st.lists(st.sampled_from(VALID), min_size=1, max_size=8), st.data())
def test_damaged_streams_raise_nothing_but_mqtt_error_and_never_hang(
    parts: list[bytes], data: st.DataObject
) -> None:
    wire = bytearray(b"".join(parts))
    for _ in range(data.draw(st.integers(1, 3))):
        wire[data.draw(st.integers(0, len(wire) - 1))] = data.draw(st.integers(0, 255))
    session = Session()
    session.client.publish(b"t", b"", 1, False, session.now)
    session.client.change([b"u"], [(b"a", 0), (b"b", 1)], session.now)
    _survives(session, bytes(wire))


@pytest.mark.parametrize(
    ("packet", "reason"),
    [
        (CONNACK_OK, "unexpected"),
        (b"\x10\x00", "unexpected"),  # CONNECT is for servers
        (b"\x50\x02\x00\x01", "unexpected"),  # PUBREC: nothing was sent at QoS 2
        (b"\xe0\x00", "unexpected"),  # MQTT 5 brokers may DISCONNECT, 3.1.1 ones not
        (b"\x41\x02\x00\x01", "unexpected"),  # reserved flags
        (b"\x40\x03\x00\x01\x00", "unexpected"),  # PUBACK of another length
        (b"\xd0\x01\x00", "unexpected"),
        (b"\x90\xff\xff\xff\x7f", "unexpected"),  # SUBACK of 256 MB is refused, not drained
        (suback(5), "unexpected"),  # nothing was asked
        (unsuback(5), "unexpected"),
        (publish(b"t", b"", qos=2, packet_id=1), "unexpected"),
        (publish(b"t", b"", qos=3, packet_id=1), "malformed"),
        (publish(b"t", b"", qos=1, packet_id=0), "malformed"),
        (publish(b"", b"payload"), "malformed"),
        (b"\x30\x03\x00\x09t", "malformed"),  # topic longer than its packet
        (b"\x32\x04\x00\x01t\x00", "malformed"),  # no room for the packet id
        (b"\x32" + length(1000) + b"\x03\xe8" + bytes(400), "malformed"),  # the same, oversize
        (b"\x30" + length(1000) + b"\x03\xe8" + bytes(400), "malformed"),  # and at QoS 0
        (b"\x30\x80\x80\x80\x80\x01", "malformed"),  # length of five bytes
    ],
)
def test_what_mqtt_does_not_allow_ends_the_connection(packet: bytes, reason: str) -> None:
    session = Session()
    session.stream.feed(packet)
    assert session.reason() == reason


@pytest.mark.parametrize("codes", [[0], [0, 0, 0], [0, 3]])
def test_a_suback_that_does_not_fit_its_subscribe_ends_the_connection(codes: list[int]) -> None:
    session = Session()
    _, asked = session.client.change([], [(b"a", 0), (b"b", 0)], session.now)
    session.stream.feed(suback(asked, codes))
    assert session.reason() in ("unexpected", "malformed")


def test_a_message_before_connack_ends_the_connection() -> None:
    session = Session(connected=False)
    session.stream.feed(publish(b"t", b""))
    assert session.reason() == "unexpected"


def test_one_poll_handles_a_bounded_number_of_packets() -> None:
    session = Session()
    for _ in range(10):
        session.stream.feed(publish(b"t", b"x") * 20)
    handled = [session.poll() for _ in range(13)]
    assert max(handled) == 16
    assert sum(handled) == len(session.messages) == 200


def test_an_exception_of_a_callback_passes_through_and_the_client_stays_usable() -> None:
    session = Session()
    deliver = session.client.on_message

    def fail(*_: object) -> None:
        raise OSError("the disk is full")

    session.client.on_message = fail
    session.stream.feed(publish(b"t", b"1", qos=1, packet_id=4) + publish(b"t", b"2"))
    with pytest.raises(OSError, match="disk"):
        session.poll()
    session.client.on_message = deliver
    session.poll()
    assert [message[1] for message in session.messages] == [b"2"]
    assert session.stream.sent() == [(0x40, b"\x00\x04")]


def test_polling_from_a_callback_does_nothing() -> None:
    session = Session()
    inner: list[int] = []
    session.client.on_message = lambda *_: inner.append(session.client.poll(session.now))
    session.stream.feed(publish(b"t", b"1") + publish(b"t", b"2"))
    assert session.poll() == 2
    assert inner == [0, 0]


# --- oversize ---------------------------------------------------------------------------------------------


class Endless(FakeStream):
    """A PUBLISH of `size` bytes that is never in memory as a whole, and then another message."""

    def __init__(self, size: int, tail: bytes) -> None:
        super().__init__()
        self._left = size
        self._tail = tail

    def readinto(self, view: memoryview) -> int:
        if self.incoming or not (self._left or self._tail):
            return super().readinto(view)
        if not self._left:
            self.feed(self._tail)
            self._tail = b""
            return super().readinto(view)
        count = min(len(view), self._left)
        self._left -= count
        return count


def test_a_publish_of_ten_megabytes_is_drained_in_constant_memory() -> None:
    size = 10 * 1024 * 1024
    client: Any = Client(4400)
    got: list[bytes] = []
    client.on_message = lambda topic, payload, *_: got.append(bytes(payload))
    stream = Endless(size, publish(b"t", b"after"))
    client.start(stream, 0, "cam-07")
    stream.feed(CONNACK_OK, b"\x30" + length(size + 3) + b"\x00\x01t")
    client.poll(0)
    tracemalloc.start()
    try:
        polls = 0
        while not got:
            client.poll(0)
            polls += 1
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert got == [b"after"]
    assert client.oversize == 1
    assert peak < 16_000
    assert polls > size // 4400 // 16  # and no poll did more than its share


def test_an_oversize_message_at_qos_1_is_acknowledged_once() -> None:
    session = Session()
    session.stream.feed(publish(b"t", b"\xff" * 280))  # what lies in the buffer from before does not count
    session.poll()
    packet = publish(b"some/topic", bytes(5000), qos=1, packet_id=513)
    for byte in packet:
        session.stream.feed(bytes([byte]))
        session.poll()
    assert len(session.messages) == 1
    assert session.client.oversize == 1
    assert session.stream.sent() == [(0x40, b"\x02\x01")]


def test_an_oversize_message_whose_topic_alone_fills_the_buffer_is_drained_too() -> None:
    session = Session()
    session.stream.feed(publish(b"t" * 1000, b"x", qos=1, packet_id=1) + publish(b"t", b"after"))
    session.poll_all()
    assert [message[1] for message in session.messages] == [b"after"]
    assert session.client.oversize == 1


def test_a_slow_drain_is_not_mistaken_for_a_dead_link() -> None:
    session = Session()
    size = 40_000
    session.stream.feed(b"\x30" + length(size + 3) + b"\x00\x01t")
    session.client.publish(b"t", b"", 1, False, session.now)
    for _ in range(size // 200):
        session.stream.feed(bytes(200))
        session.poll(1000)  # 200 seconds, far longer than any answer may take
    session.stream.feed(PINGRESP + puback(1))
    session.poll()
    assert session.published == [1]


# --- sending ----------------------------------------------------------------------------------------------


def test_a_publish_is_one_write_with_all_its_parts() -> None:
    session = Session()
    packet_id = session.client.publish(b"fleet/v1/cam-07/up/result", b"{}", 1, True, session.now)
    assert session.stream.writes == [
        b"\x33\x1f\x00\x19fleet/v1/cam-07/up/result" + packet_id.to_bytes(2) + b"{}"
    ]


def test_a_publish_at_qos_0_has_no_packet_id_and_takes_no_room() -> None:
    session = Session()
    room = session.client.room()
    assert session.client.publish(b"t", b"x", 0, False, session.now) == 0
    assert session.stream.writes == [b"\x30\x04\x00\x01tx"]
    assert session.client.room() == room


@given(st.integers(0, 600))
def test_a_payload_larger_than_the_transmit_buffer_goes_out_in_two_writes(size: int) -> None:
    session = Session(transmit_bytes=200)
    payload = bytes(n % 251 for n in range(size))
    session.client.publish(b"topic", payload, 1, False, session.now)
    assert len(session.stream.writes) == (1 if size <= 200 - 12 else 2)
    assert [body[9:] for _, body in session.stream.sent()] == [payload]


def test_the_window_bounds_what_is_in_flight_and_pubacks_open_it() -> None:
    session = Session(window=3)
    ids = [session.client.publish(b"t", b"x", 1, False, session.now) for _ in range(3)]
    assert session.client.room() == 0
    with pytest.raises(ValueError, match="window"):
        session.client.publish(b"t", b"x", 1, False, session.now)
    session.stream.feed(puback(ids[1]))
    session.poll()
    assert session.published == [ids[1]]
    assert session.client.room() == 1


def test_packet_ids_wrap_and_skip_those_in_flight() -> None:
    session = Session()
    stuck = session.client.publish(b"t", b"", 1, False, session.now)
    seen = []
    for _ in range(65_540):
        packet_id = session.client.publish(b"t", b"", 1, False, session.now)
        session.stream.writes.clear()
        session.stream.feed(puback(packet_id))
        session.poll()
        seen.append(packet_id)
    assert stuck not in seen
    assert min(seen) == 2
    assert max(seen) == 65_535


def test_a_puback_for_an_unknown_id_is_counted_and_harmless() -> None:
    session = Session()
    packet_id = session.client.publish(b"t", b"", 1, False, session.now)
    session.stream.feed(puback(packet_id + 1) + puback(packet_id) + puback(packet_id))
    session.poll()
    assert session.published == [packet_id]
    assert session.client.strays == 2


def test_unsubscribe_and_subscribe_leave_in_one_write() -> None:
    session = Session()
    dropped, added = session.client.change([b"a", b"bc"], [(b"d", 0), (b"ef", 1)], session.now)
    [write] = session.stream.writes
    assert list(packets(write)) == [
        (0xA2, dropped.to_bytes(2) + b"\x00\x01a\x00\x02bc"),
        (0x82, added.to_bytes(2) + b"\x00\x01d\x00\x00\x02ef\x01"),
    ]
    session.stream.feed(unsuback(dropped) + suback(added, [0, 0x80]))
    session.poll()
    assert session.answered == [(dropped, 0), (added, 0b10)]


def test_a_change_that_does_not_fit_one_write_takes_two() -> None:
    session = Session(transmit_bytes=64)
    session.client.change([b"a" * 40], [(b"b" * 40, 0)], session.now)
    assert [len(list(packets(write))) for write in session.stream.writes] == [1, 1]


def test_too_many_unanswered_subscriptions_are_held_back() -> None:
    session = Session()
    for _ in range(12):
        assert session.client.can_ask()
        session.client.change([b"a"], [(b"b", 0)], session.now)
    assert not session.client.can_ask()


def test_stop_says_disconnect_and_forgets_the_stream() -> None:
    session = Session()
    session.client.stop()
    assert session.stream.sent() == [(0xE0, b"")]
    assert session.reason() == "closed"


def test_stopping_a_broken_connection_raises_nothing() -> None:
    session = Session()
    session.stream.broken = True
    session.client.stop()
    assert not session.client.connected


# --- links that fail --------------------------------------------------------------------------------------


def test_a_peer_that_closes_is_noticed_after_what_it_sent_was_handled() -> None:
    session = Session()
    session.stream.feed(publish(b"t", b"last words"))
    session.stream.eof = True
    assert session.reason() == "closed-by-peer"
    assert [message[1] for message in session.messages] == [b"last words"]


def test_a_write_that_fails_is_a_dead_link() -> None:
    session = Session()
    session.stream.broken = True
    with pytest.raises(MqttError, match="write-failed"):
        session.client.publish(b"t", b"", 1, False, session.now)


def test_fifteen_seconds_of_silence_bring_a_ping_and_its_answer_ends_the_wait() -> None:
    session = Session()
    session.poll(14_999)
    assert session.stream.sent() == []
    session.poll(1)
    assert session.stream.sent() == [(0xC0, b"")]
    session.stream.feed(PINGRESP)
    session.poll(9_000)
    session.poll(5_999)
    assert len(session.stream.sent()) == 1
    session.poll(1)
    assert len(session.stream.sent()) == 2


def test_a_half_open_link_is_dead_ten_seconds_after_the_ping() -> None:
    session = Session()
    session.poll(15_000)
    session.poll(9_999)
    assert session.reason(1) == "no-pingresp"


def test_sending_alone_does_not_hide_a_half_open_link() -> None:
    session = Session()
    for _ in range(24):
        session.poll(1000)
        session.client.publish(b"t", b"", 0, False, session.now)
    assert session.reason(1000) == "no-pingresp"


def test_a_peer_that_talks_but_never_answers_is_dead_after_a_minute() -> None:
    session = Session()
    session.client.publish(b"t", b"", 1, False, session.now)
    for _ in range(59):
        session.stream.feed(publish(b"chatter", b"x"))
        session.poll(1000)
    session.stream.feed(publish(b"chatter", b"x"))
    assert session.reason(1000) == "no-answer"


def test_a_long_stall_of_the_camera_itself_is_not_a_dead_link() -> None:
    session = Session()
    session.poll(15_000)
    session.stream.feed(PINGRESP)  # it came while the camera was busy for a minute
    session.poll(60_000)
    assert session.client.connected


def test_a_new_start_forgets_half_a_packet_of_the_old_connection() -> None:
    session = Session()
    session.client.publish(b"t", b"", 1, False, session.now)
    while session.client.can_ask():
        session.client.change([b"a"], [], session.now)
    session.stream.feed(publish(b"t", bytes(100))[:50])
    session.poll()
    session.client.abandon()
    session.stream = FakeStream()
    session.client.start(session.stream, session.now, "cam-07")
    session.stream.feed(CONNACK_OK + publish(b"t", b"fresh"))
    session.poll()
    assert [message[1] for message in session.messages] == [b"fresh"]
    assert session.client.room() == 8
    assert session.client.can_ask()
