"""TLS for the connection to the broker: one CA, the broker's name checked, nothing sent before both are right.

    secure = Secure({"ca": base64 of the CA's certificate in DER, "name": ... or None}, host)    # StreamError
    stream = secure.stream(sock, timeout_ms, hal)      # a sockets.Stream over a connected socket

The handshake happens in the first write, without blocking: a peer that says nothing, or one byte now and then, costs
the time of `timeout_ms` and `_HANDSHAKE_MS`, not more. Certificates are good or not by the camera's clock, so that is
set first (hal). What is wrong with the peer is a StreamError:

    tls-ca-invalid       the CA in the settings is no certificate
    tls-wrong-ca         the broker's certificate was not signed by our CA
    tls-wrong-host       ... is for another name
    tls-expired, tls-not-yet-valid     ... by the camera's clock
    tls-certificate      ... is refused, and this firmware does not say why
    tls-not-spoken       what answers there speaks no TLS
    tls-timeout, tls-failed, tls-out-of-memory

RAM BUDGET: 3 KB of code, loaded when the settings ask for TLS; the context holds the certificate (about 1 KB) for
good. A connection takes what mbedTLS needs, on OpenMV boards more than 20 KB of the same heap.
"""

import gc
from binascii import a2b_base64

from camera_agent.errors import StreamError
from camera_agent.heap import const
from camera_agent.sockets import Stream, is_later

try:
    import ssl
except ImportError:  # a MicroPython without the module that wraps this one
    import tls as ssl

_HANDSHAKE_MS = const(6000)  # for the arithmetic of a slow board, on top of the usual time for a write
_WANTS = ((2,), (3,))  # how CPython says: nothing there now
# What mbedTLS and OpenSSL say, or what their numbers mean; the first that fits.
_MARKS = (
    ("expired", "tls-expired"),
    ("future", "tls-not-yet-valid"),
    ("not yet valid", "tls-not-yet-valid"),
    ("Common Name", "tls-wrong-host"),
    ("ostname mismatch", "tls-wrong-host"),
    ("IP address mismatch", "tls-wrong-host"),
    ("trusted CA", "tls-wrong-ca"),
    ("signed certificate", "tls-wrong-ca"),
    ("local issuer", "tls-wrong-ca"),
    ("signature failure", "tls-wrong-ca"),
    ("CERT_VERIFY", "tls-certificate"),
    ("CERTIFICATE_VERIFY", "tls-certificate"),
    ("invalid SSL record", "tls-not-spoken"),
    ("INVALID_RECORD", "tls-not-spoken"),
    ("WRONG_VERSION", "tls-not-spoken"),
)
_NUMBERS = {-9984: "tls-certificate", -29184: "tls-not-spoken"}  # where a firmware has no texts


def why(error):
    """The word for what the engine raised."""
    if isinstance(error, MemoryError):
        return "tls-out-of-memory"
    said = str(error)
    for mark, word in _MARKS:
        if mark in said:
            return word
    return _NUMBERS.get(error.args[0] if error.args else None, "tls-failed")


class Secure:
    """What every connection shares. See the module's docstring."""

    def __init__(self, settings, host):
        gc.collect()
        self.name = settings.get("name") or host
        try:
            der = a2b_base64(settings["ca"])
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.verify_mode = ssl.CERT_REQUIRED  # the wrapper in some firmware begins with none at all
            if ssl.__name__ == "ssl":
                context.load_verify_locations(cadata=der)
            else:
                context.load_verify_locations(der)
        except MemoryError:
            raise StreamError("tls-out-of-memory") from None
        except Exception as error:
            raise StreamError("tls-ca-invalid", str(error)) from None
        self._context = context

    def stream(self, sock, timeout_ms, hal):
        """TLS over this socket; nothing has been sent yet. StreamError."""
        gc.collect()  # the engine wants two large pieces
        try:
            sock.setblocking(False)
            wrapped = self._context.wrap_socket(
                sock, server_hostname=self.name, do_handshake_on_connect=False
            )
        except Exception as error:
            raise StreamError(why(error), str(error)) from None
        return SecureStream(wrapped, sock, timeout_ms, hal)


class SecureStream(Stream):
    """One connection. What goes wrong before it is secure has a word of its own."""

    def __init__(self, wrapped, sock, timeout_ms, hal):
        super().__init__(wrapped, timeout_ms + _HANDSHAKE_MS, hal)
        self._usual_ms = timeout_ms
        self._raw = sock
        self._is_open = False
        self._engine_send = self._send
        self._engine_read = self._readinto
        self._send = self._secure_send
        self._readinto = self._secure_read

    def _secure_send(self, view):
        try:
            sent = self._engine_send(view)
        except Exception as error:
            if isinstance(error, OSError) and (is_later(error) or error.args[:1] in _WANTS):
                return 0
            if self._is_open and isinstance(error, OSError):
                raise
            raise StreamError("write-failed" if self._is_open else why(error), str(error)) from None
        if sent and not self._is_open:
            self._is_open = True
            self._timeout_ms = self._usual_ms
        return sent

    def _secure_read(self, view):
        try:
            return self._engine_read(view)
        except Exception as error:
            if isinstance(error, OSError) and error.args[:1] in _WANTS:
                return None
            if isinstance(error, OSError):
                raise
            raise OSError(str(error)) from None

    def write(self, data):
        """As in Stream."""
        try:
            super().write(data)
        except OSError as error:
            if self._is_open or isinstance(error, StreamError):
                raise
            raise StreamError("tls-timeout", str(error)) from None

    def close(self):
        """As in Stream. Some firmware leaves the socket below open."""
        try:
            self._sock.close()
        finally:
            self._raw.close()
