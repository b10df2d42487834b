"""How errors leave over HTTP: one shape, and the only place that knows status numbers.

{"error": {"code": "unknown_camera", "message": "...", "facts": {"camera": "cam-9"}}}
"""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.responses import Response

from fleetd.errors import (
    AccessError,
    ConflictError,
    FleetError,
    InvalidError,
    NotFoundError,
    UnavailableError,
)

RETRY_AFTER_SECONDS: Final = 5
FACT_CHARS: Final = 500
FACT_ITEMS: Final = 100


class UnauthenticatedError(AccessError):
    """A valid token is needed: send it as `Authorization: Bearer TOKEN`."""

    code = "unauthenticated"


class UnknownPathError(NotFoundError):
    """The API has no such address. /api/v1/openapi.json lists those it has."""

    code = "unknown_path"


class MethodError(InvalidError):
    """The API has that address, but not for this method."""

    code = "method_not_allowed"


class WrongHostError(AccessError):
    """This server does not answer under that host name. Add it to the allowed hosts if it should."""

    code = "wrong_host"


class TooLargeError(InvalidError):
    """The request is too large. Nothing was changed."""

    code = "too_large"


class TooSlowError(InvalidError):
    """The request's body did not arrive in time. Nothing was changed; try again."""

    code = "too_slow"


class MediaTypeError(InvalidError):
    """The body has a media type that this address does not take. Nothing was changed."""

    code = "unsupported_media_type"


class MalformedError(InvalidError):
    """The request does not have the expected form. Nothing was changed; `problems` says where."""

    code = "malformed"


class InternalError(FleetError):
    """Something inside fleetd broke. What was asked for may not have happened; its log says more."""

    code = "internal"


STATUS: Final[Mapping[type[FleetError], int]] = {
    UnauthenticatedError: 401,
    AccessError: 403,
    NotFoundError: 404,
    MethodError: 405,
    TooSlowError: 408,
    ConflictError: 409,
    TooLargeError: 413,
    MediaTypeError: 415,
    WrongHostError: 421,
    InvalidError: 422,
    FleetError: 500,
    UnavailableError: 503,
}


class ErrorBody(BaseModel):
    """What went wrong: `code` for programs, `message` for people, `facts` for both."""

    code: str
    message: str
    facts: dict[str, Any]


class ErrorOut(BaseModel):
    """The body of every answer that is not a success."""

    error: ErrorBody


class BodyRefusedError(HTTPException):
    """Carries one of our errors through body readers that turn everything but HTTPException into 400."""

    def __init__(self, error: FleetError) -> None:
        super().__init__(status_of(error))
        self.error = error


def status_of(error: FleetError) -> int:
    """The HTTP status of the nearest class in the error's family."""
    return next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)


def error_response(error: FleetError) -> Response:
    """The answer for an error. ASCII only, so that no echoed character can break its encoding."""
    status = status_of(error)
    headers = {}
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if status == 503:
        headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
    facts = {name: _plain(value) for name, value in error.facts.items()}
    body = {"error": {"code": error.code, "message": error.message, "facts": facts}}
    return Response(
        json.dumps(body, ensure_ascii=True, allow_nan=False),
        status_code=status,
        headers=headers,
        media_type="application/json",
    )


def malformed(problems: Sequence[Mapping[str, Any]]) -> MalformedError:
    """A validation error in our shape. What was sent is not repeated: it may be a secret, or hostile."""
    found = [
        {"where": ".".join(str(part) for part in problem["loc"])[:FACT_CHARS], "problem": str(problem["msg"])}
        for problem in problems[:FACT_ITEMS]
    ]
    first = f" {found[0]['where']}: {found[0]['problem']}." if found else ""
    return MalformedError(
        f"The request does not have the expected form.{first} Nothing was changed.", problems=found
    )


def from_http(error: HTTPException) -> FleetError:
    """The framework's own errors (unknown path, wrong method, unreadable body) as ours."""
    if isinstance(error, BodyRefusedError):
        return error.error
    match error.status_code:
        case 404:
            return UnknownPathError()
        case 405:
            return MethodError()
        case _:
            return MalformedError(f"The request cannot be read: {error.detail}. Nothing was changed.")


def _plain(value: object) -> Any:
    """A fact as something JSON can say, cut to a sensible length."""
    match value:
        case None | bool() | int():
            return value
        case float():
            return value if math.isfinite(value) else str(value)
        case str():
            return value[:FACT_CHARS]
        case bytes():
            return f"{len(value)} bytes"
        case Mapping():
            return {str(key)[:FACT_CHARS]: _plain(item) for key, item in list(value.items())[:FACT_ITEMS]}
        case list() | tuple() | set() | frozenset():
            return [_plain(item) for item in list(value)[:FACT_ITEMS]]
        case _:
            return str(value)[:FACT_CHARS]
