"""From a validated message to the rows it becomes, one small function per channel.

`body` is what the channel's TypeAdapter answered, `head` the columns every message row begins with (`HEAD`), as a
tuple. Rows are tuples in the order of `COLUMNS`, because that is what the database driver takes fastest; a JSON
column holds text. Changes of `camera_state` are dicts.
"""

import json
from collections.abc import Callable
from typing import Any, Final, NamedTuple

Body = dict[str, Any]

AHEAD_S: Final = 3600.0  # a camera's clock may be this far ahead of ours

HEAD: Final = ("camera_id", "boot_id", "seq", "at", "received_at")
_TELEMETRY: Final = (
    "fps",
    "inference_ms",
    "inference_ms_max",
    "capture_ms",
    "frame_ms",
    "heap_free",
    "storage_free",
    "rssi",
    "temperature_c",
    "supply_v",
    "uptime_s",
    "frames",
    "queue",
    "reconnects",
)
COLUMNS: Final[dict[str, tuple[str, ...]]] = {
    "results": (
        *HEAD,
        "n",
        "label",
        "score",
        "scores",
        "inference_ms",
        "frame",
        "count",
        "release_id",
        "chunk",
    ),
    "telemetry": (*HEAD, *_TELEMETRY, "dropped", "picture", "chunk"),
    "sightings": ("camera_id", "at", "received_at", "color", "pattern", "source", "reason"),
    "events": (*HEAD, "kind", "text", "hash"),
    "update_reports": (
        *HEAD,
        "generation",
        "release_id",
        "state",
        "reason",
        "detail",
        "digest",
        "blocks_done",
        "blocks_total",
        "bytes",
        "ms",
    ),
    "image_pieces": (
        *HEAD,
        "image",
        "n",
        "pieces",
        "size",
        "sha256",
        "why",
        "label",
        "score",
        "release_id",
        "data",
    ),
    "replies": (*HEAD, "command", "command_id", "ok", "reason", "data"),
}


class Head(NamedTuple):
    """The columns of HEAD."""

    camera_id: int
    boot_id: int
    seq: int
    at: float
    received_at: float


class Rows:
    """What a batch writes. `chunk` is the number of the chunk that rows of each big table go to."""

    __slots__ = ("chunk", "leds", "status", "tables")

    def __init__(self) -> None:
        self.chunk: dict[str, int] = {}
        self.tables: dict[str, list[tuple[Any, ...]]] = {name: [] for name in COLUMNS}
        self.status: list[dict[str, Any]] = []  # last wills among them, which have no `status_seq`
        self.leds: list[dict[str, Any]] = []


def _json(value: Any) -> str | None:
    return None if value is None else json.dumps(value, separators=(",", ":"), allow_nan=False)


def _status(rows: Rows, body: Body, head: Head, _rest: str) -> None:
    release, keys = body.get("release") or {}, body.get("keys") or {}
    rows.status.append(
        {
            "camera_id": head.camera_id,
            "connected": body["online"],
            "boot": body["boot"],
            "status_at": head.at,
            "status_seq": body["seq"],
            "reset_cause": body.get("reset"),
            "agent": body.get("agent"),
            "firmware": body.get("firmware"),
            "board": body.get("board"),
            "uid": body.get("uid"),
            "generation": body.get("generation"),
            "release_id": release.get("id"),
            "release_digest": release.get("digest"),
            "release_sequence": release.get("sequence"),
            "release_epoch": release.get("epoch"),
            "trial": body.get("trial"),
            "key_serial": keys.get("serial"),
            "key_epoch": keys.get("epoch"),
            "storage": body.get("storage"),
            "network": body.get("network"),
            "capabilities": body.get("capabilities"),
            "problems": body.get("problems"),
        }
    )


def _result(rows: Rows, body: Body, head: Head, _rest: str) -> None:
    release = body.get("release")
    camera_id, boot_id, seq, at, received_at = head
    chunk = rows.chunk["results"]
    add = rows.tables["results"].append
    for n, one in enumerate(body["results"]):
        get = one.get
        scores = get("scores")
        add(
            (
                camera_id,
                boot_id,
                seq,
                at + get("dt", 0) / 1000,
                received_at,
                n,
                one["label"],
                one["score"],
                None if scores is None else _json(scores),
                get("inference_ms"),
                get("frame"),
                get("count"),
                release,
                chunk,
            )
        )


def _telemetry(rows: Rows, body: Body, head: Head, _rest: str) -> None:
    known = tuple(body.get(name) for name in _TELEMETRY)
    dropped, picture = _json(body.get("dropped")), _json(body.get("picture"))
    rows.tables["telemetry"].append((*head, *known, dropped, picture, rows.chunk["telemetry"]))


def _led(rows: Rows, body: Body, head: Head, _rest: str) -> None:
    color, pattern, reason = body["color"], body["pattern"], body.get("reason")
    seen = (head.camera_id, head.at, head.received_at, color, pattern, "agent", reason)
    rows.tables["sightings"].append(seen)
    rows.leds.append(
        {
            "b_camera": head.camera_id,
            "b_at": head.at,
            "b_ahead": head.received_at + AHEAD_S,
            "b_color": color,
            "b_pattern": pattern,
            "b_reason": reason,
        }
    )


def _update(rows: Rows, body: Body, head: Head, _rest: str) -> None:
    blocks = body.get("blocks") or {}
    rows.tables["update_reports"].append(
        (
            *head,
            body["generation"],
            body["release"],
            body["state"],
            body.get("reason"),
            body.get("detail"),
            body.get("digest"),
            blocks.get("done"),
            blocks.get("total"),
            body.get("bytes"),
            _json(body.get("ms")),
        )
    )


def _event(rows: Rows, body: Body, head: Head, _rest: str) -> None:
    rows.tables["events"].append((*head, body["kind"], body.get("text"), body.get("hash")))


def _reply(rows: Rows, body: Body, head: Head, rest: str) -> None:
    rows.tables["replies"].append(
        (*head, rest, body["id"], body["ok"], body.get("reason"), _json(body.get("data")))
    )


def _image(rows: Rows, body: Body, head: Head, rest: str) -> None:
    image, _, number = rest.partition("/")
    facts = (body["pieces"], body["size"], body["sha256"], body["why"], body.get("label"), body.get("score"))
    piece = (*head, image, int(number), *facts, body.get("release"), body["data"])
    rows.tables["image_pieces"].append(piece)


CHANNELS: Final[dict[str, Callable[[Rows, Body, Head, str], None]]] = {
    "status": _status,
    "result": _result,
    "telemetry": _telemetry,
    "led": _led,
    "update": _update,
    "event": _event,
    "reply": _reply,
    "image": _image,
}
