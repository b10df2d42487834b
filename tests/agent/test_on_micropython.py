"""The whole agent on real MicroPython: `main.py` as on a board, a real broker, signed releases, a heap as on an H7.

Of the board only the firmware's own modules are stand-ins (tests/agent/device/fakes); files, sockets, ROMFS images,
deflate and signatures are MicroPython's and the agent's.
"""

import json
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Self

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion
from pydantic import ValidationError

from fleetd.bundles.golden import Golden
from fleetd.bundles.opening import open_bundle
from fleetd.bundles.release import BuiltRelease, build_release
from fleetd.bundles.signing import OperatorKey
from fleetd.protocol import messages
from fleetd.protocol.manifest import HEADER_BYTES, KEY_ID_BYTES, MAGIC
from fleetd.protocol.topics import (
    BlobTopic,
    CameraTopic,
    DaemonTopic,
    ReleaseTopic,
    Topic,
    all_up,
    format_topic,
    parse_topic,
)
from fleetd.simulator.assets import bundle_folder
from tests.agent.micropython import ROOT, Arch, binary
from tests.brokers import Mosquitto

FAKES = ROOT / "tests" / "agent" / "device" / "fakes"
CAMERA = "mpy-1"
NEW_LABELS = b"background\nball\nfigure\n"
# Release: model, labels, and what the fake engine makes of it. The third differs in its labels only: a small patch.
RELEASES = {
    1: ("demo-v1", None, "lego figure"),
    2: ("demo-v2", None, "blue ball"),
    3: ("demo-v2", NEW_LABELS, "ball"),
}
# An OpenMV H7, the smallest board, has 64 + 267 KB. With 64-bit words the same objects take up to twice that.
HEAPS: dict[Arch, str] = {"i386": "320k", "amd64": "640k"}
EXIT_RESET = 64  # see fakes/machine.py
POWER_ON, WATCHDOG = 1, 3

KEY = OperatorKey.generate()


@cache
def release(version: int, *, golden: bool = False) -> BuiltRelease:
    """One of RELEASES, signed; offered as a patch on the one before too where that is worth it. `golden`: the second
    one comes with a golden frame and the fake engine's answer to it."""
    model, labels, _ = RELEASES[version]
    return build_release(
        open_bundle(bundle_folder(model), labels),
        release_id=f"demo-{version}",
        name="demo",
        version=str(version),
        epoch=1,
        sequence=version,
        boards=["OMVRT1060"],
        created=1_750_000_000,
        key=KEY,
        bases=[release(version - 1, golden=golden).content] if version > 1 else [],
        golden=Golden((bytes(96 * 96 * 3),), ((0.125, 0.75, 0.125),)) if golden and version == 2 else None,
    )


class FleetdSide:
    """What fleetd does at the broker: hear, acknowledge, offer releases, desire them."""

    def __init__(self, port: int) -> None:
        self.heard: list[tuple[str, str, dict[str, Any]]] = []  # camera, channel, message
        self.refused: list[str] = []  # what the contract does not allow
        self._client: mqtt.Client
        self._present = threading.Event()
        self._port = port
        self._instances = 0

    def _new_client(self) -> mqtt.Client:
        # A session that outlives connections, like fleetd's: what comes meanwhile waits at the broker.
        client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="fleetd", clean_session=False)
        client.reconnect_delay_set(1, 1)
        client.on_connect = self._subscribe
        client.on_message = self._hear
        return client

    def _subscribe(self, client: mqtt.Client, *_: object) -> None:
        client.subscribe(all_up(), qos=1)
        self._present.set()

    def _hear(self, client: mqtt.Client, _data: object, packet: mqtt.MQTTMessage) -> None:
        topic = parse_topic(packet.topic)
        if not isinstance(topic, CameraTopic):
            self.refused.append(packet.topic)
            return
        try:
            message = messages.UP[topic.channel.split("/")[0]].validate_json(packet.payload)
        except (ValidationError, KeyError) as error:
            self.refused.append(f"{packet.topic}: {packet.payload!r}: {error}")
            return
        self.heard.append((topic.camera, topic.channel, message))
        if message["seq"]:
            receipt = {"boot": message["boot"], "seq": [[message["seq"]] * 2]}
            client.publish(
                format_topic(CameraTopic(topic.camera, "down", "ack")), json.dumps(receipt).encode(), qos=0
            )

    def said(self, channel: str, camera: str = CAMERA) -> list[dict[str, Any]]:
        """Everything heard on this channel, repeats left out."""
        unique = {
            (message["boot"], message["seq"]): message
            for name, heard, message in list(self.heard)
            if (name, heard) == (camera, channel)
        }
        return list(unique.values())

    def updates(self, camera: str = CAMERA) -> list[tuple[str, str, str | None]]:
        """Release, state and reason of every update report."""
        reports = self.said("update", camera)
        return [(report["release"], report["state"], report.get("reason")) for report in reports]

    def results(self, camera: str = CAMERA) -> list[tuple[str | None, str]]:
        """Release and label of every classification."""
        return [
            (message.get("release"), result["label"])
            for message in self.said("result", camera)
            for result in message["results"]
        ]

    def has_every_frame_once(self, camera: str = CAMERA) -> bool:
        """Whether the newest boot's frames are all here, from 1 on, each in one message only."""
        boot = self.said("status", camera)[-1]["boot"]
        frames = [
            result["frame"]
            for message in self.said("result", camera)
            if message["boot"] == boot
            for result in message["results"]
        ]
        return sorted(frames) == list(range(1, len(frames) + 1))

    def retain(self, topic: Topic, payload: bytes) -> None:
        """Publishes, retained, and waits for the broker."""
        self._client.publish(format_topic(topic), payload, qos=1, retain=True).wait_for_publish(10)

    def offer(self, built: BuiltRelease, blob: bytes | None = None) -> None:
        """Blocks first, then the manifest (`blob` in its place)."""
        for encoded in built.encodings:
            for number, block in enumerate(encoded.blocks):
                self.retain(BlobTopic(encoded.sha256, number), block)
            for digest, block in zip(encoded.entry().index, encoded.index_blocks, strict=True):
                self.retain(BlobTopic(digest, 0), block)
        self.retain(ReleaseTopic(built.manifest.release), blob or built.blob)

    def desire(self, name: str, generation: int, camera: str = CAMERA) -> None:
        """`down/desired`."""
        body = {"generation": generation, "release": name, "config": {}}
        self.retain(CameraTopic(camera, "down", "desired"), json.dumps(body).encode())

    def arrive(self) -> None:
        """Connects, and says so: another instance each time, as after a restart of fleetd."""
        self._present.clear()
        self._client = self._new_client()  # one that was stopped does not start again without a leak
        self._client.connect("127.0.0.1", self._port)
        self._client.loop_start()
        assert self._present.wait(10)
        self._instances += 1
        status = {"online": True, "instance": f"desk-{self._instances}"}
        self.retain(DaemonTopic("status"), json.dumps(status).encode())

    def leave(self) -> None:
        """Disconnects; the broker keeps what comes meanwhile, for as long as it lives."""
        self._client.disconnect()
        self._client.loop_stop()

    def __enter__(self) -> Self:
        self.arrive()
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()


