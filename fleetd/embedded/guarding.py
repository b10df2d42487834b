"""Accounts and lanes for amqtt. Default: no.

amqtt asks its plugins only after it has handed a stranger the session of whoever's client id he names, lets wills
pass unasked, sends retained messages to everybody who connects, and its ACL plugins lose acknowledged messages
because their answer takes a turn of the event loop. So the first packet is judged here before amqtt sees it, and
its questions about topics are answered on the spot.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from fleetd.embedded.connecting import (
    BAD_VERSION,
    CONNECT,
    LONGEST,
    REFUSED,
    Connect,
    ConnectError,
    connack,
    read_connect,
)
from fleetd.logs import get_logger

log = get_logger(__name__)

FIRST_PACKET_SECONDS = 10.0

Serve = Callable[..., Awaitable[None]]


class Authority(Protocol):
    """Who is let in, and what they may do. Asked in the broker's thread."""

    def admits(self, name: str, password: bytes) -> bool: ...  # noqa: D102
    def holds(self, name: str) -> str | None: ...  # noqa: D102
    def may_publish(self, name: str, topic: str) -> bool: ...  # noqa: D102
    def may_read(self, name: str, topic: str) -> bool: ...  # noqa: D102
    def may_subscribe(self, name: str, wanted: str) -> bool: ...  # noqa: D102


class Guard:
    """Stands before one amqtt broker. `recheck` ends the connections of accounts that changed."""

    def __init__(self, authority: Authority) -> None:
        self._authority = authority
        self._inside: dict[asyncio.StreamWriter, tuple[str, str | None]] = {}
        self.refused = 0

    def install(self, broker: Any) -> None:
        """Takes over what amqtt decides by itself."""
        from amqtt.contexts import Action  # noqa: PLC0415 - its import costs only those who run it

        ask = {
            Action.PUBLISH: self._authority.may_publish,
            Action.SUBSCRIBE: self._authority.may_subscribe,
            Action.RECEIVE: self._authority.may_read,
        }

        async def filtering(session: Any, topic: str, action: Any) -> bool:
            return ask[action](str(session.username), topic)

        async def send_retained(subscription: tuple[str, int], session: Any) -> None:
            wanted, qos = subscription
            mine = any(one.client_id == session.client_id for one, _ in broker._subscriptions.get(wanted, ()))
            handler = broker._get_handler(session)
            if not mine or handler is None:
                return
            found = [
                kept
                for topic, kept in broker._retained_messages.items()
                if broker._matches(topic, wanted) and self._authority.may_read(str(session.username), topic)
            ]
            sending = [
                asyncio.ensure_future(
                    handler.mqtt_publish(kept.topic, kept.data, min(qos, kept.qos or qos), retain=True)
                )
                for kept in found
            ]
            if sending:
                await asyncio.wait(sending)

        broker._topic_filtering = filtering
        broker._publish_retained_messages_for_subscription = send_retained

    async def admit(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, serve: Serve, **more: Any
    ) -> None:
        """Judges the first packet, then lets the broker go on with the connection, or ends it."""
        try:
            connect = await asyncio.wait_for(_first_packet(reader), FIRST_PACKET_SECONDS)
        except (ConnectError, OSError, EOFError, TimeoutError):
            return
        held = self._authority.holds(connect.user)  # before it is asked: a change in between is noticed
        answer = self._judge(connect)
        if answer:
            self.refused += 1
            log.info("broker_refused", kind="amqtt", reason=answer[1])
            writer.write(connack(answer[0]))
            await writer.drain()
            return
        self._inside[writer] = connect.user, held
        try:
            await serve(Replayed(connect.as_user(), reader), writer, **more)
        finally:
            self._inside.pop(writer, None)

    def recheck(self) -> None:
        """Cuts off whoever's account is gone or has another password now. In the broker's thread."""
        for writer, (name, held) in list(self._inside.items()):
            if held is None or self._authority.holds(name) != held:
                writer.transport.abort()

    def _judge(self, connect: Connect) -> tuple[int, str] | None:
        if connect.level != 4:
            return BAD_VERSION, "another version of MQTT"
        if not connect.user or not self._authority.admits(connect.user, connect.password):
            return REFUSED, "user or password"
        if connect.will_topic is not None and not self._authority.may_publish(
            connect.user, connect.will_topic
        ):
            return REFUSED, "a will on a foreign topic"
        return None


class Replayed:
    """A stream whose first bytes were read already and come again."""

    def __init__(self, first: bytes, reader: asyncio.StreamReader) -> None:
        self._first = first
        self._reader = reader

    async def readexactly(self, size: int) -> bytes:
        """As StreamReader's."""
        piece, self._first = self._first[:size], self._first[size:]
        return piece if len(piece) == size else piece + await self._reader.readexactly(size - len(piece))

    async def read(self, size: int = -1) -> bytes:
        """As StreamReader's."""
        if self._first:
            piece = self._first if size < 0 else self._first[:size]
            self._first = self._first[len(piece) :]
            return piece
        return await self._reader.read(size)

    def feed_eof(self) -> None:
        """As StreamReader's."""
        self._reader.feed_eof()


async def _first_packet(reader: asyncio.StreamReader) -> Connect:
    if (await reader.readexactly(1))[0] != CONNECT:
        raise ConnectError("not a CONNECT packet")
    size = shift = 0
    while True:
        byte = (await reader.readexactly(1))[0]
        size |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            break
        if shift > 21:
            raise ConnectError("a length that cannot be")
    if size > LONGEST:
        raise ConnectError("too long")
    return read_connect(await reader.readexactly(size))
