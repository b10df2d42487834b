"""MQTT, and the only place that knows paho.

One supervising thread owns the connection: connect, run until it breaks, wait, again. The session at the
broker is persistent and messages are acknowledged by hand, so what arrives while fleetd is down or busy waits
at the broker. Callbacks only hand over; when the receiver has no room they block, which stops reading the
socket and leaves the backlog where it is safe.
"""

import contextlib
import random
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from fleetd.buffered import BufferedClient, Published, supported
from fleetd.errors import BrokerError, SettingsError
from fleetd.logs import get_logger
from fleetd.ports import Inbound

log = get_logger(__name__)

KEEPALIVE_SECONDS = 30
NEEDED_PACKET_BYTES = 16384 + 512  # the largest message from a camera with its topic
_NO_RETAIN = (
    "the broker keeps no retained messages, which updates and desired states live in: "
    "allow them (mosquitto: retain_available true)"
)
CONNECT_SECONDS = 5.0  # for the TCP connection
CONNACK_SECONDS = 3.0
SESSION_SECONDS = 30 * 86400  # how long the broker keeps messages for an absent fleetd
WINDOW = 1000  # unacknowledged messages the broker may send (MQTT 5; mosquitto's own setting for 3.1.1)
FLUSH_LOOK_SECONDS = 0.2  # how soon a flush notices that its connection is gone
BACKOFF_SECONDS = (0.25, 10.0)
BACKOFF_SHORT_SECONDS = 2.0  # the most after a connection that worked, but not for long
GOOD_AFTER_SECONDS = 2.0  # a connection that ends sooner counts as a failure, also one closed after CONNACK


