"""What could make a camera hard to bring back, known before anything is sent to it. Pure."""

from collections.abc import Collection
from typing import Final, NamedTuple

from fleetd.boards.shape import BoardProfile


class Risk(NamedTuple):
    """One risk: what could happen, and what an operator can do about it beforehand."""

    key: str
    title: str
    todo: str


RISKS: Final = {
    risk.key: risk
    for risk in (
        Risk(
            "no-watchdog",
            "without a watchdog: a hang lasts until somebody cuts the power",
            "Set watchdog_s, if the board has one; else push when somebody can get there.",
        ),
        Risk(
            "no-way-back",
            "whose bootloader OpenMV's tools cannot bring back",
            "Try it on one of them within reach first: --canaries 1.",
        ),
        Risk(
            "board-not-known",
            "of a board that fleetd does not know: no guide with commands for it",
            "Try it on one of them within reach first; docs/boards.md describes how to add a board.",
        ),
        Risk(
            "one-erase-block",
            "whose drive is one erase block and has no SD card: a power cut while it is written can lose all of it",
            "Put an SD card in.",
        ),
        Risk(
            "has-incident",
            "with an open incident",
            "Look at it first: fleetctl incidents ls.",
        ),
    )
}


def risks(
    board: BoardProfile, *, capabilities: Collection[str], backend: str | None, has_incident: bool
) -> list[Risk]:
    """The risks of one camera. `capabilities` and `backend` (of its storage) are what it last reported."""
    found = []
    if capabilities and "watchdog" not in capabilities:
        found.append("no-watchdog")
    if board.firmware is None:
        found.append("board-not-known")
    elif board.recovery.bridge is None and board.recovery.switch is None:
        found.append("no-way-back")
    only_cards = bool(board.slots) and all(slot.backend == "sdcard" for slot in board.slots)
    if only_cards and backend is not None and backend != "sdcard":
        found.append("one-erase-block")
    if has_incident:
        found.append("has-incident")
    return [RISKS[key] for key in found]
