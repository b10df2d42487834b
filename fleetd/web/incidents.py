"""/incidents and /maintenance: what a person must look at, and when nobody wants to hear of it."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Self

from fastapi import APIRouter, Path, Query, status
from pydantic import BaseModel, Field

from fleetd.domain.incident_report import report
from fleetd.domain.incidents import Incident
from fleetd.web.inputs import Body, CameraId, Line, Newest, ShortLine, UnixSeconds
from fleetd.web.services import AllServices, IncidentService, Operator, Viewer

router = APIRouter(tags=["incidents"])
DAY_SECONDS = 86400
REPORT_MOST = 5000

IncidentPath = Annotated[int, Path(ge=1, le=2**31 - 1, description="The incident's number.")]
SubjectPath = Annotated[str, Path(pattern=r"^(all|site=[a-z0-9][a-z0-9_.-]{0,62}|[a-z0-9][a-z0-9-]{0,62})$")]


class CauseOut(BaseModel):
    """One thing that may be the cause, with what speaks for it."""

    cause: str
    title: str
    guide: str
    weight: int
    evidence: list[str]
    todo: str


class IncidentOut(BaseModel):
    """One incident. `camera` is null for a whole site."""

    id: int
    kind: str
    state: Literal["open", "closed"]
    severity: str
    camera: str | None
    site: str | None
    cameras: int
    summary: str
    causes: list[CauseOut]
    opened_at: float
    changed_at: float
    closed_at: float | None
    outcome: str | None
    owner: str | None
    muted_until: float | None
    times: int

    @classmethod
    def of(cls, incident: Incident) -> Self:
        """The answer for one."""
        return cls(
            id=incident.id,
            kind=str(incident.kind),
            state="open" if incident.closed_at is None else "closed",
            severity=incident.severity,
            camera=incident.camera,
            site=incident.site or None,
            cameras=incident.cameras,
            summary=incident.summary,
            causes=[CauseOut.model_validate(one) for one in incident.causes],
            opened_at=incident.opened_at,
            changed_at=incident.changed_at,
            closed_at=incident.closed_at,
            outcome=incident.outcome,
            owner=incident.owner,
            muted_until=incident.muted_until,
            times=incident.times,
        )


class NoteOut(BaseModel):
    """A line of an incident's story."""

    at: float
    author: str
    text: str


class NoticeOut(BaseModel):
    """What was told to whom, and whether it got through."""

    channel: str
    what: str
    created_at: float
    sent_at: float | None
    attempts: int
    error: str | None
    next_at: float | None


class IncidentStoryOut(IncidentOut):
    """An incident with its story."""

    notes: Sequence[NoteOut] = ()
    notices: Sequence[NoticeOut] = ()


class KindReportOut(BaseModel):
    """Incidents of one kind: how many, and the middle and mean time to recover in seconds."""

    kind: str
    incidents: int
    open: int
    mttr_s: float | None
    median_s: float | None


class OffenderOut(BaseModel):
    """A camera with its incidents and the seconds that they lasted."""

    camera: str
    incidents: int
    times: int
    down_s: float


class ReportOut(BaseModel):
    """Time to recover by kind, and the cameras that need it most."""

    since: float
    incidents: int
    open: int
    mttr_s: float | None
    kinds: list[KindReportOut]
    offenders: list[OffenderOut]


class MuteOut(BaseModel):
    """Maintenance under way."""

    subject: str
    until: float
    reason: str
    created_by: str


class NoteIn(Body):
    """A line for an incident's story."""

    text: Line = Field(min_length=1)


class OwnerIn(Body):
    """Who looks after it; null: nobody."""

    owner: ShortLine | None


class SecondsIn(Body):
    """For how long; 0 ends it."""

    seconds: float = Field(ge=0, le=366 * DAY_SECONDS)


class ReasonIn(Body):
    """Why."""

    reason: Line = Field(min_length=1)


