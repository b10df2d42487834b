"""Topics are built and read alike by fleetd and by the camera."""

import re
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from camera_agent import protocol
from fleetd.protocol import ids, topics
from fleetd.protocol.topics import (
    BlobTopic,
    CameraTopic,
    DaemonTopic,
    ReleaseTopic,
    format_topic,
    parse_topic,
)

CAMERA_ID = st.from_regex(ids.CAMERA_ID, fullmatch=True)
RELEASE_ID = st.from_regex(ids.RELEASE_ID, fullmatch=True)
DIGEST = st.from_regex(ids.DIGEST, fullmatch=True)
WORD = st.from_regex(r"[a-z0-9][a-z0-9-]{0,31}", fullmatch=True)
PREFIX = st.from_regex(topics.PREFIX, fullmatch=True).filter(lambda text: len(text) <= 60)

UP_CHANNEL = (
    st.sampled_from(topics.UP_CHANNELS)
    | WORD.map("reply/{}".format)
    | st.tuples(WORD, st.integers(0, 999_999)).map(lambda pair: f"image/{pair[0]}/{pair[1]}")
)
DOWN_CHANNEL = st.sampled_from(topics.DOWN_CHANNELS) | WORD.map("cmd/{}".format)
TOPIC = (
    st.builds(CameraTopic, CAMERA_ID, st.just("up"), UP_CHANNEL)
    | st.builds(CameraTopic, CAMERA_ID, st.just("down"), DOWN_CHANNEL)
    | st.builds(ReleaseTopic, RELEASE_ID)
    | st.builds(BlobTopic, DIGEST, st.integers(0, 999_999))
    | st.builds(DaemonTopic, st.sampled_from(["status", "event"]))
)

# Text that looks like a topic, whole or damaged.
LEVELS = ("cam-07", "cam-08", "_blob", "_release", "_fleetd", "up", "down", "cmd", "ack", "desired", "status")
NUMBERS = ("0", "00", "01", "999999", "1000000", "-1", "\u0660")
NAMES = (
    "result",
    "reply",
    "identify",
    "model-7",
    "a.b",
    "-a",
    "ab" * 32,
    "AB" * 32,
    "x" * 63,
    "x" * 64,
    "x" * 65,
)
PIECE = st.sampled_from([*LEVELS, *NUMBERS, *NAMES, "", "+", "#", "\u00e9", "\n"])
TAIL = st.lists(PIECE, min_size=1, max_size=5).map("/".join)
TEXT = st.text(max_size=300) | TAIL.map("fleet/v1/{}".format) | TAIL


@given(TOPIC, PREFIX)
def test_what_fleetd_formats_it_parses_to_the_same(topic: topics.Topic, prefix: str) -> None:
    assert parse_topic(format_topic(topic, prefix), prefix) == topic


@given(TEXT)
@example("fleet/v1/cam-07/down/ack\n")
@example("fleet/v1/_blob/" + "ab" * 32 + "/007")
def test_any_text_is_parsed_without_error_and_formats_back_to_itself(text: str) -> None:
    topic = parse_topic(text)
    if topic is not None:
        assert format_topic(topic) == text


def _as_agent_sees(topic: topics.Topic | None, camera: str) -> Any:
    """What the camera's `classify` must answer for a topic that fleetd understands."""
    match topic:
        case CameraTopic(name, "down", channel) if name == camera:
            kind, _, command = channel.partition("/")
            return (kind, (command,) if command else ())
        case ReleaseTopic(release):
            return ("release", (release,))
        case BlobTopic(digest, block):
            return ("blob", (digest, block))
        case DaemonTopic("status"):
            return ("daemon", ())
        case _:
            return None


@given(TOPIC, PREFIX, st.booleans())
def test_the_camera_understands_the_topics_meant_for_it_and_no_others(
    topic: topics.Topic, prefix: str, mine: bool
) -> None:
    camera = topic.camera if mine and isinstance(topic, CameraTopic) else "cam-07"
    wire = format_topic(topic, prefix).encode()
    agent = protocol.Topics(camera, prefix)
    assert agent.classify(wire) == agent.classify(memoryview(wire)) == _as_agent_sees(topic, camera)


@given(TEXT)
@example("fleet/v1/cam-07/down/cmd/" + "x" * 32)
@example("fleet/v1/cam-07/down/cmd/" + "x" * 33)
@example("fleet/v1/_blob/" + "ab" * 32 + "/00")
def test_the_camera_and_fleetd_agree_on_any_text(text: str) -> None:
    agent = protocol.Topics("cam-07").classify(text.encode())
    assert agent == _as_agent_sees(parse_topic(text), "cam-07")


@given(st.binary(max_size=300) | st.binary(max_size=100).map(b"fleet/v1/".__add__))
def test_the_camera_classifies_any_bytes_without_error(topic: bytes) -> None:
    protocol.Topics("cam-07").classify(memoryview(topic))


@given(CAMERA_ID, PREFIX, UP_CHANNEL, RELEASE_ID, DIGEST, st.integers(0, 999_999))
def test_the_camera_builds_the_topics_that_fleetd_reads(
    camera: str, prefix: str, channel: str, release: str, digest: str, block: int
) -> None:
    agent = protocol.Topics(camera, prefix)
    built = {
        agent.up(channel): CameraTopic(camera, "up", channel),
        agent.status: CameraTopic(camera, "up", "status"),
        agent.release(release): ReleaseTopic(release),
        agent.blob(digest, block): BlobTopic(digest, block),
        agent.daemon: DaemonTopic("status"),
    }
    assert {wire: parse_topic(wire.decode(), prefix) for wire in built} == built


@given(st.text(max_size=80) | CAMERA_ID | RELEASE_ID | DIGEST | PREFIX | TAIL)
@example("a/b/c/d/e")
@example("fleet/v1\n")
@example("cam-07\n")
def test_both_sides_allow_the_same_names(text: str) -> None:
    assert protocol.is_prefix(text) == (re.fullmatch(topics.PREFIX, text) is not None)
    assert protocol.is_camera_id(text) == ids.is_camera_id(text)
    assert protocol.is_release_id(text) == ids.is_release_id(text)


@pytest.mark.parametrize("value", [None, 7, b"cam-07", ["cam-07"], ""])
def test_what_is_no_text_is_no_name(value: object) -> None:
    checks = (protocol.is_camera_id, protocol.is_release_id, protocol.is_digest, protocol.is_boot_id)
    assert not any(check(value) for check in (*checks, protocol.is_prefix))


def test_the_filters_a_camera_subscribes_to_cover_its_lane_only() -> None:
    agent = protocol.Topics("cam-07")
    assert agent.down_filter == b"fleet/v1/cam-07/down/#"
    assert agent.daemon == format_topic(DaemonTopic("status")).encode()
