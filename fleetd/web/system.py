"""/health and /status: is it there, and how is it doing."""

from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel

from fleetd.web.services import AllServices, Viewer

router = APIRouter(tags=["system"])


class HealthOut(BaseModel):
    """The daemon answers. It says no more to someone it does not know."""

    ok: bool


@router.get("/health")
def health() -> HealthOut:
    """Whether fleetd answers at all; needs no token."""
    return HealthOut(ok=True)


@router.get("/status")
def status(held: AllServices, _: Viewer) -> dict[str, Any]:
    """How fleetd is doing: version, broker, backlog, counts."""
    return dict(held.status())
