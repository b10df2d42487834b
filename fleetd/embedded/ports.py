"""Loopback ports: who has one, and whether MQTT is spoken there."""

import contextlib
import secrets
import socket

from fleetd.errors import BrokerError

LOOPBACK = "127.0.0.1"


class PortTakenError(BrokerError):
    """Another program listens on the broker's port; no broker was started."""

    code = "broker_port_taken"


def answers(host: str, port: int, timeout: float = 1.0) -> bool:
    """True when an MQTT broker there answers a CONNECT, whether or not it would let us in."""
    client = b"fleetd-probe-" + secrets.token_hex(4).encode()
    body = b"\x00\x04MQTT\x04\x02\x00\x05" + len(client).to_bytes(2) + client
    try:
        with socket.create_connection((host, port), timeout=timeout) as link:
            link.sendall(bytes((0x10, len(body))) + body)
            connack = link.recv(4)
            with contextlib.suppress(OSError):  # it may have refused and closed already
                link.sendall(b"\xe0\x00")
    except OSError:
        return False
    return connack[:1] == b"\x20"


def is_free(host: str, port: int) -> bool:
    """Whether a broker could listen there now."""
    with socket.socket(_family(host)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as brokers do
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError:
            return False
    return True


def require_free(host: str, port: int) -> None:
    """Raises PortTakenError, which says what is there and what to do, when a broker could not listen."""
    if is_free(host, port):
        return
    if answers(host, port):
        what, remedy = "an MQTT broker that is not fleetd's", "configure that one as the external broker"
    else:
        what, remedy = "another program", "stop that program"
    raise PortTakenError(
        f"Port {port} on {host} belongs to {what}; no broker was started. To go on, {remedy}, or choose "
        "another port.",
        host=host,
        port=port,
    )


def any_free(host: str) -> int:
    """A port that nobody listens on."""
    with socket.socket(_family(host)) as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
    return port


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
