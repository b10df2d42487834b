"""Commands to cameras: send one, look what became of it."""

from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, status
from pydantic import BaseModel, ConfigDict, Field

from fleetd.web.inputs import Body, CameraPath, CommandIdPath, WordPath
from fleetd.web.services import Operator, RegistryService, Viewer

router = APIRouter(tags=["commands"])


class CommandIn(Body):
    """How a command is to be carried out, and how many seconds it stays good."""

    args: dict[str, Any] = Field(default_factory=dict, max_length=16)
    ttl_s: int = Field(60, ge=1, le=86400)


class CommandSentOut(BaseModel):
    """The number under which GET /commands/{id} tells what became of it."""

    id: str


class CommandOut(BaseModel):
    """A command and what became of it: queued, sent, done, failed or expired."""

    model_config = ConfigDict(extra="ignore")

    id: str
    camera: str
    command: str
    state: str
    created_at: float
    sent_at: float | None
    reason: str | None
    data: Mapping[str, Any] | None


@router.post("/cameras/{name}/commands/{command}", status_code=status.HTTP_202_ACCEPTED)
def send(
    name: CameraPath,
    command: WordPath,
    registry: RegistryService,
    actor: Operator,
    body: CommandIn | None = None,
) -> CommandSentOut:
    """Queues a command for a camera; it is sent once, and expires."""
    wanted = body or CommandIn()
    return CommandSentOut(
        id=registry.send_command(name, command, args=wanted.args, ttl_s=wanted.ttl_s, actor=actor)
    )


@router.get("/commands/{command_id}")
def show(command_id: CommandIdPath, registry: RegistryService, _: Viewer) -> CommandOut:
    """What became of a command."""
    return CommandOut.model_validate(registry.command(command_id))
