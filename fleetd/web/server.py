"""Serving the API from a thread of its own, started and stopped by the application."""

import asyncio
import errno
import socket
import threading
import time
from typing import Any, Final

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from fleetd.errors import UnavailableError
from fleetd.logs import get_logger

BACKLOG: Final = 128
CONNECTIONS: Final = 512  # above this, 503: a flood of sockets must not use up what the rest of fleetd needs
SPARE_CONNECTIONS: Final = 64  # are told so; those beyond are cut off
KEEP_ALIVE_SECONDS: Final = 15
FIRST_REQUEST_SECONDS: Final = 15.0  # a connection whose request's head has not come by then is closed
STOP_SECONDS: Final = 10.0
START_SECONDS: Final = 10.0

log = get_logger(__name__)


class _PunctualProtocol(H11Protocol):
    """HTTP/1.1 that waits for ever for no request's head: not for the first one, and not for a later one of
    which a part has come (uvicorn's own patience ends with the first byte).
    """

    first_request_s = FIRST_REQUEST_SECONDS
    _patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        if len(self.connections) > CONNECTIONS + SPARE_CONNECTIONS:
            transport.abort()  # not even an answer: it is the sockets that run out
            return
        self._wait_for_head()

    def data_received(self, data: bytes) -> None:
        before = self.cycle
        super().data_received(data)
        if self.cycle is not before:  # a head is complete
            self._forget_patience()
        elif self._patience is None and (before is None or before.response_complete):
            self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget_patience()
        super().connection_lost(exc)

    def _wait_for_head(self) -> None:
        self._patience = self.loop.call_later(self.first_request_s, self._close_if_silent)

    def _forget_patience(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _close_if_silent(self) -> None:
        self._patience = None
        if not self.transport.is_closing():
            self.transport.close()


class Server:
    """The API on one address. The port is taken when this is made, so that a clash shows before anything runs."""

    def __init__(
        self, app: ASGIApp, host: str, port: int, *, first_request_s: float = FIRST_REQUEST_SECONDS
    ) -> None:
        self._socket = _listen(host, port)
        self.host = host
        self.port: int = self._socket.getsockname()[1]
        protocol = type("Protocol", (_PunctualProtocol,), {"first_request_s": first_request_s})
        config = uvicorn.Config(
            app,
            http=protocol,
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="error",
            access_log=False,
            proxy_headers=False,  # nobody may tell us where a request came from
            server_header=False,
            limit_concurrency=CONNECTIONS,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=int(STOP_SECONDS / 2),
        )
        self._server = uvicorn.Server(config)
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """Where to reach it, for people and for `endpoint.json`. A wildcard address is reached by loopback."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(self.host, self.host)  # noqa: S104
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    def start(self) -> None:
        """Starts serving; returns when requests are answered."""
        self._thread = threading.Thread(target=self._run, name="http", daemon=True)
        self._thread.start()
        deadline = time.monotonic() + START_SECONDS
        while not self._server.started:
            if not self._thread.is_alive() or time.monotonic() > deadline:
                raise UnavailableError("The HTTP server did not start; the log says why.")
            time.sleep(0.005)
        log.info("http_started", url=self.url)

    def stop(self) -> None:
        """Finishes the requests under way, closes the port and ends the thread. Safe to call twice."""
        thread, self._thread = self._thread, None
        if thread is None:
            self._socket.close()
            return
        self._server.should_exit = True
        thread.join(STOP_SECONDS)
        if thread.is_alive():
            self._server.force_exit = True
            thread.join(STOP_SECONDS)
        self._socket.close()
        log.info("http_stopped", clean=not thread.is_alive())

    def _run(self) -> None:
        self._server.run(sockets=[self._socket])


def serve(app: ASGIApp, host: str, port: int, **options: Any) -> Server:
    """Takes `host`:`port` (0: any free port) for `app`; UnavailableError when that is not possible."""
    return Server(app, host, port, **options)


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise UnavailableError(
            f"The HTTP address {host!r} cannot be used: {error}. Set another host.", host=host, port=port
        ) from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            message = (
                f"Port {port} on {host} is in use, perhaps by another fleetd. "
                "Stop that program or set another HTTP port."
            )
        else:
            message = f"Port {port} on {host} cannot be used: {error.strerror}. Set another host or port."
        raise UnavailableError(message, host=host, port=port) from error
    return listener
