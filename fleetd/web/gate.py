"""What every request passes before any route sees it, and every answer on its way out.

Order: host name, media type, declared size; then the body is counted and timed while it is read. Whatever
still raises is answered as our one error shape, and its traceback goes to the log only.
"""

import asyncio
import traceback
from collections.abc import Collection
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fleetd.errors import FleetError
from fleetd.logs import get_logger
from fleetd.protocol import limits
from fleetd.web.errors import (
    BodyRefusedError,
    InternalError,
    MediaTypeError,
    TooLargeError,
    TooSlowError,
    WrongHostError,
    error_response,
)

JSON_BYTES: Final = 64 * 1024
ENCODING_BYTES: Final = 24 * 1024 * 1024
ENCODINGS: Final = 16
UPLOAD_BYTES: Final = limits.MANIFEST_BYTES + ENCODINGS * ENCODING_BYTES + 64 * 1024  # and part headers
PATH_CHARS: Final = 200  # of a path in the log
BODY_PAUSE_SECONDS: Final = 20.0  # longest silence inside a body
BODY_SECONDS: Final = 600.0  # for the whole body
UPLOAD_PATH: Final = "/api/v1/releases"
LOOPBACK_HOSTS: Final = frozenset({"localhost", "127.0.0.1", "[::1]"})  # nobody can make these theirs by DNS

# Answers are data for programs: nothing in them may ever run, be framed, be guessed at or be kept.
ANSWER_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}

log = get_logger(__name__)


class Gate:
    """ASGI middleware around the whole application."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        allowed_hosts: Collection[str],
        body_pause_s: float = BODY_PAUSE_SECONDS,
        body_s: float = BODY_SECONDS,
    ) -> None:
        self._app = app
        self._hosts = LOOPBACK_HOSTS | {host_name(host) for host in allowed_hosts}
        self._pause_s = body_pause_s
        self._body_s = body_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def sending(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                MutableHeaders(scope=message).update(ANSWER_HEADERS)
            await send(message)

        try:
            limit = self._checked_head(scope)
            await self._app(scope, self._counted(receive, limit), sending)
        except FleetError as error:
            await error_response(error)(scope, receive, sending)
        except BodyRefusedError as refused:
            await error_response(refused.error)(scope, receive, sending)
        except Exception as error:  # the last line of defence: nothing may reach the wire raw
            # Formatted here: renderers that show local variables would write tokens into the log.
            log.error(  # noqa: TRY400  # for that reason
                "request_failed",
                method=scope["method"],
                path=scope["path"][:PATH_CHARS],
                error=type(error).__name__,
                exception=traceback.format_exc(),
            )
            if started:  # half an answer is out: breaking the connection is the only honest end
                raise
            await error_response(InternalError())(scope, receive, sending)

    def _checked_head(self, scope: Scope) -> int:
        """How long this request's body may be; raises for a head that is refused outright."""
        headers = Headers(scope=scope)
        host = host_name(headers.get("host", ""))
        if host not in self._hosts and "*" not in self._hosts:
            raise WrongHostError(host=host)
        upload = scope["method"] == "POST" and scope["path"].rstrip("/") == UPLOAD_PATH
        limit = UPLOAD_BYTES if upload else JSON_BYTES
        declared = headers.get("content-length")
        # h11 has refused lengths that are no number already; other servers may not have.
        length = int(declared) if declared is not None and declared.isascii() and declared.isdigit() else 0
        if length > limit:
            raise TooLargeError(limit=limit, size=length)
        if length or "transfer-encoding" in headers:
            wanted = "multipart/form-data" if upload else "application/json"
            media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
            if media_type != wanted:
                raise MediaTypeError(
                    f"This address takes {wanted}. Nothing was changed.", wanted=wanted, got=media_type
                )
        return limit

    def _counted(self, receive: Receive, limit: int) -> Receive:
        """`receive` with a ceiling on bytes and on patience, until the body is complete."""
        size = 0
        complete = False
        deadline: float | None = None

        async def receiving() -> Message:
            nonlocal size, complete, deadline
            if complete:  # from here on it only tells that the client went away
                return await receive()
            now = asyncio.get_running_loop().time()
            deadline = deadline or now + self._body_s
            try:
                message = await asyncio.wait_for(receive(), max(0.0, min(self._pause_s, deadline - now)))
            except TimeoutError:
                raise BodyRefusedError(TooSlowError()) from None
            if message["type"] == "http.request":
                size += len(message.get("body", b""))
                complete = not message.get("more_body", False)
                if size > limit:
                    raise BodyRefusedError(TooLargeError(limit=limit))
            return message

        return receiving


def host_name(header: str) -> str:
    """The name in a Host header or setting, in lower case, without its port: `[::1]:8080` -> `[::1]`."""
    text = header.strip().lower()
    if text.startswith("["):
        return text.partition("]")[0] + "]"
    if text.count(":") > 1:  # an IPv6 address as people write it in settings
        return f"[{text}]"
    return text.partition(":")[0]
