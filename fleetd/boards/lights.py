"""What a light means on a board: the board's firmware first, then the agent's own states, then the plain colour.

    read(profile, "white", "cycle")[0].word      "panic"

People see colours better than patterns. So a colour alone has a meaning, too: green is the bootloader, blue is a
main.py that runs, white is a firmware panic. Where a second LED shows the power supply, a steady green is that one.
"""

import tomllib
from functools import cache
from importlib.resources import files
from typing import Final, Literal, NamedTuple

from fleetd.boards.shape import BoardProfile

Source = Literal["board", "agent", "colour"]


class Reading(NamedTuple):
    """One meaning: a word of `shape.FirmwareWord` or a state of the agent, and who says so."""

    word: str
    source: Source
    text: str


class AgentLight(NamedTuple):
    """One state of the agent and how it looks."""

    state: str
    color: str
    pattern: str
    text: str


_COLOURS: Final = {
    "green": Reading("bootloader", "colour", "Green is the bootloader."),
    "blue": Reading("main-running", "colour", "Blue is a main.py that runs."),
    "white": Reading("panic", "colour", "White is a firmware panic."),
    "off": Reading("dark", "colour", "Nothing is lit."),
}
# The same for colours whose pattern nobody told, among the agent's.
_FAMILIES: Final = {"red": "agent-trouble", "yellow": "no-connection", "magenta": "agent-working"}
_FAMILY_TEXT: Final = {
    "agent-trouble": "Red is the agent in trouble: no settings, no image sensor, or it failed.",
    "no-connection": "Yellow is the agent without network or broker.",
    "agent-working": "Magenta is the agent with an update, a trial, or without a usable model.",
}


@cache
def agent_lights() -> tuple[AgentLight, ...]:
    """The agent's states."""
    text = (files(__package__) / "agent_leds.toml").read_text(encoding="utf-8")
    return tuple(AgentLight(state, *row) for state, row in tomllib.loads(text).items())


def read(profile: BoardProfile, color: str, pattern: str) -> tuple[Reading, ...]:
    """What this light can mean on this board, most likely first; nothing for a colour that nobody uses."""
    if "off" in (color, pattern):
        color, pattern = "off", "off"
    found = [
        Reading(light.means, "board", light.text)
        for light in profile.leds
        if (light.color, light.pattern) == (color, pattern)
    ]
    if pattern == "cycle":
        found.append(Reading("panic", "colour", "Cycling colours are a firmware panic."))
    found += [
        Reading("main-running" if one.state == "running" else one.state, "agent", one.text)
        for one in agent_lights()
        if (one.color, one.pattern) == (color, pattern)
    ]
    is_identify = any(one.word == "identify" for one in found)
    if color in _COLOURS and not is_identify:
        found.append(_COLOURS[color])
    elif color in _FAMILIES and not found:
        word = _FAMILIES[color]
        found.append(Reading(word, "colour", _FAMILY_TEXT[word]))
    elif color == "cyan" and not found:
        found.append(Reading("starting", "colour", "Cyan is the agent that starts."))
    once: dict[str, Reading] = {}
    for one in found:
        once.setdefault(one.word, one)
    return tuple(once.values())


def usual_looks(profile: BoardProfile) -> list[tuple[str, str, str]]:
    """What to offer somebody who looks at the board: colour, pattern, and what it would mean."""
    rows: list[tuple[str, str, str]] = [(one.color, one.pattern, one.text) for one in profile.leds]
    rows += [(one.color, one.pattern, one.text) for one in agent_lights() if one.state != "stopped"]
    if not any(color == "off" for color, _, _ in rows):
        rows.append(("off", "off", "No power, or nothing runs."))
    if not any(color == "white" and pattern == "blink-fast" for color, pattern, _ in rows):
        rows.append(("white", "blink-fast", "A firmware panic."))
    return list(dict.fromkeys(rows))
