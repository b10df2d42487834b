"""MQTT topics: building and reading are one thing, so that what is published can be subscribed to.

Under the prefix (`fleet/v1` unless set otherwise):

    cam-07/up/result             only camera cam-07 publishes here
    cam-07/down/desired          only fleetd publishes here
    _release/model-7             a signed manifest, retained
    _blob/<sha256>/<n>           block n of that content, retained
    _fleetd/status               the daemon itself
"""

import re
from typing import Literal, NamedTuple

from fleetd.protocol.ids import CAMERA_ID, DIGEST, RELEASE_ID
from fleetd.protocol.limits import TOPIC_BYTES

DEFAULT_PREFIX = "fleet/v1"
PREFIX = r"[A-Za-z0-9_.-]+(?:/[A-Za-z0-9_.-]+){0,3}"

UP_CHANNELS = ("status", "result", "telemetry", "led", "update", "event")
DOWN_CHANNELS = ("desired", "ack", "fresh")


class CameraTopic(NamedTuple):
    """A topic in one camera's lane, e.g. `cam-07/up/reply/snapshot` (channel `reply/snapshot`)."""

    camera: str
    lane: Literal["up", "down"]
    channel: str


class ReleaseTopic(NamedTuple):
    """Where a release's signed manifest is retained."""

    release: str


class BlobTopic(NamedTuple):
    """Where block `block` of the content with this SHA-256 is retained."""

    digest: str
    block: int


class DaemonTopic(NamedTuple):
    """fleetd's own topics: `status` (retained, last will) and `event`."""

    channel: Literal["status", "event"]


Topic = CameraTopic | ReleaseTopic | BlobTopic | DaemonTopic

_WORD = r"[a-z0-9][a-z0-9-]{0,31}"
_UP = rf"status|result|telemetry|led|update|event|reply/{_WORD}|image/{_WORD}/[0-9]{{1,6}}"
_DOWN = rf"desired|ack|fresh|cmd/{_WORD}"
_CAMERA = re.compile(rf"({CAMERA_ID})/(?:(up)/({_UP})|(down)/({_DOWN}))")
_RELEASE = re.compile(rf"_release/({RELEASE_ID})")
_BLOB = re.compile(rf"_blob/({DIGEST})/(0|[1-9][0-9]{{0,5}})")
_DAEMON = re.compile(r"_fleetd/(status|event)")


def format_topic(topic: Topic, prefix: str = DEFAULT_PREFIX) -> str:
    """The topic as it goes over the wire."""
    match topic:
        case CameraTopic(camera, lane, channel):
            tail = f"{camera}/{lane}/{channel}"
        case ReleaseTopic(release):
            tail = f"_release/{release}"
        case BlobTopic(digest, block):
            tail = f"_blob/{digest}/{block}"
        case DaemonTopic(channel):
            tail = f"_fleetd/{channel}"
    return f"{prefix}/{tail}"


def parse_topic(text: str, prefix: str = DEFAULT_PREFIX) -> Topic | None:
    """The topic that `text` names, or None when it is not one of ours. Never raises."""
    head = prefix + "/"
    if not text.startswith(head) or len(text) > TOPIC_BYTES + len(head):
        return None
    tail = text[len(head) :]
    if found := _CAMERA.fullmatch(tail):
        camera, up, up_channel, _, down_channel = found.groups()
        return CameraTopic(camera, "up", up_channel) if up else CameraTopic(camera, "down", down_channel)
    if found := _BLOB.fullmatch(tail):
        return BlobTopic(found[1], int(found[2]))
    if found := _RELEASE.fullmatch(tail):
        return ReleaseTopic(found[1])
    if found := _DAEMON.fullmatch(tail):
        return DaemonTopic("status" if found[1] == "status" else "event")
    return None


def all_up(prefix: str = DEFAULT_PREFIX) -> str:
    """The filter that matches everything cameras publish."""
    return f"{prefix}/+/up/#"
