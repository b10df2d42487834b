"""Both brokers that fleetd starts, with accounts, and clients that try what they should not."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from fleetd.accounts import Accounts
from fleetd.app import Daemon
from fleetd.settings import load_settings
from tests.brokers import mosquitto_binary

PREFIX: Final = "fleet/v1"
PATIENCE: Final = 60.0


@contextlib.contextmanager
def fleet(folder: Path, kind: str, **settings: Any) -> Iterator[Daemon]:
    """A fleetd with a broker of its own of that kind."""
    broker = {"mode": kind, "port": 0, "mosquitto": mosquitto_binary(), **settings.pop("broker", {})}
    if kind == "amqtt":
        del broker["mosquitto"]
    made = load_settings(state_dir=folder / "state", broker=broker, http={"port": 0}, **settings)
    with Daemon(made) as daemon:
        yield daemon


def until(condition: Callable[[], Any], what: str = "it") -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen"
        time.sleep(0.01)


class Client:
    """One MQTT connection with an account."""

    def __init__(
        self,
        daemon: Daemon,
        user: str | None,
        password: str | None,
        *,
        client_id: str | None = None,
        will: tuple[str, bytes] | None = None,
        v5: bool = False,
        clean: bool = True,
    ) -> None:
        version = MQTTProtocolVersion.MQTTv5 if v5 else MQTTProtocolVersion.MQTTv311
        self._client = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            client_id if client_id is not None else (user or ""),
            clean_session=None if v5 else clean,
            protocol=version,
            reconnect_on_failure=False,
        )
        if user is not None:
            self._client.username_pw_set(user, password)
        if will is not None:
            self._client.will_set(*will, qos=1, retain=True)
        self.got: list[tuple[str, bytes]] = []
        self.closed = threading.Event()
        self.refused: int | None = None
        self._subscribed: list[list[int]] = []
        self._answered = threading.Event()
        self._client.on_connect = self._on_connect
        self._client.on_message = lambda *call: self.got.append((call[2].topic, bytes(call[2].payload)))
        self._client.on_disconnect = lambda *_: self.closed.set()
        self._client.on_subscribe = lambda *call: self._subscribed.append([code.value for code in call[3]])
        self.name = user or ""
        self._address = daemon.host.host, daemon.host.port

    def _on_connect(self, _client: Any, _data: Any, _flags: Any, code: Any, _properties: Any) -> None:
        self.refused = code.value if code.is_failure else None
        self._answered.set()

    def __enter__(self) -> "Client":
        self._client.connect(*self._address)
        self._client.loop_start()
        until(lambda: self._answered.is_set() or self.closed.is_set(), "an answer")
        if not self._answered.is_set():
            self.refused = -1  # the connection was closed without a word
        return self

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    @property
    def inside(self) -> bool:
        """Whether the broker let it in, and still does."""
        return self.refused is None and not self.closed.is_set()

    def subscribe(self, wanted: str) -> bool:
        """Asks for a filter; whether it was granted (mosquitto 2.0 grants all and filters what it sends)."""
        before = len(self._subscribed)
        self._client.subscribe(wanted, 1)
        until(lambda: len(self._subscribed) > before or self.closed.is_set(), f"an answer to {wanted}")
        return not self.closed.is_set() and self._subscribed[-1][0] < 0x80

    def publish(self, topic: str, payload: bytes = b"x", *, retain: bool = False) -> None:
        """Publishes at QoS 1 and waits until the broker has taken (or dropped, or closed) it."""
        told = self._client.publish(topic, payload, 1, retain)
        until(lambda: told.is_published() or self.closed.is_set(), f"an answer to {topic}")

    def drop(self) -> None:
        """The connection breaks without a goodbye."""
        link = self._client.socket()
        assert link is not None
        link.shutdown(socket.SHUT_RDWR)  # type: ignore[attr-defined]  # closing it would give its number to another client's connection
        self.closed.wait(PATIENCE)


def reader(daemon: Daemon, accounts: Accounts, name: str) -> Client:
    """Somebody who may see everything."""
    return Client(daemon, name, accounts.add_user(name, actor="test"))
