"""Runs mqtt, outbox and link on MicroPython against a broker in memory; prints what they cost, as JSON."""

import gc
import json

gc.collect()
at_start = gc.mem_alloc()

from camera_agent import protocol  # noqa: E402 (what importing costs is measured)
from camera_agent.link import Link  # noqa: E402
from camera_agent.outbox import Outbox  # noqa: E402

gc.collect()
imported = gc.mem_alloc()

DIGEST = "ab" * 32
CONNACK = b"\x20\x02\x00\x00"


def length(size):
    """MQTT's variable length."""
    out = b""
    while True:
        digit = size & 0x7F
        size >>= 7
        out += bytes([digit | (0x80 if size else 0)])
        if not size:
            return out


class Stream:
    """Gives out what is queued without allocating, so that only the client's own allocations are seen."""

    def __init__(self):
        self.queue = []
        self.at = 0
        self.zeros = 0  # so many more zero bytes come after the queue
        self.written = 0
        self.last = b""
        self.broken = False

    def readinto(self, view):
        """As much as there is."""
        if self.broken:
            raise OSError(104)
        if self.queue:
            chunk = self.queue[0]
            count = min(len(view), len(chunk) - self.at)
            at = self.at
            for n in range(count):
                view[n] = chunk[at + n]
            self.at += count
            if self.at == len(chunk):
                self.queue.pop(0)
                self.at = 0
            return count
        count = min(len(view), self.zeros)
        self.zeros -= count
        return count

    def write(self, view):
        """Remembers only small packets whole."""
        self.written += len(view)
        if len(view) < 400:
            self.last = bytes(view)

    def close(self):
        """Nothing to do."""


class Hal:
    """A clock, and the stream."""

    def __init__(self):
        self.now = 0
        self.stream = Stream()

    def ticks_ms(self):
        """Milliseconds."""
        return self.now

    def unix(self):
        """No clock."""

    def urandom(self, size):
        """Not random at all."""
        return bytes(range(size))

    def network_step(self):
        """There is a network."""
        return True

    def sleep_ms(self, duration):
        """Time passes."""
        self.now += duration

    def open_socket(self, host, port, timeout_ms):
        """The stream."""
        return self.stream


hal = Hal()
outbox = Outbox(hal)
link = Link(hal, {"camera": "cam-07", "host": "broker", "password": "x" * 32}, outbox, lambda: {"agent": "1"})
got = []
link.handlers["blob"] = lambda kind, parts, payload: got.append(len(payload))
stream = hal.stream


def connect():
    """Answers CONNECT and the first SUBSCRIBE."""
    link.step()
    stream.queue.append(CONNACK)
    link.step()
    stream.queue.append(b"\x90\x04" + stream.last[2:4] + b"\x01\x00")
    link.step()
    assert link.connected, (link.state, link.last_error)
    link.step()


connect()
gc.collect()
connected = gc.mem_alloc()

# Blocks of 4096 bytes, all on one wanted topic: what does a received block allocate?
topic = link.topics.blob(DIGEST, 7)
link.want(topic)
link.step()
body = len(topic).to_bytes(2, "big") + topic + bytes(4096)
packet = b"\x30" + length(len(body)) + body
del body
gc.collect()
got.extend([0] * 64)  # the list has its room now
got.clear()
costs = []
for _ in range(20):
    stream.queue.append(packet)
    before = gc.mem_alloc()
    gc.disable()
    while link.step():
        pass
    costs.append(gc.mem_alloc() - before)
    gc.enable()
assert got == [4096] * 20, got
costs.sort()

idle_before = gc.mem_alloc()
for _ in range(20):
    link.step()
idle = (gc.mem_alloc() - idle_before) // 20

# One megabyte that nobody asked for is drained.
del packet
gc.collect()
before_drain = gc.mem_alloc()
stream.queue.append(b"\x30" + length(1024 * 1024 + 3) + b"\x00\x01x")
stream.zeros = 1024 * 1024
steps = 0
most = 0
while stream.zeros:
    link.step()
    steps += 1
    gc.collect()
    most = max(most, gc.mem_alloc() - before_drain)
assert link.stats()["oversize"] == 1
assert link.connected

# An outbox of 64 typical results.
gc.collect()
before_box = gc.mem_alloc()
for n in range(70):
    outbox.put(
        "result", {"results": [{"label": "ball", "score": 0.93, "dt": 0, "frame": n}], "release": "balls-2"}
    )
    gc.collect()
box = gc.mem_alloc() - before_box
payloads = outbox.bytes
for _ in range(40):
    link.step()
window = 64 - outbox._waiting
seqs = [message.seq for message in outbox._held]
ack = json.dumps({"boot": outbox.boot, "seq": [[n, n] for n in seqs[:window]]}).encode()
down = b"fleet/v1/cam-07/down/ack"
stream.queue.append(b"\x30" + length(2 + len(down) + len(ack)) + len(down).to_bytes(2, "big") + down + ack)
held = len(outbox)
while link.step():
    pass
assert len(outbox) == held - window, (len(outbox), held, window)

# The largest message that is allowed still gets out.
outbox.ack(outbox.boot, [[0, protocol.SEQ_MAX]])
for message in outbox._held:
    message.was_sent = True
outbox.ack(outbox.boot, [[0, protocol.SEQ_MAX]])
link._mqtt._flight.clear()
gc.collect()
written = stream.written
assert outbox.put("event", {"kind": "note", "text": "x" * 6000})
link.step()
assert stream.written - written > 6000

# The peer goes away, the link backs off, comes back and says goodbye.
stream.broken = True
link.step()
assert link.state == "waiting"
assert link.last_error == "closed-by-peer", link.last_error
stream.broken = False
hal.now += 60000
connect()
assert link.reconnects == 1
link.unwant(topic)
link.close(100)
assert link.state == "closed"

print(
    json.dumps(
        {
            "modules": imported - at_start,
            "connected": connected - imported,
            "block": costs[10],
            "block_most": costs[-1],
            "idle_step": idle,
            "drain_growth": most,
            "drain_steps": steps,
            "outbox": box,
            "outbox_payloads": payloads,
            "free": gc.mem_free(),
        }
    )
)
