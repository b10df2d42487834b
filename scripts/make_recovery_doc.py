"""Writes the generated parts of docs/recovery.md and the drawings: `python scripts/make_recovery_doc.py`."""

import re
from collections.abc import Iterable
from pathlib import Path

from fleetd.boards import profiles
from fleetd.boards.guides import Step, guide_for
from fleetd.boards.guides.drawing import svg
from fleetd.boards.lights import agent_lights
from fleetd.boards.shape import BoardProfile
from fleetd.domain.diagnosis_causes import CAUSES

DOCS = Path(__file__).resolve().parents[1] / "docs"
BLOCK = re.compile(r"(<!-- made of (\w+): do not edit -->\n)(.*?)(<!-- end -->)", re.DOTALL)
RUNGS = (
    ("erase", "Erase the storage"),
    ("reflash", "Write the firmware"),
    ("jumper", "Bring the bootloader back"),
)


def leds() -> str:
    """One table of what every light means, boards with the same meaning together."""
    rows: dict[tuple[str, str, str, str, bool], list[str]] = {}
    for board in profiles():
        for light in board.leds:
            times = "/".join(map(str, light.times_ms)) + " ms" if light.times_ms else "-"
            rows.setdefault((light.color, light.pattern, times, light.text, light.certain), []).append(
                board.name
            )
    lines = ["| colour | pattern | on/off | boards | meaning |", "|---|---|---|---|---|"]
    for (color, pattern, times, text, certain), names in sorted(rows.items()):
        who = (
            "all"
            if len(names) == len(profiles())
            else ", ".join(name.removeprefix("OpenMV ") for name in names)
        )
        lines.append(
            f"| {color} | {pattern} | {times} | {who} | {text}{'' if certain else ' *(not certain)*'} |"
        )
    lines += [
        f"| {one.color} | {one.pattern} | - | all, from the agent | `{one.state}`: {one.text} |"
        for one in agent_lights()
        if one.state != "stopped"
    ]
    return "\n".join(lines) + "\n"


def usb() -> str:
    """Which USB id means what."""
    lines = ["| board | running | bootloader | ROM |", "|---|---|---|---|"]
    for board in profiles():
        cells = [
            ", ".join(one.id for one in board.usb if one.mode == mode) or "-"
            for mode in ("running", "bootloader", "rom")
        ]
        lines.append(f"| {board.name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def causes() -> str:
    """What the diagnosis can say."""
    lines = ["| cause | meaning | what to do first |", "|---|---|---|"]
    lines += [f"| `{cause.key}` | {cause.title} | {cause.todo} |" for cause in CAUSES.values()]
    return "\n".join(lines) + "\n"


def boards() -> str:
    """Each board's way back, with its commands and its drawing."""
    return "\n".join(_board(board) for board in profiles())


def _board(board: BoardProfile) -> str:
    recovery = board.recovery
    lines = [f"### {board.name}", ""]
    if recovery.bridge is not None:
        lines.append(f"Bridge, with everything unplugged: **{recovery.bridge[0]} to {recovery.bridge[1]}**.")
    elif recovery.switch is not None:
        lines.append(f"Switch, with everything unplugged: **{recovery.switch}**.")
    else:
        lines.append("Nothing to bridge: a double tap on RESET enters the bootloader.")
    lines += [f"{note}" for note in recovery.notes]
    if svg(board) is not None:
        lines += ["", f"![{board.name}](drawings/{board.key}.svg)"]
    for rung, title in RUNGS:
        low, high = guide_for(board, rung).minutes
        lines += ["", f"**{title}** ({low} to {high} minutes)", ""]
        commands = _commands(guide_for(board, rung).steps)
        if commands:
            lines += ["```", *commands, "```"]
        elif rung == "jumper" and recovery.bridge is None and recovery.switch is None:
            lines.append("Not possible with OpenMV's tools.")
        else:
            lines.append("With OpenMV IDE:")
        ide = _ide(guide_for(board, rung).steps)
        if ide and not (rung == "jumper" and recovery.bridge is None and recovery.switch is None):
            lines += ["", *(["OpenMV IDE instead:", ""] if commands else []), *(f"1. {line}" for line in ide)]
    return "\n".join(lines) + "\n"


def _commands(steps: Iterable[Step]) -> list[str]:
    """Those of the first step that has any."""
    return next(([one.line() for one in step.commands] for step in steps if step.commands), [])


def _ide(steps: Iterable[Step]) -> tuple[str, ...]:
    return next((step.ide for step in steps if step.ide), ())


PARTS = {"leds": leds, "usb": usb, "causes": causes, "boards": boards}


def rendered(text: str) -> str:
    """The document with its generated parts anew."""
    return BLOCK.sub(lambda found: f"{found[1]}\n{PARTS[found[2]]()}\n{found[4]}", text)


def drawings() -> dict[str, str]:
    """File names and contents."""
    found = {f"{board.key}.svg": svg(board) for board in profiles()}
    return {name: text for name, text in found.items() if text is not None}


def main() -> None:
    path = DOCS / "recovery.md"
    path.write_text(rendered(path.read_text(encoding="utf-8")), encoding="utf-8")
    folder = DOCS / "drawings"
    folder.mkdir(exist_ok=True)
    for name, text in drawings().items():
        (folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
