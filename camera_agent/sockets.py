"""A TCP connection as the link wants it: reads never wait, a write is all or nothing within a deadline.

The same code runs on OpenMV firmware, on MicroPython's unix port and on CPython; no select or poll is needed.

    stream = open_stream(host, port, timeout_ms, hal)     # OSError: no address, nobody there, too slow
    stream.readinto(mv)      # bytes read, 0: nothing there now; OSError: the peer is gone
    stream.write(data)       # returns when everything is handed to the network; OSError otherwise
    stream.close()

Sockets are put into non-blocking mode: with a read timeout MicroPython's readinto() waits until the whole buffer is
full and throws away what it has when the time is up.

RAM BUDGET: one socket; on MicroPython reads go straight into the caller's buffer.
"""

import socket

from camera_agent.heap import const

_TCP_NODELAY = (6, 1)  # numbers, because the unix port has no names for them
# EAGAIN, EWOULDBLOCK (BSD), ETIMEDOUT and its CPython and lwIP variants: nothing there now
_LATER = (11, 35, 110, 116, 10035, "timed out")
_WAIT_MS = const(2)  # between two tries to write


class Stream:
    """One open connection. See the module's docstring."""

    def __init__(self, sock, timeout_ms, hal):
        """`sock` is connected; `timeout_ms` bounds a write."""
        self._sock = sock
        self._timeout_ms = timeout_ms
        self._hal = hal
        self._readinto = getattr(sock, "readinto", None) or sock.recv_into
        sock.setblocking(False)

    def readinto(self, mv):
        """What has arrived, at most `mv` full."""
        try:
            count = self._readinto(mv)
        except OSError as error:
            if error.args and error.args[0] in _LATER:
                return 0
            raise
        if count is None:
            return 0
        if not count:
            raise OSError("closed by the peer")
        return count

    def write(self, data):
        """All of `data`, or OSError after `timeout_ms` without room for the rest."""
        view = memoryview(data)
        until = self._hal.ticks_ms() + self._timeout_ms
        while len(view) > 0:
            try:
                sent = self._sock.send(view)
            except OSError as error:
                if not error.args or error.args[0] not in _LATER:
                    raise
                sent = 0
            if sent:
                view = view[sent:]
            elif self._hal.ticks_ms() >= until:
                raise OSError("write timed out")
            else:
                self._hal.sleep_ms(_WAIT_MS)

    def close(self):
        """Give it up, without a word to the peer."""
        self._sock.close()


def open_stream(host, port, timeout_ms, hal):
    """A connection to host:port. Blocks for `timeout_ms`, and for as long as the firmware looks up a name."""
    address = socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM)[0][-1]
    sock = socket.socket()
    try:
        sock.settimeout(timeout_ms / 1000)
        sock.connect(address)
        try:
            sock.setsockopt(_TCP_NODELAY[0], _TCP_NODELAY[1], 1)
        except (OSError, AttributeError, ValueError):
            pass  # not every network driver knows it; every packet is one write anyway
        return Stream(sock, timeout_ms, hal)
    except BaseException:
        sock.close()
        raise
