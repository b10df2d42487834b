"""The camera's checks of what comes down: stricter than fleetd's, never looser, and never surprised."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from camera_agent import protocol
from fleetd.protocol import messages
from tests.contract.goldens import FLEETD, files, name_of

PARSERS: dict[str, Callable[[Any], Any]] = {
    "desired": protocol.parse_desired,
    "ack": protocol.parse_ack,
    "cmd": protocol.parse_command,
    "daemon": protocol.parse_daemon_status,
}
KIND = st.sampled_from(sorted(PARSERS))
GOLDENS = {
    name: [json.loads(p.read_bytes()) for p in files("down") if name_of(p) == name] for name in PARSERS
}

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=80),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
NUMBERS = (0, 1, -1, 2**53 - 1, 2**53, 2**40, 2**40 + 1, 86400, 86401, 1.5, True)
WORDS = ("", "a", "a" * 64, "a" * 65, "\0", "ab" * 32, "ab" * 8, "AB" * 8, "model-7")
UNUSED = {"version"}  # fields that the camera does not look at
TELLING = st.sampled_from([*NUMBERS, *WORDS, [], [[1, 2]], [[2, 1]], [[1]], {}, {"a": 1}, None])


@st.composite
def damaged(draw: st.DrawFn) -> tuple[str, Any]:
    """A golden message with some of its fields replaced, removed or added."""
    name = draw(KIND)
    message = dict(draw(st.sampled_from(GOLDENS[name])))
    for _ in range(draw(st.integers(0, 3))):
        key = draw(st.sampled_from([*sorted(set(message) - UNUSED), "extra"]))
        if draw(st.booleans()):
            message[key] = draw(TELLING | JSON)
        else:
            message.pop(key, None)
    return name, message


@given(damaged())
def test_what_the_camera_accepts_fleetd_accepts_too_and_reads_alike(case: tuple[str, Any]) -> None:
    name, message = case
    payload = json.dumps(message).encode()
    try:
        read = PARSERS[name](payload)
    except protocol.ProtocolError:
        return
    meant = FLEETD[name].validate_json(payload)
    if name == "ack":
        assert read == (meant["boot"], [list(pair) for pair in meant["seq"]])
    else:
        assert {key: read[key] for key in read if key in meant} == {
            key: meant[key] for key in read if key in meant
        }


@given(KIND, st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_refused_with_a_protocol_error_or_read(name: str, payload: bytes) -> None:
    try:
        PARSERS[name](memoryview(payload))
    except protocol.ProtocolError as error:
        assert 0 < len(error.reason) < 40  # noqa: PT017 (not being refused is fine as well)


def _strict(adapter: Any, payload: bytes) -> bool:
    try:
        adapter.validate_json(payload, strict=True)
    except ValidationError:
        return False
    return True


@given(damaged())
def test_what_fleetd_can_mean_the_camera_accepts(case: tuple[str, Any]) -> None:
    """fleetd publishes only what passes its own adapters without conversion."""
    name, message = case
    payload = json.dumps(message).encode()
    if _strict(FLEETD[name], payload):
        PARSERS[name](payload)


@pytest.mark.parametrize(
    "payload",
    [
        b"[" * 4096,
        b'{"config":' * 400,
        b'{"a":' + b"[" * 2000 + b"]" * 2000 + b"}",
        b'{"a":"' + b"x" * 4090,
        b"{" + b" " * 4095,
        b"9" * 4096,
        b'{"generation":' + b"9" * 4000 + b',"release":null}',
        b'{"generation":1,"release":null}' + b" " * 4096,
        b'{"generation":1,"release":null,"config":{"a":[' + b"[]," * 1000 + b"0]}}",
    ],
)
@pytest.mark.parametrize("name", sorted(PARSERS))
def test_hostile_json_is_refused_quickly(name: str, payload: bytes) -> None:
    with pytest.raises(protocol.ProtocolError):
        PARSERS[name](payload)


def test_a_receipt_with_the_most_ranges_fits_and_is_read() -> None:
    ranges = [[number, number] for number in range(1, 2 * protocol.ACK_RANGES, 2)]
    payload = json.dumps({"boot": "ab" * 8, "seq": ranges}, separators=(",", ":")).encode()
    assert len(payload) <= protocol.DOWN_BYTES
    assert protocol.parse_ack(payload)[1] == ranges


# --- what goes up -----------------------------------------------------------------------------------------

NUMBER = st.floats() | st.integers(-(2**40), 2**40)


@given(st.dictionaries(st.text(max_size=8), NUMBER | st.lists(NUMBER, max_size=4), max_size=6))
def test_encode_writes_json_that_anyone_can_read(body: dict[str, Any]) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    read = json.loads(protocol.encode({"nested": body, "list": [body]}), parse_constant=refuse)
    assert read["nested"] == read["list"][0]
    assert set(read["nested"]) <= set(body)


@pytest.mark.parametrize("size", [protocol.UP_BYTES, protocol.UP_BYTES + 1])
def test_encode_refuses_what_is_over_the_ceiling(size: int) -> None:
    message = {"text": "x" * (size - len('{"text":""}'))}
    if size > protocol.UP_BYTES:
        with pytest.raises(protocol.ProtocolError, match="too large"):
            protocol.encode(message)
    else:
        assert len(protocol.encode(message)) == size


@given(st.text())
def test_clipped_text_is_always_accepted_by_fleetd(text: str) -> None:
    event = {"boot": "ab" * 8, "seq": 1, "up_ms": 0, "kind": "note", "text": protocol.clip(text * 50)}
    assert messages.EVENT.validate_json(protocol.encode(event))
