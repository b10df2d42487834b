"""MQTT 3.1.1 as thin as it gets, for hundreds of clients in one process; a counter and a slow link in between."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Self

HOST = "127.0.0.1"


def _text(text: str) -> bytes:
    return len(text.encode()).to_bytes(2, "big") + text.encode()


def _packet(first: int, body: bytes) -> bytes:
    size, left = bytearray(), len(body)
    while True:
        left, digit = divmod(left, 128)
        size.append(digit | (128 if left else 0))
        if not left:
            return bytes([first]) + bytes(size) + body


class Client(asyncio.Protocol):
    """One connection. `on_message(topic, payload)` is called for every PUBLISH; everything goes at QoS 0."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.on_message: Callable[[str, bytes], None] = lambda _topic, _payload: None
        self.sent = 0  # bytes
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._id = 0
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._answers: dict[int, asyncio.Future[None]] = {}

    @classmethod
    async def connect(cls, port: int, name: str) -> Self:
        """A client that the broker has let in."""
        _, client = await asyncio.get_running_loop().create_connection(lambda: cls(name), HOST, port)
        await client._ready
        return client

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self.write(_packet(0x10, _text("MQTT") + bytes([4, 2, 0, 0]) + _text(self.name)))

    def write(self, data: bytes) -> None:
        assert self._transport is not None
        self.sent += len(data)
        self._transport.write(data)

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer
        buffer += data
        at = 0
        while at + 2 <= len(buffer):
            size, shift, start = 0, 0, at + 1
            while start < len(buffer):
                digit = buffer[start]
                size |= (digit & 127) << shift
                shift, start = shift + 7, start + 1
                if digit < 128:
                    break
            else:
                break
            if start + size > len(buffer):
                break
            self._take(buffer[at], bytes(buffer[start : start + size]))
            at = start + size
        del buffer[:at]

    def _take(self, first: int, body: bytes) -> None:
        kind = first >> 4
        if kind == 3:
            end = 2 + int.from_bytes(body[:2], "big")
            self.on_message(body[2:end].decode(), body[end:])
        elif kind == 2:
            self._ready.set_result(None)
        elif kind in (9, 11):
            answer = self._answers.pop(int.from_bytes(body[:2], "big"), None)
            if answer is not None and not answer.done():
                answer.set_result(None)

    def subscribe(self, *topics: str) -> asyncio.Future[None]:
        """At QoS 0; the answer may be awaited."""
        return self._ask(0x82, b"".join(_text(topic) + b"\x00" for topic in topics))

    def unsubscribe(self, *topics: str) -> asyncio.Future[None]:
        """The answer may be awaited."""
        return self._ask(0xA2, b"".join(map(_text, topics)))

    def _ask(self, first: int, body: bytes) -> asyncio.Future[None]:
        self._id = self._id % 65535 + 1
        answer = asyncio.get_running_loop().create_future()
        self._answers[self._id] = answer
        self.write(_packet(first, self._id.to_bytes(2, "big") + body))
        return answer

    def publish(self, topic: str, payload: bytes) -> None:
        """At QoS 0."""
        self.write(_packet(0x30, _text(topic) + payload))

    def close(self) -> None:
        """Leaves properly."""
        if self._transport is not None:
            self.write(b"\xe0\x00")
            self._transport.close()


class Proxy:
    """Stands before a broker, in a thread of its own; counts what goes up and down, and may be slow.

    `delay_s`: how long every byte is on its way, in each direction. `rate`: bits a second, in each direction.
    """

    def __init__(self, port: int, *, delay_s: float = 0.0, rate: float | None = None) -> None:
        self.up = self.down = 0
        self.port = 0
        self._target = port
        self._delay_s, self._rate = delay_s, rate
        self._started = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._started.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._serve, HOST, 0))
        self.port = server.sockets[0].getsockname()[1]
        self._started.set()
        self._loop.run_forever()
        server.close()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            self._loop.run_until_complete(asyncio.sleep(0.05))
        self._loop.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection(HOST, self._target)
        for stream in (writer, up_writer):
            stream.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with contextlib.suppress(asyncio.CancelledError):  # the benchmark is over
            await asyncio.gather(
                self._pass(reader, up_writer, "up"),
                self._pass(up_reader, writer, "down"),
                return_exceptions=True,
            )

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: str) -> None:
        on_its_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        sender = asyncio.create_task(self._arrive(on_its_way, writer))
        free_at = 0.0  # when the link has sent what it has
        clock = asyncio.get_running_loop().time
        try:
            while data := await reader.read(1460):
                setattr(self, way, getattr(self, way) + len(data))
                if self._rate is not None:
                    free_at = max(free_at, clock()) + len(data) * 8 / self._rate
                    if free_at - clock() > 0.25:  # a link has a queue, not an ocean
                        await asyncio.sleep(free_at - clock() - 0.25)
                await on_its_way.put((max(free_at, clock()) + self._delay_s, data))
            await on_its_way.put((clock(), b""))
            await sender
        finally:
            sender.cancel()

    @staticmethod
    async def _arrive(on_its_way: "asyncio.Queue[tuple[float, bytes]]", writer: asyncio.StreamWriter) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            at, data = await on_its_way.get()
            if (left := at - clock()) > 0:
                await asyncio.sleep(left)
            if not data:
                writer.close()
                return
            writer.write(data)


@contextmanager
def counted(port: int) -> Iterator[Proxy]:
    """A proxy that only counts."""
    with Proxy(port) as proxy:
        yield proxy
