"""The ladder: power cycle, erase the storage only, write the firmware, bridge and write everything.

Each rung ends at the camera's own word, or leads to the next one. Boards differ in the tool, in the way into the
bootloader and in what is bridged; a board whose commands are not known gets OpenMV IDE's steps.
"""

from typing import Final

from fleetd.boards.guides import hands, tools
from fleetd.boards.guides.steps import Step
from fleetd.boards.shape import BoardProfile

RUNGS: Final = ("power", "erase", "reflash", "jumper")
MINUTES: Final = {"power": (2, 5), "erase": (5, 15), "reflash": (10, 30), "jumper": (20, 45)}
_LOSES: Final = (
    "The drive's content is erased: programs, settings, models on it. fleetd gives the identity back."
)
_CUT: Final = "Do not unplug while it writes: the firmware would be incomplete, and has to be written again."


def from_rung(board: BoardProfile, rung: str) -> tuple[Step, ...]:
    """The steps from a rung on, with everything that they may lead to."""
    rungs = [name for name in RUNGS[RUNGS.index(rung) :] if name != "jumper" or _has_way_back(board)]
    steps: list[Step] = []
    for at, name in enumerate(rungs):
        further = _entry(rungs[at + 1]) if at + 1 < len(rungs) else "given-up"
        steps += _BUILD[name](board, further)
    if any(name != "power" for name in rungs):
        steps += _home(_entry(_next_firmware_rung(rungs)))
    steps += _ends(board)
    once = {step.id: step for step in steps}
    return tuple(once.values())


def _has_way_back(board: BoardProfile) -> bool:
    return board.recovery.bridge is not None or board.recovery.switch is not None


def _entry(rung: str) -> str:
    return {
        "power": "unplug",
        "erase": "erase-ready",
        "reflash": "reflash-ready",
        "jumper": "bridge-unplug",
    }.get(rung, rung)


def _next_firmware_rung(rungs: list[str]) -> str:
    return next((name for name in rungs if name in ("reflash", "jumper")), "given-up")


def _power(_board: BoardProfile, further: str) -> list[Step]:
    return [
        hands.unplug("unplug", "plug-in"),
        hands.plug_in("plug-in", "back-after-power"),
        hands.wait_back("back-after-power", further),
    ]


def _erase(board: BoardProfile, further: str) -> list[Step]:
    if board.recovery.tool == "ide" or "erase" in board.recovery.ide_only:
        return [_ide_step(board, "erase", "Erase the storage with OpenMV IDE", further, risk=_LOSES)]
    missing = (
        "bridge-unplug" if _has_way_back(board) else further
    )  # no bootloader: writing firmware needs it, too
    return [
        *hands.enter_bootloader(board, "erase", "erase-run", missing),
        Step(
            id="erase-run",
            kind="run",
            title="Erase the storage",
            say=("Makes the storage unreadable; at its next start the firmware formats it.",),
            expect="The command ends without an error.",
            if_not_say="The command failed.",
            then="running",
            if_not=further,
            commands=tools.erase(board),
            ide=hands.ide_flash(board, erase=True),
            risk=_LOSES,
        ),
    ]


def _reflash(board: BoardProfile, further: str, name: str = "reflash") -> list[Step]:
    if board.recovery.tool == "ide" or "reflash" in board.recovery.ide_only:
        return [
            _ide_step(
                board, "reflash", "Write the firmware with OpenMV IDE", further, risk=f"{_CUT} {_LOSES}"
            )
        ]
    return [
        *hands.enter_bootloader(board, name, f"{name}-run", further),
        Step(
            id=f"{name}-run",
            kind="run",
            title="Write the firmware",
            say=("Writes firmware and read-only files, and erases the storage.",),
            expect="Every command ends without an error.",
            if_not_say="A command failed.",
            then="running",
            if_not=further,
            commands=tools.reflash(board),
            ide=hands.ide_flash(board, erase=True),
            risk=f"{_CUT} {_LOSES}",
        ),
    ]


