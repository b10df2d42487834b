"""The HTTP application, built around the services it is given."""

import asyncio
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from fleetd import __version__
from fleetd.access import AccessControl
from fleetd.accounts import Accounts
from fleetd.errors import FleetError
from fleetd.freshness import Freshness
from fleetd.incidents import Incidents
from fleetd.ota import Ota
from fleetd.ports import Clock
from fleetd.recovery import RecoveryService
from fleetd.registry import Registry
from fleetd.tuner import Tuner
from fleetd.web import access as access_routes
from fleetd.web import (
    cameras,
    commands,
    explaining,
    history,
    images,
    incidents,
    keys,
    mqttusers,
    recovery,
    releases,
    rollouts,
    system,
    tuning,
)
from fleetd.web.errors import ErrorOut, error_response, from_http, malformed
from fleetd.web.gate import Gate
from fleetd.web.services import Services

PREFIX: Final = "/api/v1"
ROUTERS: Final[tuple[APIRouter, ...]] = (
    system.router,
    cameras.router,
    commands.router,
    images.router,
    history.router,
    keys.router,
    releases.router,
    rollouts.router,
    incidents.router,
    recovery.router,
    explaining.router,
    access_routes.router,
    mqttusers.router,
    tuning.router,
)


def create_app(
    registry: Registry,
    ota: Ota,
    access: AccessControl,
    incidents_service: Incidents,
    recovery_service: RecoveryService,
    freshness: Freshness,
    accounts: Accounts,
    tuner: Tuner,
    *,
    status: Callable[[], Mapping[str, Any]],
    allowed_hosts: Collection[str],
    clock: Clock = time.time,
) -> FastAPI:
    """The API over these services.

    `allowed_hosts` are the names (without port), besides loopback's, that may stand in a Host header; "*"
    allows any, which also allows DNS rebinding. `status` answers what GET /status shows.
    """
    app = FastAPI(
        title="fleetd",
        version=__version__,
        description="Cameras, what they see and do, and the models they run. See docs/api.md.",
        openapi_url=f"{PREFIX}/openapi.json",
        docs_url=None,  # these pages load scripts from other people's servers
        redoc_url=None,
        swagger_ui_oauth2_redirect_url=None,
        responses={"default": {"model": ErrorOut, "description": "Anything that is not a success."}},
    )
    app.state.services = Services(
        registry=registry,
        ota=ota,
        access=access,
        accounts=accounts,
        tuner=tuner,
        incidents=incidents_service,
        recovery=recovery_service,
        status=status,
        freshness=freshness,
        clock=clock,
    )
    app.state.uploading = asyncio.Lock()
    app.state.unpacking = asyncio.Semaphore(releases.CONTENTS_AT_ONCE)
    for router in ROUTERS:
        app.include_router(router, prefix=PREFIX)
    app.include_router(system.probes)
    app.add_exception_handler(FleetError, _on_fleet_error)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_middleware(Gate, allowed_hosts=allowed_hosts)
    return app


def _on_fleet_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, FleetError)  # noqa: S101  # registered for exactly that class
    return error_response(error)


def _on_invalid(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101  # registered for exactly that class
    return error_response(malformed(error.errors()))


def _on_http_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101  # registered for exactly that class
    return error_response(from_http(error))
