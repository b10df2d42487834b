"""The agent as a ROMFS image that a camera runs in place, and a board on the desk that does so."""

from collections.abc import Mapping
from pathlib import Path

from tests.agent.micropython import DEVICE_FAKES

# Runs main.py as the firmware does, after what the firmware or the agent's own first lines do on a board: mount.
_BOOT = """import sys
import in_place
in_place.mount(%r, "/agent")
del sys.modules["in_place"], in_place
import agent_main
agent_main.main()
"""


def rom_image(folder: str, files: Mapping[str, bytes]) -> bytes:
    """A ROMFS image with one folder, for `vfs.VfsRom`."""

    def number(value: int) -> bytes:
        digits = [value & 0x7F]
        while value := value >> 7:
            digits.append(0x80 | value & 0x7F)
        return bytes(reversed(digits))

    def record(kind: bytes, payload: bytes) -> bytes:
        return kind + number(len(payload)) + payload

    def named(name: str) -> bytes:
        return number(len(name)) + name.encode()

    inside = b"".join(record(b"\5", named(name) + record(b"\2", data)) for name, data in files.items())
    return record(b"\xd2\xcd\x31", record(b"\4", named(folder) + inside))


def run_in_place(flash: Path, image: bytes) -> None:
    """Let the board with this flash run the agent where it lies in the image, not from files."""
    rom = flash.parent / "agent.romfs"
    rom.write_bytes(image)
    (flash / "in_place.py").write_bytes((DEVICE_FAKES / "in_place.py").read_bytes())
    (flash / "main.py").rename(flash / "agent_main.py")
    (flash / "main.py").write_text(_BOOT % str(rom))
