"""A person at the bench, for tests: does with the virtual board what each step says, and the camera behind it reports
once its agent could run. And the files that OpenMV IDE would bring.
"""

import struct
import time
from pathlib import Path
from typing import Any, Final

from fleetd.boards import profiles
from tests.bench.virtual_board import VirtualBoard, World
from tests.integration.api_rig import Rig
from tests.integration.cli_desk import Desk

QUICK_S: Final = 0.05
PLUGS: Final = ("erase", "reflash", "firmware", "bridge-plug", "plug-usb", "connect")
CATCHES: Final = ("erase", "reflash", "firmware", "bridge-plug")
PULLS: Final = ("unplug", "bridge-unplug", "bridge-off", "bridge-out-first", "left-in-off")


def make_ide(folder: Path) -> Path:
    """A folder like OpenMV IDE's, with files that are what they claim to be."""
    for board in profiles():
        assert board.firmware is not None
        place = folder / "share" / "qtcreator" / "firmware" / board.firmware.folder
        place.mkdir(parents=True)
        (place / "firmware.bin").write_bytes(bytes(3000) + board.firmware.markers[0].encode() + bytes(2000))
        (place / "romfs0.img").write_bytes(b"\xd2\xcd\x31" + bytes(500))
        (place / "bootloader.bin").write_bytes(struct.pack("<II", 0x20010000, 0x08000201) + bytes(100))
        (place / "sdphost_flash_loader.bin").write_bytes(b"SDP" + bytes(100))
        (place / "blhost_flash_loader.bin").write_bytes(b"SBL" + bytes(100))
    return folder


class BenchDesk(Desk):
    """A desk whose clock runs fast, and stands still while something is about to happen."""

    def __init__(self, rig: Rig, folder: Path, board: VirtualBoard, world: World) -> None:
        super().__init__(rig, folder)
        self.world = world
        self.home.mkdir()
        self.env |= board.environment()
        self.env["FLEETCTL_CATCH_SECONDS"] = "60"

    def _sleep(self, _seconds: float) -> None:
        self.slept += 1
        assert self.slept < 20_000, "waited for ever"
        time.sleep(0.01)
        if not self.world.is_busy:
            self.rig.now += 10
        self.meanwhile()


class Person:
    """Does what the steps say. `shows`: what the LED does; `skips`: steps that this person gets wrong."""

    def __init__(self, board: VirtualBoard, world: World, rig: Rig, camera: str = "cam-7") -> None:
        self.board, self.world, self.rig, self.camera = board, world, rig, camera
        self.steps: list[str] = []
        self.skips: set[str] = set()
        self._seq = 1000
        self.is_waiting = False
        world.hold = lambda: bool(self.steps) and self.steps[-1] in CATCHES

    def act(self, step: dict[str, Any]) -> None:
        """What the step asks for."""
        name = step["id"]
        self.steps.append(name)
        self.is_waiting = step["kind"] == "back"
        if name in self.skips:
            return
        profile = self.board.state["key"]
        taps = next(one for one in profiles() if one.key == profile).recovery.enter == "double-tap"
        if name in PULLS or (name.endswith("-ready") and not taps):
            self.board.unplug()
        elif name.endswith("-ready"):
            self.board.change(power=True)
        elif name in PLUGS and taps and name != "connect":
            self.board.change(power=True)
            self.world.later(QUICK_S, lambda: self.board.show("bootloader"))
        elif name in PLUGS:
            self.world.later(QUICK_S, self.board.plug)
        elif name in ("plug-in", "left-in-plug"):
            self.board.plug()
        elif name == "bridge-in":
            self.board.bridge(True)
        elif name in ("bridge-out", "bridge-out-last", "left-in-out"):
            self.board.bridge(False)
        elif name in ("back", "back-at-last"):  # the drive was ejected, the camera unplugged and plugged in
            self.board.unplug()
            self.board.plug()

    def breathe(self) -> None:
        """Time for the camera: with firmware, agent and settings it reports."""
        if (
            self.is_waiting
            and self.board.state["mode"] == "running"
            and (self.board.drive / "fleet" / "config.json").is_file()
        ):
            self._seq += 1
            arch = next(one.arch for one in profiles() if one.key == self.board.state["key"])
            self.rig.land(self.camera, "status", self._seq, online=True, board=f"{arch} x", reset="power-on")


def answers(**special: Any) -> dict[str, Any]:
    """Yes to everything, except what is said here (with _ for -)."""
    steps = [
        "unplug", "plug-in", "erase-ready", "reflash-ready", "firmware-ready", "bridge-unplug", "bridge-in",
        "bridge-off", "bridge-out", "left-in-off", "left-in-out", "left-in-plug", "bridge-out-first",
        "bridge-out-last", "look-closer", "check-supply", "check-network", "look-at-network", "bridge-ide",
        "find-twin", "look-at-sensor", "push", "better-supply", "provision",
    ]  # fmt: skip
    found: dict[str, Any] = dict.fromkeys(steps, "ok")
    found |= {"bridge-there": "no", "bridge-again": "give-up", "light-now": "other", "look-at-led": "skip"}
    return {**found, **{name.replace("_", "-"): value for name, value in special.items()}}
