"""USB as Linux shows it under /sys: which devices are there, and since when. Needs no root and no library."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fleetd.boards.shape import BoardProfile
from fleetd.boards.usb import UsbState, candidates, state_of

LOOK_SECONDS: Final = 0.05  # a bootloader that is there for one second must not be missed
_ID_CHARS: Final = 4


@dataclass(frozen=True, slots=True)
class UsbDevice:
    """One device: the port it hangs at ("1-4.2"), its id ("37C5:1060"), what it says of itself."""

    port: str
    id: str
    serial: str | None
    product: str | None


def sysfs(env: Mapping[str, str]) -> Path:
    """Where the system shows its devices."""
    return Path(env.get("FLEETCTL_SYSFS") or "/sys")


def devices(root: Path) -> list[UsbDevice]:
    """Every device at the moment, by port; nothing where the system does not show any."""
    found = []
    for folder in sorted((root / "bus" / "usb" / "devices").glob("*")):
        vendor, product_id = _text(folder / "idVendor"), _text(folder / "idProduct")
        if vendor is None or product_id is None or len(vendor) != _ID_CHARS or len(product_id) != _ID_CHARS:
            continue  # an interface, or a device that is just going away
        found.append(
            UsbDevice(
                port=folder.name,
                id=f"{vendor}:{product_id}".upper(),
                serial=_text(folder / "serial"),
                product=_text(folder / "product"),
            )
        )
    return found


def hidraw(root: Path, port: str) -> str | None:
    """The name of a device's raw HID node ("hidraw3")."""
    for node in sorted((root / "bus" / "usb" / "devices" / port).glob("*/*/hidraw/hidraw*")):
        return node.name
    return None


class Looker:
    """Looks again and again, and remembers since when each device is there."""

    def __init__(self, root: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self.root = root
        self._clock = clock
        self._since: dict[tuple[str, str], float] = {}

    def look(self) -> list[tuple[UsbDevice, float]]:
        """Every device and for how many seconds it has been seen."""
        now, found = self._clock(), devices(self.root)
        keys = {(one.port, one.id) for one in found}
        self._since = {key: self._since.get(key, now) for key in keys}
        return [(one, now - self._since[one.port, one.id]) for one in found]

    def of_board(self, board: BoardProfile) -> list[tuple[UsbDevice, UsbState]]:
        """The devices that can be this board, with what it would be doing."""
        found = []
        for device, seen_s in self.look():
            state = state_of(board, device.id, seen_s)
            if state is not None:
                found.append((device, state))
        return found


def in_words(device: UsbDevice) -> tuple[str, str]:
    """Which boards it can be, and what it is doing; ("-", "-") for somebody else's device."""
    found = candidates(device.id)
    if not found:
        return "-", "-"
    names = [one.board.name.removeprefix("OpenMV ").removeprefix("Cam ") for one in found]
    shown = ", ".join(names) if len(names) <= 3 else f"one of {len(names)} boards"
    return shown, found[0].mode


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()[:128] or None
    except OSError:
        return None
