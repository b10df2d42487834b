"""/config: settings of cameras that are already out there."""

from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from fleetd.domain.tuning import NAMES
from fleetd.web.inputs import Body, CameraPath, ShortLine, Target
from fleetd.web.services import Operator, TunerService, Viewer

router = APIRouter(tags=["cameras"])


class ConfigIn(Body):
    """Settings to want of the cameras a query names, and names of settings to want no more."""

    target: Target
    set: dict[ShortLine, Any] = Field(default_factory=dict, max_length=len(NAMES))
    unset: list[ShortLine] = Field(default_factory=list, max_length=len(NAMES))


class ConfigChangedOut(BaseModel):
    """Cameras by name: those for which the wish is new, and those that had it already."""

    changed: list[str]
    unchanged: list[str]


class WantedOut(BaseModel):
    """What is wanted of a camera. It has it once `reported` is `generation` or more."""

    model_config = ConfigDict(from_attributes=True)

    camera: str
    settings: Mapping[str, Any]
    generation: int | None
    reported: int | None


@router.get("/cameras/{name}/config")
def show_config(name: CameraPath, tuner: TunerService, _: Viewer) -> WantedOut:
    """The settings that are wanted of a camera, secrets hidden."""
    return WantedOut.model_validate(tuner.wanted(name))


@router.patch("/config")
def change_config(body: ConfigIn, tuner: TunerService, actor: Operator) -> ConfigChangedOut:
    """Changes what is wanted of cameras. They take it when they hear it, also weeks later."""
    changed, unchanged = tuner.change(body.target, body.set, body.unset, actor=actor)
    return ConfigChangedOut(changed=changed, unchanged=unchanged)