def _jumper(board: BoardProfile, further: str) -> list[Step]:
    if (
        board.recovery.switch is not None
        or "jumper" in board.recovery.ide_only
        or board.recovery.tool == "ide"
    ):
        return [
            hands.unplug("bridge-unplug", "bridge-ide"),
            _ide_step(
                board,
                "bridge-ide",
                "Bring the bootloader back with OpenMV IDE",
                further,
                ide=hands.ide_bridge(board),
                risk=" ".join((_LOSES, *board.recovery.notes)),
                has_drawing=True,
            ),
        ]
    is_nxp = board.recovery.tool == "nxp"
    return [
        hands.unplug("bridge-unplug", "bridge-in", why="The bridge goes in while nothing has power."),
        hands.bridge_in(board, "bridge-in", "bridge-plug"),
        Step(
            id="bridge-plug",
            kind="usb",
            title="Plug USB in, with the bridge in place",
            say=("Plug the USB cable into this computer.",),
            expect="No LED blinks. USB shows the processor's own ROM"
            + (f" ({board.usb_id('rom')})." if board.usb_id("rom") else "."),
            if_not_say="The ROM does not show: wire on the wrong pins, a loose wire, or a cable without data lines.",
            then="bridge-run",
            if_not="bridge-again",
            usb=("rom",),
            timeout_s=60,
            power="on",
        ),
        Step(
            id="bridge-again",
            kind="ask",
            title="Try again?",
            say=("Look at wire, pins and cable once more.",),
            choices=(
                ("again", "unplug and try again", "bridge-unplug"),
                ("give-up", "stop here", "bridge-out-first"),
            ),
        ),
        Step(
            id="bridge-run",
            kind="run",
            title="Write bootloader and firmware" if is_nxp else "Write the bootloader",
            say=("The fuse that the factory has burned is not touched.",) if is_nxp else (),
            expect="Every command ends without an error." if is_nxp else "dfu-util has written the file.",
            if_not_say="A command failed.",
            then="bridge-off",
            if_not="bridge-again",
            commands=tools.bring_back(board),
            ide=hands.ide_bridge(board),
            risk=f"{_CUT} {_LOSES}",
        ),
        hands.unplug("bridge-off", "bridge-out", why="Never take the bridge out while the board has power."),
        hands.bridge_out("bridge-out", "plug-usb" if is_nxp else "firmware-ready"),
        *(() if is_nxp else _reflash(board, "given-up", "firmware")),
        hands.unplug("bridge-out-first", "bridge-out-last", why="Never take the bridge out under power."),
        hands.bridge_out("bridge-out-last", further),
        Step(
            id="plug-usb",
            kind="usb",
            title="Plug USB in again",
            say=("Plug the USB cable into this computer. The first start may take half a minute.",),
            expect="USB shows running firmware; the LED double-blinks blue.",
            if_not_say="The firmware does not start.",
            then="provision",
            if_not="given-up",
            usb=("running",),
            timeout_s=hands.USB_S,
            power="on",
        ),
    ]


def _home(further: str) -> list[Step]:
    """From running firmware with an empty drive to a camera that reports."""
    return [
        Step(
            id="running",
            kind="usb",
            title="Wait for the firmware",
            say=("The board restarts by itself; if it does not, unplug it and plug it in again.",),
            expect="USB shows running firmware; the LED double-blinks blue, because the drive is empty.",
            if_not_say="The firmware does not start.",
            then="provision",
            if_not=further,
            usb=("running",),
            timeout_s=hands.USB_S,
        ),
        Step(
            id="provision",
            kind="provision",
            title="Give it its agent and its identity back",
            say=("Agent, settings and a new credential go onto the camera's drive, under its old name.",),
            expect="The drive is written; eject it, unplug the camera and plug it in again.",
            if_not_say="The drive did not appear or could not be written.",
            then="back",
            if_not=further,
        ),
        hands.wait_back("back", "light-now"),
        Step(
            id="light-now",
            kind="ask",
            title="What does the LED show now?",
            choices=(
                ("yellow", "yellow blinking: no network or no broker", "check-network"),
                ("red", "red blinking: settings or sensor", "check-network"),
                ("other", "something else, or nothing", further),
            ),
        ),
        Step(
            id="check-network",
            kind="do",
            title="Look at the network",
            say=(
                "Double yellow: no WiFi. Check name, password, country and distance to the access point.",
                "Single yellow: no broker. Check its address, that it is up, and the camera's credential.",
                "Red: docs/cameras.md says what each pattern means.",
            ),
            expect="Blue.",
            then="back-at-last",
            if_not="back-at-last",
        ),
        hands.wait_back("back-at-last", "given-up", timeout_s=600),
    ]


def _ends(board: BoardProfile) -> list[Step]:
    return [
        Step(id="done", kind="done", title="It is back", say=("The camera reports again.",)),
        Step(
            id="given-up",
            kind="stop",
            title="Nothing more can be done from here",
            say=(
                "This guide has no further step: the board may be defective.",
                *board.recovery.notes,
                (
                    f"Ask in OpenMV's forum with what was seen, and have a spare {board.name} take its place: "
                    "`fleetctl provision DRIVE --camera NAME --rotate` gives the spare the same name."
                ),
            ),
        ),
    ]


def _ide_step(
    board: BoardProfile,
    step_id: str,
    title: str,
    further: str,
    *,
    risk: str,
    ide: tuple[str, ...] | None = None,
    has_drawing: bool = False,
) -> Step:
    return Step(
        id=f"{step_id}-ready" if step_id in ("erase", "reflash") else step_id,
        kind="do",
        title=title,
        say=ide or hands.ide_flash(board, erase=True),
        expect="OpenMV IDE says that it is done; the LED double-blinks blue.",
        if_not_say="OpenMV IDE gave up.",
        then="running",
        if_not=further,
        ide=ide or hands.ide_flash(board, erase=True),
        risk=risk,
        has_drawing=has_drawing,
        power="on",
    )


_BUILD: Final = {"power": _power, "erase": _erase, "reflash": _reflash, "jumper": _jumper}
