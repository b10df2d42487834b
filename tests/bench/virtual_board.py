"""A board on the bench, as far as USB, flash and a person's hands are concerned. Lives in a folder, so that the
stand-ins for dfu-util, sdphost and blhost (other processes) work on the same board. Imports nothing of fleetd unless a
board is made: the stand-ins have to start quickly.
"""

import fcntl
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from tests.usb_tree import UsbTree

ROOT: Final = Path(__file__).resolve().parents[2]
TOOLS: Final = ("dfu-util", "sdphost", "blhost")
PORT: Final = "1-4"
HARDWARE_ID: Final = "0011223344556677AABBCCDD"
DEFAULT_MAIN: Final = "led = LED('LED_BLUE')  # on 150, off 100, on 150, off 600\n"


class VirtualBoard:
    """Flash parts are "good", "bad" (cannot start) or "erased". `faults`: see fake_tool.py."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "board.json"
        self.drive = folder / "OPENMV"
        self.tree = UsbTree(folder / "sys")
        self._mine = threading.RLock()
        self._depth = 0

    @classmethod
    def make(cls, folder: Path, key: str = "rt1062") -> "VirtualBoard":
        """A healthy board without power."""
        from fleetd.boards import named

        profile = named(key)
        folder.mkdir(parents=True)
        (folder / "dev").mkdir()
        (folder / "mounts").write_text("")
        state = {
            "key": profile.key,
            "nxp": profile.recovery.tool == "nxp",
            "usb": {mode: profile.usb_id(mode) for mode in ("running", "bootloader", "rom")},
            "flash": [
                {"name": p.name, "start": p.start, "alt": p.alt, "address": p.address} for p in profile.flash
            ],
            "parts": {"bootloader": "good", "firmware": "good", "storage": "good", "romfs": "good"},
            "power": False, "bridge": False, "mode": "off", "heard": [], "loader": False,
            "setup": None, "filled": None, "erased": [], "faults": {}, "log": [],
        }  # fmt: skip
        (folder / "board.json").write_text(json.dumps(state))
        return cls(folder)

    @contextmanager
    def changing(self) -> Iterator[dict[str, Any]]:
        """The state, to be changed by nobody else meanwhile."""
        with (self.folder / "lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            state = json.loads(self.file.read_text())
            yield state
            new = self.file.with_suffix(".new")
            new.write_text(json.dumps(state))
            new.replace(self.file)

    @property
    def state(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.file.read_text())
        return found

    @property
    def log(self) -> list[str]:
        """The command lines that were run."""
        return [str(line) for line in self.state["log"]]

    def change(self, **values: Any) -> None:
        with self.changing() as state:
            state.update(values)

    def fault(self, name: str, value: Any = True) -> None:
        with self.changing() as state:
            state["faults"][name] = value

    def part(self, name: str, how: str) -> None:
        with self.changing() as state:
            state["parts"][name] = how

    @contextmanager
    def moment(self) -> Iterator[None]:
        """In which nobody else, in any thread or process, does anything to the board. May be nested."""
        with self._mine:
            if self._depth == 0:
                self._lock = (self.folder / "moment").open("a")
                fcntl.flock(self._lock, fcntl.LOCK_EX)
            self._depth += 1
            try:
                yield
            finally:
                self._depth -= 1
                if self._depth == 0:
                    self._lock.close()

    # --- hands ----------------------------------------------------------------------------------------------

    def unplug(self) -> None:
        with self.moment():
            self.change(power=False)
            self.show("off")

    def bridge(self, there: bool) -> None:
        assert not self.state["power"], "the bridge was changed under power"
        self.change(bridge=there)

    def plug(self) -> None:
        with self.moment():
            self.change(power=True)
            self.boot()

    # --- the board ------------------------------------------------------------------------------------------

    def boot(self) -> None:
        """What starts depends on the bridge and on what is left in flash."""
        with self.moment():
            state = self.state
            in_rom = state["bridge"] or state["parts"]["bootloader"] != "good"
            self.show("rom" if in_rom else "bootloader")

    def is_leaving(self) -> bool:
        """Whether the bootloader is about to give way to the firmware: nobody has spoken to it."""
        state = self.state
        if state["mode"] != "bootloader" or state["loader"] or state["parts"]["firmware"] != "good":
            return False
        node = self.folder / "dev" / "hidraw0"
        return not state["heard"] and not (node.exists() and node.stat().st_size > 0)

    def tick(self) -> None:
        """Time for the bootloader to give way."""
        with self.moment():
            if self.is_leaving():
                self.start_firmware()

    def start_firmware(self) -> None:
        """The firmware formats a storage that it cannot read, and shows its drive."""
        if self.state["parts"]["storage"] == "erased":
            if self.drive.exists():
                self.drive.rename(self.folder / f"old-{time.monotonic_ns()}")
            self.drive.mkdir()
            (self.drive / ".openmv_disk").write_text(HARDWARE_ID)
            (self.drive / "main.py").write_text(DEFAULT_MAIN)
            (self.folder / "mounts").write_text(f"/dev/sdz {self.drive} vfat rw 0 0\n")
            self.part("storage", "good")
        self.show("running")

    def show(self, mode: str) -> None:
        """What USB shows from now on."""
        node = self.folder / "dev" / "hidraw0"
        with self.moment():
            self.tree.pull(PORT)
            node.unlink(missing_ok=True)
            with self.changing() as state:
                state.update(mode=mode, heard=[], loader=False)
                usb_id, is_nxp = state["usb"].get(mode), state["nxp"]
            if usb_id is None:
                return
            if is_nxp and mode != "running":
                node.touch()
                self.tree.plug(PORT, usb_id, hidraw="hidraw0")
            else:
                self.tree.plug(PORT, usb_id, serial="0011223344556677")

    # --- around it ------------------------------------------------------------------------------------------

    def environment(self) -> dict[str, str]:
        """For fleetctl: this board's USB, and the stand-ins first on the path."""
        tools = self.folder / "bin"
        if not tools.exists():
            tools.mkdir()
            for name in TOOLS:
                script = tools / name
                script.write_text(
                    f"#!{sys.executable} -SE\nimport sys\nsys.path.insert(0, {str(ROOT)!r})\n"
                    f"from tests.bench.fake_tool import main\nsys.exit(main({name!r}, sys.argv[1:]))\n"
                )
                script.chmod(0o755)
        return {
            "PATH": f"{tools}{os.pathsep}{os.defpath}",
            "FLEETD_FAKE_BOARD": str(self.folder),
            "FLEETCTL_SYSFS": str(self.folder / "sys"),
            "FLEETCTL_DEV": str(self.folder / "dev"),
            "FLEETCTL_MOUNTS": str(self.folder / "mounts"),
        }


class World:
    """Time, for a board: it goes on while nobody does anything. `hold`: the bootloader waits for ever meanwhile, so
    that a busy machine is not too slow to catch it.
    """

    def __init__(self, board: VirtualBoard) -> None:
        self._board = board
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._coming = 0
        self._counting = threading.Lock()
        self.hold: Callable[[], bool] = lambda: False

    def __enter__(self) -> "World":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    @property
    def is_busy(self) -> bool:
        """Whether something is about to happen by itself: no clock should run ahead of it."""
        return self._coming > 0 or (not self.hold() and self._board.is_leaving())

    def later(self, seconds: float, what: Callable[[], object]) -> None:
        """A hand that is quick, but not at once."""
        with self._counting:
            self._coming += 1

        def act() -> None:
            try:
                what()
            finally:
                with self._counting:
                    self._coming -= 1

        timer = threading.Timer(seconds, act)
        timer.daemon = True
        timer.start()

    def _run(self) -> None:
        while not self._over.wait(0.02):
            if not self.hold():
                self._board.tick()
