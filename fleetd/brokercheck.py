"""What is wrong with a broker, found out by using it: as two cameras and somebody who reads.

Nothing here needs fleetd's own account, so a running fleetd is not disturbed. What cannot be seen from outside, such
as whether the broker writes to disk, is not claimed.
"""

import json
import secrets
import ssl
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from fleetd.protocol import limits

SECONDS: Final = 10.0  # for one answer
QUIET_SECONDS: Final = 1.0  # after the last message that is sure to come, for those that must not
BURST: Final = 1_500  # messages for somebody who is away; brokers that keep 1,000 are caught
LARGEST: Final = limits.UP_BYTES + 1_024


@dataclass(frozen=True, slots=True)
class Account:
    """A throw-away account."""

    name: str
    password: str | None = None

    def __repr__(self) -> str:
        return f"Account({self.name!r})"


@dataclass(frozen=True, slots=True)
class Finding:
    """One question and its answer. `remedy` says what to do about an answer that is not `ok`."""

    what: str
    verdict: Literal["ok", "bad", "unknown"]
    detail: str
    remedy: str = ""


class Broker:
    """Where it is and how it is spoken to."""

    def __init__(self, host: str, port: int, prefix: str, tls: ssl.SSLContext | None = None) -> None:
        self.host, self.port, self.prefix, self.tls = host, port, prefix, tls

    def open(self, account: Account, *, v5: bool = False, clean: bool = True) -> "_Link":
        """A connection, let in or not."""
        return _Link(self, account, v5=v5, clean=clean)


class _Link:
    def __init__(self, broker: Broker, account: Account, *, v5: bool, clean: bool) -> None:
        version = MQTTProtocolVersion.MQTTv5 if v5 else MQTTProtocolVersion.MQTTv311
        self.got: list[tuple[str, bytes]] = []
        self.told: Mapping[str, Any] = {}
        self.refused: str | None = "no answer"
        self._codes: dict[int, int] = {}
        self._granted: dict[int, bool] = {}
        self._answered, self.closed = threading.Event(), threading.Event()
        self._client = client = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            account.name,
            clean_session=None if v5 else clean,
            protocol=version,
            reconnect_on_failure=False,
        )
        client.max_inflight_messages_set(100)
        if account.password is not None:
            client.username_pw_set(account.name, account.password)
        if broker.tls is not None:
            client.tls_set_context(broker.tls)
        client.on_connect = self._on_connect
        client.on_disconnect = lambda *_: self.closed.set()
        client.on_message = lambda *call: self.got.append((call[2].topic, bytes(call[2].payload)))
        client.on_publish = lambda *call: self._codes.__setitem__(call[2], call[3].value)
        client.on_subscribe = lambda *call: self._granted.__setitem__(call[2], not call[3][0].is_failure)
        try:
            client.connect(broker.host, broker.port)
        except (OSError, ValueError) as error:
            self.refused = str(error)
            self.closed.set()
            return
        client.loop_start()
        _until(lambda: self._answered.is_set() or self.closed.is_set())

    def _on_connect(self, _client: Any, _data: Any, _flags: Any, code: Any, properties: Any) -> None:
        self.refused = str(code) if code.is_failure else None
        self.told = {} if properties is None else properties.json()
        self._answered.set()

    def __enter__(self) -> "_Link":
        return self

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    @property
    def inside(self) -> bool:
        return self.refused is None and not self.closed.is_set()

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> int | None:
        """The reason code; None when there was no answer."""
        mid = self._client.publish(topic, payload, 1, retain).mid
        _until(lambda: mid in self._codes or self.closed.is_set())
        return self._codes.get(mid)

    def publish_many(self, topic: str, payloads: Sequence[bytes]) -> None:
        mids = [self._client.publish(topic, payload, 1).mid for payload in payloads]
        _until(lambda: all(mid in self._codes for mid in mids) or self.closed.is_set(), 6 * SECONDS)

    def subscribe(self, wanted: str) -> bool:
        mid = self._client.subscribe(wanted, 1)[1]
        _until(lambda: mid in self._granted or self.closed.is_set())
        return self._granted.get(mid or -1, False)

    def has(self, payload: bytes) -> bool:
        return any(body == payload for _, body in self.got)


def check(broker: Broker, one: Account, other: Account, reader: Account) -> list[Finding]:
    """Every question in turn. `one` and `other` are cameras' accounts, `reader` one that may read everything."""
    with broker.open(one) as link:
        if not link.inside:
            return [
                Finding(
                    "reachable",
                    "bad",
                    f"{broker.host}:{broker.port}: {link.refused}",
                    "Is it running, is the address right, does it know the account, does TLS match?",
                )
            ]
    found = [
        Finding("reachable", "ok", f"{broker.host}:{broker.port}{', TLS' if broker.tls else ''}"),
        _strangers(broker, one),
        *_features(broker, one),
    ]
    with broker.open(reader) as link:
        can_read = link.inside and link.subscribe(f"{broker.prefix}/#")
    if not can_read:
        why = "the reader's account is not let in"
        return [*found, *(Finding(what, "unknown", why) for what in ("lanes", "retained messages", "queue"))]
    return [
        *found,
        _version(broker, reader),
        *_lanes(broker, one, other, reader),
        _queue(broker, one, reader),
    ]


def _strangers(broker: Broker, one: Account) -> Finding:
    for who, account in (
        ("somebody without an account", Account(f"stranger-{secrets.token_hex(4)}")),
        ("a wrong password", Account(one.name, secrets.token_hex(8))),
    ):
        with broker.open(account) as link:
            if link.inside:
                return Finding(
                    "strangers",
                    "bad",
                    f"{who} is let in",
                    "mosquitto: allow_anonymous false and password_file",
                )
    return Finding("strangers", "ok", "neither nobody nor a wrong password is let in")