class BrokerLink:
    """fleetd's connection to one MQTT broker. Implements `ports.Publisher`.

    `version` is the MQTT version to try first; a broker that does not answer it is asked in the other. The broker
    keeps what arrives for so many `session_seconds` of absence; 0: nothing, and what it kept before is dropped.
    """

    def __init__(
        self,
        *,
        host: str,
        port: int,
        client_id: str,
        subscribe: str,
        receive: Callable[[Sequence[Inbound]], None],
        connected: Callable[[bool], None] = lambda _session_present: None,
        will: tuple[str, bytes] | None = None,
        username: str | None = None,
        password: str | None = None,
        tls: bool = False,
        ca_file: Path | None = None,
        version: Literal["5.0", "3.1.1"] = "5.0",
        buffered: bool = True,
        session_seconds: int = SESSION_SECONDS,
    ) -> None:
        self._host, self._port = host, port
        self._client_id = client_id
        self._session_seconds = session_seconds
        self._subscribe = subscribe
        self._receive = receive
        self._connected = connected
        self._will = will
        self._credentials = (username, password)
        self._tls = _context(ca_file) if tls else None
        self._protocol = MQTTProtocolVersion.MQTTv5 if version == "5.0" else MQTTProtocolVersion.MQTTv311
        self._client: mqtt.Client | None = None
        self._pending: list[tuple[mqtt.Client, mqtt.MQTTMessageInfo]] = []
        self._pending_lock = threading.Lock()
        self._stopping = threading.Event()
        self._broken = threading.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._supervise, name="broker-link", daemon=True)
        self._kind: type[mqtt.Client] = BufferedClient if buffered and supported() else mqtt.Client
        if buffered and self._kind is mqtt.Client:
            log.warning(
                "paho_not_buffered", note="this version of paho is read message by message, which is slower"
            )
        self._worked = False  # the present connection got as far as our subscription
        self._session_present = False
        self.connects = 0
        self.shortcomings: tuple[str, ...] = ()  # what this broker does not do and updates need, for people
        self.last_error: str | None = None

    @property
    def address(self) -> str:
        """Host and port, for messages."""
        return f"{self._host}:{self._port}"

    @property
    def ready(self) -> bool:
        """Whether the broker answers and has taken our subscription."""
        return self._ready.is_set()

    @property
    def version(self) -> str:
        """The MQTT version spoken with this broker."""
        return "5.0" if self._protocol == MQTTProtocolVersion.MQTTv5 else "3.1.1"

    def start(self) -> None:
        """Begins connecting, in the background, for as long as it takes."""
        self._thread.start()

    def wait_ready(self, timeout: float) -> bool:
        """Waits until the broker answers."""
        return self._ready.wait(timeout)

    def stop(self, goodbye: tuple[str, bytes] | None = None) -> None:
        """Publishes a last retained word, disconnects and ends the thread. Acknowledgements are flushed."""
        if goodbye is not None and self.ready:
            with contextlib.suppress(BrokerError):
                self.publish(*goodbye, retain=True)
                self.flush(2.0)
        self._stopping.set()
        client = self._client
        if client is not None:
            client.disconnect()
        self._broken.set()
        if self._thread.is_alive():
            self._thread.join(timeout=10)

    def acknowledge(self, batch: Sequence[Inbound]) -> None:
        """Sends PUBACKs in order of arrival. Messages of an earlier connection are skipped: their
        packet ids mean nothing any more, and the broker repeats them anyway.
        """
        current = self._client
        if current is None:
            return
        mids = [inbound.mid for inbound in batch if inbound.mid and inbound.connection is current]
        if isinstance(current, BufferedClient):
            current.acknowledge_all(mids)
        else:
            for mid in mids:
                current.ack(mid, 1)

    def publish(self, topic: str, payload: bytes, *, retain: bool) -> None:
        """Queues a message at QoS 1. `flush` tells when the broker has it."""
        client = self._client
        if client is None or not self.ready:
            raise BrokerError(f"The MQTT broker at {self.address} is not connected; it is sent when it is.")
        info = client.publish(topic, payload, qos=1, retain=retain)
        if info.rc not in (MQTTErrorCode.MQTT_ERR_SUCCESS, MQTTErrorCode.MQTT_ERR_NO_CONN):
            raise BrokerError(f"The MQTT broker at {self.address} did not take a message: {info.rc}")
        with self._pending_lock:
            self._pending.append((client, info))

    def publish_once(self, topic: str, payload: bytes) -> None:
        """Sends at QoS 0: good for what is repeated anyway."""
        client = self._client
        if client is not None and self.ready:
            client.publish(topic, payload, qos=0)

    def flush(self, timeout: float) -> bool:
        """Waits until the broker has acknowledged everything published; False when it did not in time, or
        when the connection that something was published on is gone.
        """
        deadline = time.monotonic() + timeout
        with self._pending_lock:
            pending, self._pending = self._pending, []
        for client, info in pending:
            try:
                while not info.is_published():
                    left = deadline - time.monotonic()
                    if left <= 0 or client is not self._client:
                        return False
                    info.wait_for_publish(min(left, FLUSH_LOOK_SECONDS))
            except (RuntimeError, ValueError):
                return False  # the connection went away; everything is published again after the next one
        return True

    def _supervise(self) -> None:
        failures = 0
        while not self._stopping.is_set():
            began = time.monotonic()
            version = self._protocol
            self._worked = False
            self._run_once()
            self._ready.clear()
            if self._stopping.is_set():
                break
            if self._protocol != version and version == MQTTProtocolVersion.MQTTv5:
                continue  # at once, in the other version
            failures = 0 if time.monotonic() - began > GOOD_AFTER_SECONDS else min(failures + 1, 16)
            low, high = BACKOFF_SECONDS
            high = BACKOFF_SHORT_SECONDS if self._worked else high
            delay = random.uniform(low, min(high, low * 2 ** (failures + 1)))  # noqa: S311  # jitter, no secret
            log.warning("broker_lost", broker=self.address, reason=self.last_error, retry_s=round(delay, 1))
            self._stopping.wait(delay)

    def _run_once(self) -> None:
        """One connection from its first byte to its last."""
        self._broken.clear()
        self.last_error = None
        client = self._new_client()
        try:
            if self._protocol == MQTTProtocolVersion.MQTTv5:
                properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]  # paho
                properties.SessionExpiryInterval = self._session_seconds
                properties.ReceiveMaximum = WINDOW
                client.connect(
                    self._host,
                    self._port,
                    KEEPALIVE_SECONDS,
                    clean_start=not self._session_seconds,
                    properties=properties,
                )
            else:
                client.connect(self._host, self._port, KEEPALIVE_SECONDS)
        except (OSError, ValueError) as error:
            self.last_error = f"no connection: {error}"
            return
        self._client = client
        client.loop_start()
        if not self._wait_connack(client):
            if self.last_error is None:
                # Some brokers hang up on MQTT 5, or say nothing: the next attempt is in the other version.
                self.last_error = "no answer to CONNECT"
                self._other_version()
        else:
            self._broken.wait()
        client.disconnect()
        client.loop_stop()
        self._client = None

    def _other_version(self) -> None:
        v5, v311 = MQTTProtocolVersion.MQTTv5, MQTTProtocolVersion.MQTTv311
        self._protocol = v311 if self._protocol == v5 else v5

    def _wait_connack(self, client: mqtt.Client) -> bool:
        deadline = time.monotonic() + CONNACK_SECONDS
        while time.monotonic() < deadline and not self._stopping.is_set():
            if client.is_connected():
                return True
            if self._broken.wait(0.02):
                return client.is_connected()
        return client.is_connected()

    def _new_client(self) -> mqtt.Client:
        v5 = self._protocol == MQTTProtocolVersion.MQTTv5
        client = self._kind(
            CallbackAPIVersion.VERSION2,
            client_id=self._client_id,
            clean_session=None if v5 else not self._session_seconds,
            protocol=self._protocol,
            reconnect_on_failure=False,
            manual_ack=True,
        )
        client.connect_timeout = CONNECT_SECONDS
        client.max_inflight_messages_set(200)
        if self._credentials[0] is not None:
            client.username_pw_set(*self._credentials)
        if self._tls is not None:
            client.tls_set_context(self._tls)
        if self._will is not None:
            client.will_set(*self._will, qos=1, retain=True)
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        client.on_disconnect = self._on_disconnect
        client.on_message = self._on_message
        if isinstance(client, BufferedClient):
            client.on_batch = self._on_batch
        return client

    def _on_connect(
        self, client: mqtt.Client, _data: Any, flags: mqtt.ConnectFlags, code: ReasonCode, properties: Any
    ) -> None:
        self.shortcomings = _shortcomings(properties)
        if code.is_failure:
            self.last_error = f"refused: {code}"
            if "retain" in str(code).lower():
                self.last_error = f"{_NO_RETAIN} ({code})"
            if "protocol version" in str(code).lower():
                self._other_version()
            self._broken.set()
            return
        self.connects += 1
        self._session_present = flags.session_present
        log.info(
            "broker_connected", broker=self.address, mqtt=self.version, session_present=flags.session_present
        )
        client.subscribe(self._subscribe, qos=1)

    def _on_subscribe(
        self, _client: mqtt.Client, _data: Any, _mid: int, codes: list[ReasonCode], _properties: Any
    ) -> None:
        refused = [str(code) for code in codes if code.is_failure]
        if refused:
            self.last_error = f"the subscription to {self._subscribe} was refused: {refused[0]}"
            self._broken.set()
            return
        self._worked = True
        self._ready.set()
        self._connected(self._session_present)

    def _on_disconnect(
        self, _client: mqtt.Client, _data: Any, _flags: Any, code: ReasonCode, _properties: Any
    ) -> None:
        self.last_error = self.last_error or f"disconnected: {code}"
        self._ready.clear()
        self._broken.set()

    def _on_message(self, client: mqtt.Client, _data: Any, message: mqtt.MQTTMessage) -> None:
        try:
            topic = message.topic
        except UnicodeDecodeError:
            topic = ""
        mid = message.mid if message.qos else 0
        self._receive([Inbound(topic, bytes(message.payload), message.retain, time.time(), client, mid)])

    def _on_batch(self, client: BufferedClient, batch: Sequence[Published]) -> None:
        now = time.time()
        self._receive(
            [
                Inbound(_text(topic), payload, retained, now, client, mid)
                for topic, payload, retained, mid in batch
            ]
        )


