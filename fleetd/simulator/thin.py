"""Thin cameras: thousands in one process, for load. They keep the contract (outbox, receipts, repeats), not the agent.

Each holds what it has said until fleetd's receipt and repeats it after a new connection, when fleetd says that it is a
new one, or when no receipt came for long. `Truth` remembers what was sent and what was receipted, for a checker.
"""

import asyncio
import contextlib
import json
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from fleetd.protocol.topics import CameraTopic, DaemonTopic, format_topic

KEEPALIVE_S: Final = 60
CONNECT_S: Final = 20.0
BACKOFF_S: Final = (1.0, 30.0)
OUTBOX: Final = 500  # messages; the oldest go first, and are declared lost by `low`
HELD_AT_ONCE: Final = 100  # repeated messages in one go


@dataclass(slots=True)
class Truth:
    """What one boot of one camera did."""

    camera: str
    boot: str
    sent: dict[int, str] = field(default_factory=dict)  # seq -> label, of results
    receipted: set[int] = field(default_factory=set)
    dropped: set[int] = field(default_factory=set)


@dataclass(slots=True)
class Load:
    """What thin cameras do. Chances are per message."""

    telemetry_s: float = 30.0
    results_s: float = 0.0  # 0: none
    churn: float = 0.0  # chance to hang up and come back
    bad: float = 0.0  # chance of a message that is no message
    repeat: float = 0.0  # chance to say something twice
    clock_jump: float = 0.0  # chance that the camera's clock says something absurd
    repeat_after_s: float = 15.0  # without a receipt
    silent: float = 0.0  # chance, per camera, to connect and say nothing


@dataclass(slots=True)
class Counts:
    """What all cameras together did."""

    connects: int = 0
    refused: int = 0
    lost_connections: int = 0
    sent: int = 0
    repeated: int = 0
    bad: int = 0
    receipted: int = 0
    dropped: int = 0
    online: int = 0


class _Wire(asyncio.Protocol):
    """One connection: packets in, bytes out."""

    def __init__(self, camera: "ThinCamera") -> None:
        self._camera = camera
        self._rest = b""
        self.transport: asyncio.Transport | None = None
        self.closed = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101  # TCP is one
        self.transport = transport

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self.closed.set()

    def data_received(self, data: bytes) -> None:
        buffer = self._rest + data
        at, end = 0, len(buffer)
        while at + 2 <= end:
            size, here, shift = 0, at + 1, 0
            while here < end:
                byte = buffer[here]
                here += 1
                size |= (byte & 127) << shift
                shift += 7
                if byte < 128:
                    break
            else:
                break
            if here + size > end:
                break
            self._camera.on_packet(buffer[at], buffer[here : here + size])
            at = here + size
        self._rest = buffer[at:]


