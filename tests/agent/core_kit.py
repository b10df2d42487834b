"""A whole camera in memory for the tests of the agent's core: clock, sensor, model, storage, broker, fleetd's answers.

The agent, link, outbox, updater and slots are the real ones. A "model" is a JSON object that says how it behaves:

    {"outputs": 3, "scores": [0.1, 0.8, 0.1], "ms": 40}      classifies
    {"load": "out-of-memory"}                                ModelError when it is loaded
    {"raises": "Invoke failed"}                              ValueError at every frame
"""

import hashlib
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Self

from camera_agent import settings as settings_file
from camera_agent.agent import Agent
from camera_agent.models import ModelError
from tests.agent.fake_stream import FakeBroker, FakeHal
from tests.agent.update_kit import MemoryFiles, Release, Signer, describe, full

CAMERA = "cam-01"
PREFIX = "fleet/v1"
LABELS = ("background", "blue ball", "lego figure")
SIGNER = Signer()


def model_release(
    release: str,
    sequence: int = 1,
    *,
    labels: Iterable[str] = LABELS,
    text: bytes | None = None,
    golden: bytes | None = None,
    tolerance: float = 0.02,
    **model: Any,
) -> Release:
    """A signed release whose model behaves as said; `text` replaces labels.txt, `golden` is golden.bin."""
    behaviour = {"outputs": 3, "scores": [0.1, 0.8, 0.1], "ms": 40, **model}
    lines = "".join(f"{label}\n" for label in labels).encode() if text is None else text
    parts = {"labels.txt": lines, "trained.tflite": json.dumps(behaviour).encode()}
    if golden is not None:
        parts["golden.bin"] = golden
    content, files = b"\xd2\xcd\x31....", []
    for path, data in parts.items():
        digest = hashlib.sha256(data).hexdigest()
        files.append({"path": path, "offset": len(content), "size": len(data), "sha256": digest})
        content += data
    described = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest(), "files": files}
    encodings = [full(content)]
    manifest = {**describe(release, content, encodings, sequence), "content": described}
    if golden is not None:
        manifest["golden"] = {"frames": golden[4], "tolerance": tolerance}
    return Release(release, SIGNER.manifest(json.dumps(manifest).encode()), content, encodings)


class FakeModel:
    """What `load_model` answers."""

    def __init__(self, hal: "CoreHal", behaviour: dict[str, Any]) -> None:
        self.hal = hal
        self.behaviour = behaviour
        self.input_shape = (96, 96, 3)
        self.output_len = behaviour["outputs"]
        self.freed = False

    def classify(self, frame: object) -> list[float]:
        """The scores that the behaviour names."""
        assert not self.freed, "a model was used after it was given back"
        assert frame == "frame"
        self.hal.now += self.behaviour["ms"]
        if "raises" in self.behaviour:
            raise ValueError(self.behaviour["raises"])
        return list(self.behaviour["scores"])

    def answer(self, fill: Callable[[memoryview], None]) -> list[float]:
        """The scores that the behaviour names for golden frames; otherwise those of any picture."""
        assert not self.freed, "a model was used after it was given back"
        tensor = bytearray(self.behaviour.get("input", 12))
        fill(memoryview(tensor))
        self.hal.tensors.append(bytes(tensor))
        return list(self.behaviour.get("answers", self.behaviour["scores"]))


