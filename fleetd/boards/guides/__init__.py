"""Guides: how a person brings a camera back, step by step, for each board and each family of causes.

    guide = guide_for(profile, "ladder")      families: see FAMILIES; a cause names its family
    guide.first.title                          "Unplug it"
    guide.first.following("ok")                "plug-in"

Nothing here does anything: `fleetctl recover` and people do. No guide burns a fuse, none has anybody change the
bridge while the board has power.
"""

from functools import cache
from typing import Final

from fleetd.boards.guides import hands, ladder
from fleetd.boards.guides.steps import Command, Guide, Kind, Step
from fleetd.boards.shape import BoardProfile
from fleetd.errors import NotFoundError

__all__ = ["FAMILIES", "Command", "Guide", "Kind", "Step", "UnknownGuideError", "guide_for"]


class UnknownGuideError(NotFoundError):
    """There is no such guide."""

    code = "unknown_guide"


_TITLES: Final = {
    "none": "Nothing to do",
    "wait": "Wait",
    "power": "Bring power back",
    "supply": "Mend the power supply",
    "ladder": "From a power cycle to new firmware",
    "erase": "Erase the storage",
    "reflash": "Write the firmware",
    "jumper": "Bring the bootloader back",
    "provision": "Give it its identity back",
    "network": "Bring the network back",
    "sensor": "Look at the image sensor",
    "model": "Give it a model",
    "identity": "Part two cameras with one name",
    "look": "Find out more",
}
FAMILIES: Final = tuple(_TITLES)


@cache
def guide_for(board: BoardProfile, family: str) -> Guide:
    """The guide of that family for that board; UnknownGuideError when there is no such family."""
    if family not in _TITLES:
        raise UnknownGuideError(f"There is no guide {family!r}. Known: {', '.join(FAMILIES)}.", guide=family)
    steps, minutes = _build(board, family)
    steps = _reachable(steps)
    return Guide(board=board.key, key=family, title=_TITLES[family], minutes=minutes, steps=steps)


def _build(board: BoardProfile, family: str) -> tuple[tuple[Step, ...], tuple[int, int]]:
    if family in ("ladder", "look"):
        return _after(_opening(family), ladder.from_rung(board, "power")), (2, 45)
    if family in ("erase", "reflash"):
        return ladder.from_rung(board, family), ladder.MINUTES[family]
    if family == "jumper":
        return _jumper(board), ladder.MINUTES["jumper"]
    if family == "provision":
        rest = ladder.from_rung(board, "erase")
        return _after((_connect("provision", "erase-ready"),), rest), (3, 10)
    if family in ("none", "model"):
        return _after(_opening(family), ladder.from_rung(board, "power")), (1, 5)
    return _after(_opening(family), ladder.from_rung(board, "power")), (2, 45)


def _reachable(steps: tuple[Step, ...]) -> tuple[Step, ...]:
    """Only the steps that the first one can lead to, each once."""
    known = {step.id: step for step in steps}
    found: set[str] = set()
    todo = [steps[0].id]
    while todo:
        step_id = todo.pop()
        if step_id not in found:
            found.add(step_id)
            step = known[step_id]
            todo += [
                target for target in (step.then, step.if_not, *(one[2] for one in step.choices)) if target
            ]
    return tuple(step for step_id, step in known.items() if step_id in found)


def _after(opening: tuple[Step, ...], rest: tuple[Step, ...]) -> tuple[Step, ...]:
    return (*opening, *rest)


def _connect(then: str, if_not: str) -> Step:
    return Step(
        id="connect",
        kind="usb",
        title="Connect it to this computer",
        say=("Connect the camera to this computer by USB.",),
        expect="USB shows running firmware, and its drive appears.",
        if_not_say="It does not show as running.",
        then=then,
        if_not=if_not,
        usb=("running",),
        timeout_s=hands.USB_S,
        power="on",
    )


