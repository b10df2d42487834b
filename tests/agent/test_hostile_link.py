"""The connection through a wire that does everything a wire, or somebody on it, can do. Whatever that is: no exception
leaves a step, memory stays bounded, and once the wire is good again everything that was kept lands.

On MicroPython the same faults come from a small generator of numbers (tests/agent/device/hostile_session.py).
"""

import json
from collections import deque
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from camera_agent.link import WANTED_MAX, Link
from camera_agent.outbox import Outbox
from tests.agent.fake_stream import FakeBroker, FakeHal, FakeStream, length, puback, publish, suback
from tests.agent.micropython import DEVICE_FAKES, Arch, run_device

LANE = b"fleet/v1/cam-07/"
DIGEST = "ab" * 32
MESSAGES, BYTES = 40, 8192  # the outbox of this camera
BACK_S = 240  # until work goes on after the wire is good again: the longest back-off and a silence to notice
TEN_MB = 10 * 1024 * 1024

# What comes from the other end and is no answer to anything.
PACKETS = {
    "connack-again": b"\x20\x02\x00\x00",
    "subscribe": b"\x82\x05\x00\x01\x00\x00\x00",
    "connect": b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x1e\x00\x00",
    "disconnect": b"\xe0\x00",
    "pubrec": b"\x50\x02\x00\x01",
    "reserved": b"\xf0\x00",
    "pingresp": b"\xd0\x00",
    "puback-for-nothing": puback(999),
    "suback-for-nothing": suback(999),
    "qos-2": b"\x34\x05\x00\x01a\x00\x01",
    "endless-length": b"\x30\xff\xff\xff\xff\x7f",
    "empty-topic": publish(b"", b"x"),
    "topic-beyond-its-packet": b"\x30\x04\xff\xff\x00\x00",
    "foreign-lane": publish(b"fleet/v1/cam-08/down/desired", b"{}"),
    "not-json": publish(LANE + b"down/desired", b"\xff\xfe{"),
    "deep-json": publish(LANE + b"down/cmd/identify", b'{"a":' + b"[" * 2000),
    "huge-numbers": publish(LANE + b"down/ack", b'{"boot":"0123456789abcdef","seq":[[1,1e999]]}'),
    "many-ranges": publish(
        LANE + b"down/ack", b'{"boot":"0123456789abcdef","seq":[' + b"[1,2]," * 600 + b"[1,2]]}"
    ),
    "oversize-block": publish(f"fleet/v1/_blob/{DIGEST}/0".encode(), bytes(5000)),
}

FAULTS = st.one_of(
    st.tuples(
        st.sampled_from(
            [
                "drop",
                "twice",
                "delay",
                "truncate",
                "half-open",
                "deaf",
                "kick",
                "kicks",
                "slow",
                "huge",
                "good",
            ]
        ),
        st.integers(1, 30),
    ),
    st.tuples(st.just("packet"), st.sampled_from(sorted(PACKETS))),
    st.tuples(st.just("bytes"), st.binary(min_size=1, max_size=300)),
    st.tuples(st.just("put"), st.integers(1, 6)),
    st.tuples(st.just("run"), st.integers(1, 40)),
)


