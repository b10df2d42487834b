"""Other keys over the air and freshness, with every part real: fleetd, mosquitto, the agent with a real model."""

import json
import time

from fleetd.bundles.keyrecords import make_record
from fleetd.bundles.signing import OperatorKey
from tests.brokers import Mosquitto
from tests.e2e.site import Site, Subscriber, until


def rotated(site: Site, *, serial: int) -> OperatorKey:
    """The operator's key is replaced by a new one; the old one is answered."""
    old, site.key = site.key, OperatorKey.generate()
    record = make_record(
        old,
        serial=serial,
        epoch=serial + 1,
        created=int(time.time()),
        keys=[site.key.public.hex()],
        recovery=[],
    )
    site.daemon.ota.add_record(record, "alice", actor="alice")
    return old


def test_cameras_follow_their_operator_to_another_key_also_those_that_were_away(site: Site) -> None:
    here, away = site.camera("cam-1"), site.camera("cam-2")
    here.start()
    away.start()
    first = site.push("demo-v1")
    until(lambda: site.confirmed(first), what="the first model")
    away.stop()
    old = rotated(site, serial=1)
    until(lambda: site.daemon.registry.camera("cam-1").camera.key_serial == 1, what="the first record")
    rotated(site, serial=2)
    until(lambda: site.daemon.registry.camera("cam-1").camera.key_epoch == 3, what="the second record")
    away.start()
    until(lambda: site.daemon.registry.camera("cam-2").camera.key_serial == 2, what="catching up")
    second = site.push("demo-v2")
    until(lambda: site.confirmed(second), what="a model signed with the newest key")
    until(lambda: site.running("cam-1") == site.running("cam-2") == "model-3.1", what="their own word")
    assert old.public.hex() not in site.daemon.ota.ring().keys


def test_a_camera_asks_whether_all_is_fresh_and_a_broker_that_brings_an_old_wish_back_shows(
    site: Site, mosquitto: Mosquitto
) -> None:
    key = "5eed" * 16
    camera = site.camera("cam-1", fresh_key=key)
    with site.daemon.store.transaction() as work:
        work.cameras.set_fresh_key("cam-1", key)
    answers = Subscriber(mosquitto.port, "fleet/v1/cam-1/down/fresh")
    camera.start()
    until(lambda: bool(answers.messages), what="an answer")
    first = site.push("demo-v1")
    until(lambda: site.confirmed(first), what="the first model")
    second = site.push("demo-v2")
    until(lambda: site.confirmed(second), what="the second model")
    camera.stop()
    old_wish = {"generation": 1, "release": "model-1", "config": {"interval_ms": 5000}}
    answers.publish("cam-1/down/desired", json.dumps(old_wish).encode())
    seen = len(answers.messages)
    camera.start()
    until(lambda: len(answers.messages) > seen, what="an answer after the restart")
    until(lambda: site.running("cam-1") == "model-2", what="the second model again")
    # Everything after the answer is in order: a result sent later means that the wish was looked at, and held.
    results = site.results("cam-1", "model-2")
    until(lambda: site.results("cam-1", "model-2") > results + 5, what="more results")
    assert site.daemon.registry.camera("cam-1").camera.generation == 0, "the old wish was acted on"
    answers.close()
