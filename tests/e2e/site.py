"""One site for end-to-end tests: mosquitto, fleetd, an operator with a key, and virtual cameras."""

import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from fleetd.app import Daemon
from fleetd.bundles.opening import open_bundle
from fleetd.bundles.release import BuiltRelease, build_release
from fleetd.bundles.signing import OperatorKey
from fleetd.domain.records import AssignmentState
from fleetd.protocol.messages import DESIRED
from fleetd.settings import load_settings
from fleetd.simulator.assets import bundle_folder
from fleetd.simulator.camera import VirtualCamera
from tests.brokers import Mosquitto

PREFIX = "fleet/v1"


def until(condition: Callable[[], bool], seconds: float = 90.0, what: str = "it") -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen"
        time.sleep(0.05)


class Site:
    """One broker, one fleetd, an operator with a key, and cameras."""

    def __init__(self, folder: Path, broker: Mosquitto, **settings: Any) -> None:
        self.folder = folder
        self._settings = settings
        self.broker = broker
        self.key = OperatorKey.generate()
        self.cameras: list[VirtualCamera] = []
        self.daemon = self._daemon()

    def _daemon(self) -> Daemon:
        return Daemon(
            load_settings(
                state_dir=self.folder / "state",
                broker={"host": "127.0.0.1", "port": self.broker.port},
                http={"port": 0},
                landing={"receipt_seconds": 0.3},
                **self._settings,
            )
        )

    def start(self) -> None:
        """Starts fleetd; the first time it learns the operator's key."""
        self.daemon.start()
        if not self.daemon.ota.keys():
            self.daemon.ota.add_key(self.key.public.hex(), "alice", actor="alice")

    def restart(self) -> None:
        """A new fleetd on the same folder."""
        self.daemon = self._daemon()
        self.daemon.start()

    def camera(self, name: str, **settings: Any) -> VirtualCamera:
        """Enrols a camera; it is not started."""
        self.daemon.registry.enrol(name, actor="alice")
        settings = {"interval_ms": 50, "batch_ms": 200, "telemetry_s": 1, **settings}
        made = VirtualCamera(
            name,
            self.folder / name,
            "127.0.0.1",
            self.broker.port,
            [self.key.public.hex()],
            seed=len(self.cameras) + 1,
            **settings,
        )
        self.cameras.append(made)
        return made

    def build(
        self, model: str = "demo-v1", *, key: OperatorKey | None = None, sequence: int | None = None
    ) -> BuiltRelease:
        """The next release with one of our models, signed."""
        release_id, epoch, following = self.daemon.ota.next_release()
        return build_release(
            open_bundle(bundle_folder(model)),
            release_id=release_id,
            name=model,
            version="1",
            epoch=epoch,
            sequence=sequence or following,
            boards=["*"],
            created=int(time.time()),
            key=key or self.key,
        )

    def push(self, model: str, target: str = "all") -> int:
        """Pushes one of our models; the rollout's number."""
        built = self.build(model)
        self.daemon.ota.add_release(built.blob, [one.data for one in built.encodings], actor="alice")
        return self.daemon.ota.start_rollout(built.manifest.release, target, actor="alice").id

    def states(self, rollout: int) -> dict[str, AssignmentState]:
        """Where each camera is."""
        return {one.camera: one.state for one in self.daemon.ota.rollout(rollout).assignments}

    def running(self, camera: str) -> str | None:
        """What a camera says it runs."""
        return self.daemon.registry.camera(camera).camera.release_id

    def confirmed(self, rollout: int) -> bool:
        """Whether everyone has it."""
        return set(self.states(rollout).values()) == {AssignmentState.CONFIRMED}

    def results(self, camera: str, release: str) -> int:
        """How many results of that camera with that release are stored."""
        rows = self.daemon.registry.label_counts(camera=camera, since=0)
        return sum(row["count"] for row in rows if row["release_id"] == release)

    def stop(self) -> None:
        """Ends everything."""
        for camera in self.cameras:
            if camera.alive:
                camera.stop()
        self.daemon.stop()


class Subscriber:
    """Somebody who listens to MQTT directly, and may also publish what they should not."""

    def __init__(self, port: int, topic: str) -> None:
        self.messages: list[tuple[str, bytes]] = []
        self.client = mqtt.Client(CallbackAPIVersion.VERSION2)
        self.client.on_message = lambda _c, _d, message: self.messages.append(
            (message.topic, bytes(message.payload))
        )
        self.client.connect("127.0.0.1", port)
        self.client.subscribe(topic)
        self.client.loop_start()

    def publish(self, topic: str, payload: bytes) -> None:
        self.client.publish(f"{PREFIX}/{topic}", payload, qos=1, retain=True).wait_for_publish(5)

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


def offer(
    attacker: Subscriber, built: BuiltRelease, blob: bytes, generation: int, *, cut: int | None = None
) -> None:
    """What a broker in the wrong hands would do: publish a release past fleetd."""
    for encoded in built.encodings:
        for number, block in enumerate(encoded.blocks):
            attacker.publish(f"_blob/{encoded.sha256}/{number}", block if number != cut else block[:-1])
        for block in encoded.index_blocks:
            attacker.publish(f"_blob/{hashlib.sha256(block).hexdigest()}/0", block)
    attacker.publish(f"_release/{built.manifest.release}", blob)
    wish = {
        "generation": generation,
        "release": built.manifest.release,
        "digest": hashlib.sha256(blob).hexdigest(),
        "config": {},
    }
    DESIRED.validate_python(wish)
    attacker.publish("cam-1/down/desired", json.dumps(wish).encode())
