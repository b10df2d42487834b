"""A TCP connection as the link wants it: reads never wait, a write is all or nothing within a deadline.

The same code runs on OpenMV firmware, on MicroPython's unix port and on CPython; no select or poll is needed.

    stream = open_stream(host, port, timeout_ms, hal)     # StreamError: no address, nobody there, too slow
    open_stream(host, port, timeout_ms, hal, secure)      # the same in TLS: camera_agent/secure.py
    open_stream(..., wrap=winc.Socket)                    # for a network driver that wants to be asked differently
    stream.readinto(mv)      # bytes read, 0: nothing there now; OSError: the peer is gone
    stream.write(data)       # returns when everything is handed to the network; OSError otherwise
    stream.close()

Sockets are put into non-blocking mode: with a read timeout MicroPython's readinto() waits until the whole buffer is
full and throws away what it has when the time is up.

RAM BUDGET: one socket; on MicroPython reads go straight into the caller's buffer.
"""

import socket

from camera_agent.errors import StreamError
from camera_agent.heap import const

_TCP_NODELAY = (6, 1)  # numbers, because the unix port has no names for them
# EAGAIN, EWOULDBLOCK (BSD), ETIMEDOUT and its CPython and lwIP variants: nothing there now
_LATER = (11, 35, 110, 116, 10035, "timed out")
_WAIT_MS = const(2)  # between two tries to write
_REFUSED = (111, 61, 10061)
_NO_ROUTE = (101, 113, 118)


class Stream:
    """One open connection. See the module's docstring."""

    def __init__(self, sock, timeout_ms, hal):
        """`sock` is connected; `timeout_ms` bounds a write."""
        self._sock = sock
        self._timeout_ms = timeout_ms
        self._hal = hal
        self._readinto = getattr(sock, "readinto", None) or sock.recv_into
        self._send = getattr(sock, "send", None) or getattr(sock, "write", None)
        sock.setblocking(False)

    def readinto(self, mv):
        """What has arrived, at most `mv` full."""
        try:
            count = self._readinto(mv)
        except OSError as error:
            if is_later(error):
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
                sent = self._send(view)
            except OSError as error:
                if not is_later(error):
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


def is_later(error):
    """Whether an OSError only says that nothing can be done now."""
    return bool(error.args) and error.args[0] in _LATER


def open_stream(host, port, timeout_ms, hal, secure=None, wrap=None):
    """A connection to host:port. Blocks for `timeout_ms`, and for as long as the firmware looks up a name."""
    try:
        address = socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM)[0][-1]
    except (OSError, IndexError):
        raise StreamError("name-not-found", host) from None
    sock = socket.socket()
    try:
        sock.settimeout(timeout_ms / 1000)
        try:
            sock.connect(address)
        except OSError as error:
            raise StreamError(_why(error), str(error)) from None
        try:
            sock.setsockopt(_TCP_NODELAY[0], _TCP_NODELAY[1], 1)
        except (OSError, AttributeError, ValueError):
            pass  # not every network driver knows it; every packet is one write anyway
        if wrap is not None:
            sock = wrap(sock)
        return Stream(sock, timeout_ms, hal) if secure is None else secure.stream(sock, timeout_ms, hal)
    except BaseException:
        sock.close()
        raise


def _why(error):
    if is_later(error):
        return "connect-timeout"
    number = error.args[0] if error.args else None
    return (
        "connect-refused" if number in _REFUSED else "no-route" if number in _NO_ROUTE else "connect-failed"
    )
