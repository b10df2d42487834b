"""/health, /status, and the probes /healthz and /readyz: is it there, and how is it doing."""

from typing import Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from fleetd.web.services import AllServices, Viewer

router = APIRouter(tags=["system"])
probes = APIRouter(include_in_schema=False)


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


@probes.get("/healthz")
def alive() -> HealthOut:
    """Whether this process answers; for whoever starts it again when it does not."""
    return HealthOut(ok=True)


@probes.get("/readyz")
def ready(held: AllServices) -> JSONResponse:
    """Whether messages are being stored: 503 with what is waited for. Says no more, because it asks for no token."""
    waiting = sorted({str(problem).split()[0].strip(":") for problem in held.status()["problems"]})
    return JSONResponse({"ok": not waiting, "waiting_for": waiting}, 503 if waiting else 200)
