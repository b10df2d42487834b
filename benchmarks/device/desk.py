"""A camera on the desk for agent_cost.py: the real Hal over stand-ins for the firmware's modules, on MicroPython.

The clock is a number that only moves when a frame is taken or somebody sleeps, so that every run does the same work.
The broker is in memory; releases lie as files in the working folder, which is the camera's flash as well.
"""

import gc
import io
import json
import os
import sys
import time as real_time

CAPTURE_MS = 15  # as the published measurement had it at 240 x 240: 89 ms a frame, 74 of them inference
INFERENCE_MS = 74
_PUBACK = b"\x40\x02"
_NETWORK = {"camera": "bench-1", "host": "desk", "wifi": {"ssid": "desk", "key": "secret"}}


class Clock:
    """Stands for the module `time`. Its position is the time; `tell` costs as little as the firmware's ticks_ms."""

    def __init__(self):
        self._now = io.BytesIO()
        self.ticks_ms = self._now.tell
        self.ticks_diff = real_time.ticks_diff
        self.ticks_add = real_time.ticks_add
        self.gmtime = real_time.gmtime
        self.localtime = real_time.localtime

    def ticks_us(self):
        return self._now.tell() * 1000

    def sleep_ms(self, duration):
        self._now.seek(duration, 1)

    def sleep(self, seconds):
        self._now.seek(int(1000 * seconds), 1)

    def time(self):
        return self._now.tell() // 1000


class CountingGc:
    """Stands for the module `gc`: counts who asks for a collection, and keeps everything while `held`."""

    def __init__(self):
        self.asked = 0
        self.held = False
        self.mem_alloc = gc.mem_alloc
        self.mem_free = gc.mem_free
        self.threshold = gc.threshold
        self.enable = gc.enable
        self.disable = gc.disable
        self.isenabled = gc.isenabled

    def collect(self):
        self.asked += 1
        if not self.held:
            gc.collect()


clock = Clock()
counting = CountingGc()
sys.modules["time"] = clock  # whoever imports it from now on gets these
sys.modules["gc"] = counting

import csi  # noqa: E402 (the fakes, which are the same for the bare loop and the agent)
import machine  # noqa: E402
import network  # noqa: E402, F401
import omv  # noqa: E402, F401


class _Array:
    """As much of a ulab array as is used."""

    def __init__(self, values):
        self._values = values

    def flatten(self):
        return self

    def tolist(self):
        return list(self._values)


class Net:
    """A model engine that takes its time and no instructions."""

    def __init__(self):
        self.input_shape = [(1, 96, 96, 3)]
        self.output_shape = [(1, 3)]
        self._answer = _Array([0.125, 0.75, 0.125])

    def predict(self, inputs):
        clock.sleep_ms(INFERENCE_MS)
        return [self._answer]


class Model:
    """What hal.load_model answers; the model itself costs no memory, as if it were used in place."""

    def __init__(self):
        self._net = Net()
        self.input_shape = (96, 96, 3)
        self.output_len = 3

    def classify(self, frame):
        return self._net.predict([frame])[0].flatten().tolist()

    def close(self):
        pass


_Csi = csi.CSI


class Sensor(_Csi):
    """Pictures that take their time."""

    def snapshot(self):
        clock.sleep_ms(CAPTURE_MS)
        return _Csi.snapshot(self)


csi.CSI = Sensor


class SilentLed(machine.LED):
    """Does not print: nobody looks."""

    def _set(self, is_on):
        self._is_on = is_on


machine.LED = SilentLed