class Wire:
    """A connection whose other end is a FakeBroker, with somebody in between."""

    def __init__(self, stream: FakeStream, hal: "HostileHal") -> None:
        self._stream = stream
        self._hal = hal
        self._held: deque[tuple[int, bytes]] = deque()  # when it may arrive
        self._zeros = 0
        self.closed = False

    def readinto(self, view: memoryview) -> int:
        assert not self.closed
        hal = self._hal
        if hal.half_open:
            return 0
        while self._stream.incoming:
            chunk = self._stream.incoming.popleft()
            times = hal.next_copies()
            for _ in range(times):
                self._held.append((hal.now + hal.delay_ms, chunk))
        size = 1 if hal.one_byte else len(view)
        if self._held and self._held[0][0] <= hal.now:
            due, chunk = self._held.popleft()
            taken = chunk[:size]
            if chunk[size:]:
                self._held.appendleft((due, chunk[size:]))
            view[: len(taken)] = taken
            if hal.truncates and not chunk[size:]:
                hal.truncates = False
                self._held.clear()
                self._stream.eof = True
                return max(1, len(taken) // 2)
            return len(taken)
        if self._zeros:
            count = min(size, self._zeros)
            view[:count] = bytes(count)
            self._zeros -= count
            return count
        if self._stream.eof:
            raise ConnectionResetError("gone")
        return 0

    def inject(self, data: bytes, zeros: int = 0) -> None:
        """Somebody else's bytes."""
        self._held.append((self._hal.now, data))
        self._zeros += zeros

    def write(self, view: memoryview) -> None:
        assert not self.closed
        if self._stream.eof:
            raise ConnectionResetError("gone")
        if not self._hal.half_open and not self._hal.deaf:
            self._stream.write(view)

    def close(self) -> None:
        self.closed = True
        self._stream.close()


class HostileHal(FakeHal):
    """What the wire does at the moment."""

    def __init__(self, seed: int) -> None:
        super().__init__(FakeBroker(), seed)
        self.wires: list[Wire] = []
        self.be_good()

    def be_good(self) -> None:
        self.half_open = self.deaf = self.one_byte = self.truncates = self.broker.kicks = False
        self.delay_ms = 0
        self.drops = self.doubles = 0

    def next_copies(self) -> int:
        """How often the next piece arrives."""
        if self.drops:
            self.drops -= 1
            return 0
        if self.doubles:
            self.doubles -= 1
            return 2
        return 1

    def open_socket(self, host: str, port: int, timeout_ms: int) -> Any:
        self.wires.append(Wire(self.broker.open(), self))
        return self.wires[-1]


class Victim:
    """A camera's link at the end of that wire, and a fleetd that receipts what arrives."""

    def __init__(self, seed: int) -> None:
        self.hal = HostileHal(seed)
        self.outbox: Any = Outbox(self.hal, MESSAGES, BYTES)
        config = {"camera": "cam-07", "host": "broker", "password": "secret"}
        self.link: Any = Link(self.hal, config, self.outbox, lambda: {"agent": "1"})
        for kind in ("desired", "cmd", "release", "blob"):
            self.link.handlers[kind] = lambda *_: None
        self.link.want(self.link.topics.blob(DIGEST, 0))
        self.buffer = len(self.link._mqtt._buf)

    def do(self, fault: str, amount: Any) -> None:
        hal, wire = self.hal, self.hal.wires[-1] if self.hal.wires else None
        if fault == "drop":
            hal.drops = amount
        elif fault == "twice":
            hal.doubles = amount
        elif fault == "delay":
            hal.delay_ms = 1000 * amount
        elif fault == "truncate":
            hal.truncates = True
        elif fault == "half-open":
            hal.half_open = True
        elif fault == "deaf":
            hal.deaf = True
        elif fault == "kicks":
            hal.broker.kicks = True
        elif fault == "slow":
            hal.one_byte = True
        elif fault == "good":
            hal.be_good()
        elif fault == "put":
            for _ in range(amount):
                self.outbox.put("result", {"results": [], "text": "x" * 200})
        elif fault == "run":
            self.run(amount)
        elif wire is None or wire.closed:
            pass
        elif fault == "kick":
            wire._stream.eof = True
        elif fault == "huge":
            wire.inject(b"\x30" + length(TEN_MB + 3) + b"\x00\x01x", TEN_MB)
        else:
            wire.inject(PACKETS[amount] if fault == "packet" else amount)
        self.run(1)

    def run(self, seconds: int) -> None:
        for _ in range(10 * seconds):
            self.hal.now += 100
            self.link.step()
            self.receipts()
            self.check()

    def receipts(self) -> None:
        """fleetd stores what the broker got."""
        seqs = [json.loads(payload)["seq"] for _, payload, _ in self.hal.broker.published]
        self.hal.broker.published.clear()
        if seqs and self.hal.broker.streams:
            body = {"boot": self.outbox.boot, "seq": [[seq, seq] for seq in seqs[-100:]]}
            self.hal.broker.stream.feed(publish(LANE + b"down/ack", json.dumps(body).encode()))

    def check(self) -> None:
        """What stays bounded whatever comes in."""
        client = self.link._mqtt
        assert len(client._buf) == self.buffer
        assert len(client._flight) <= 8
        assert len(client._asked) <= 8
        assert len(self.outbox) <= MESSAGES
        assert self.outbox.bytes <= BYTES
        assert len(self.link._wanted) <= WANTED_MAX
        assert sum(not wire.closed for wire in self.hal.wires) <= 1


@settings(max_examples=60, deadline=None)
@example([("run", 2), ("huge", 1), ("put", 6), ("run", 30)], 1)
@example([("run", 2), ("slow", 1), ("packet", "oversize-block"), ("put", 6), ("run", 30)], 2)
@example([("kicks", 1), ("run", 40), ("run", 40)], 3)
@example([("run", 2), ("half-open", 1), ("put", 6), ("run", 40)], 4)
@example([("run", 1), *(("packet", name) for name in sorted(PACKETS)), ("run", 5)], 5)
@given(st.lists(FAULTS, max_size=25), st.integers(0, 1000))
def test_whatever_the_wire_does_the_camera_comes_back_and_loses_nothing_it_kept(
    faults: list[tuple[str, Any]], seed: int
) -> None:
    victim = Victim(seed)
    for fault, amount in faults:
        victim.do(fault, amount)
    victim.hal.be_good()
    waited = 0
    while not (victim.link.connected and len(victim.outbox) == 0):
        assert waited < BACK_S, (victim.link.state, victim.link.last_error, victim.link.stats())
        victim.run(5)
        waited += 5


@pytest.mark.parametrize("name", sorted(PACKETS))
def test_each_wrong_packet_ends_the_connection_with_a_reason_or_is_counted(name: str) -> None:
    victim = Victim(1)
    victim.run(2)
    before = dict(victim.link.stats())
    victim.do("packet", name)
    now = victim.link.stats()
    changed = {key for key in now if now[key] != before[key]}
    if name == "pingresp":  # one more than asked for harms nobody
        assert not changed
    else:
        assert changed & {"last_error", "bad", "unwanted", "strays", "oversize"}, (before, now)


@pytest.mark.parametrize(("arch", "heap"), [("i386", "112k"), ("amd64", "192k")])
def test_on_micropython_a_hostile_wire_costs_no_memory_that_stays(arch: Arch, heap: str) -> None:
    script = DEVICE_FAKES / "hostile_session.py"
    found = json.loads(run_device(arch, script, heapsize=heap, timeout=120).stdout)
    assert found["connects"] > 10, found
    assert found["oversize"] > 0, found
    assert found["errors"] >= 4, "the wire was not hostile enough"
    assert found["growth"] < 600, found
