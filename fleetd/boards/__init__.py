"""Board profiles: what fleetd knows of each camera board, one TOML file per board under `profiles/`.

find("OMVRT1060 32768 SDRAM")    the profile for what a camera reports as omv.arch(); GENERIC when unknown
named("RT1062")                  the profile for what a person typed
operators()                      what TensorFlow Lite Micro can run on these boards
read_profile("rt1062", text)     one profile, checked; ProfileError names the field and what is wrong with it
"""

import tomllib
from collections.abc import Iterable
from functools import cache
from importlib.resources import files
from typing import Final

from pydantic import ValidationError

from fleetd.boards.shape import BoardProfile as BoardProfile
from fleetd.boards.shape import Data, Light
from fleetd.errors import InvalidError, NotFoundError


class UnknownBoardError(NotFoundError):
    """There is no such board."""

    code = "unknown_board"


class ProfileError(InvalidError):
    """A board profile cannot be used."""

    code = "board_profile"


class Operators(Data):
    """Names of operators that the firmware's interpreter was built with."""

    builtin: frozenset[str]
    custom: frozenset[str]


# What every OpenMV firmware does, for boards that nobody has described yet.
GENERIC: Final = BoardProfile(
    key="generic",
    name="any OpenMV camera",
    arch="*",
    model_formats=("tflite",),
    leds=(
        Light(
            color="green",
            pattern="blink-fast",
            means="bootloader",
            text="The bootloader waits for a host, for about two seconds after a reset.",
            times_ms=(100, 100),
        ),
        Light(
            color="blue",
            pattern="double-blink",
            means="default-main",
            text="OpenMV's own main.py: the firmware is fine, but the storage was formatted.",
            times_ms=(150, 100, 150, 600),
        ),
    ),
)


@cache
def profiles() -> tuple[BoardProfile, ...]:
    """Every profile, by key."""
    folder = files(__package__) / "profiles"
    found = (entry for entry in folder.iterdir() if entry.name.endswith(".toml"))
    return tuple(
        read_profile(entry.name.removesuffix(".toml"), entry.read_text(encoding="utf-8"))
        for entry in sorted(found, key=lambda entry: entry.name)
    )


def read_profile(key: str, text: str) -> BoardProfile:
    """The profile that a TOML text describes; ProfileError says which field is wrong, and how."""
    try:
        return BoardProfile.model_validate({"key": key, **tomllib.loads(text)})
    except tomllib.TOMLDecodeError as error:
        raise ProfileError(f"The board profile {key}.toml is no TOML: {error}.", board=key) from error
    except ValidationError as error:
        lines = []
        for one in error.errors(include_url=False, include_input=False):
            where = ".".join(str(part) for part in one["loc"])
            what = "no such field" if one["type"] == "extra_forbidden" else one["msg"]
            lines.append(f"{where + ': ' if where else ''}{what.removeprefix('Value error, ')}")
        raise ProfileError(
            f"The board profile {key}.toml cannot be used. {'; '.join(lines)}. docs/boards.md explains the fields.",
            board=key,
        ) from error


@cache
def operators() -> Operators:
    """The operators of TensorFlow Lite Micro as OpenMV builds it."""
    return Operators.model_validate(
        tomllib.loads((files(__package__) / "operators.toml").read_text(encoding="utf-8"))
    )


def find(arch: str) -> BoardProfile:
    """The profile for a reported omv.arch(); GENERIC when the board is not known."""
    for profile in profiles():
        if arch.startswith(profile.arch):
            return profile
    return GENERIC


def covered(boards: Iterable[str]) -> tuple[BoardProfile, ...]:
    """The profiles that a manifest's `boards` (prefixes of omv.arch(), or "*") let in.

    A prefix that no profile knows, and "*", stand for GENERIC: each camera is judged by its own board later.
    """
    chosen: dict[str, BoardProfile] = {}
    for board in boards:
        known = [p for p in profiles() if p.arch.startswith(board) or board.startswith(p.arch)]
        chosen |= {profile.key: profile for profile in known or [GENERIC]}
    return tuple(chosen.values())


def named(text: str) -> BoardProfile:
    """The profile a person means: by key, name, alias or arch; case, spaces and dashes do not matter."""
    wanted = _plain(text)
    for profile in profiles():
        if wanted in {_plain(word) for word in (profile.key, profile.name, profile.arch, *profile.aliases)}:
            return profile
    known = ", ".join(profile.key for profile in profiles())
    raise UnknownBoardError(f"No board is called {text!r}. Known boards: {known}.", board=text)


def _plain(text: str) -> str:
    return "".join(char for char in text.lower() if char.isalnum())
