"""Why a rollout or a camera is where it is, and what happens next, as the API says it."""

from typing import Self

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict

from fleetd.domain.records import AssignmentState
from fleetd.ota import CameraExplanation, Explanation
from fleetd.web.inputs import CameraPath, RolloutPath
from fleetd.web.rollouts import AssignmentOut, RolloutOut
from fleetd.web.services import OtaService, Viewer

router = APIRouter(tags=["explain"])
TRIES = 100


class WaveOut(BaseModel):
    """One wave, and how many of its cameras are in which state."""

    model_config = ConfigDict(from_attributes=True)

    name: str
    state: str
    cameras: int
    tally: dict[AssignmentState, int]


class FindingOut(BaseModel):
    """One signal of model health. `size`, `limit` are in the signal's unit, `evidence` is a factor against chance."""

    model_config = ConfigDict(from_attributes=True)

    signal: str
    text: str
    size: float
    limit: float
    evidence: float
    moved: bool
    cameras: list[str]


class DarkOut(BaseModel):
    """Cameras that run the release and how many are silent; the same of cameras that do not run it."""

    model_config = ConfigDict(from_attributes=True)

    running: int
    silent: int
    others: int
    others_silent: int


class ExplanationOut(BaseModel):
    """Why a rollout is where it is, and what happens next, `at` when the clock decides it."""

    rollout: RolloutOut
    why: str
    next: str
    at: float | None
    waves: list[WaveOut]
    signals: list[FindingOut]
    dark: DarkOut | None
    soaking_s: float
    per_minute: float | None
    left_s: float | None
    next_tries: list[AssignmentOut]

    @classmethod
    def of(cls, found: Explanation) -> Self:
        """The answer for one rollout."""
        signals = [
            FindingOut(
                signal=one.signal,
                text=str(one),
                size=one.size,
                limit=one.limit,
                evidence=one.evidence,
                moved=one.moved,
                cameras=list(one.cameras),
            )
            for one in found.findings
        ]
        return cls(
            rollout=RolloutOut.model_validate(found.rollout),
            why=found.why,
            next=found.next,
            at=found.at,
            waves=[WaveOut.model_validate(one) for one in found.waves],
            signals=signals,
            dark=None if found.dark is None else DarkOut.model_validate(found.dark),
            soaking_s=found.soaking_s,
            per_minute=found.per_minute,
            left_s=found.left_s,
            next_tries=[AssignmentOut.model_validate(one) for one in found.next_tries[:TRIES]],
        )


class DesiredOut(BaseModel):
    """What a camera should run. The broker has it once `sent_generation` has come up to `generation`."""

    model_config = ConfigDict(from_attributes=True)

    generation: int
    sent_generation: int
    release_id: str | None
    changed_at: float


class AttemptOut(BaseModel):
    """A try that did not succeed."""

    model_config = ConfigDict(from_attributes=True)

    release_id: str
    rollout_id: int
    at: float
    state: str
    reason: str | None


class CameraExplanationOut(BaseModel):
    """What a camera should run, what it says it runs, and what its part in a rollout waits for."""

    camera: str
    why: str
    next: str
    presence: str
    seen_at: float | None
    silent_s: float | None
    reported_release: str | None
    reported_digest: str | None
    reported_generation: int | None
    trial: str | None
    pinned: str | None
    desired: DesiredOut | None
    rollout: int | None
    assignment: AssignmentOut | None
    attempts: list[AttemptOut]

    @classmethod
    def of(cls, found: CameraExplanation) -> Self:
        """The answer for one camera."""
        camera, part = found.camera, found.assignment
        return cls(
            camera=camera.name,
            why=found.why,
            next=found.next,
            presence=str(found.presence),
            seen_at=camera.seen_at,
            silent_s=found.silent_s,
            reported_release=camera.release_id,
            reported_digest=camera.release_digest,
            reported_generation=camera.generation,
            trial=camera.trial,
            pinned=camera.pinned,
            desired=None if found.desired is None else DesiredOut.model_validate(found.desired),
            rollout=None if part is None else part.rollout_id,
            assignment=None if part is None else AssignmentOut.model_validate(part),
            attempts=[AttemptOut.model_validate(one) for one in found.attempts],
        )


@router.get("/rollouts/{rollout_id}/explain")
def explain(rollout_id: RolloutPath, ota: OtaService, _: Viewer) -> ExplanationOut:
    """Why a rollout is where it is, and what happens next."""
    return ExplanationOut.of(ota.explain(rollout_id))


@router.get("/cameras/{name}/explain")
def explain_camera(name: CameraPath, ota: OtaService, _: Viewer) -> CameraExplanationOut:
    """What a camera should run, what it says, and what happens next."""
    return CameraExplanationOut.of(ota.explain_camera(name))
