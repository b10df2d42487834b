"""Sockets of the WINC1500 WiFi shield, made to behave like those of other boards.

Its driver says "timed out" where others say "nothing there now", which makes MicroPython's readinto() throw away what
it has read, and ends a TLS session for good. So recv() is asked, which hands over whatever is there, and the answer is
put into the words that streams and mbedTLS understand. The driver has neither select nor poll.

    open_stream(host, port, timeout_ms, hal, secure, winc.Socket)

Joining blocks and only says that it failed; a scan tells a wrong key from a network that is not there.

RAM BUDGET: 2 KB of code, loaded on boards with that shield; every read makes one object of at most 1,024 bytes, a scan
one of a few dozen bytes for each network in reach.
"""

import io

from camera_agent.heap import const
from camera_agent.sockets import is_later

_PIECE = const(1024)  # the driver holds 1,400


def join(nic, ssid, key):
    """Join a network. A word why it did not succeed, or None. OSError: the shield does not answer."""
    try:
        if key:
            nic.connect(ssid, key)
        else:
            nic.connect(ssid)
        return None
    except OSError:
        name = ssid.encode()
        for found in nic.scan():
            if bytes(found[0]) == name:
                return "wrong-key"
        return "no-such-network"


class Socket(io.IOBase):
    """A connected socket of the driver."""

    def __init__(self, sock):
        self._sock = sock

    def readinto(self, view):
        """How many bytes came; None: nothing there now; 0: the peer is gone."""
        try:
            data = self._sock.recv(min(len(view), _PIECE))
        except OSError as error:
            if is_later(error):
                return None
            raise
        view[: len(data)] = data
        return len(data)

    def write(self, data):
        """How many bytes went; None: not now."""
        try:
            return self._sock.send(data)
        except OSError as error:
            if is_later(error):
                return None
            raise

    def ioctl(self, _request, _argument):
        """Streams are asked to close or for their state; the socket itself is closed by close()."""
        return 0

    def setblocking(self, flag):
        """As a socket."""
        self._sock.setblocking(flag)

    def close(self):
        """Give the socket back."""
        self._sock.close()
