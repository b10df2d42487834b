"""What routes ask for: the services of this application, and whoever is asking."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from fleetd.access import AccessControl
from fleetd.accounts import Accounts
from fleetd.domain.records import Role, Token
from fleetd.errors import AccessError
from fleetd.freshness import Freshness
from fleetd.incidents import Incidents
from fleetd.ota import Ota
from fleetd.ports import Clock
from fleetd.recovery import RecoveryService
from fleetd.registry import Registry
from fleetd.tuner import Tuner
from fleetd.web.errors import UnauthenticatedError

RANK: Final = {Role.VIEWER: 0, Role.OPERATOR: 1, Role.ADMIN: 2}
TOKEN_CHARS: Final = 256


@dataclass(frozen=True, slots=True)
class Services:
    """Everything routes may call."""

    registry: Registry
    ota: Ota
    access: AccessControl
    incidents: Incidents
    recovery: RecoveryService
    freshness: Freshness
    accounts: Accounts
    tuner: Tuner
    status: Callable[[], Mapping[str, Any]]
    clock: Clock


def services(request: Request) -> Services:
    """The services this application was built with."""
    held: Services = request.app.state.services
    return held


_Services = Annotated[Services, Depends(services)]


def _registry(held: _Services) -> Registry:
    return held.registry


def _ota(held: _Services) -> Ota:
    return held.ota


def _access(held: _Services) -> AccessControl:
    return held.access


def _incidents(held: _Services) -> Incidents:
    return held.incidents


def _recovery(held: _Services) -> RecoveryService:
    return held.recovery


def _freshness(held: _Services) -> Freshness:
    return held.freshness


def _accounts(held: _Services) -> Accounts:
    return held.accounts


def _tuner(held: _Services) -> Tuner:
    return held.tuner


RegistryService = Annotated[Registry, Depends(_registry)]
OtaService = Annotated[Ota, Depends(_ota)]
AccessService = Annotated[AccessControl, Depends(_access)]
IncidentService = Annotated[Incidents, Depends(_incidents)]
RecoveryServices = Annotated[RecoveryService, Depends(_recovery)]
FreshnessService = Annotated[Freshness, Depends(_freshness)]
AccountsService = Annotated[Accounts, Depends(_accounts)]
TunerService = Annotated[Tuner, Depends(_tuner)]
AllServices = _Services

_bearer = HTTPBearer(auto_error=False, description="An API token, see `fleetctl tokens`.")


def authenticated(
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)], access: AccessService
) -> Token:
    """The token that came with the request."""
    if credentials is None or not 0 < len(credentials.credentials) <= TOKEN_CHARS:
        raise UnauthenticatedError
    try:
        return access.authenticate(credentials.credentials)
    except AccessError:
        raise UnauthenticatedError(
            "The token is not known or was revoked. Ask an admin for a new one (`fleetctl tokens create`)."
        ) from None


def at_least(role: Role) -> Callable[[Token], str]:
    """A dependency: the name of whoever asks, if their role is `role` or more."""

    def allowed(token: Annotated[Token, Depends(authenticated)]) -> str:
        if RANK[token.role] < RANK[role]:
            raise AccessError(
                f"That takes the role {role}; this token is a {token.role}'s. Nothing was changed.",
                needed=role.value,
                role=token.role.value,
            )
        return token.name

    allowed.__name__ = f"at_least_{role.value}"
    return allowed


Viewer = Annotated[str, Depends(at_least(Role.VIEWER))]
Operator = Annotated[str, Depends(at_least(Role.OPERATOR))]
Admin = Annotated[str, Depends(at_least(Role.ADMIN))]
