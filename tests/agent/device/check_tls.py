"""One link of the agent in TLS, on MicroPython: connects or says why not. Arguments: host, port, name or "-".

The CA is in the environment.

Prints what became of it as JSON. With "winc" as fourth argument the socket behaves like the WINC driver's.
"""

import gc
import json
import os
import sys
import time

from camera_agent.link import Link
from camera_agent.outbox import Outbox
from camera_agent.sockets import open_stream

gc.collect()
before = gc.mem_alloc()
from camera_agent.secure import Secure  # noqa: E402  # what it takes is measured

gc.collect()
code = gc.mem_alloc() - before

host, port, ca, name = (
    sys.argv[1],
    sys.argv[2],
    os.getenv("CA"),
    sys.argv[3],
)  # an argument has 255 characters
wrap = None
if sys.argv[4:] == ["winc"]:
    from camera_agent import winc

    class Raw:
        """A socket that answers like the driver: only recv and send, and a time-out instead of "later"."""

        def __init__(self, sock):
            self._sock = sock

        def recv(self, size):
            try:
                return self._sock.recv(size)
            except OSError as error:
                raise OSError(110 if error.args[0] == 11 else error.args[0]) from None

        def send(self, data):
            return self._sock.send(data)

        def setblocking(self, flag):
            self._sock.setblocking(flag)

        def close(self):
            self._sock.close()

    def wrap(sock):
        return winc.Socket(Raw(sock))


class Hal:
    """Time and a network."""

    def ticks_ms(self):
        return time.ticks_ms()

    def sleep_ms(self, duration):
        time.sleep_ms(duration)

    def unix(self):
        return None

    def urandom(self, size):
        return os.urandom(size)

    def network_step(self):
        return True

    def open_socket(self, host, port, timeout_ms):
        return open_stream(host, port, timeout_ms, self, secure, wrap)


gc.collect()
before = gc.mem_alloc()
secure = Secure({"ca": ca, "name": None if name == "-" else name}, host)
gc.collect()
context = gc.mem_alloc() - before
hal = Hal()
outbox = Outbox(hal)
settings = {
    "camera": "cam-01",
    "host": host,
    "port": int(port),
    "password": "a secret",
    "connect_timeout_ms": 500,
}
link = Link(hal, settings, outbox, lambda: {"agent": "1"})
outbox.put("event", {"kind": "note", "text": "x" * 6000})
until = time.ticks_add(time.ticks_ms(), 30000)
done = False
while not done and link.last_error is None and time.ticks_diff(until, time.ticks_ms()) > 0:
    if not link.step():
        time.sleep_ms(5)
    done = link.connected and not [message for message in outbox._held if message.state != 2]
gc.collect()
connected = gc.mem_alloc() - before
link.close(2000)
print(
    json.dumps({"done": done, "error": link.last_error, "code": code, "context": context, "live": connected})
)
