"""The attacks of manifests.py over real connections: the agent on CPython, an attacker who may publish everything."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from camera_agent.sockets import open_stream
from tests.agent.core_kit import CAMERA, PREFIX, Bench, CoreHal, model_release
from tests.attacks.manifests import MANIFESTS
from tests.brokers import BrokerProcess

# Each named family once at least; all of them run in test_manifests.py. An encoding that is too large for this
# camera's larger memory would be fetched.
SAMPLE = [name for n, name in enumerate(MANIFESTS) if n % 5 == 0 or name.startswith(("wrong", "fast"))]
PATIENCE_S = 60.0


class WireHal(CoreHal):
    """A camera in memory whose time and connection are real."""

    def ticks_ms(self) -> int:
        return time.monotonic_ns() // 1_000_000

    def sleep_ms(self, duration: int) -> None:
        time.sleep(duration / 1000)

    def open_socket(self, host: str, port: int, timeout_ms: int) -> Any:
        return open_stream(host, port, timeout_ms, self)


class Attacker:
    """Holds the broker: sees everything, may publish anything. It acknowledges like fleetd, so as not to be noticed."""

    def __init__(self, port: int) -> None:
        self.updates: list[dict[str, Any]] = []
        self._heard = threading.Condition()
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="evil")
        self._client.on_message = self._hear
        self._client.connect("127.0.0.1", port)
        self._client.subscribe(f"{PREFIX}/{CAMERA}/up/update", qos=1)
        self._client.loop_start()

    def _hear(self, _client: mqtt.Client, _data: object, packet: mqtt.MQTTMessage) -> None:
        with self._heard:
            self.updates.append(json.loads(packet.payload))
            self._heard.notify_all()

    def put(self, tail: str, payload: bytes) -> None:
        self._client.publish(f"{PREFIX}/{tail}", payload, qos=1, retain=True).wait_for_publish(PATIENCE_S)

    def desire(self, release: str, generation: int) -> dict[str, Any]:
        """Asks for a release and answers how that ended."""
        body = {"generation": generation, "release": release}
        self.put(f"{CAMERA}/down/desired", json.dumps(body).encode())
        return self.end_of(generation)

    def end_of(self, generation: int) -> dict[str, Any]:
        """The last word about this generation."""
        ends = {"confirmed", "rejected", "failed", "reverted"}

        def found() -> list[dict[str, Any]]:
            return [one for one in self.updates if one["generation"] == generation and one["state"] in ends]

        with self._heard:
            assert self._heard.wait_for(lambda: bool(found()), PATIENCE_S), self.updates[-3:]
            return found()[-1]

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@contextmanager
def living(port: int) -> Iterator[Any]:
    """An agent that runs in a thread."""
    bench = Bench(WireHal(), host="127.0.0.1", port=port, interval_ms=0)
    bench.start()
    stop = threading.Event()

    def live() -> None:
        while not stop.is_set():
            if not bench.agent.step():
                time.sleep(0.001)

    thread = threading.Thread(target=live, daemon=True)
    thread.start()
    try:
        yield bench.agent
    finally:
        stop.set()
        thread.join(PATIENCE_S)
        bench.agent.stop()


def test_no_broker_brings_a_bad_manifest_past_the_camera(broker: BrokerProcess) -> None:
    attacker = Attacker(broker.port)
    try:
        with living(broker.port) as agent:
            first, last = model_release("model-1", 1), model_release("model-honest", 1000)
            for release in (first, last):
                for tail, payload in release.topics().items():
                    attacker.put(tail, payload)
            assert attacker.desire("model-1", 1)["state"] == "confirmed"
            for generation, name in enumerate(SAMPLE, 2):
                blob, state, reason = MANIFESTS[name]
                attacker.put("_release/model-2", blob)
                found = attacker.desire("model-2", generation)
                if name.startswith("too-large"):
                    continue
                assert (found["state"], found["reason"]) == (state, reason), name
                assert agent.updater.status()["release"]["id"] == "model-1", name
            assert attacker.desire("model-honest", 10_000)["state"] == "confirmed"
            assert agent.status()["problems"] == []
    finally:
        attacker.close()


def test_the_sample_has_every_family() -> None:
    families = {name.partition("/")[0] for name in MANIFESTS}
    assert {name.partition("/")[0] for name in SAMPLE} >= families - {"too-large"}