class Board:
    """A board on the desk: its folder is its flash, its process dies like one that loses its supply.

    `search`: where its modules lie, the folder itself aside; `heap`: as for `-X heapsize`.
    """

    def __init__(
        self,
        arch: Arch,
        folder: Path,
        port: int,
        *,
        heap: str | None = None,
        search: Sequence[Path] = (ROOT, FAKES),
        **settings: Any,
    ) -> None:
        self.log = folder / "board.log"
        self._arch: Arch = arch
        self._heap = heap or HEAPS[arch]
        self._search = ":".join([*map(str, search), ".frozen"])
        self._flash = folder / "flash"
        self._process: subprocess.Popen[bytes] | None = None
        (self._flash / "fleet").mkdir(parents=True)
        shutil.copy(ROOT / "camera_agent" / "main.py", self._flash / "main.py")
        config = {
            "camera": CAMERA,
            "host": "127.0.0.1",
            "port": port,
            "keys": [KEY.public.hex()],
            "wifi": {"ssid": "desk", "key": "secret"},
            "slot_bytes": 80 * 1024,
            "interval_ms": 100,
            "batch_ms": 500,
            "telemetry_s": 1,
            **settings,
        }
        (self._flash / "fleet" / "config.json").write_text(json.dumps(config))

    def power_on(self, cause: int = POWER_ON) -> None:
        """Boots it."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [binary(self._arch), "-X", f"heapsize={self._heap}", "main.py"],
                cwd=self._flash,
                env={
                    "PATH": os.defpath,
                    "MICROPYPATH": self._search,
                    "FAKE_RESET_CAUSE": str(cause),
                },
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def has_ended(self) -> bool:
        """Whether it has restarted, or was never on."""
        return self._process is None or self._process.poll() is not None

    def power_cut(self) -> None:
        """Not another instruction."""
        self._end(signal.SIGKILL)

    def ctrl_c(self) -> int:
        """Somebody at the REPL stops the agent; the exit code."""
        return self._end(signal.SIGINT)

    def _end(self, how: signal.Signals) -> int:
        process, self._process = self._process, None
        if process is None:
            return 0
        with process:
            process.send_signal(how)
            try:
                return process.wait(15)
            finally:
                process.kill()

    def output(self) -> str:
        """Everything it has printed."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def wait(self, condition: Callable[[], bool], what: str, seconds: float = 90) -> None:
        """Until the condition holds; fails at once when the board's process ends."""
        deadline = time.monotonic() + seconds
        while not condition():
            code = None if self._process is None else self._process.poll()
            assert code is None, f"the board ended with {code} before {what}:\n{self.output()[-4000:]}"
            assert time.monotonic() < deadline, f"no {what} in {seconds} s:\n{self.output()[-4000:]}"
            time.sleep(0.05)


