"""fleetd's side of MQTT, against real brokers."""

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from fleetd.broker import BrokerLink
from fleetd.errors import BrokerError
from fleetd.ports import Inbound
from tests.brokers import BrokerProcess, Mosquitto, free_port

FILTER = "fleet/v1/+/up/#"
STATUS = "fleet/v1/_fleetd/status"


def until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


class Received:
    def __init__(self) -> None:
        self.items: list[Inbound] = []
        self.lock = threading.Lock()

    def __call__(self, batch: Sequence[Inbound]) -> None:
        with self.lock:
            self.items += batch

    def payloads(self) -> list[bytes]:
        return [item.payload for item in self.items]


@contextmanager
def link_to(
    port: int, received: Received, *, connected: Callable[[bool], None] = lambda _present: None
) -> Iterator[BrokerLink]:
    link = BrokerLink(
        host="127.0.0.1",
        port=port,
        client_id="fleetd-test",
        subscribe=FILTER,
        receive=received,
        connected=connected,
        will=(STATUS, b'{"online":false}'),
    )
    link.start()
    try:
        yield link
    finally:
        link.stop()


@contextmanager
def camera(port: int, name: str = "cam-1") -> Iterator[mqtt.Client]:
    client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=name)
    client.connect("127.0.0.1", port)
    client.loop_start()
    try:
        yield client
    finally:
        client.disconnect()
        client.loop_stop()


def send(client: mqtt.Client, number: int, *, topic: str = "fleet/v1/cam-1/up/result") -> None:
    client.publish(topic, str(number).encode(), qos=1).wait_for_publish(5)


def test_messages_arrive_and_mqtt_5_is_spoken_where_it_is_offered(broker: BrokerProcess) -> None:
    received = Received()
    with link_to(broker.port, received) as link, camera(broker.port) as client:
        assert link.wait_ready(15)
        assert link.version == ("5.0" if isinstance(broker, Mosquitto) else "3.1.1")
        for number in range(20):
            send(client, number)
        until(lambda: len(received.items) == 20)
        link.acknowledge(received.items)


def test_what_was_not_acknowledged_comes_again_after_a_restart_of_fleetd(mosquitto: Mosquitto) -> None:
    first, second = Received(), Received()
    with camera(mosquitto.port) as client:
        with link_to(mosquitto.port, first) as link:
            assert link.wait_ready(10)
            for number in range(10):
                send(client, number)
            until(lambda: len(first.items) == 10)
            link.acknowledge(first.items[:4])
            time.sleep(0.2)
        send(client, 10)  # while fleetd is away
        with link_to(mosquitto.port, second) as link:
            until(lambda: len(second.items) == 7)
    assert sorted(map(int, second.payloads())) == list(range(4, 11))


def test_an_acknowledgement_of_an_old_connection_is_not_sent_on_a_new_one(mosquitto: Mosquitto) -> None:
    received = Received()
    with camera(mosquitto.port) as client, link_to(mosquitto.port, received) as link:
        assert link.wait_ready(10)
        send(client, 1)
        until(lambda: len(received.items) == 1)
        old = received.items[0]
        mosquitto.restart()
        until(lambda: link.connects == 2 and link.ready)
        until(lambda: len(received.items) == 2, 20)
        link.acknowledge([old])  # its packet id means another message now
        link.acknowledge(received.items[1:])
        assert received.items[1].connection is not old.connection


def test_the_link_comes_back_by_itself_and_says_so_every_time(mosquitto: Mosquitto) -> None:
    received, sessions = Received(), list[bool]()
    with link_to(mosquitto.port, received, connected=sessions.append) as link:
        assert link.wait_ready(10)
        mosquitto.kill()
        until(lambda: not link.ready)
        with pytest.raises(BrokerError, match="not connected"):
            link.publish("fleet/v1/cam-1/down/desired", b"{}", retain=True)
        mosquitto.start()
        until(lambda: link.ready, 20)
        assert sessions == [False, False], "it also says that the broker has forgotten us"


