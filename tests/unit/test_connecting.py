"""The first packet of a connection, read before the broker inside fleetd sees it."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetd.embedded.connecting import ConnectError, connack, read_connect

NAMES = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=20)


def field(raw: bytes) -> bytes:
    return len(raw).to_bytes(2) + raw


def packet(flags: int, *fields: bytes, level: int = 4, name: bytes = b"MQTT") -> bytes:
    return field(name) + bytes((level, flags)) + b"\x00\x1e" + b"".join(map(field, fields))


@given(client=NAMES, user=NAMES, password=st.binary(max_size=20), topic=NAMES, will=st.binary(max_size=20))
def test_every_field_is_read_and_the_broker_gets_the_account_as_client_id_and_no_password(
    client: str, user: str, password: bytes, topic: str, will: bytes
) -> None:
    raw = packet(0xEE, client.encode(), topic.encode(), will, user.encode(), password)
    found = read_connect(raw)
    assert (found.client_id, found.user, found.password) == (client, user, password)
    assert (found.will_topic, found.will, found.keepalive) == (topic, will, 30)
    passed = found.as_user()
    again = read_connect(passed[2:] if passed[1] < 128 else passed[3:])
    assert (again.client_id, again.user, again.password) == (user, user, b"")
    assert (again.will_topic, again.will, again.flags & 0x3E) == (topic, will, 0xEE & 0x3E)


@given(
    raw=st.one_of(st.binary(max_size=60), st.binary(max_size=60).map(lambda tail: b"\x00\x04MQTT\x04" + tail))
)
def test_whatever_arrives_there_is_an_answer_or_the_one_error(raw: bytes) -> None:
    with contextlib.suppress(ConnectError):
        read_connect(raw)


@given(cut=st.integers(0, 40))
def test_a_cut_packet_is_refused(cut: int) -> None:
    whole = packet(0xC2, b"client", b"user", b"password")
    with pytest.raises(ConnectError):
        read_connect(whole[: min(cut, len(whole) - 1)])


@pytest.mark.parametrize(
    "raw",
    [
        packet(0x03, b"reserved flag"),
        packet(0x42, b"client", b"a password without a user"),
        packet(0x0A, b"will flags without a will"),
        packet(0x1E, b"client", b"qos 3", b"will"),
        packet(0x82, b"client", b"\xff no utf-8"),
        packet(0x82, b"client", b"a\x00b"),
        packet(0x82, b"client", b"user", b"one field too many"),
        packet(0x02, b"client", name=b"HTTP"),
    ],
)
def test_what_cannot_be_is_refused(raw: bytes) -> None:
    with pytest.raises(ConnectError):
        read_connect(raw)


def test_other_versions_are_told_apart() -> None:
    assert read_connect(packet(0x02, b"", level=5)).level == 5
    assert read_connect(packet(0x02, b"", level=3, name=b"MQIsdp")).level == 3
    assert connack(1) == b"\x20\x02\x00\x01"
