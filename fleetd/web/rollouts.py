"""/rollouts: bring a release to the cameras a query names, watch it, pause, resume or cancel it."""

from typing import Annotated, Final, Self

from fastapi import APIRouter, status
from pydantic import BaseModel, ConfigDict, Field

from fleetd.domain.health import SignalName
from fleetd.domain.records import AssignmentState, RolloutSettings, RolloutState
from fleetd.domain.retrying import MAX_DELAY_S, MAX_RETRIES, RETRYABLE
from fleetd.domain.rollout import MAX_SILENCE_S, MAX_SOAK_S, MAX_WAVES
from fleetd.domain.windows import MAX_CHARS
from fleetd.ota import RolloutPreview, RolloutView
from fleetd.web.inputs import Body, Line, NewestQuery, ReleaseId, RolloutPath, ShortLine, Target, UnixSeconds
from fleetd.web.services import Operator, OtaService, Viewer

router = APIRouter(prefix="/rollouts", tags=["rollouts"])
_DEFAULTS: Final = RolloutSettings()
Limit = Annotated[int | None, Field(ge=1, le=1_000_000)]


class SettingsIn(Body):
    """The limits of a rollout."""

    max_failed: int = Field(_DEFAULTS.max_failed, ge=0, le=1_000_000)
    tolerated: float = Field(_DEFAULTS.tolerated, ge=0, le=1)
    tolerated_silence: float = Field(_DEFAULTS.tolerated_silence, ge=0, le=1)
    min_sample: int = Field(_DEFAULTS.min_sample, ge=1, le=1_000_000)
    silence_s: float = Field(_DEFAULTS.silence_s, ge=1, le=MAX_SILENCE_S)
    soak_s: float = Field(_DEFAULTS.soak_s, ge=0, le=MAX_SOAK_S)
    health: bool = _DEFAULTS.health
    ignore: tuple[SignalName, ...] = Field((), max_length=len(SignalName))
    start_at: UnixSeconds | None = None
    window: Annotated[Line | None, Field(max_length=MAX_CHARS)] = None
    at_once: Limit = None
    site_at_once: Limit = None
    site_per_hour: Limit = None
    retries: int = Field(_DEFAULTS.retries, ge=0, le=MAX_RETRIES)
    retry_after_s: float = Field(_DEFAULTS.retry_after_s, ge=1, le=MAX_DELAY_S)
    retry_reasons: tuple[ShortLine, ...] = Field(_DEFAULTS.retry_reasons, max_length=len(RETRYABLE))
    priority: int = Field(_DEFAULTS.priority, ge=-100, le=100)
    take_back: bool = _DEFAULTS.take_back
    way_back: ReleaseId | None = None
    approval: bool = _DEFAULTS.approval


class PreviewIn(Body):
    """A rollout to think about. `waves` are cumulative shares in percent that end with 100; before them comes a
    wave of `canaries` cameras, unless it is 0.
    """

    release: ReleaseId
    target: Target
    waves: list[Annotated[int, Field(ge=1, le=100)]] = Field(
        default_factory=lambda: [100], min_length=1, max_length=MAX_WAVES
    )
    canaries: int = Field(0, ge=0, le=1_000_000)


class RolloutIn(PreviewIn):
    """A rollout to start."""

    settings: SettingsIn = Field(default_factory=SettingsIn)


class SettingsOut(BaseModel):
    """The limits of a rollout. `accepted` bad outcomes were waved through by resuming."""

    model_config = ConfigDict(from_attributes=True)

    max_failed: int
    tolerated: float
    tolerated_silence: float
    min_sample: int
    silence_s: float
    soak_s: float
    health: bool
    ignore: list[str]
    canaries: int
    start_at: float | None
    window: str | None
    at_once: int | None
    site_at_once: int | None
    site_per_hour: int | None
    retries: int
    retry_after_s: float
    retry_reasons: list[str]
    priority: int
    take_back: bool
    way_back: str | None
    approval: bool
    approved_by: str | None
    accepted: int


class RolloutOut(BaseModel):
    """A release on its way to the cameras a query names."""

    model_config = ConfigDict(from_attributes=True)

    id: int
    release_id: str
    target: str
    state: RolloutState
    reason: str | None
    waves: list[int]
    wave: int
    settings: SettingsOut
    created_at: float
    created_by: str
    finished_at: float | None


class AssignmentOut(BaseModel):
    """One camera's part of a rollout."""

    model_config = ConfigDict(from_attributes=True)

    camera: str
    site: str
    release_id: str
    was_release: str | None
    wave: int
    state: AssignmentState
    reason: str | None
    detail: str | None
    generation: int | None
    blocks_done: int | None
    blocks_total: int | None
    created_at: float
    offered_at: float | None
    changed_at: float
    deadline_at: float | None
    retry_at: float | None
    finished_at: float | None