class Broker:
    """The other end of the socket: acknowledges, hands out what is retained, sends fleetd's receipts."""

    def __init__(self):
        self.is_there = True
        self._out = []  # packets for the camera
        self._skip = 0  # bytes of a large packet still to come
        self.published = 0  # QoS 1 messages
        self.prefix = b"fleet/v1/"

    # the socket's side

    def setblocking(self, flag):
        pass

    def close(self):
        pass

    def readinto(self, view):
        if not self.is_there:
            raise OSError(104)
        if not self._out:
            return None
        packet = self._out.pop(0)
        if type(packet) is tuple:
            return self._read_file(packet, view)
        if len(packet) > len(view):
            self._out.insert(0, packet[len(view) :])
            packet = packet[: len(view)]
        view[: len(packet)] = packet
        return len(packet)

    def _read_file(self, rest, view):
        """A piece of what is retained, straight from its file: a real broker takes no memory of the camera's."""
        path, at = rest
        with open(path, "rb") as file:
            file.seek(at)
            count = file.readinto(view)
        if at + count < os.stat(path)[6]:
            self._out.insert(0, (path, at + count))
        return count

    def send(self, data):
        at = min(self._skip, len(data))
        self._skip -= at
        while at < len(data):
            at = self._handle(data, at)
        return len(data)

    def _handle(self, data, at):
        first = data[at]
        at += 1
        size = shift = 0
        while True:
            byte = data[at]
            at += 1
            size |= (byte & 0x7F) << shift
            shift += 7
            if byte < 128:
                break
        end = at + size
        kind = first & 0xF0
        if kind == 0x30:
            if first & 0x06:
                self.published += 1
                id_at = at + 2 + (data[at] << 8 | data[at + 1])
                self._out.append(_PUBACK + bytes(data[id_at : id_at + 2]))
        elif kind == 0x10:
            self._out.append(b"\x20\x02\x00\x00")
        elif kind == 0x80:
            self._subscribe(bytes(data[at : at + 2]), bytes(data[at + 2 : end]))
        elif kind == 0xA0:
            self._out.append(b"\xb0\x02" + bytes(data[at : at + 2]))
        elif kind == 0xC0:
            self._out.append(b"\xd0\x00")
        if end > len(data):
            self._skip = end - len(data)
            return len(data)
        return end

    def _subscribe(self, packet_id, rest):
        topics = []
        while rest:
            size = rest[0] << 8 | rest[1]
            topics.append(rest[2 : 2 + size])
            rest = rest[3 + size :]
        self._out.append(b"\x90" + bytes([2 + len(topics)]) + packet_id + bytes(len(topics)))
        for topic in topics:
            self.deliver(topic)

    def hang_up(self):
        """The connection is lost; the next one finds it as before."""
        self.is_there = False

    def accept(self):
        """A new connection."""
        self.is_there = True
        self._skip = 0
        self._out = []
        return self

    # fleetd's side

    def deliver(self, topic):
        """What is retained there, from the file that is named like it."""
        name = str(topic[len(self.prefix) :], "utf-8").replace("/", ".").replace("#", "desired")
        path = "retained/" + name
        try:
            size = os.stat(path)[6]
        except OSError:
            return
        if topic.endswith(b"#"):
            topic = topic[:-1] + b"desired"
        self._head(topic, size, True)
        self._out.append((path, 0))

    def publish(self, topic, payload, retain=False):
        self._head(topic, len(payload), retain)
        self._out.append(payload)

    def _head(self, topic, payload_bytes, retain):
        size = 2 + len(topic) + payload_bytes
        head = bytearray([0x31 if retain else 0x30])
        while size > 127:
            head.append(size & 127 | 128)
            size >>= 7
        head.append(size)
        head += bytes([len(topic) >> 8, len(topic) & 255])
        self._out.append(bytes(head) + topic)

    def receipt(self, boot, low, high):
        """`down/ack`."""
        body = b'{"boot":"%s","seq":[[%d,%d]]}' % (boot.encode(), low, high)
        self.publish(self.prefix + b"bench-1/down/ack", body)


class Camera:
    """The whole agent on the desk."""

    def __init__(self, **changes):
        from camera_agent import heap

        try:
            heap.load("ready").load_parts()
        except heap.StorageError:  # the parts are still loaded by main.py
            import main

            main._load()
        heap.forget("ready")
        from camera_agent.agent import Agent
        from camera_agent.hal import Hal
        from camera_agent.sockets import Stream

        with open("key") as file:
            wanted = {"keys": [file.read(128)], "slot_bytes": 81920, "interval_ms": 0}
        wanted.update(_NETWORK)
        wanted.update(changes)
        self.broker = Broker()
        self.hal = hal = Hal()
        hal.open_socket = lambda *_args, **_kwargs: Stream(self.broker.accept(), 2000, hal)
        hal.load_model = lambda *_args, **_kwargs: Model()
        hal.free_model = lambda _model: None
        settings = heap.load("settings").check(wanted)
        heap.forget("settings")
        heap.forget("tuning")
        self.agent = Agent(hal, settings)
        self.pause_ms = 5
        self._receipt_at = 0
        self._seen = 0
        self.turns = 0

    def turn(self):
        """One turn of the agent, and a receipt a second."""
        self.turns += 1
        if not self.agent.step():
            clock.sleep_ms(self.pause_ms)
        if clock.ticks_ms() >= self._receipt_at and self.broker.published > self._seen:
            self._receipt_at = clock.ticks_ms() + 1000
            self._seen = self.broker.published
            outbox = self.agent.outbox
            self.broker.receipt(outbox.boot, outbox.low, outbox.low + len(outbox))

    def until(self, condition, turns=200_000):
        """Live until then."""
        for _ in range(turns):
            if condition():
                return
            self.turn()
        raise RuntimeError("it did not happen: %s" % json.dumps(self.agent.status()))

    def frames(self, count):
        """Live for so many frames."""
        vision = self.agent.vision
        until = vision.frames + count
        self.until(lambda: vision.frames >= until)

    def seconds(self, count):
        """Live for so long."""
        until = clock.ticks_ms() + 1000 * count
        while clock.ticks_ms() < until:
            self.turn()

    def boot(self):
        """Until it is connected and classifies."""
        self.agent.start()
        self.until(lambda: self.agent.link.connected and self.agent.vision.frames > 0)
