"""/tokens and /audit: who may ask, and what was done."""

from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, status
from pydantic import BaseModel, ConfigDict

from fleetd.domain.records import Role
from fleetd.web.inputs import Body, NewestQuery, ShortLine, TokenNamePath
from fleetd.web.services import AccessService, Admin

router = APIRouter(tags=["access"])


class TokenIn(Body):
    """A token to make."""

    name: ShortLine
    role: Role


class TokenOut(BaseModel):
    """A token, without its secret: that is stored only as a hash."""

    model_config = ConfigDict(from_attributes=True)

    name: str
    role: Role
    created_at: float
    revoked_at: float | None


class NewTokenOut(BaseModel):
    """A new token, shown this once."""

    name: str
    role: Role
    token: str


class AuditOut(BaseModel):
    """One change and who made it."""

    model_config = ConfigDict(extra="ignore")

    at: float
    actor: str
    action: str
    subject: str
    facts: Mapping[str, Any]


@router.get("/tokens")
def list_tokens(access: AccessService, _: Admin) -> list[TokenOut]:
    """All tokens, revoked ones too."""
    return [TokenOut.model_validate(token) for token in access.tokens()]


@router.post("/tokens", status_code=status.HTTP_201_CREATED)
def create(body: TokenIn, access: AccessService, actor: Admin) -> NewTokenOut:
    """Makes a token and answers it, once."""
    secret = access.create_token(body.name, body.role, actor=actor)
    return NewTokenOut(name=body.name, role=body.role, token=secret)


@router.delete("/tokens/{name}", status_code=status.HTTP_204_NO_CONTENT)
def revoke(name: TokenNamePath, access: AccessService, actor: Admin) -> None:
    """Ends a token."""
    access.revoke_token(name, actor=actor)


@router.get("/audit")
def audit(access: AccessService, _: Admin, newest: NewestQuery) -> list[AuditOut]:
    """What was changed by whom, newest first."""
    return [AuditOut.model_validate(entry) for entry in access.audit(newest.limit)]
