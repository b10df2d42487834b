"""Camera drives for tests: folders that look like what the firmware makes, and a drive that fails when told."""

import json
from pathlib import Path
from typing import Any, Final

from fleetd.provisioning.config import Draft
from fleetd.provisioning.disk import Disk
from fleetd.provisioning.package import AgentPackage

HARDWARE_ID: Final = "0011223344556677AABBCCDD"
DEFAULT_MAIN: Final = (
    'import time\nfrom machine import LED\n\nled = LED("LED_BLUE")\n\nwhile True:\n    led.on()\n'
    "    time.sleep_ms(150)\n    led.off()\n    time.sleep_ms(100)\n    led.on()\n    time.sleep_ms(150)\n"
    "    led.off()\n    time.sleep_ms(600)\n"
)
OLD_CONFIG: Final = {"camera": "cam-07", "host": "10.0.0.1", "password": "the-old-credential"}
OLD_MAIN: Final = b"from camera_agent.main import main  # old\n"
OLD_FILES: Final = {
    "__init__.py": b"",
    "agent.py": b'VERSION = "0.0.9"\n',
    "gone.py": b"# no longer part of the agent\n" * 300,
}
NEW: Final = AgentPackage(
    "0.1.0",
    "mpy",
    {"__init__.mpy": b"M\x06\x00\x1finit", "agent.mpy": b"M\x06\x00\x1f" + bytes(range(256)) * 20},
    b"from camera_agent.hal import Hal  # new\n",
)
DRAFT: Final = Draft({"camera": "cam-07", "host": "10.0.0.2", "port": 1883, "keys": []}, ())


def formatted(folder: Path) -> Path:
    """A drive as the firmware formats it."""
    folder.mkdir(parents=True)
    (folder / ".openmv_disk").write_text(HARDWARE_ID)
    (folder / "main.py").write_text(DEFAULT_MAIN)
    (folder / "README.txt").write_text("docs: http://docs.openmv.io/\n")
    return folder


def with_old_agent(folder: Path) -> Path:
    """A drive with an older agent, its model, and things of somebody else."""
    formatted(folder)
    for name in ("camera_agent", "camera_agent/__pycache__", "fleet"):
        (folder / name).mkdir()
    for name, data in OLD_FILES.items():
        (folder / "camera_agent" / name).write_bytes(data)
    (folder / "camera_agent" / "notes.txt").write_text("mine")
    (folder / "camera_agent" / "__pycache__" / "x.pyc").write_text("junk")
    (folder / "main.py").write_bytes(OLD_MAIN)
    (folder / "fleet" / "config.json").write_text(json.dumps(OLD_CONFIG))
    (folder / "fleet" / "slot_a.bin").write_bytes(b"model")
    return folder


def tree(folder: Path) -> dict[str, bytes]:
    """Every file with its content, and every empty folder."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            found[str(path.relative_to(folder))] = path.read_bytes()
        elif not any(path.iterdir()):
            found[f"{path.relative_to(folder)}/"] = b""
    return found


def found_by_camera(folder: Path) -> dict[str, bytes]:
    """The modules that the firmware would import: the drive's top first, then lib."""
    for package in (folder / "camera_agent", folder / "lib" / "camera_agent"):
        if package.is_dir():
            return {p.name: p.read_bytes() for p in package.iterdir() if p.suffix in {".py", ".mpy"}}
    return {}


class FailingDisk(Disk):
    """Fails at the n-th operation: once, or from then on, as a drive that was pulled out."""

    def __init__(self, root: Path, fail_at: int, error: int, *, for_good: bool) -> None:
        super().__init__(root)
        self._left = fail_at
        self._error = error
        self._for_good = for_good
        self.operations: list[str] = []

    @property
    def has_failed(self) -> bool:
        return self._left <= 0

    def _touch(self, doing: str, name: str) -> None:
        self._left -= 1
        self.operations.append(f"{doing} {name}")
        if self._left == 0 or (self._for_good and self._left < 0):
            raise OSError(self._error, "injected")
        super()._touch(doing, name)

    def sync(self) -> None:
        """Without writing out the whole machine's memory, hundreds of times."""
        with self._step("sync", "."):
            pass


def config_in(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "fleet" / "config.json").read_text())
    return found