class MaintenanceIn(Body):
    """Maintenance of a camera, of a site (`site=hall-3`), or of everything (`all`)."""

    seconds: float = Field(gt=0, le=366 * DAY_SECONDS)
    reason: Line = ""


class IncidentQuery(Newest):
    """Which incidents."""

    state: Literal["open", "closed", "all"] = "open"
    camera: CameraId | None = None
    since: UnixSeconds | None = None


@router.get("/incidents")
def list_incidents(
    incidents: IncidentService, _: Viewer, query: Annotated[IncidentQuery, Query()]
) -> list[IncidentOut]:
    """Incidents, newest first; the open ones unless asked otherwise."""
    is_open = {"open": True, "closed": False, "all": None}[query.state]
    found = incidents.incidents(is_open=is_open, camera=query.camera, since=query.since, limit=query.limit)
    return [IncidentOut.of(incident) for incident in found]


@router.get("/incidents/report")
def show_report(held: AllServices, _: Viewer, since: UnixSeconds | None = None) -> ReportOut:
    """Time to recover by kind and repeat offenders; the last 30 days unless `since` says otherwise."""
    now = held.clock()
    start = now - 30 * DAY_SECONDS if since is None else since
    found = held.incidents.incidents(is_open=None, since=start, limit=REPORT_MOST)
    return ReportOut.model_validate(report(found, start, now))


@router.get("/incidents/{incident_id}")
def show(incident_id: IncidentPath, incidents: IncidentService, _: Viewer) -> IncidentStoryOut:
    """One incident with its story and its notices."""
    incident, notes, notices = incidents.incident(incident_id)
    body: Mapping[str, Any] = IncidentOut.of(incident).model_dump()
    return IncidentStoryOut.model_validate({**body, "notes": list(notes), "notices": list(notices)})


@router.post("/incidents/{incident_id}/notes", status_code=status.HTTP_204_NO_CONTENT)
def note(incident_id: IncidentPath, body: NoteIn, incidents: IncidentService, actor: Operator) -> None:
    """Adds a line to its story."""
    incidents.note(incident_id, body.text, actor=actor)


@router.post("/incidents/{incident_id}/owner", status_code=status.HTTP_204_NO_CONTENT)
def own(incident_id: IncidentPath, body: OwnerIn, incidents: IncidentService, actor: Operator) -> None:
    """Says who looks after it."""
    incidents.own(incident_id, body.owner, actor=actor)


@router.post("/incidents/{incident_id}/mute", status_code=status.HTTP_204_NO_CONTENT)
def mute(incident_id: IncidentPath, body: SecondsIn, incidents: IncidentService, actor: Operator) -> None:
    """Sends no notices about it for a while; it stays open."""
    incidents.mute(incident_id, body.seconds, actor=actor)


@router.post("/incidents/{incident_id}/close", status_code=status.HTTP_204_NO_CONTENT)
def close(incident_id: IncidentPath, body: ReasonIn, incidents: IncidentService, actor: Operator) -> None:
    """Closes it by hand; refused while it is still true."""
    incidents.close(incident_id, body.reason, actor=actor)


@router.get("/maintenance")
def list_maintenance(incidents: IncidentService, _: Viewer) -> list[MuteOut]:
    """Cameras and sites that open no incidents now."""
    return [MuteOut.model_validate(one) for one in incidents.mutes()]


@router.put("/maintenance/{subject}", status_code=status.HTTP_204_NO_CONTENT)
def start_maintenance(
    subject: SubjectPath, body: MaintenanceIn, incidents: IncidentService, actor: Operator
) -> None:
    """Begins a maintenance, or changes its end."""
    incidents.start_maintenance(subject, body.seconds, body.reason, actor=actor)


@router.delete("/maintenance/{subject}", status_code=status.HTTP_204_NO_CONTENT)
def end_maintenance(subject: SubjectPath, incidents: IncidentService, actor: Operator) -> None:
    """Ends a maintenance early."""
    incidents.end_maintenance(subject, actor=actor)
