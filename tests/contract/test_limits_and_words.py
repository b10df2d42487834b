"""Ceilings and vocabularies are the same on both sides, down to the last word."""

from typing import Any, get_args

import pytest
from pydantic import TypeAdapter

from camera_agent import protocol, words
from fleetd.protocol import ids, limits, messages, topics


def _limits() -> dict[str, int]:
    return {name: value for name, value in vars(limits).items() if name.isupper()}


def test_the_camera_has_every_limit_with_the_same_value() -> None:
    known = {**vars(words), **vars(protocol)}
    assert {name: known.get(name) for name in _limits()} == _limits()


@pytest.mark.parametrize(
    ("agent", "fleetd"),
    [
        (words.UPDATE_STATES, messages.UpdateState),
        (words.UPDATE_REASONS, messages.UpdateReason),
        (words.LED_COLORS, messages.LedColor),
        (words.LED_PATTERNS, messages.LedPattern),
        (words.RESET_CAUSES, messages.ResetCause),
    ],
)
def test_the_camera_uses_exactly_the_words_of_the_contract(agent: tuple[str, ...], fleetd: Any) -> None:
    assert agent == get_args(fleetd)


def test_prefix_and_channels_are_the_same() -> None:
    assert protocol.DEFAULT_PREFIX == topics.DEFAULT_PREFIX
    assert words.UP_CHANNELS == topics.UP_CHANNELS


def _schema(adapter: TypeAdapter[Any], field: str) -> Any:
    return adapter.json_schema()["properties"][field]


def test_bounds_that_stand_in_messages_are_the_same() -> None:
    assert _schema(messages.ACK, "seq")["maxItems"] == protocol.ACK_RANGES
    assert _schema(messages.COMMAND, "id")["maxLength"] == protocol.WORD_CHARS
    assert _schema(messages.COMMAND, "ttl")["maximum"] == protocol.TTL_MAX_S
    assert _schema(messages.COMMAND, "t")["maximum"] == protocol.SECONDS_MAX


def test_the_longest_release_id_of_the_pattern_is_the_limit() -> None:
    assert ids.is_release_id("r" * limits.RELEASE_ID_CHARS)
    assert not ids.is_release_id("r" * (limits.RELEASE_ID_CHARS + 1))


def test_every_word_of_the_camera_is_short_enough_to_travel() -> None:
    said = words.UPDATE_REASONS + words.RESET_CAUSES
    assert all(0 < len(word) <= protocol.WORD_CHARS for word in said)


def test_the_receive_buffer_holds_the_largest_packet_a_camera_wants_apart_from_a_manifest() -> None:
    prefix = "fleet/v1"
    longest = f"{prefix}/_blob/{'a' * 64}/{words.BLOCKS_MAX}"
    for payload in (limits.BLOCK_BYTES, limits.DOWN_BYTES):
        assert 1 + 4 + 2 + len(longest) + 2 + payload <= protocol.receive_bytes(prefix)