class ThinCamera:
    """One camera. `run` goes on until it is cancelled."""

    def __init__(
        self,
        name: str,
        load: Load,
        counts: Counts,
        *,
        host: str,
        port: int,
        prefix: str,
        secret: str | None = None,
        chance: random.Random | None = None,
    ) -> None:
        self.name = name
        self.truth = Truth(name, "")
        self.past: list[Truth] = []
        self._load, self._counts = load, counts
        self._where = (host, port)
        self._prefix, self._secret = prefix, secret
        self._chance = chance or random.Random()  # noqa: S311  # load, no secret
        self._outbox: dict[int, tuple[float, str, bytes]] = {}  # seq -> when sent, channel, payload
        self._wire: _Wire | None = None
        self._ready = asyncio.Event()
        self._instance = ""
        self._mid = 0
        self._seq = 0
        self._silent = self._chance.random() < load.silent
        self._ack_topic = format_topic(CameraTopic(name, "down", "ack"), prefix).encode()
        self._daemon_topic = format_topic(DaemonTopic("status"), prefix).encode()
        self.reboot()

    def reboot(self) -> None:
        """A new boot: nothing of the old one is repeated any more."""
        if self.truth.boot:
            self.past.append(self.truth)
            self.truth.dropped |= set(self._outbox)
        self._outbox.clear()
        self.truth = Truth(self.name, f"{self._chance.getrandbits(64):016x}")
        self._seq = 0
        self._booted = time.monotonic()

    @property
    def waiting(self) -> int:
        """Messages without a receipt."""
        return len(self._outbox)

    def hush(self) -> None:
        """Says nothing new from now on; what has no receipt is repeated all the same."""
        self._load = Load(0.0, 0.0, repeat_after_s=self._load.repeat_after_s)

    def hang_up(self) -> None:
        """Cuts the connection as a lost radio does: no goodbye."""
        if self._wire is not None and self._wire.transport is not None:
            self._wire.transport.abort()

    async def run(self) -> None:
        """Connects, says what there is to say, comes back whenever the connection is lost."""
        failures = 0
        talking = asyncio.create_task(self._talk())
        try:
            while True:
                began = time.monotonic()
                with contextlib.suppress(OSError, TimeoutError):
                    await self._connection()
                failures = 0 if time.monotonic() - began > 5 else failures + 1
                low, high = BACKOFF_S
                await asyncio.sleep(self._chance.uniform(0.1, min(high, low * 2 ** min(failures, 6))))
        finally:
            talking.cancel()
            self.hang_up()

    async def _connection(self) -> None:
        loop = asyncio.get_running_loop()
        wire = _Wire(self)
        async with asyncio.timeout(CONNECT_S):
            await loop.create_connection(lambda: wire, *self._where)
        self._wire = wire
        try:
            will = json.dumps({"boot": self.truth.boot, "seq": 0, "up_ms": 0, "online": False}).encode()
            self._write(_connect(self.name, self._secret, self._topic("status"), will))
            async with asyncio.timeout(CONNECT_S):
                while not self._ready.is_set() and not wire.closed.is_set():
                    await asyncio.wait(
                        [asyncio.create_task(self._ready.wait()), asyncio.create_task(wire.closed.wait())],
                        return_when=asyncio.FIRST_COMPLETED,
                    )
            while not wire.closed.is_set():
                try:
                    async with asyncio.timeout(KEEPALIVE_S / 2):
                        await wire.closed.wait()
                except TimeoutError:
                    self._write(b"\xc0\x00")
        finally:
            if self._ready.is_set():
                self._counts.online -= 1
                self._counts.lost_connections += 1
            self._ready.clear()
            self._wire = None
            if wire.transport is not None:
                wire.transport.abort()

    def on_packet(self, first: int, body: bytes) -> None:
        """What the broker says."""
        kind = first & 0xF0
        if kind == 0x20:
            if len(body) < 2 or body[1]:
                self._counts.refused += 1
                self.hang_up()
                return
            self._counts.connects += 1
            self._counts.online += 1
            self._ready.set()
            self._write(_subscribe((self._ack_topic, self._daemon_topic)))
            self.say("status", online=True, agent="thin")
            self._repeat(time.monotonic())
        elif kind == 0x30:
            size = body[0] << 8 | body[1]
            topic, rest = body[2 : 2 + size], body[2 + size :]
            if first & 6:
                self._write(b"\x40\x02" + rest[:2])
                rest = rest[2:]
            with contextlib.suppress(ValueError, KeyError, TypeError):
                if topic == self._ack_topic:
                    self._receipt(json.loads(rest))
                elif topic == self._daemon_topic:
                    self._daemon(json.loads(rest))

    def _receipt(self, body: dict[str, Any]) -> None:
        if body["boot"] != self.truth.boot:
            return
        for first, last in body["seq"]:
            for seq in [seq for seq in self._outbox if first <= seq <= last]:
                del self._outbox[seq]
                self.truth.receipted.add(seq)
                self._counts.receipted += 1

    def _daemon(self, body: dict[str, Any]) -> None:
        if body.get("online") and body.get("instance") != self._instance:
            self._instance = str(body["instance"])
            self._repeat(time.monotonic())

    def say(self, channel: str, **content: Any) -> None:
        """Puts a message into the outbox and sends it when there is a connection."""
        self._seq += 1
        if len(self._outbox) >= OUTBOX:
            oldest = next(iter(self._outbox))
            del self._outbox[oldest]
            self.truth.dropped.add(oldest)
            self._counts.dropped += 1
        low = next(iter(self._outbox), self._seq)
        up_ms = int((time.monotonic() - self._booted) * 1000)
        body = {"boot": self.truth.boot, "seq": self._seq, "up_ms": up_ms, "low": low, **content}
        if self._chance.random() < self._load.clock_jump:
            body["t"] = self._chance.choice([0.0, 4e9, time.time() - 1e8])
        payload = json.dumps(body, separators=(",", ":")).encode()
        if channel == "result":
            self.truth.sent[self._seq] = content["results"][0]["label"]
        self._outbox[self._seq] = time.monotonic(), channel, payload
        self._counts.sent += 1
        self._publish(channel, payload)

    def _repeat(self, now: float, older_s: float = 0.0) -> None:
        due = [seq for seq, (at, _, _) in self._outbox.items() if now - at >= older_s][:HELD_AT_ONCE]
        for seq in due:
            _, channel, payload = self._outbox[seq]
            self._outbox[seq] = now, channel, payload
            self._counts.repeated += 1
            self._publish(channel, payload)

    async def _talk(self) -> None:
        """Says what is due, at this camera's own moment within each period."""
        load, chance = self._load, self._chance
        waits = [seconds for seconds in (load.telemetry_s, load.results_s) if seconds] or [3600.0]
        tick = min(*waits, load.repeat_after_s)
        due = {"telemetry": chance.uniform(0, load.telemetry_s), "result": chance.uniform(0, load.results_s)}
        while True:
            await asyncio.sleep(tick * chance.uniform(0.8, 1.2))
            load = self._load
            if not self._ready.is_set() and not self._outbox:
                continue  # it would begin to speak once it was heard
            up = time.monotonic() - self._booted
            if not self._silent and load.telemetry_s and up >= due["telemetry"]:
                due["telemetry"] = up + load.telemetry_s - tick / 2
                self.say(
                    "telemetry", fps=12.5, inference_ms=74.0, heap_free=150_000, rssi=-61.0, frames=self._seq
                )
            if not self._silent and load.results_s and up >= due["result"]:
                due["result"] = up + load.results_s - tick / 2
                self.say("result", results=[{"label": f"n{self._seq + 1}", "score": 0.5}])
            if chance.random() < load.repeat and self._outbox:
                self._repeat(time.monotonic())
            if chance.random() < load.bad:
                self._counts.bad += 1
                junk = (b"{", b"\xff\x00", b'{"boot":1}', b"[" * 2000, b'{"seq":-1}')
                self._publish(chance.choice(("result", "telemetry", "nonsense")), chance.choice(junk))
            if chance.random() < load.churn:
                self.hang_up()
            self._repeat(time.monotonic(), load.repeat_after_s)

    def _topic(self, channel: str) -> bytes:
        return format_topic(CameraTopic(self.name, "up", channel), self._prefix).encode()

    def _publish(self, channel: str, payload: bytes) -> None:
        if not self._ready.is_set():
            return
        self._mid = self._mid % 65_535 + 1
        topic = self._topic(channel)
        body = len(topic).to_bytes(2, "big") + topic + self._mid.to_bytes(2, "big") + payload
        self._write((b"\x33" if channel == "status" else b"\x32") + _length(len(body)) + body)

    def _write(self, data: bytes) -> None:
        if self._wire is not None and self._wire.transport is not None:
            self._wire.transport.write(data)