class RolloutViewOut(BaseModel):
    """A rollout with every camera's part in it, and how many are in which state."""

    rollout: RolloutOut
    assignments: list[AssignmentOut]
    tally: dict[AssignmentState, int]

    @classmethod
    def of(cls, view: RolloutView) -> Self:
        """The answer for one rollout."""
        return cls(
            rollout=RolloutOut.model_validate(view.rollout),
            assignments=[AssignmentOut.model_validate(one) for one in view.assignments],
            tally=dict(view.tally),
        )


class SkippedOut(BaseModel):
    """A camera that the query names and the rollout leaves out, and why."""

    model_config = ConfigDict(from_attributes=True)

    camera: str
    reason: str
    detail: str


class PreviewOut(BaseModel):
    """Who would get the release, by wave, and who would not."""

    release_id: str
    target: str
    cameras: list[str]
    skipped: list[SkippedOut]
    waves: list[list[str]]

    @classmethod
    def of(cls, preview: RolloutPreview) -> Self:
        """The answer for one preview."""
        return cls(
            release_id=preview.release_id,
            target=preview.target,
            cameras=list(preview.cameras),
            skipped=[SkippedOut.model_validate(one) for one in preview.skipped],
            waves=[list(wave) for wave in preview.waves],
        )


class RetriedOut(BaseModel):
    """The number of the new rollout."""

    id: int


class RevertIn(Body):
    """The release that brings the old content back."""

    release: ReleaseId


@router.post("/preview")
def preview(body: PreviewIn, ota: OtaService, _: Operator) -> PreviewOut:
    """What a rollout would do, without doing it."""
    return PreviewOut.of(ota.preview(body.release, body.target, body.waves, body.canaries))


@router.post("", status_code=status.HTTP_201_CREATED)
def start(body: RolloutIn, ota: OtaService, actor: Operator) -> RolloutOut:
    """Starts a rollout."""
    rollout = ota.start_rollout(
        body.release,
        body.target,
        waves=body.waves,
        settings=RolloutSettings(**body.settings.model_dump(), canaries=body.canaries),
        actor=actor,
    )
    return RolloutOut.model_validate(rollout)


@router.get("")
def list_rollouts(ota: OtaService, _: Viewer, newest: NewestQuery) -> list[RolloutOut]:
    """Rollouts, newest first."""
    return [RolloutOut.model_validate(rollout) for rollout in ota.rollouts()[: newest.limit]]


@router.get("/{rollout_id}")
def show(rollout_id: RolloutPath, ota: OtaService, _: Viewer) -> RolloutViewOut:
    """One rollout with every camera's part in it."""
    return RolloutViewOut.of(ota.rollout(rollout_id))


@router.post("/{rollout_id}/pause")
def pause(rollout_id: RolloutPath, ota: OtaService, actor: Operator) -> RolloutOut:
    """Offers nothing more until it is resumed; what cameras have begun goes on."""
    return RolloutOut.model_validate(ota.pause(rollout_id, actor=actor))


@router.post("/{rollout_id}/approve")
def approve(rollout_id: RolloutPath, ota: OtaService, actor: Operator) -> RolloutOut:
    """Lets a rollout begin that takes a second person: anybody but the one who started it."""
    return RolloutOut.model_validate(ota.approve(rollout_id, actor=actor))


@router.post("/{rollout_id}/resume")
def resume(rollout_id: RolloutPath, ota: OtaService, actor: Operator) -> RolloutOut:
    """Goes on with a rollout that was paused, or was halted and whose outcome so far is accepted."""
    return RolloutOut.model_validate(ota.resume(rollout_id, actor=actor))


@router.post("/{rollout_id}/cancel")
def cancel(rollout_id: RolloutPath, ota: OtaService, actor: Operator) -> RolloutOut:
    """Ends a rollout and withdraws its offers, also from cameras that are transferring."""
    return RolloutOut.model_validate(ota.cancel(rollout_id, actor=actor))


@router.post("/{rollout_id}/retry", status_code=status.HTTP_201_CREATED)
def retry(rollout_id: RolloutPath, ota: OtaService, actor: Operator) -> RetriedOut:
    """Offers the release again, in a new rollout, to the cameras that failed or fell silent."""
    return RetriedOut(id=ota.retry(rollout_id, actor=actor))


@router.post("/{rollout_id}/revert", status_code=status.HTTP_201_CREATED)
def revert(rollout_id: RolloutPath, body: RevertIn, ota: OtaService, actor: Operator) -> RolloutOut:
    """Brings another, newer release to the cameras that took this rollout's; ends it if it still goes on."""
    return RolloutOut.model_validate(ota.revert(rollout_id, body.release, actor=actor))


@router.delete("/{rollout_id}", status_code=status.HTTP_204_NO_CONTENT)
def delete(rollout_id: RolloutPath, ota: OtaService, actor: Operator) -> None:
    """Forgets a rollout that has ended. What cameras reverted and the audit trail are kept."""
    ota.delete(rollout_id, actor=actor)
