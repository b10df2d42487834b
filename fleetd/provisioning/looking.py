"""What a mounted drive holds. Looks only; an operator sees it before anything is written."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from camera_agent import settings
from fleetd.protocol.ids import is_camera_id
from fleetd.provisioning import package
from fleetd.provisioning.disk import Disk, Room
from fleetd.provisioning.errors import DriveGoneError, NotACameraDriveError

LIVE: Final = package.FOLDER
SPARE: Final = f"lib/{LIVE}"  # the firmware looks here when there is no LIVE
FRESH: Final = f"{LIVE}.new"
OLD: Final = f"{LIVE}.old"
CONFIG: Final = "fleet/config.json"
DRAFT: Final = "fleet/config.new"
MAIN: Final = "main.py"
MARKER: Final = ".openmv_disk"
CONFIG_BYTES: Final = 8192  # what the agent reads
_MODULE_BYTES: Final = 256 * 1024
_TEXT_BYTES: Final = 64 * 1024
_HARDWARE_ID: Final = re.compile(rb"[0-9A-Fa-f]{8,32}")
# The firmware's own main.py blinks blue: on 150, off 100, on 150, off 600 ms.
_DEFAULT_MAIN: Final = (b"led", b"150", b"100", b"600")
_DEFAULT_MAIN_BYTES: Final = 1000

Main = Literal["missing", "default", "agent", "other"]


@dataclass(frozen=True, slots=True)
class Agent:
    """A camera agent on a drive. `whole`: as it was provisioned; None when it was copied by hand."""

    version: str | None
    source: str
    whole: bool | None


@dataclass(frozen=True, slots=True)
class Found:
    """A camera's drive before anything is written."""

    room: Room
    is_camera: bool
    hardware_id: str | None
    main: Main
    agent: Agent | None
    config: Mapping[str, Any] | None  # only if the agent could use it
    config_problem: str | None
    begun: (
        str | None
    )  # the camera whose credential an earlier run asked for and did not write; "" if unreadable
    has_leftovers: bool  # of an earlier run
    has_slots: bool
    has_boot: bool

    @property
    def camera(self) -> str | None:
        """Whose drive it is."""
        return None if self.config is None else str(self.config["camera"])

    @property
    def was_formatted(self) -> bool:
        """Whether it is as the firmware makes it: new, or formatted after its file system was damaged."""
        return self.main == "default" and self.agent is None and self.config is None

    def in_words(self) -> str:
        """What is there, in one line."""
        if self.was_formatted:
            return "freshly formatted, or never provisioned: only OpenMV's own main.py"
        parts = []
        if self.agent is not None:
            state = {True: "", False: ", incomplete", None: ", copied by hand"}[self.agent.whole]
            parts.append(f"agent {self.agent.version or 'of unknown version'} ({self.agent.source}{state})")
        if self.camera is not None:
            parts.append(f"settings of {self.camera}")
        elif self.config_problem is not None:
            parts.append(f"unusable settings ({self.config_problem})")
        if self.has_slots:
            parts.append("models")
        if self.main == "other":
            parts.append("somebody's own main.py")
        if self.begun is not None or self.has_leftovers:
            parts.append("an unfinished run of provision")
        return ", ".join(parts) or "no agent, no settings"


def refuse_place(mount: Path, home: Path) -> None:
    """NotACameraDriveError for a folder that can never be a camera's drive; DriveGoneError if it is not there."""
    if not mount.is_dir():
        raise DriveGoneError(f"{mount} is no folder. Is the camera connected and its drive mounted?")
    place, own = mount.resolve(), home.resolve()
    if place == own or place in own.parents:
        raise NotACameraDriveError(f"{mount} is not the drive of an OpenMV camera. Nothing was written.")


def look(disk: Disk) -> Found:
    """What is on the drive. DriveError when it cannot be read."""
    config, problem = _config(disk)
    marker = disk.read(MARKER, 64)
    readme = disk.read("README.txt", _TEXT_BYTES) or b""
    id_found = _HARDWARE_ID.fullmatch((marker or b"").strip())
    main = _main(disk)
    return Found(
        room=disk.room(),
        is_camera=marker is not None or b"openmv.io" in readme or (config is not None and main == "agent"),
        hardware_id=id_found[0].decode().lower() if id_found else None,
        main=main,
        agent=_agent(disk),
        config=config,
        config_problem=problem,
        begun=_begun(disk),
        has_leftovers=any(disk.kind(folder) is not None for folder in (FRESH, SPARE, OLD)),
        has_slots=any(name.startswith("slot_") for name in disk.names("fleet")),
        has_boot=disk.kind("boot.py") == "file",
    )


def live_folder(disk: Disk) -> str:
    """Where the camera would find the agent."""
    return SPARE if disk.kind(LIVE) is None and disk.kind(SPARE) == "folder" else LIVE


def modules(disk: Disk, folder: str) -> dict[str, bytes]:
    """The code in a folder, by name. What is longer than any module of ours is cut off, so it differs from all."""
    names = [name for name in disk.names(folder) if package.is_module(name)]
    found = {name: disk.read(f"{folder}/{name}", _MODULE_BYTES) for name in names}
    return {name: data for name, data in found.items() if data is not None}


def _main(disk: Disk) -> Main:
    text = disk.read(MAIN, _TEXT_BYTES)
    if text is None:
        return "missing"
    if b"camera_agent" in text:
        return "agent"
    is_default = len(text) <= _DEFAULT_MAIN_BYTES and all(word in text.lower() for word in _DEFAULT_MAIN)
    return "default" if is_default or not text.strip() else "other"


def _agent(disk: Disk) -> Agent | None:
    folder = live_folder(disk)
    files = modules(disk, folder)
    if not files:
        return None
    record = _json(disk.read(f"{folder}/{package.RECORD}", _TEXT_BYTES))
    source = "py" if any(name.lower().endswith(".py") for name in files) else "mpy"
    if isinstance(record, dict) and isinstance(record.get("agent"), str):
        return Agent(record["agent"][:32], source, record.get("sha256") == package.fingerprint(files))
    return Agent(package.version_in(files.get("agent.py", b"")), source, None)


def _config(disk: Disk) -> tuple[Mapping[str, Any] | None, str | None]:
    text = disk.read(CONFIG, CONFIG_BYTES + 1)
    if text is None:
        return None, None
    found = _json(text)
    if len(text) > CONFIG_BYTES or not isinstance(found, dict):
        return None, "not readable"
    try:
        settings.check(found)
    except settings.SettingsError as error:
        return None, str(error.detail)
    return found, None


def _begun(disk: Disk) -> str | None:
    draft = disk.read(DRAFT, CONFIG_BYTES)
    if draft is None:
        return None
    found = _json(draft)
    name = found.get("camera") if isinstance(found, dict) else None
    return name if isinstance(name, str) and is_camera_id(name) else ""


def _json(text: bytes | None) -> Any:
    try:
        return None if text is None else json.loads(text)
    except (ValueError, RecursionError):
        return None
