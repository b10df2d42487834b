"""A camera that publishes numbered results through the agent's own link and outbox, until told to finish.

usage: micropython numbers.py CAMERA PASSWORD PORT STOP_FILE
Prints `sent N dropped D` when every number has its receipt from fleetd.
"""

import os
import sys
import time

from camera_agent import link as link_module
from camera_agent.link import Link
from camera_agent.outbox import Outbox

# Brokers are killed every second or two here: do not let the pauses grow to a minute.
link_module._BACKOFF_MAX_MS = 1000
EVERY_MS = 20


class Stream:
    """A plain socket as the link wants it."""

    def __init__(self, host, port):
        import socket

        self._socket = socket.socket()
        self._socket.settimeout(5)
        self._socket.connect(socket.getaddrinfo(host, port)[0][-1])
        try:
            self._socket.setsockopt(6, 1, 1)
        except OSError:
            pass
        self._socket.setblocking(False)

    def readinto(self, view):
        try:
            count = self._socket.readinto(view)
        except OSError as error:
            if error.args[0] in (11, 35, 110):
                return 0
            raise
        if count is None:
            return 0
        if count == 0:
            raise OSError("closed by peer")
        return count

    def write(self, data):
        view = memoryview(data)
        until = time.ticks_add(time.ticks_ms(), 5000)
        while len(view):
            try:
                sent = self._socket.send(view)
            except OSError as error:
                if error.args[0] != 11:
                    raise
                sent = 0
            view = view[sent:]
            if len(view) and time.ticks_diff(until, time.ticks_ms()) < 0:
                raise OSError("write timed out")

    def close(self):
        self._socket.close()


class Hal:
    """As much of a camera as the link and the outbox need."""

    def ticks_ms(self):
        return time.time_ns() // 1000000

    def unix(self):
        return None

    def sleep_ms(self, ms):
        time.sleep_ms(ms)

    def urandom(self, count):
        return os.urandom(count)

    def network_step(self):
        return True

    def open_socket(self, host, port, timeout_ms):
        return Stream(host, port)


def exists(path):
    try:
        os.stat(path)
    except OSError:
        return False
    return True


def main(camera, password, port, stop_file):
    hal = Hal()
    outbox = Outbox(hal, most_messages=20000, most_bytes=8000000)
    settings = {"camera": camera, "password": password, "host": "127.0.0.1", "port": port}
    link = Link(hal, settings, outbox, lambda: {"agent": "numbers"})
    number = 0
    next_at = hal.ticks_ms()
    while True:
        busy = link.step()
        now = hal.ticks_ms()
        if now >= next_at and not exists(stop_file):
            next_at = now + EVERY_MS
            number += 1
            outbox.put("result", {"results": [{"label": str(number), "score": 1}]})
        elif len(outbox) == 0 and exists(stop_file):
            break
        if not busy:
            hal.sleep_ms(2)
    print("sent", number, "dropped", sum(outbox.dropped.values()), "resent", outbox.resent)


main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4])
