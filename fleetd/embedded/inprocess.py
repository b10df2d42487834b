"""amqtt in a thread of fleetd, and the only place that knows amqtt.

For a trial on a machine that has no mosquitto. Measured with 0.12.1: messages that a subscriber has not
acknowledged within five seconds are dropped, retained messages reach clients that did not ask for them, and
every message is compared with every subscription. Cameras repeat what fleetd has not confirmed, so nothing is
lost that they can hold. With an `Authority` it has accounts and lanes (`guarding.py`).
"""

import asyncio
import contextlib
import ipaddress
import threading
from concurrent.futures import Future
from typing import Any, Literal, Self

from fleetd.embedded import ports
from fleetd.embedded.guarding import Authority, Guard
from fleetd.errors import BrokerError, SettingsError
from fleetd.logs import get_logger

log = get_logger(__name__)

START_SECONDS = 30.0
STOP_SECONDS = 10.0
LIMITS = (
    "forgets everything at its end, drops what is not acknowledged within 5 s, slows down with the number of "
    "cameras, has no TLS; install mosquitto for more"
)


class InProcessAmqtt:
    """An MQTT 3.1.1 broker on loopback, as long as fleetd runs. `port` 0 means any free one."""

    kind: Literal["amqtt"] = "amqtt"
    adopted = False
    restarts = 0

    def __init__(
        self, *, host: str = ports.LOOPBACK, port: int = 0, authority: Authority | None = None
    ) -> None:
        if not ipaddress.ip_address(host).is_loopback:
            raise SettingsError(
                f"The broker inside fleetd has no TLS, so it does not let others in; it does not listen on {host}."
            )
        self.host = host
        self.port = port
        self._guard = Guard(authority) if authority is not None else None
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._end: asyncio.Event | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Starts it; it answers when this returns. Raises BrokerError."""
        if self._thread is not None:
            raise BrokerError("The broker inside fleetd runs already.")
        if self.port:
            ports.require_free(self.host, self.port)
        self.port = self.port or ports.any_free(self.host)
        started: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, args=(started,), name="amqtt", daemon=True)
        self._thread.start()
        try:
            started.result(START_SECONDS)
        except Exception as error:
            self.stop()
            raise BrokerError(f"The broker inside fleetd did not start: {error}") from error
        log.warning("broker_is_for_a_trial_only", kind=self.kind, port=self.port, limits=LIMITS)

    def stop(self) -> None:
        """Disconnects everybody and ends the thread."""
        if self._loop is not None and self._end is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended by itself
                self._loop.call_soon_threadsafe(self._end.set)
        if self._thread is not None:
            self._thread.join(STOP_SECONDS)
            if self._thread.is_alive():
                log.error("broker_does_not_end", kind=self.kind)
            self._thread = None

    def reload(self) -> None:
        """Accounts have changed: cuts off those who are not let in any more. Any thread."""
        if self._guard is not None and self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended by itself
                self._loop.call_soon_threadsafe(self._guard.recheck)

    def _run(self, started: "Future[None]") -> None:
        try:
            with asyncio.Runner() as runner:
                runner.run(self._serve(started))
        except Exception as error:
            if started.done():
                log.exception("broker_died", kind=self.kind)
            else:
                started.set_exception(error)

    async def _serve(self, started: "Future[None]") -> None:
        from amqtt.broker import Broker  # noqa: PLC0415 - its import costs only those who run it

        self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
        broker = Broker(
            {
                "listeners": {"default": {"type": "tcp", "bind": f"{self.host}:{self.port}"}},
                # Its ACL plugin makes it lose acknowledged messages, so there is none; $SYS would be noise.
                "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
            }
        )
        if self._guard is not None:
            self._guard.install(broker)
        connections = _keep_track(broker, self._guard)
        await broker.start()
        started.set_result(None)
        await self._end.wait()
        with contextlib.suppress(TimeoutError):  # a client that does not let go is cut off below
            await asyncio.wait_for(broker.shutdown(), STOP_SECONDS / 2)
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        for writer in connections:
            writer.transport.abort()
        await asyncio.sleep(0)  # aborted sockets are closed in the loop's next round


def _keep_track(broker: Any, guard: Guard | None) -> set[asyncio.StreamWriter]:
    """The open connections, always up to date. amqtt itself forgets to close some. `guard` sees them first."""
    connections: set[asyncio.StreamWriter] = set()
    serve = broker.stream_connected

    async def serve_and_close(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter, **more: Any
    ) -> None:
        connections.add(writer)
        try:
            if guard is None:
                await serve(reader, writer, **more)
            else:
                await guard.admit(reader, writer, serve, **more)
        finally:
            writer.close()
            connections.discard(writer)

    broker.stream_connected = serve_and_close
    return connections
