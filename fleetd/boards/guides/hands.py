"""Steps that need hands: power off, power on, the bridge in, the bridge out; and OpenMV IDE's menus."""

from typing import Final

from fleetd.boards.guides.steps import Step
from fleetd.boards.shape import BoardProfile

IDE_MENU: Final = "Tools > Run Bootloader (Load Firmware), in newer versions Load Custom Firmware"
BACK_S: Final = 150  # a board may take half a minute to appear, then WiFi and broker
USB_S: Final = 90  # a cold start has taken 33 s on a bench
CATCH_S: Final = 120


def unplug(step_id: str, then: str, *, why: str = "") -> Step:
    """Everything off, long enough for the last capacitor."""
    return Step(
        id=step_id,
        kind="do",
        title="Unplug it",
        say=(
            "Unplug USB and every other supply, a battery too.",
            "Wait ten seconds.",
            *((why,) if why else ()),
        ),
        expect="No light at all.",
        if_not_say="It still has a supply: find it.",
        then=then,
        if_not=step_id,
        power="off",
    )


def plug_in(step_id: str, then: str) -> Step:
    """Power again, wherever the camera hangs."""
    return Step(
        id=step_id,
        kind="do",
        title="Plug it in again",
        say=("Plug the camera in again, as it is usually powered.",),
        expect="Within half a minute the LED comes on: cyan, then yellow, then blue (magenta without a model).",
        if_not_say="Go on all the same: the next step waits for the camera.",
        then=then,
        if_not=then,
        power="on",
    )


def wait_back(step_id: str, if_not: str, *, timeout_s: int = BACK_S) -> Step:
    """Only the camera's own word counts."""
    return Step(
        id=step_id,
        kind="back",
        title="Wait for the camera's own word",
        say=("The camera has to report to fleetd itself.",),
        expect="fleetd hears it, and it goes on reporting.",
        if_not_say="It did not report.",
        then="done",
        if_not=if_not,
        timeout_s=timeout_s,
    )


def enter_bootloader(board: BoardProfile, step_id: str, then: str, if_not: str) -> tuple[Step, ...]:
    """Into the resident bootloader: by plugging in, or by a double tap on RESET."""
    by_tap = board.recovery.enter == "double-tap"
    ready = Step(
        id=f"{step_id}-ready",
        kind="do",
        title="Have the camera at this computer",
        say=(
            ("Connect the camera to this computer by USB.",)
            if by_tap
            else (
                "Bring the camera to this computer. Take every supply off it, and have the USB cable in hand.",
                "Do not plug it in yet.",
            )
        ),
        expect="A USB cable that carries data, not only power.",
        if_not_say="Find one: many charging cables have no data lines.",
        then=step_id,
        if_not=step_id,
        power="on" if by_tap else "off",
    )
    window = (
        "NXP's bootloader is there for one second only; fleetctl takes hold of it."
        if board.recovery.tool == "nxp"
        else "The bootloader is there for about two seconds; dfu-util takes hold of it."
    )
    catch = Step(
        id=step_id,
        kind="usb",
        title="Catch the bootloader",
        say=(("Tap RESET twice, quickly.",) if by_tap else ("Plug the USB cable in NOW.", window)),
        expect="USB shows the bootloader.",
        if_not_say="The bootloader did not show: try another cable and port; then the bootloader itself may be gone.",
        then=then,
        if_not=if_not,
        usb=("bootloader", "interrupted"),
        timeout_s=CATCH_S,
        power="on",
    )
    return ready, catch


def bridge_words(board: BoardProfile) -> str:
    """What is bridged, or switched, e.g. "SBL to 3.3V"."""
    if board.recovery.bridge is not None:
        return " to ".join(board.recovery.bridge)
    return f"the {board.recovery.switch} switch" if board.recovery.switch else "nothing"


def bridge_in(board: BoardProfile, step_id: str, then: str) -> Step:
    """The bridge goes in while nothing has power."""
    return Step(
        id=step_id,
        kind="do",
        title=f"Bridge {bridge_words(board)}",
        say=(
            f"With the board unplugged, connect {bridge_words(board)} with a jumper wire.",
            "Count the pins twice: a wire on a wrong pin can destroy the board.",
        ),
        expect=f"A firm connection between {' and '.join(board.recovery.bridge or ())}, and to nothing else.",
        if_not_say="Do not go on before it is firm.",
        then=then,
        if_not=step_id,
        risk="A wire on a wrong pin can destroy the board.",
        has_drawing=True,
        bridge="in",
    )


def bridge_out(step_id: str, then: str) -> Step:
    """The bridge comes out while nothing has power."""
    return Step(
        id=step_id,
        kind="do",
        title="Take the bridge out",
        say=("The board is unplugged: now take the wire out.",),
        expect="No wire is left.",
        then=then,
        if_not=step_id,
        bridge="out",
    )


def ide_flash(board: BoardProfile, *, erase: bool) -> tuple[str, ...]:
    """The same with OpenMV IDE, through the bootloader that is there."""
    box = "Tick" if erase else "Leave off"
    return (
        f"Connect the camera and press Connect. If it connects: {IDE_MENU}.",
        f"{box} 'Erase internal file system'.",
        (
            "If Connect says 'No OpenMV Cams found': answer Yes to 'connected and bricked?', choose "
            f"{board.name}, answer the question about erasing with {'Yes' if erase else 'No'}."
        ),
        "At 'Disconnect your OpenMV Cam and then reconnect it' do just that, and wait until it says that it is done.",
    )


def ide_bridge(board: BoardProfile) -> tuple[str, ...]:
    """The same with OpenMV IDE, when the bootloader is gone."""
    if board.recovery.tool == "nxp":
        return (
            "Press Connect; at 'No OpenMV Cams found' answer Yes to 'connected and bricked?', choose the board.",
            "At 'Disconnect your OpenMV Cam and then reconnect it' press Cancel.",
            "At 'You can still try to repair ... using SBL Bootloader' press OK.",
            "Unplug, connect SBL to 3.3V, plug in, press OK. It writes everything.",
            "Unplug. Only then take the wire out. Plug in and wait for the blue blinking.",
        )
    return (
        f"Press Connect; at 'No OpenMV Cams found' answer Yes to 'connected and bricked?', choose {board.name}.",
        f"Follow what it says about the bootloader; where it asks for it, use {bridge_words(board)}.",
        "Unplug before you take anything out or switch it back.",
    )
