"""What a USB device is: which boards could it be, and what are they doing."""

from typing import Final, Literal, NamedTuple

from fleetd.boards import profiles
from fleetd.boards.shape import BoardProfile, UsbMode

# absent: somebody looked and there is nothing; unknown: nobody looked.
UsbState = Literal["unknown", "absent", "running", "bootloader", "interrupted", "rom"]
USB_STATES: Final[tuple[UsbState, ...]] = (
    "unknown",
    "absent",
    "running",
    "bootloader",
    "interrupted",
    "rom",
)
LINGERS_S: Final = 5.0  # NXP's bootloader is there for a second; longer means that a flash was cut off


class Candidate(NamedTuple):
    """A board that shows this id, and what it is doing then."""

    board: BoardProfile
    mode: UsbMode


def candidates(usb_id: str) -> tuple[Candidate, ...]:
    """The boards with that id ("37C5:1060"); nothing for somebody else's device."""
    wanted = usb_id.upper()
    return tuple(Candidate(board, one.mode) for board in profiles() for one in board.usb if one.id == wanted)


def state_of(profile: BoardProfile, usb_id: str, seen_s: float = 0.0) -> UsbState | None:
    """What this board is doing when it has shown that id for so many seconds; None when it is not its id."""
    for one in profile.usb:
        if one.id == usb_id.upper():
            if one.mode == "bootloader" and profile.recovery.tool == "nxp" and seen_s > LINGERS_S:
                return "interrupted"
            return one.mode
    return None
