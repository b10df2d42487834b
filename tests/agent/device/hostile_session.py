"""The link on MicroPython at the end of a hostile wire; prints what it cost, as JSON. tests/agent/test_hostile_link.py
has the same in full on CPython."""

import gc
import json

from camera_agent.link import Link
from camera_agent.outbox import Outbox

ROUNDS = 120
CONNACK = b"\x20\x02\x00\x00"
WRONG = (
    b"\x20\x02\x00\x00",
    b"\x82\x05\x00\x01\x00\x00\x00",
    b"\xe0\x00",
    b"\x50\x02\x00\x01",
    b"\xf0\x00",
    b"\x40\x02\x03\xe7",
    b"\x34\x05\x00\x01a\x00\x01",
    b"\x30\xff\xff\xff\xff\x7f",
    b"\x30\x04\xff\xff\x00\x00",
    b"\x30\x0f\x00\x0afleet/v1/x{}}",
)


class Dice:
    """Numbers that look random and are the same in every run."""

    def __init__(self):
        self.state = 1

    def below(self, most):
        self.state = (self.state * 1103515245 + 12345) & 0x3FFFFFFF
        return (self.state >> 8) % most


dice = Dice()


class Stream:
    """A broker that answers, and a wire that does what it likes."""

    def __init__(self, hal):
        self.hal = hal
        self.queue = bytearray(512)
        self.end = 0
        self.zeros = 0
        self.gone = False

    def feed(self, data):
        data = data[: len(self.queue) - self.end]
        self.queue[self.end : self.end + len(data)] = data
        self.end += len(data)

    def readinto(self, view):
        if self.gone:
            raise OSError(104)
        if self.hal.half_open:
            return 0
        count = min(len(view), self.end, 1 if self.hal.slow else 600)
        if count:
            view[:count] = self.queue[:count]
            self.queue[: self.end - count] = self.queue[count : self.end]
            self.end -= count
            return count
        count = min(len(view), self.zeros)
        self.zeros -= count
        return count

    def write(self, view):
        if self.gone:
            raise OSError(104)
        if self.hal.half_open or (self.hal.drops and dice.below(3) == 0):
            return
        kind = view[0] & 0xF0
        at = 2 if view[1] < 128 else 3
        if kind == 0x10:
            self.feed(CONNACK)
            self.gone = self.hal.kicks
        elif kind == 0x80:
            self.feed(bytes([0x90, 4, view[at], view[at + 1], 1, 0]))
        elif kind == 0xC0:
            self.feed(b"\xd0\x00")
        elif kind == 0x30 and view[0] & 2:
            size = view[at] << 8 | view[at + 1]
            answer = bytes([0x40, 2, view[at + 2 + size], view[at + 3 + size]])
            self.feed(answer)
            if self.hal.drops:
                self.feed(answer)

    def close(self):
        self.gone = True


class Hal:
    """A clock and the wire."""

    def __init__(self):
        self.now = 0
        self.stream = None
        self.be_good()

    def be_good(self):
        self.half_open = self.slow = self.drops = self.kicks = False

    def ticks_ms(self):
        return self.now

    def unix(self):
        return None

    def urandom(self, size):
        return bytes([dice.below(256) for _ in range(size)])

    def network_step(self):
        return True

    def sleep_ms(self, duration):
        self.now += duration

    def open_socket(self, host, port, timeout_ms):
        self.stream = Stream(self)
        return self.stream


hal = Hal()
outbox = Outbox(hal, 16, 4096)
link = Link(hal, {"camera": "cam-07", "host": "broker", "password": "x" * 32}, outbox, lambda: {"agent": "1"})
errors = {}


def on_lost(reason, _detail):
    errors[reason] = errors.get(reason, 0) + 1


link.on_lost = on_lost


def run(seconds):
    for _ in range(5 * seconds):
        hal.now += 200
        link.step()
        for message in outbox._held:
            if message.state == 2 and not hal.half_open:
                outbox.ack(outbox.boot, [[message.seq, message.seq]])
                break


def settle():
    """Back to work."""
    hal.be_good()
    for _ in range(300):
        run(1)
        if link.connected and not len(outbox):
            return
    raise AssertionError("not back: %s %s %s" % (link.state, link.last_error, len(outbox)))


settle()
for reason in ("closed-by-peer", "no-pingresp", "no-answer", "malformed", "unexpected", "write-failed"):
    errors[reason] = 0  # the words have their place before anything is measured
gc.collect()
before = gc.mem_alloc()
for _ in range(ROUNDS):
    fault = dice.below(8)
    if fault == 0:
        hal.half_open = True
    elif fault == 1:
        hal.slow = True
    elif fault == 2:
        hal.drops = True
    elif fault == 3:
        hal.kicks = hal.stream.gone = True
    elif fault == 4:
        hal.stream.gone = True
    elif fault == 5:
        hal.stream.feed(b"\x30\x83\x80\x80\x05\x00\x01x")
        hal.stream.zeros += 10 * 1024 * 1024 if dice.below(4) == 0 else 65536
    elif fault == 6:
        hal.stream.feed(WRONG[dice.below(len(WRONG))])
    else:
        hal.stream.feed(bytes([dice.below(256) for _ in range(40)]))
    for _ in range(dice.below(4)):
        outbox.put("result", {"results": [{"label": "ball", "score": 0.9}]})
    run(1 + dice.below(30))
    if dice.below(3) == 0:
        settle()
settle()
gc.collect()
print(
    json.dumps(
        {
            "growth": gc.mem_alloc() - before,
            "connects": link.connects,
            "oversize": link._mqtt.oversize,
            "errors": len([reason for reason in errors if errors[reason]]),
            "reasons": errors,
            "stats": link.stats(),
        }
    )
)
