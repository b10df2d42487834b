"""From a validated message to the rows it becomes, one small function per channel.

`body` is what the channel's TypeAdapter answered, `head` the columns every message row has. A function yields
(table name, row); the names STATUS_STATE and LED_STATE stand for changes of `camera_state`.
"""

from collections.abc import Callable, Iterator
from typing import Any, Final

Body = dict[str, Any]
Row = dict[str, Any]
Rows = Iterator[tuple[str, Row]]

STATUS_STATE: Final = "camera_state:status"
LED_STATE: Final = "camera_state:led"

# Bulk inserts need the same columns in every row.
_TELEMETRY = (
    "fps",
    "inference_ms",
    "inference_ms_max",
    "heap_free",
    "storage_free",
    "rssi",
    "temperature_c",
    "supply_v",
    "uptime_s",
    "frames",
    "queue",
    "dropped",
    "reconnects",
    "picture",
)


def _status(body: Body, head: Row, _rest: str) -> Rows:
    release = body.get("release") or {}
    yield (
        STATUS_STATE,
        {
            "camera_id": head["camera_id"],
            "connected": body["online"],
            "boot": body["boot"],
            "status_at": head["at"],
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
            "storage": body.get("storage"),
            "network": body.get("network"),
            "capabilities": body.get("capabilities"),
            "problems": body.get("problems"),
        },
    )


def _result(body: Body, head: Row, _rest: str) -> Rows:
    release = body.get("release")
    for n, one in enumerate(body["results"]):
        yield (
            "results",
            {
                **head,
                "at": head["at"] + one.get("dt", 0) / 1000,
                "n": n,
                "label": one["label"],
                "score": one["score"],
                "scores": one.get("scores"),
                "inference_ms": one.get("inference_ms"),
                "frame": one.get("frame"),
                "release_id": release,
            },
        )


def _telemetry(body: Body, head: Row, _rest: str) -> Rows:
    yield "telemetry", {**head, **{name: body.get(name) for name in _TELEMETRY}}


def _led(body: Body, head: Row, _rest: str) -> Rows:
    color, pattern, reason = body["color"], body["pattern"], body.get("reason")
    yield (
        "sightings",
        {
            "camera_id": head["camera_id"],
            "at": head["at"],
            "received_at": head["received_at"],
            "color": color,
            "pattern": pattern,
            "source": "agent",
            "reason": reason,
        },
    )
    yield (
        LED_STATE,
        {
            "b_camera": head["camera_id"],
            "b_at": head["at"],
            "b_color": color,
            "b_pattern": pattern,
            "b_reason": reason,
        },
    )


def _update(body: Body, head: Row, _rest: str) -> Rows:
    blocks = body.get("blocks") or {}
    yield (
        "update_reports",
        {
            **head,
            "generation": body["generation"],
            "release_id": body["release"],
            "state": body["state"],
            "reason": body.get("reason"),
            "detail": body.get("detail"),
            "digest": body.get("digest"),
            "blocks_done": blocks.get("done"),
            "blocks_total": blocks.get("total"),
            "bytes": body.get("bytes"),
            "ms": body.get("ms"),
        },
    )


def _event(body: Body, head: Row, _rest: str) -> Rows:
    yield "events", {**head, "kind": body["kind"], "text": body.get("text"), "hash": body.get("hash")}


def _reply(body: Body, head: Row, rest: str) -> Rows:
    yield (
        "replies",
        {
            **head,
            "command": rest,
            "command_id": body["id"],
            "ok": body["ok"],
            "reason": body.get("reason"),
            "data": body.get("data"),
        },
    )


ROWS: Final[dict[str, Callable[[Body, Row, str], Rows]]] = {
    "status": _status,
    "result": _result,
    "telemetry": _telemetry,
    "led": _led,
    "update": _update,
    "event": _event,
    "reply": _reply,
}