class CoreHal(FakeHal):
    """The whole hardware seam. What may fail has a knob."""

    def __init__(self, broker: FakeBroker | None = None, folder: Path | None = None) -> None:
        super().__init__(broker)
        self.folder = folder
        self.files = MemoryFiles()
        self.cause = "power-on"
        self.configured: Any = None
        self.camera_error: Exception | None = None
        self.load_error: BaseException | None = None
        self.settling = False
        self.captures = 0
        self.prepared: tuple[int, int, int] | None = None
        self.loaded: list[FakeModel] = []
        self.tensors: list[bytes] = []  # golden frames that were run
        self.leds: list[tuple[str, str]] = []
        self.fed = 0
        self.said: list[str] = []
        self.notes: dict[str, str] = {}
        self.trouble: tuple[int, str | None, str | None] = (0, None, None)
        self.rebuilds = 0
        self.digested: str | None = "8f3c"
        self.sleeps = True
        self.bites_asleep = False
        self.slept: list[int] = []
        self.picture: Callable[[int], bytes] = lambda quality: bytes([quality]) * 5000
        self.resumes = True  # whether the watchdog restarts it after a pause
        self.watchdog: object = None
        self.on_sleep: Callable[[], None] = lambda: None

    def configure(self, settings: Any) -> None:
        self.configured = settings

    def sleep_ms(self, duration: int) -> None:
        super().sleep_ms(duration)
        self.on_sleep()

    def say(self, text: str) -> None:
        self.said.append(text)

    def uid(self) -> str:
        return "0123456789abcdef"

    def arch(self) -> str:
        return "OMVRT1060 32768 SDRAM"

    def firmware(self) -> str:
        return "4.8.1"

    def reset_cause(self) -> str:
        return self.cause

    def heap_free(self) -> int:
        return 123_456

    def telemetry(self) -> dict[str, Any]:
        return {"temperature_c": 41.5}

    def network_info(self) -> dict[str, Any]:
        return {"kind": "wifi", "ip": "10.0.0.7", "rssi": -61}

    def led(self, color: str, pattern: str) -> None:
        self.leds.append((color, pattern))

    def led_step(self) -> None:
        pass

    def has_watchdog(self) -> bool:
        return True

    def adopt_watchdog(self, watchdog: object) -> None:
        self.watchdog = watchdog

    def comes_back(self) -> bool:
        return self.resumes

    def can_change_agent(self) -> bool:
        return True

    def feed(self) -> None:
        self.fed += 1

    def config_path(self) -> str:
        assert self.folder is not None
        return str(self.folder / "config.json")

    def storage_info(self) -> dict[str, Any]:
        return {"backend": "flash", "free": 1_000_000, "total": 4_000_000}

    def open_regions(self, slot_bytes: int | None) -> MemoryFiles:
        return self.files

    def can_sleep(self) -> bool:
        return self.sleeps

    def watchdog_bites_asleep(self) -> bool:
        return self.bites_asleep

    def deepsleep(self, seconds: int) -> None:
        self.slept.append(seconds)

    def keep(self, text: str, name: str = "note") -> None:
        self.notes[name] = text

    def kept(self, name: str = "note") -> str:
        return self.notes.get(name, "")

    def network_trouble(self) -> tuple[int, str | None, str | None]:
        return self.trouble

    def network_rebuild(self) -> None:
        self.rebuilds += 1

    def prepare(self, width: int, height: int, channels: int) -> None:
        self.prepared = (width, height, channels)

    def capture(self) -> str | None:
        self.captures += 1
        if self.camera_error is not None:
            raise self.camera_error
        return None if self.settling else "frame"

    def digest(self, frame: object) -> str | None:
        assert frame == "frame"
        return self.digested

    def jpeg(self, frame: object, quality: int) -> bytes:
        assert frame == "frame"
        return self.picture(quality)

    def load_model(self, content: Any, files: list[dict[str, Any]], slot: str) -> FakeModel:
        assert all(model.freed for model in self.loaded), "two models at once do not fit"
        if self.load_error is not None:
            raise self.load_error
        entry = next(entry for entry in files if entry["path"].endswith(".tflite"))
        data = bytearray(entry["size"])
        assert content.readinto(entry["offset"], memoryview(data)) == len(data)
        behaviour = json.loads(data)
        if "load" in behaviour:
            raise ModelError(behaviour["load"], "as it was told to")
        self.loaded.append(FakeModel(self, behaviour))
        return self.loaded[-1]

    def free_model(self, model: FakeModel) -> None:
        model.freed = True


