"""The whole story: an update takes a camera away, an operator looks at it and brings it back.

Real: mosquitto, fleetd over HTTP and MQTT, fleetctl, the rollout, the incident, the guide, provisioning, and the agent,
which boots from a FAT volume on MicroPython. Stand-ins: the board's USB and flash, dfu-util, sdphost and blhost, and
the step from the drive's folder into the FAT volume, which takes the place of USB mass storage.
"""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from fleetd.boards import named
from fleetd.cli import bench, recover
from fleetd.cli.main import app
from fleetd.cli.session import Session
from fleetd.domain.incidents import Kind
from fleetd.domain.records import AssignmentState, RolloutSettings
from fleetd.simulator.camera import PowerCut
from fleetd.simulator.desk_hal import DeskHal
from tests.agent.micropython import ROOT, binary
from tests.bench.person import Person, answers, make_ide
from tests.bench.virtual_board import VirtualBoard, World
from tests.brokers import Mosquitto
from tests.e2e.site import Site, until

FAKES = ROOT / "tests" / "agent" / "device" / "fakes"
FAT_BYTES = 1024 * 1024  # less than a camera has: the agent fills its slots there at its first start
WAIT_S = 120.0


class Owner(Person):
    """Also gives the camera power at the end, so that the agent boots from what is on its drive."""

    def __init__(self, board: VirtualBoard, world: World, site: Site, arch: str) -> None:
        super().__init__(board, world, site)  # type: ignore[arg-type]  # reports nothing in the camera's name
        self._arch = arch
        self.process: subprocess.Popen[bytes] | None = None

    def breathe(self) -> None:
        """The camera speaks for itself."""

    def act(self, step: dict[str, Any]) -> None:
        super().act(step)
        if step["id"] in ("back", "back-at-last") and self.process is None:
            until(lambda: self.board.state["mode"] == "running", WAIT_S, "starting the firmware")
            self.process = self._boot()

    def _boot(self) -> "subprocess.Popen[bytes]":
        special = self.board.folder / "special"
        special.mkdir()
        (special / "omv.py").write_text(
            f"def arch():\n    return {self._arch!r}\n\n\ndef version_string():\n    return '4.8.1'\n"
        )
        log = (self.board.folder / "board.log").open("wb")
        with log:
            return subprocess.Popen(
                [binary("amd64"), "-X", "heapsize=4M", str(ROOT / "tests/agent/device/boot_from_fat.py"),
                 str(self.board.folder / "flash.img"), str(FAT_BYTES), str(self.board.drive)],
                env={"PATH": os.defpath, "MICROPYPATH": f"{special}:{FAKES}:.frozen"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )  # fmt: skip

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()


@pytest.fixture
def site(tmp_path: Path, mosquitto: Mosquitto) -> Iterator[Site]:
    """Notices silence after seconds instead of minutes."""
    site = Site(
        tmp_path,
        mosquitto,
        presence={"late_after": 3, "offline_after": 5},
        incidents={"silence_after": 10, "clear_after": 2},
    )
    site.start()
    yield site
    site.stop()


def fleetctl(site: Site, folder: Path, env: dict[str, str], *args: object) -> str:
    everything = {
        **env,
        "HOME": str(folder),
        "FLEETCTL_URL": site.daemon.url,
        "FLEETCTL_TOKEN_FILE": str(site.folder / "state" / "admin.token"),
    }
    session = Session(env=everything, folder=folder)
    result = CliRunner().invoke(app, [str(arg) for arg in args], obj=session)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.mark.parametrize(
    ("key", "broken", "light", "cause", "tools"),
    [
        ("rt1062", ("bootloader", "firmware"), "off", "firmware-fault", {"sdphost", "blhost"}),
        ("h7-plus", ("firmware",), "green blink-fast", "stuck-in-bootloader", {"dfu-util"}),
        ("nicla-vision", ("firmware",), "white cycle", "firmware-panic", {"dfu-util"}),
    ],
)
def test_an_update_takes_a_camera_away_and_its_owner_brings_it_back(
    site: Site,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    key: str,
    broken: tuple[str, ...],
    light: str,
    cause: str,
    tools: set[str],
) -> None:
    arch = f"{named(key).arch} 1024"
    monkeypatch.setattr(DeskHal, "arch", lambda self: arch)
    camera = site.camera("cam-7")
    camera.start()
    first = site.push("demo-v1")
    until(lambda: site.confirmed(first), WAIT_S, "the first model")
    incidents, ota = site.daemon.incidents, site.daemon.ota

    # the update that takes it away, in the middle of trying the model
    monkeypatch.setattr(DeskHal, "load_model", _brick)
    built = site.build("demo-v2")
    ota.add_release(built.blob, [one.data for one in built.encodings], actor="alice")
    rollout = ota.start_rollout(
        built.manifest.release, "all", settings=RolloutSettings(silence_s=3), actor="alice"
    ).id
    until(lambda: site.states(rollout)["cam-7"] is AssignmentState.LOST, WAIT_S, "counting it as lost")
    until(lambda: bool(incidents.incidents()), WAIT_S, "the incident")
    (incident,) = incidents.incidents()
    assert incident.kind is Kind.LOST_AFTER_UPDATE
    assert (incident.camera, incident.severity) == ("cam-7", "critical")

    # the bench
    board = VirtualBoard.make(tmp_path / "bench", key)
    for part in broken:
        board.part(part, "bad")
    board.plug()
    (tmp_path / "wifi.key").write_text("the WiFi's own secret\n")
    ide = make_ide(tmp_path / "ide")
    color, _, pattern = light.partition(" ")
    env = board.environment()
    with World(board) as world:
        owner = Owner(board, world, site, arch)
        _follow(monkeypatch, owner)
        # the operator looks, and says what the light does
        fleetctl(site, tmp_path, env, "led", "report", "cam-7", color, "--pattern", pattern or "off")
        said = fleetctl(site, tmp_path, env, "diagnose", "cam-7")
        assert f"({cause}," in said.splitlines()[1]
        if key == "rt1062":
            board.unplug()
        (tmp_path / "answers.json").write_text(_answers())
        try:
            fleetctl(
                *(
                    site,
                    tmp_path,
                    env,
                    "recover",
                    "cam-7",
                    "--answers",
                    "answers.json",
                    "--json",
                    "--ide",
                    ide,
                ),
                *("--wifi-ssid", "hall 3", "--wifi-key-file", "wifi.key"),
                *("--broker-host", "127.0.0.1", "--broker-port", site.broker.port),
            )
            assert {line.split()[0] for line in board.log} == tools
            assert not board.state["bridge"]

            # the camera itself is what ends it
            until(lambda: not incidents.incidents(), WAIT_S, "closing the incident")
            closed, notes, _ = incidents.incident(incident.id)
            assert closed.outcome is not None
            assert closed.outcome.startswith("recovered after")
            assert any(note["text"].startswith("recovery 1: recovered") for note in notes)
            seen = site.daemon.registry.camera("cam-7").camera
            assert seen.firmware == "4.8.1"
            assert "fat: written" in (board.folder / "board.log").read_text(errors="replace")
        finally:
            owner.stop()
    assert site.states(rollout)["cam-7"] is AssignmentState.LOST, "coming back later is no success"
    assert incidents.incidents(is_open=None)[0].id == incident.id, "one incident for all of it"


def _brick(*_: Any) -> Any:
    raise PowerCut


def _answers() -> str:
    import json

    return json.dumps(answers(bridge_there="no"))


def _follow(monkeypatch: pytest.MonkeyPatch, owner: Person) -> None:
    """The owner does what each step says, as soon as it is shown."""
    printed: Callable[..., None] = recover._Walk._print

    def act_too(walk: Any, step: dict[str, Any]) -> None:
        printed(walk, step)
        owner.act(step)

    monkeypatch.setattr(recover._Walk, "_print", act_too)
    # Waiting for a camera that cannot come back yet is what takes minutes on a bench.
    waited = recover._Walk._back

    def back(walk: Any, way: dict[str, Any], step: dict[str, Any]) -> Any:
        limit = WAIT_S if step["id"] == "back" else 1
        return waited(walk, way, {**step, "timeout_s": limit})

    monkeypatch.setattr(recover._Walk, "_back", back)
    monkeypatch.setattr("fleetd.cli.bench.GONE_S", 5.0)
    waiting = bench.Bench.wait

    def wait(at_bench: Any, wanted: Any, timeout_s: float) -> Any:
        parts = owner.board.state["parts"]
        is_hopeless = (parts["firmware"] != "good" and "running" in wanted) or (
            parts["bootloader"] != "good" and "bootloader" in wanted and "rom" not in wanted
            and not owner.board.state["loader"] and owner.steps[-1] in ("erase", "reflash")
        )  # fmt: skip
        return waiting(at_bench, wanted, 1 if is_hopeless else max(timeout_s, WAIT_S))

    monkeypatch.setattr(bench.Bench, "wait", wait)