@pytest.fixture(params=["amd64", "i386"])
def board(request: pytest.FixtureRequest, tmp_path: Path, mosquitto: Mosquitto) -> Iterator[Board]:
    made = Board(request.param, tmp_path / "board", mosquitto.port)
    try:
        made.power_on()
        yield made
    finally:
        made.power_cut()


@pytest.fixture
def fleetd(mosquitto: Mosquitto) -> Iterator[FleetdSide]:
    with FleetdSide(mosquitto.port) as side:
        yield side
        assert side.refused == []


def install(board: Board, fleetd: FleetdSide, version: int, generation: int) -> None:
    name, label = f"demo-{version}", RELEASES[version][2]
    fleetd.offer(release(version, golden=True))
    fleetd.desire(name, generation)
    board.wait(lambda: (name, "confirmed", None) in fleetd.updates(), f"confirmation of {name}")
    board.wait(lambda: (name, label) in fleetd.results(), f"result of {name}")


@pytest.mark.slow
def test_a_board_changes_its_model_over_the_air_and_loses_nothing_when_the_broker_crashes(
    board: Board, fleetd: FleetdSide, mosquitto: Mosquitto
) -> None:
    board.wait(lambda: bool(fleetd.said("status") and fleetd.said("event")), "status and boot event")
    status = fleetd.said("status")[0]
    assert status["online"]
    assert status["board"] == "OMVRT1060 32768 SDRAM"
    assert status["release"] is None
    assert status["problems"] == ["no-model"]
    assert status["storage"]["slot_bytes"] >= 64 * 1024
    assert fleetd.said("event")[0]["text"].startswith("power-on: agent ")

    install(board, fleetd, 1, generation=1)
    install(board, fleetd, 2, generation=2)
    install(board, fleetd, 3, generation=3)
    for name in ("demo-1", "demo-2", "demo-3"):
        states = [state for release_id, state, _ in fleetd.updates() if release_id == name]
        assert list(dict.fromkeys(states)) == ["transferring", "verifying", "trial", "confirmed"]
    board.wait(
        lambda: (fleetd.said("status")[-1].get("release") or {}).get("id") == "demo-3", "status of demo-3"
    )
    full, patch = release(3, golden=True).encodings
    taken = [report["bytes"] for report in fleetd.said("update") if "bytes" in report][-1]
    assert patch.size <= taken < full.size, "it should have taken the patch"

    # With fleetd away and the broker killed, a second of results is nowhere but in the camera.
    fleetd.leave()
    before = len(fleetd.results())
    time.sleep(1)
    mosquitto.restart(crash=True)
    fleetd.arrive()
    board.wait(lambda: len(fleetd.results()) > before + 40, "results after the broker's crash", 60)
    assert set(fleetd.results()[before:]) == {("demo-3", "ball")}
    assert len({message["boot"] for message in fleetd.said("result")}) == 1, "it restarted"
    board.wait(
        lambda: any(told["reconnects"] == 1 for told in fleetd.said("telemetry")),
        "telemetry with the reconnection",
    )
    telemetry = fleetd.said("telemetry")[-1]
    assert telemetry["heap_free"] > 0
    assert sum(telemetry["dropped"].values()) == 0
    board.wait(fleetd.has_every_frame_once, "complete results")


@pytest.mark.slow
def test_an_unsigned_release_is_refused_and_the_old_model_outlives_power_cuts(
    board: Board, fleetd: FleetdSide
) -> None:
    install(board, fleetd, 1, generation=1)
    signed = release(2, golden=True).blob
    at = len(MAGIC) + KEY_ID_BYTES
    fleetd.offer(release(2, golden=True), signed[:at] + bytes(HEADER_BYTES - at) + signed[HEADER_BYTES:])
    before = len(fleetd.results())
    fleetd.desire("demo-2", 2)
    board.wait(lambda: ("demo-2", "rejected", "signature-invalid") in fleetd.updates(), "refusal")
    after = len(fleetd.results())
    board.wait(lambda: len(fleetd.results()) > after + 5, "results after the refusal")
    assert set(fleetd.results()[before:]) == {("demo-1", "lego figure")}

    board.power_cut()
    board.power_on(WATCHDOG)
    board.wait(lambda: len({m["boot"] for m in fleetd.said("result")}) == 2, "results after the power cut")
    assert set(fleetd.results()) == {("demo-1", "lego figure")}
    boots = [event["text"] for event in fleetd.said("event") if event["kind"] == "boot"]
    assert [text.split(":")[0] for text in boots] == ["power-on", "watchdog"]
    assert fleetd.said("status")[-1]["release"]["id"] == "demo-1"

    assert board.ctrl_c() == 0, "the REPL; the watchdog starts it again"
    assert "starts again by itself" in board.output()
    # Its last will (seq 0) may follow the goodbye: with receipts on their way to it, closing resets the connection.
    board.wait(lambda: any(said["seq"] and not said["online"] for said in fleetd.said("status")), "goodbye")
    assert "led: LED_BLUE on" in board.output()
    assert "Traceback" not in board.output()
