"""fleetd starts beside a broker that holds thousands of retained messages."""

import json
from collections.abc import Sequence
from pathlib import Path

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from fleetd.broker import BrokerLink
from fleetd.ingest import Inbox, Ingest
from fleetd.ports import Inbound
from fleetd.store import migrate
from fleetd.store.engine import SqlStore
from fleetd.store.landing import Landed, Landing
from tests.brokers import BrokerProcess, Mosquitto
from tests.integration.test_broker import FILTER, STATUS, until

MESSAGES = {"mosquitto": 10_000, "amqtt": 2_000}  # the second one takes a minute for ten thousand
ROOM = 500  # of the inbox
PREFIX = "fleet/v1"


def flood(port: int, messages: int) -> None:
    """Retained statuses of cameras that nobody has enrolled, and a few of one that somebody has."""
    client = mqtt.Client(CallbackAPIVersion.VERSION2)
    client.max_inflight_messages_set(500)
    client.connect("127.0.0.1", port)
    client.loop_start()
    last = None
    for number in range(messages):
        name = "cam-1" if number == messages - 1 else f"stranger-{number}"
        body = {"boot": f"{number:016x}", "seq": 1, "up_ms": 5, "online": True}
        last = client.publish(f"{PREFIX}/{name}/up/status", json.dumps(body), qos=1, retain=True)
    assert last is not None
    last.wait_for_publish(120)
    client.disconnect()
    client.loop_stop()


def test_thousands_of_retained_messages_at_a_start_are_taken_in_bounded_pieces(
    broker: BrokerProcess, tmp_path: Path
) -> None:
    """(j) Memory is the inbox's, strangers are counted and not kept one by one, and nothing is sent in return."""
    messages = MESSAGES["mosquitto" if isinstance(broker, Mosquitto) else "amqtt"]
    flood(broker.port, messages)
    store = SqlStore(f"sqlite:///{tmp_path}/fleet.db")
    migrate.upgrade(store)
    with store.transaction() as work:
        work.cameras.add("cam-1", None, 0.0)
    most, seen = 0, 0

    def landed(_landed: Landed) -> None:
        nonlocal most
        most = max(most, len(inbox))

    def receive(batch: Sequence[Inbound]) -> None:
        nonlocal seen
        seen += len(batch)
        assert all(one.retained for one in batch)
        ingest.receive(batch)

    inbox = Inbox(messages=ROOM)
    link = BrokerLink(
        host="127.0.0.1",
        port=broker.port,
        client_id="fleetd-test",
        subscribe=FILTER,
        receive=receive,
        connected=lambda _present: None,
        will=(STATUS, b'{"online":false}'),
    )
    sent: list[str] = []
    link.publish_once = lambda topic, payload: sent.append(topic)  # type: ignore[method-assign]
    ingest = Ingest(Landing(store), link, prefix=PREFIX, landed=landed, inbox=inbox, receipt_seconds=0.1)
    ingest.start()
    link.start()
    try:
        until(lambda: ingest.counts.received == messages, 120)
    finally:
        link.stop()
        ingest.stop()
    assert most <= ROOM
    assert (ingest.counts.unknown, ingest.counts.stored) == (messages - 1, 1)
    assert set(sent) <= {f"{PREFIX}/cam-1/down/ack"}, "one receipt to the one camera that is known"
    with store.reading() as work:
        assert len(work.cameras.unknown(5_000)) <= 1_000
        camera = work.cameras.get("cam-1")
        assert camera is not None
        assert camera.seen_at is None, "a replay is no sign of life"
    store.close()