def _shortcomings(properties: Any) -> tuple[str, ...]:
    """What an MQTT 5 broker says of itself that updates cannot live with."""
    found = []
    if getattr(properties, "RetainAvailable", 1) == 0:
        found.append(_NO_RETAIN)
    most = getattr(properties, "MaximumPacketSize", None)
    if most is not None and most < NEEDED_PACKET_BYTES:
        found.append(
            f"the broker takes packets of {most} bytes at most, manifests and messages need {NEEDED_PACKET_BYTES}: "
            "raise its limit (mosquitto: max_packet_size)"
        )
    if getattr(properties, "MaximumQoS", 2) == 0:
        found.append("the broker acknowledges nothing (QoS 0 only): messages could be lost unnoticed")
    return tuple(found)


def _text(topic: bytes) -> str:
    """A topic as text; one that is no UTF-8 is nobody's."""
    try:
        return topic.decode()
    except UnicodeDecodeError:
        return ""


def _context(ca_file: Path | None) -> ssl.SSLContext:
    """Trusts that one authority, or those that this machine trusts; the broker's name is checked. SettingsError."""
    try:
        return ssl.create_default_context(cafile=ca_file)
    except (OSError, ssl.SSLError) as error:
        raise SettingsError(
            f"broker.ca_file {ca_file} cannot be used: {error}. fleetd did not start."
        ) from error
