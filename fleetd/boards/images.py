"""Is this file for this board? Checked before anything is written; a doubt is a refusal.

A firmware image names its board in plain text; a ROMFS image has a header; a boot program for STM32 begins with the
addresses that its processor starts from. And files of another board usually lie in a folder of that board's name.
"""

import struct
from collections.abc import Callable
from pathlib import PurePath
from typing import Final

from fleetd.boards import profiles
from fleetd.boards.shape import BoardProfile
from fleetd.errors import InvalidError

ROLES: Final = {  # role -> the file's usual name
    "firmware": "firmware.bin",
    "romfs": "romfs0.img",
    "bootloader": "bootloader.bin",
    "sdphost-loader": "sdphost_flash_loader.bin",
    "blhost-loader": "blhost_flash_loader.bin",
}
_PARTS: Final = {
    "firmware": "firmware",
    "romfs": "romfs",
    "bootloader": "bootloader",
    "blhost-loader": "bootloader",
}
_LOADER_BYTES: Final = 256 * 1024  # what fits beside it in the processor's memory
_ROMFS: Final = b"\xd2\xcd\x31"
_STM32_BOOT: Final = (0x08000000, 0x08020000)
_STM32_RAM: Final = ((0x20000000, 0x20080000), (0x24000000, 0x24100000), (0x30000000, 0x30048000))


class WrongImageError(InvalidError):
    """The file is not for this board. Nothing was written."""

    code = "wrong_image"


def check(board: BoardProfile, role: str, path: PurePath, data: bytes) -> None:
    """WrongImageError when the file cannot be this board's `role`."""

    def refuse(why: str) -> WrongImageError:
        return WrongImageError(
            f"{path} is not the {role} of {board.name}: {why}. Nothing was written. OpenMV's releases have it as "
            f"{board.firmware.folder if board.firmware else 'BOARD'}/{ROLES.get(role, role)}.",
            board=board.key,
            role=role,
        )

    if not data:
        raise refuse("it is empty")
    other = _other_folder(board, path)
    if other is not None:
        raise refuse(f"it lies in the folder of {other.name}")
    most = _most(board, role)
    if most is not None and len(data) > most:
        raise refuse(f"it has {len(data)} bytes, there is room for {most}")
    if role == "firmware":
        _check_markers(board, data, refuse)
    elif role == "romfs" and not data.startswith(_ROMFS):
        raise refuse("it is no ROMFS image")
    elif role == "bootloader" and not _starts_an_stm32(data):
        raise refuse("no STM32 could start it")


def _check_markers(board: BoardProfile, data: bytes, refuse: Callable[[str], WrongImageError]) -> None:
    own = () if board.firmware is None else board.firmware.markers
    if any(marker.encode() in data for marker in own):
        return
    for other in profiles():
        if other is not board and other.firmware is not None:
            for marker in other.firmware.markers:
                if marker.encode() in data:
                    raise refuse(f"it is the firmware of {other.name}")
    raise refuse("it does not name that board anywhere")


def _other_folder(board: BoardProfile, path: PurePath) -> BoardProfile | None:
    folders = {other.firmware.folder: other for other in profiles() if other.firmware is not None}
    for part in reversed(path.parts[:-1]):
        if part in folders:
            return None if folders[part] is board else folders[part]
    return None


def _most(board: BoardProfile, role: str) -> int | None:
    if role == "sdphost-loader":
        return _LOADER_BYTES
    part = board.part(_PARTS.get(role, ""))
    return None if part is None else part.bytes


def _starts_an_stm32(data: bytes) -> bool:
    if len(data) < 8:
        return False
    stack, reset = struct.unpack("<II", data[:8])
    in_ram = any(low <= stack <= high for low, high in _STM32_RAM)
    return in_ram and bool(reset & 1) and _STM32_BOOT[0] <= reset < _STM32_BOOT[1]