def _features(broker: Broker, one: Account) -> list[Finding]:
    with broker.open(one, v5=True) as link:
        if not link.inside:
            return [
                Finding(
                    "MQTT 5", "unknown", "not spoken: fleetd uses 3.1.1, and several workers cannot share"
                ),
                _size(broker, one),
            ]
        told = link.told
    found = [Finding("MQTT 5", "ok", "spoken")]
    for what, name, needed in (
        ("retained messages", "RetainAvailable", "desired states and releases are retained"),
        ("shared subscriptions", "SharedSubscriptionAvailable", "`fleetd serve --workers` needs them"),
        ("wildcards", "WildcardSubscriptionAvailable", "fleetd subscribes to all cameras at once"),
    ):
        if told.get(name, 1):
            found.append(Finding(what, "ok", "allowed"))
        else:
            found.append(Finding(what, "bad", f"not allowed; {needed}", "Allow it in the broker's settings."))
    return [*found, _size(broker, one)]


def _size(broker: Broker, one: Account) -> Finding:
    with broker.open(one) as link:
        code = link.publish(f"{broker.prefix}/{one.name}/up/event", bytes(LARGEST))
        if code is not None and not link.closed.is_set():
            return Finding("packet size", "ok", f"{LARGEST} bytes are taken")
    return Finding(
        "packet size",
        "bad",
        f"a message of {LARGEST} bytes is not taken",
        "mosquitto: max_packet_size 131072, and no message_size_limit below that",
    )


def _version(broker: Broker, reader: Account) -> Finding:
    with broker.open(reader) as link:
        link.subscribe("$SYS/broker/version")
        _until(lambda: bool(link.got), QUIET_SECONDS)
        if link.got:
            return Finding("version", "ok", link.got[0][1].decode(errors="replace")[:80])
    return Finding("version", "unknown", "it does not say in $SYS/broker/version")


def _lanes(broker: Broker, one: Account, other: Account, reader: Account) -> list[Finding]:
    """Tries what a camera must not do, and what it has to be able to."""
    prefix, mark = broker.prefix, secrets.token_hex(8).encode()
    forbidden = [
        *(
            f"{prefix}/{other.name}/up/event",
            f"{prefix}/{other.name}/down/desired",
            f"{prefix}/{one.name}/down/x",
        ),
        *(f"{prefix}/_release/x", f"{prefix}/_blob/{'0' * 64}/0", f"{prefix}/_fleetd/status"),
    ]
    lawful = mark + b" lawful"
    with broker.open(reader) as watcher, broker.open(other) as victim, broker.open(one) as spy:
        watcher.subscribe(f"{prefix}/#")
        for wanted in ("#", f"{prefix}/#", f"{prefix}/{other.name}/#", f"$share/x/{prefix}/+/up/#"):
            spy.subscribe(wanted)
        for topic in forbidden:
            if spy.inside:
                spy.publish(topic, mark)
        victim.publish(f"{prefix}/{other.name}/up/event", lawful, retain=True)
        heard = _until(lambda: watcher.has(lawful))
        _until(lambda: False, QUIET_SECONDS)
        written = sorted({topic for topic, body in watcher.got if body == mark})
        read = sorted({topic for topic, body in spy.got if body == lawful})
    with broker.open(reader) as later:
        later.subscribe(f"{prefix}/{other.name}/#")
        kept = _until(lambda: later.has(lawful))
    with broker.open(other) as victim:
        victim.publish(f"{prefix}/{other.name}/up/event", b"", retain=True)
    remedy = "Give each camera its own lane: `fleetd broker init`, or the ACL file in docs/operating.md"
    found = []
    if not heard:
        found.append(Finding("own lane", "bad", "a camera's own message does not arrive", remedy))
    for what, bad, verb in (("writing elsewhere", written, "writes"), ("reading elsewhere", read, "reads")):
        detail = f"a camera {verb} {', '.join(bad)}" if bad else "refused"
        found.append(Finding(what, "bad" if bad else "ok", detail, remedy if bad else ""))
    if kept:
        found.append(Finding("retaining", "ok", "a retained message comes again"))
    else:
        found.append(
            Finding(
                "retaining",
                "bad",
                "a retained message does not come again",
                "mosquitto: retain_available true",
            )
        )
    return found


def _queue(broker: Broker, one: Account, reader: Account) -> Finding:
    """Whether the broker keeps for an absent fleetd what cameras publish meanwhile."""
    topic = f"{broker.prefix}/{one.name}/up/event"
    boot = secrets.token_hex(8)
    # Proper events: a fleetd that listens stores them, and forgets them with the throw-away camera.
    events = [
        json.dumps({"boot": boot, "seq": number, "up_ms": number, "kind": "check"}).encode()
        for number in range(1, BURST + 1)
    ]
    with broker.open(reader, clean=False) as link:
        link.subscribe(topic)
    with broker.open(one) as link:
        link.publish_many(topic, events)
    with broker.open(reader, clean=False) as link:
        _until(lambda: len(link.got) >= BURST)
        kept = len({body for _, body in link.got} & set(events))
    with broker.open(reader):
        pass  # clean: the broker forgets the session
    if kept >= BURST:
        return Finding("queue", "ok", f"{BURST} messages were kept for an absent subscriber")
    return Finding(
        "queue",
        "bad",
        f"of {BURST} acknowledged messages {kept} were kept for an absent subscriber; cameras repeat the others",
        "mosquitto: max_queued_messages 1000000 and max_queued_bytes 536870912",
    )


def _until(condition: Callable[[], bool], seconds: float = SECONDS) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True
