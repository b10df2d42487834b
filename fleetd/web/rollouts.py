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
        default_factory=lambda: [100], min_length=1, max_length=16
    )
    settings: SettingsIn = Field(default_factory=SettingsIn)
