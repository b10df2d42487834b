"""Command lines for each board: erase the storage, write the firmware, bring the bootloader back.

Addresses and DFU numbers come from the profile. What NXP's tools need stands in OpenMV's own instructions for the
RT1062; the one step there that cannot be undone, burning a fuse in the factory, is left out on purpose.
"""

from typing import Final

from fleetd.boards.guides.steps import Command
from fleetd.boards.shape import BoardProfile, Part

_ROM: Final = ("sdphost", "-u", "0x1FC9,0x0135", "--")
_SBL: Final = ("blhost", "-u", "0x15A2,0x0073", "--")
_SBL_SLOW: Final = ("blhost", "-u", "0x15A2,0x0073", "-t", "120000", "--")  # erasing takes its time
_ST_ROM: Final = ("dfu-util", "-w", "-d", ",0483:df11")
_ERASE_BYTES: Final = 0x1000
_SETUP: Final = "0x2000"  # memory where the loader takes a configuration from
STM32_FLASH: Final = 0x08000000


def erase(board: BoardProfile) -> tuple[Command, ...]:
    """Makes the storage unreadable, so that the firmware formats it; nothing else is touched."""
    part = _need(board, "storage")
    if board.recovery.tool == "nxp":
        return (
            Command(
                argv=(*_SBL_SLOW, "flash-erase-region", _hex(part.start), _hex(_ERASE_BYTES)),
                does="erases the first block of the storage",
            ),
            _reset(),
        )
    found = [_dfu(board, part, "zeros", "overwrites the first block of the storage", last=True)]
    if board.key in ("portenta-h7", "giga-r1"):  # a second, small file system inside the processor
        inner = Part(name="storage", bytes=_ERASE_BYTES, alt=0, address=0x08020000)
        found.insert(
            0, _dfu(board, inner, "zeros", "overwrites the file system in the processor", last=False)
        )
    return tuple(found)


def reflash(board: BoardProfile) -> tuple[Command, ...]:
    """Writes firmware and read-only files through the bootloader that is there. The last one restarts the board."""
    if board.recovery.tool == "nxp":
        return (*_nxp_write(board, "firmware"), *_nxp_write(board, "romfs"), *erase(board))
    firmware = _dfu(board, _need(board, "firmware"), "firmware", "writes the firmware", last=False)
    romfs = _dfu(board, _need(board, "romfs"), "romfs", "writes the read-only files", last=False)
    if board.recovery.enter == "double-tap":  # Arduino's bootloader starts what was written last
        return (romfs, *erase(board)[:-1], _without_leaving(erase(board)[-1]), _leaving(firmware))
    return (firmware, romfs, *erase(board))


def bring_back(board: BoardProfile) -> tuple[Command, ...]:
    """Writes the bootloader, with the bridge in. On NXP boards the firmware as well, since everything is open."""
    if board.recovery.tool == "nxp":
        fcb = _need(board, "fcb")
        return (
            Command(
                argv=(*_ROM, "write-file", "0x20001C00", "{sdphost-loader}"), does="loads NXP's flash loader"
            ),
            Command(
                argv=(*_ROM, "jump-address", "0x20001C00"), does="starts it", then="bootloader", timeout_s=30
            ),
            *_configure("0xC0000008"),
            Command(
                argv=(*_SBL_SLOW, "flash-erase-region", _hex(fcb.start), _hex(fcb.bytes)),
                does="erases the flash's description",
            ),
            *_configure("0xF000000F"),
            *_nxp_write(board, "bootloader"),
            *_nxp_write(board, "firmware"),
            *_nxp_write(board, "romfs"),
            *erase(board),
        )
    return (
        Command(
            argv=(*_ST_ROM, "-a", "0", "-s", f"0x{STM32_FLASH:08X}", "-D", "{bootloader}"),
            does="writes the bootloader; an error at the very end is normal",
            may_fail=True,
        ),
    )


def _nxp_write(board: BoardProfile, name: str) -> tuple[Command, ...]:
    part, role = _need(board, name), _ROLES[name]
    return (
        Command(
            argv=(*_SBL_SLOW, "flash-erase-region", _hex(part.start), f"{{len:{role}}}"),
            does=f"erases room for {_WORDS[name]}",
            optional=name == "romfs",
        ),
        Command(
            argv=(*_SBL, "write-memory", _hex(part.start), f"{{{role}}}"),
            does=f"writes {_WORDS[name]}",
            timeout_s=600,
            optional=name == "romfs",
        ),
    )


def _configure(word: str) -> tuple[Command, ...]:
    return (
        Command(argv=(*_SBL, "fill-memory", _SETUP, "4", word, "word"), does="prepares the flash's setup"),
        Command(argv=(*_SBL, "configure-memory", "9", _SETUP), does="sets the flash up"),
    )


def _reset() -> Command:
    return Command(argv=(*_SBL, "reset"), does="restarts the board", may_fail=True, timeout_s=30)


def _dfu(board: BoardProfile, part: Part, role: str, does: str, *, last: bool) -> Command:
    usb_id = board.usb_id("bootloader") or ""
    if not usb_id.startswith("37C5"):  # as each vendor writes them
        usb_id = usb_id.lower()
    argv = ["dfu-util", "-w", "-d", f",{usb_id}", "-a", str(part.alt)]
    if part.address is not None:
        argv += ["-s", f"0x{part.address:08X}" + (":leave" if last else "")]
    elif last:
        argv += ["--reset"]
    return Command(argv=(*argv, "-D", f"{{{role}}}"), does=does, timeout_s=600, optional=role == "romfs")


def _leaving(command: Command) -> Command:
    at = command.argv.index("-s") + 1
    argv = (*command.argv[:at], command.argv[at] + ":leave", *command.argv[at + 1 :])
    return command.model_copy(update={"argv": argv})


def _without_leaving(command: Command) -> Command:
    argv = tuple(part.removesuffix(":leave") for part in command.argv)
    return command.model_copy(update={"argv": argv})


_ROLES: Final = {"bootloader": "blhost-loader", "firmware": "firmware", "romfs": "romfs"}
_WORDS: Final = {"bootloader": "the bootloader", "firmware": "the firmware", "romfs": "the read-only files"}


def _need(board: BoardProfile, name: str) -> Part:
    part = board.part(name)
    if part is None:
        raise ValueError(f"{board.key} has no flash part {name}")
    return part


def _hex(value: int | None) -> str:
    return f"0x{value or 0:X}"
