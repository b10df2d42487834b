"""/rollouts: bring a release to the cameras a query names, watch it, pause, resume or cancel it."""

from typing import Annotated

from fastapi import APIRouter
from pydantic import Field

from fleetd.domain.records import RolloutSettings
from fleetd.web.inputs import Body, ReleaseId, Target

router = APIRouter(prefix="/rollouts", tags=["rollouts"])
_DEFAULTS = RolloutSettings()


class SettingsIn(Body):
    """The limits of a rollout."""

    max_failed: int = Field(_DEFAULTS.max_failed, ge=0, le=1_000_000)
    min_sample: int = Field(_DEFAULTS.min_sample, ge=1, le=1_000_000)
    silence_s: float = Field(_DEFAULTS.silence_s, ge=1, le=30 * 86400)


class PreviewIn(Body):
    """A rollout to think about."""

    release: ReleaseId
    target: Target


class RolloutIn(PreviewIn):
    """A rollout to start. `waves` are cumulative shares in percent and end with 100."""

    waves: list[Annotated[int, Field(ge=1, le=100)]] = Field(
        default_factory=lambda: [100], min_length=1, max_length=20
    )
    settings: SettingsIn = Field(default_factory=SettingsIn)


class SettingsOut(BaseModel):
    """The limits of a rollout. `accepted` bad outcomes were waved through by resuming."""

    model_config = ConfigDict(from_attributes=True)

    max_failed: int
    min_sample: int
    silence_s: float
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
    release_id: str
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
