"""What cameras sent, newest first, and what could not be understood."""

import base64
from collections.abc import Mapping
from typing import Annotated, Any, Self

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict

from fleetd.web.cameras import SightingOut
from fleetd.web.inputs import CameraId, Label, NewestQuery, SinceQuery, UnixSeconds, Window, WindowQuery
from fleetd.web.services import AllServices, RegistryService, Viewer

router = APIRouter(tags=["history"])
SUMMARY_SECONDS = 24 * 3600.0


class _Row(BaseModel):
    """One stored row; columns that are not named here stay inside."""

    model_config = ConfigDict(extra="ignore", from_attributes=True)


class ResultOut(_Row):
    """One classification."""

    camera: str
    at: float
    received_at: float
    label: str
    score: float
    scores: list[float] | None
    inference_ms: float | None
    frame: int | None
    count: int | None = None  # frames that it stands for, in a summary
    release_id: str | None
    boot: str | None
    seq: int
    n: int


class LabelCountOut(_Row):
    """How often a camera saw a label with a release, and how sure it was."""

    camera: str
    label: str
    count: int
    mean_score: float | None
    release_id: str | None


class TelemetryOut(_Row):
    """How a camera was doing. Boards differ in what they can measure."""

    camera: str
    at: float
    received_at: float
    fps: float | None = None
    inference_ms: float | None = None
    inference_ms_max: float | None = None
    capture_ms: float | None = None
    frame_ms: float | None = None
    heap_free: int | None = None
    storage_free: int | None = None
    rssi: float | None = None
    temperature_c: float | None = None
    supply_v: float | None = None
    uptime_s: int | None = None
    frames: int | None = None
    queue: int | None = None
    dropped: Mapping[str, int] | None = None
    reconnects: int | None = None
    picture: Mapping[str, Any] | None = None


class EventOut(_Row):
    """Something a camera told: a boot, an exception, a lost radio link."""

    camera: str
    at: float
    kind: str
    text: str | None
    hash: str | None


class UnknownCameraOut(_Row):
    """A name that publishes without being enrolled."""

    name: str
    first_seen: float
    last_seen: float
    messages: int


class DeadLetterOut(BaseModel):
    """A message that could not be stored as what it claims to be. `payload` is its beginning, in base64."""

    received_at: float
    topic: str
    reason: str
    detail: str
    size: int
    payload: str
    text: str

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Self:
        """The answer for one row; `text` is the payload as far as it can be read."""
        payload: bytes = row["payload"]
        return cls(
            received_at=row["received_at"],
            topic=row["topic"],
            reason=row["reason"],
            detail=row["detail"],
            size=row["size"],
            payload=base64.b64encode(payload).decode("ascii"),
            text=payload.decode("utf-8", "backslashreplace"),
        )


class ResultsWindow(Window):
    """A window on results, optionally of one label."""

    label: Label | None = None


class SinceOneCamera(BaseModel):
    """What a summary covers."""

    model_config = ConfigDict(extra="forbid")

    camera: CameraId | None = None
    since: UnixSeconds | None = None


@router.get("/results")
def results(
    registry: RegistryService, _: Viewer, window: Annotated[ResultsWindow, Query()]
) -> list[ResultOut]:
    """Classifications, newest first."""
    rows = registry.results(
        camera=window.camera,
        since=window.since,
        until=window.until,
        label=window.label,
        limit=window.limit,
    )
    return [ResultOut.model_validate(row) for row in rows]


@router.get("/results/summary")
def summary(held: AllServices, _: Viewer, window: Annotated[SinceOneCamera, Query()]) -> list[LabelCountOut]:
    """How often each camera saw each label with each release; the last 24 hours unless `since` is given."""
    since = held.clock() - SUMMARY_SECONDS if window.since is None else window.since
    rows = held.registry.label_counts(camera=window.camera, since=since)
    return [LabelCountOut.model_validate(row) for row in rows]


@router.get("/telemetry")
def telemetry(registry: RegistryService, _: Viewer, window: WindowQuery) -> list[TelemetryOut]:
    """How cameras were doing, newest first."""
    rows = registry.telemetry(
        camera=window.camera, since=window.since, until=window.until, limit=window.limit
    )
    return [TelemetryOut.model_validate(row) for row in rows]


@router.get("/events")
def events(registry: RegistryService, _: Viewer, window: WindowQuery) -> list[EventOut]:
    """Boots, exceptions and whatever else cameras told, newest first."""
    rows = registry.events(camera=window.camera, since=window.since, until=window.until, limit=window.limit)
    return [EventOut.model_validate(row) for row in rows]


@router.get("/leds")
def leds(registry: RegistryService, _: Viewer, newest: SinceQuery) -> list[SightingOut]:
    """What LEDs were seen doing, newest first."""
    found = registry.sightings(None, since=newest.since, limit=newest.limit)
    return [SightingOut.model_validate(sighting, from_attributes=True) for sighting in found]


@router.get("/unknown-cameras")
def unknown_cameras(registry: RegistryService, _: Viewer, newest: NewestQuery) -> list[UnknownCameraOut]:
    """Names that publish without being enrolled, latest first."""
    return [UnknownCameraOut.model_validate(row) for row in registry.unknown(newest.limit)]


@router.get("/dead-letters")
def dead_letters(registry: RegistryService, _: Viewer, newest: NewestQuery) -> list[DeadLetterOut]:
    """Messages that could not be stored as what they claim to be, newest first."""
    return [DeadLetterOut.of(row) for row in registry.dead_letters(newest.limit)]