def _connect(name: str, secret: str | None, will_topic: bytes, will: bytes) -> bytes:
    flags = 0x02 | 0x04 | 0x08 | 0x20 | (0xC0 if secret else 0)  # clean, will at QoS 1, retained
    parts = [name.encode(), will_topic, will, *((name.encode(), secret.encode()) if secret else ())]
    body = b"\x00\x04MQTT\x04" + bytes([flags]) + KEEPALIVE_S.to_bytes(2, "big")
    body += b"".join(len(part).to_bytes(2, "big") + part for part in parts)
    return b"\x10" + _length(len(body)) + body


def _subscribe(topics: tuple[bytes, ...]) -> bytes:
    body = b"\x00\x01" + b"".join(len(topic).to_bytes(2, "big") + topic + b"\x00" for topic in topics)
    return b"\x82" + _length(len(body)) + body


def _length(size: int) -> bytes:
    out = bytearray()
    while True:
        size, low = size >> 7, size & 127
        out.append(low | 128 if size else low)
        if not size:
            return bytes(out)


class ThinFleet:
    """Many thin cameras in one event loop."""

    def __init__(self, make: Callable[[Counts], list[ThinCamera]]) -> None:
        self.counts = Counts()
        self.cameras = make(self.counts)
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self, per_second: float = 500.0) -> None:
        """Lets the cameras connect, so many a second."""
        for number, camera in enumerate(self.cameras):
            self._tasks.append(asyncio.create_task(camera.run()))
            if number % 50 == 49:
                await asyncio.sleep(50 / per_second)

    async def stop(self) -> None:
        """Ends all of them at once."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()

    def storm(self) -> None:
        """Every connection is cut at the same moment."""
        for camera in self.cameras:
            camera.hang_up()

    @property
    def waiting(self) -> int:
        """Messages without a receipt."""
        return sum(camera.waiting for camera in self.cameras)

    def truths(self) -> list[Truth]:
        """What every boot of every camera did."""
        return [truth for camera in self.cameras for truth in (*camera.past, camera.truth)]
