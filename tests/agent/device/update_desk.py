"""Camera and broker for the updater on MicroPython: releases lie in a folder as the test has put them there.

`<folder>/<release>.manifest`, `<folder>/<digest>.<n>` (blocks and index blocks), `<folder>/key` (public key).
"""

import gc

from camera_agent import crypto
from camera_agent.updater import Updater


class Hal:
    def __init__(self):
        self.now = 1000
        self.cause = "power-on"

    def ticks_ms(self):
        return self.now

    def unix(self):
        return None

    def arch(self):
        return "OMVRT1060 32768 SDRAM"

    def reset_cause(self):
        return self.cause

    def feed(self):
        pass


class Topics:
    """The topics, as file names."""

    def release(self, release):
        return release + ".manifest"

    def blob(self, digest, n):
        return "%s.%d" % (digest, n)


class Port:
    """A link whose broker is a folder. One receive buffer, as on a camera."""

    def __init__(self, folder):
        self.connected = True
        self.topics = Topics()
        self.wanted = []
        self.waiting = []
        self.taken = 0  # messages handed over since the last manifest
        self._folder = folder
        self._buffer = memoryview(bytearray(8192))

    def want(self, topic):
        if topic not in self.wanted:
            self.wanted.append(topic)
        self.waiting.append(topic)
        return True

    def unwant(self, topic):
        self.wanted.remove(topic)

    def deliver(self, updater):
        """Hand over one waiting message; False when none waits."""
        while self.waiting:
            topic = self.waiting.pop(0)
            if topic not in self.wanted:
                continue
            try:
                with open(self._folder + "/" + topic, "rb") as file:
                    payload = self._buffer[: file.readinto(self._buffer)]
            except OSError:
                continue
            self.taken += 1
            name, tail = topic.rsplit(".", 1)
            if tail == "manifest":
                self.taken = 0
                updater.on_release(name, payload)
            else:
                updater.on_block(name, int(tail), payload)
            return True
        return False


def read(path):
    with open(path, "rb") as file:
        return file.read()


class Camera:
    """An updater that is new after every boot."""

    def __init__(self, folder):
        self.hal = Hal()
        self.port = Port(folder)
        self.ring = crypto.Ring([read(folder + "/key")])
        self.reports = []
        self.updater = None
        self.peak = 0

    def _report(self, state, reason=None, detail=None, **_extra):
        self.reports.append((state, reason, detail))

    def boot(self, files):
        self.port.wanted = []
        self.port.waiting = []
        self.reports = []
        self.updater = None
        gc.collect()
        self.updater = Updater(self.hal, files, self.ring, self.port, self._report)
        self.updater.boot()

    def run(self, measure=False):
        """Step and deliver until nothing happens any more."""
        while True:
            self.hal.now += 1
            busy = self.updater.step()
            if measure:
                gc.collect()
                self.peak = max(self.peak, gc.mem_alloc())
            if not self.port.deliver(self.updater) and not busy:
                return

    def update(self, release, generation, measure=False):
        """From desired to confirmed."""
        self.updater.on_desired(
            {"generation": generation, "release": release, "digest": None, "config": {}, "deadline": None}
        )
        self.run(measure)
        for _ in range(5):
            self.updater.trial_frame_ok(40)
        self.run(measure)

    def model(self):
        """Release and SHA-256 of the bytes of the model to use, or None."""
        choice = self.updater.model_to_use()
        if choice is None:
            return None
        seen = crypto.hashlib.sha256()
        view = memoryview(bytearray(512))
        at = 0
        while at < choice.content.size:
            n = choice.content.readinto(at, view)
            seen.update(view[:n])
            at += n
        return choice.release, crypto.hexed(seen.digest())