def test_a_broker_that_is_not_there_yet_is_waited_for(mosquitto: Mosquitto) -> None:
    mosquitto.stop()
    received = Received()
    with link_to(mosquitto.port, received) as link:
        assert not link.wait_ready(0.5)
        assert "no connection" in (link.last_error or "")
        mosquitto.start()
        assert link.wait_ready(20)


def test_stopping_is_quick_when_there_is_no_broker_at_all() -> None:
    began = time.monotonic()
    with link_to(free_port(), Received()):
        time.sleep(0.2)
    assert time.monotonic() - began < 5


def test_a_full_receiver_stops_the_flow_and_nothing_is_lost(mosquitto: Mosquitto) -> None:
    gate = threading.Event()
    got: list[int] = []

    class Slow(Received):
        def __call__(self, batch: Sequence[Inbound]) -> None:
            for inbound in batch:
                if len(got) >= 50:
                    gate.wait(10)
                got.append(int(inbound.payload))

    with camera(mosquitto.port) as client, link_to(mosquitto.port, Slow()) as link:
        assert link.wait_ready(10)
        for number in range(200):
            send(client, number)
        time.sleep(0.2)
        assert len(got) == 50
        gate.set()
        until(lambda: len(got) == 200)
    assert got == list(range(200))


def test_publishing_waits_for_the_broker_and_the_goodbye_is_retained(mosquitto: Mosquitto) -> None:
    link = BrokerLink(
        host="127.0.0.1", port=mosquitto.port, client_id="fleetd-test", subscribe=FILTER, receive=Received()
    )
    link.start()
    assert link.wait_ready(10)
    for n in range(500):
        link.publish(f"fleet/v1/_blob/{'a' * 64}/{n}", b"x" * 4096, retain=True)
    assert link.flush(20)
    link.stop((STATUS, b'{"online":false,"why":"stopped"}'))
    seen: dict[str, bytes] = {}
    with camera(mosquitto.port, "watcher") as client:
        client.on_message = lambda _c, _d, message: seen.__setitem__(message.topic, bytes(message.payload))
        client.subscribe("fleet/v1/#")
        until(lambda: len(seen) == 501)
    assert json.loads(seen[STATUS])["why"] == "stopped"


def test_a_flush_does_not_wait_for_a_connection_that_is_gone(mosquitto: Mosquitto) -> None:
    with link_to(mosquitto.port, Received()) as link:
        assert link.wait_ready(10)
        mosquitto.pause()
        for number in range(10):
            link.publish(f"fleet/v1/_blob/{number}", b"x", retain=True)
        ends: list[tuple[bool, float]] = []

        def flush() -> None:
            began = time.monotonic()
            ends.append((link.flush(30), time.monotonic() - began))

        waiting = threading.Thread(target=flush)
        waiting.start()
        time.sleep(0.3)
        mosquitto.kill()
        mosquitto.start()
        waiting.join(30)
        assert not ends[0][0], "nobody has acknowledged them"
        assert ends[0][1] < 10
        until(lambda: link.ready)
        link.publish("fleet/v1/_blob/z", b"y", retain=True)
        assert link.flush(10)


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("retain_available false", "retain_available true"),
        ("max_packet_size 6000", "max_packet_size"),
    ],
)
def test_a_broker_that_cannot_carry_updates_is_diagnosed_in_words(
    tmp_path: Path, setting: str, words: str
) -> None:
    with Mosquitto(tmp_path, setting) as broker, link_to(broker.port, Received()) as link:
        until(lambda: words in " ".join((*link.shortcomings, link.last_error or "")))


def test_a_broker_that_can_has_no_shortcomings(mosquitto: Mosquitto) -> None:
    with link_to(mosquitto.port, Received()) as link:
        assert link.wait_ready(60)
        assert link.shortcomings == ()