def _jumper(board: BoardProfile) -> tuple[Step, ...]:
    """Begins with the simplest reason for a board in its ROM: a bridge that somebody has left in."""
    if board.recovery.bridge is None or "jumper" in board.recovery.ide_only:
        rung = "jumper" if board.recovery.switch or board.recovery.bridge else "reflash"
        return ladder.from_rung(board, rung)
    rest = ladder.from_rung(board, "jumper")
    home = [step for step in ladder.from_rung(board, "reflash") if step.id in ("back", "light-now")]
    return (
        Step(
            id="bridge-there",
            kind="ask",
            title="Is a bridge in?",
            say=(
                f"Look whether {hands.bridge_words(board)} are connected: then the board starts its ROM on purpose.",
            ),
            choices=(
                ("yes", "there is a wire", "left-in-off"),
                ("no", "there is none", "bridge-unplug"),
            ),
            has_drawing=True,
        ),
        hands.unplug(
            "left-in-off", "left-in-out", why="Never take the bridge out while the board has power."
        ),
        hands.bridge_out("left-in-out", "left-in-plug"),
        hands.plug_in("left-in-plug", "back-after-bridge"),
        hands.wait_back("back-after-bridge", "bridge-unplug"),
        *rest,
        *(step for step in home if step.id not in {one.id for one in rest}),
    )


def _do(step_id: str, title: str, *say: str, then: str, expect: str = "") -> Step:
    return Step(id=step_id, kind="do", title=title, say=say, expect=expect, then=then, if_not=then)


def _opening(family: str) -> tuple[Step, ...]:
    """What comes before the ladder."""
    wait = hands.wait_back
    return {
        "ladder": (),
        "look": (
            _do(
                "look-closer",
                "Connect it and look at it",
                "What is known says no more than that it is silent.",
                "If you can, connect it to this computer by USB; note what its light does: "
                "`fleetctl led report CAMERA COLOUR --pattern PATTERN`.",
                "Then run this again: with a light or a USB state the answer gets much better. Or go on with a "
                "power cycle, which helps most often.",
                then="unplug",
            ),
        ),
        "none": (wait("still-there", "unplug"),),
        "wait": (wait("wait", "unplug", timeout_s=600),),
        "model": (
            _do(
                "push",
                "Push a model",
                "The camera runs and waits for a model: `fleetctl push-model BUNDLE --to id=CAMERA`.",
                "`fleetctl cameras show CAMERA` says what is wrong with the one that it has.",
                then="back-first",
                expect="Blue, once the model runs.",
            ),
            wait("back-first", "unplug"),
        ),
        "power": (
            _do(
                "check-supply",
                "Check the supply",
                "Is the socket live, the switch on, the cable in? Try another cable and another supply.",
                then="back-first",
                expect="A light within a second.",
            ),
            wait("back-first", "unplug"),
        ),
        "supply": (
            _do(
                "better-supply",
                "Use a better supply",
                "It restarts because its voltage drops: a supply with more current, a shorter and thicker cable, "
                "a charged battery.",
                then="back-first",
            ),
            wait("back-first", "unplug"),
        ),
        "network": (
            _do(
                "look-at-network",
                "Look at the network",
                "Are other cameras at the same access point or switch online? If not, it is the network.",
                "Double yellow: no WiFi; name, password, country, distance. Single yellow: no broker; its address, "
                "and the camera's credential.",
                then="back-first",
                expect="Blue.",
            ),
            wait("back-first", "unplug", timeout_s=600),
        ),
        "sensor": (
            _do(
                "look-at-sensor",
                "Look at the sensor module",
                "Is something in front of the lens? Is the scene really still?",
                "Then cut the power, press the sensor module into its connector, and give it power again.",
                then="back-first",
                expect="Blue; pictures that change.",
            ),
            wait("back-first", "unplug"),
        ),
        "identity": (
            _do(
                "find-twin",
                "Find the second device",
                "Two devices use this name in turns. `fleetctl commands send CAMERA identify` makes one of them "
                "blink white.",
                "Give the other one a name of its own: `fleetctl provision DRIVE --camera OTHER --replace`; then "
                "`fleetctl provision DRIVE --rotate` for the right one.",
                then="back-first",
            ),
            wait("back-first", "unplug"),
        ),
    }[family]