def settings_of(**changes: Any) -> dict[str, Any]:
    """Checked settings."""
    made = {"camera": CAMERA, "host": "broker", "keys": [SIGNER.public.hex()], **changes}
    return dict(settings_file.check(made))


class Bench:
    """An agent on a fake camera, a broker in memory, and fleetd's receipts when `receipts` is on."""

    def __init__(self, hal: CoreHal | None = None, **changes: Any) -> None:
        self.hal = hal or CoreHal()
        self.broker = self.hal.broker
        self.receipts = True
        self._seen = 0
        self.messages: list[tuple[str, dict[str, Any]]] = []
        self.agent = Agent(self.hal, settings_of(**changes))

    def start(self) -> Self:
        """Power on."""
        self.agent.start()
        return self

    def run(self, seconds: float) -> Self:
        """Let the agent live for so long; whatever it publishes is collected and receipted."""
        until = self.hal.now + int(seconds * 1000)
        while self.hal.now < until and not self.agent.is_over:
            if not self.agent.step():
                self.hal.sleep_ms(5)
            self._collect()
        return self

    def reboot(self, cause: str = "soft") -> "Bench":
        """The same camera starts again: its storage is what it was, its memory is gone."""
        self.hal.cause = cause
        self.hal.loaded.clear()
        again = Bench(self.hal)
        again.agent = Agent(self.hal, settings_of())
        again._seen = self._seen
        return again.start()

    def _collect(self) -> None:
        for topic, payload, _retain in self.broker.published[self._seen :]:
            channel = topic.decode().removeprefix(f"{PREFIX}/{CAMERA}/up/")
            line, _, data = payload.partition(b"\n")
            message = json.loads(line)
            if channel.startswith("image/"):
                message["data"] = data
            self.messages.append((channel, message))
            if self.receipts and message["seq"]:
                receipt = {"boot": message["boot"], "seq": [[message["seq"], message["seq"]]]}
                self.down("ack", receipt, qos=0)
        self._seen = len(self.broker.published)

    def down(self, channel: str, body: Any, *, qos: int = 1, retain: bool = False) -> None:
        """A message from fleetd."""
        topic = f"{PREFIX}/{CAMERA}/down/{channel}".encode()
        self.broker.send(topic, json.dumps(body).encode(), qos=qos, retain=retain)

    def offer(self, release: Release) -> None:
        """Manifest and blocks on the broker."""
        for tail, payload in release.topics().items():
            self.broker.retained[f"{PREFIX}/{tail}".encode()] = payload

    def desire(self, release: Release | None, generation: int = 1, **extra: Any) -> None:
        """`down/desired`."""
        body: dict[str, Any] = {"generation": generation, "release": None, **extra}
        if release is not None:
            self.offer(release)
            body.update(release=release.id, digest=release.manifest_digest)
        self.down("desired", body, retain=True)

    def install(self, release: Release, generation: int = 1) -> Self:
        """All the way to confirmed."""
        self.run(1)  # time to connect
        self.desire(release, generation)
        self.run(15)
        assert self.updates()[-1] == ("confirmed", None), self.sent("update")
        return self

    def sent(self, channel: str) -> list[dict[str, Any]]:
        """Everything published on this channel so far."""
        return [message for name, message in self.messages if name == channel]

    def updates(self) -> list[tuple[str, str | None]]:
        """State and reason of every update report."""
        return [(message["state"], message.get("reason")) for message in self.sent("update")]

    def status(self) -> dict[str, Any]:
        """The newest status."""
        return self.sent("status")[-1]

    def results(self) -> list[dict[str, Any]]:
        """Every classification that was sent."""
        return [result for message in self.sent("result") for result in message["results"]]

    def led(self) -> tuple[str, str]:
        """What the LED shows now."""
        return self.hal.leds[-1]
