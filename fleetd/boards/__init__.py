"""Board profiles: what fleetd knows of each camera board, one TOML file per board under `profiles/`.

find("OMVRT1060 32768 SDRAM")    the profile for what a camera reports as omv.arch(); GENERIC when unknown
named("RT1062")                  the profile for what a person typed
operators()                      what TensorFlow Lite Micro can run on these boards
"""

import tomllib
from collections.abc import Iterable
from functools import cache
from importlib.resources import files
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from fleetd.errors import NotFoundError

Format = Literal["tflite", "vela", "stedgeai"]


class UnknownBoardError(NotFoundError):
    """There is no such board."""

    code = "unknown_board"


class _Data(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Memory(_Data):
    """What a board has to work with, in bytes. An allocation must fit in one block of the heap."""

    heap_blocks: tuple[int, ...] = Field(min_length=1)
    image_pool: int = Field(ge=0)
    sdram: int = Field(default=0, ge=0)

    @property
    def largest_block(self) -> int:
        """The largest object that MicroPython's heap can hold."""
        return max(self.heap_blocks)


class Slot(_Data):
    """Room for one release on a storage backend: as the agent makes it, and the most a setting can make it."""

    backend: Literal["flash", "sdcard"]
    bytes: int = Field(gt=0)
    most: int | None = None


class BoardProfile(_Data):
    """One board. `arch` is what omv.arch() starts with. Without memory and slots nothing is known of them."""

    key: str
    name: str
    aliases: tuple[str, ...] = ()
    arch: str = Field(min_length=1)
    model_formats: tuple[Format, ...]
    memory: Memory | None = None
    slots: tuple[Slot, ...] = ()


class Operators(_Data):
    """Names of operators that the firmware's interpreter was built with."""

    builtin: frozenset[str]
    custom: frozenset[str]


GENERIC: Final = BoardProfile(key="generic", name="any OpenMV camera", arch="*", model_formats=("tflite",))


@cache
def profiles() -> tuple[BoardProfile, ...]:
    """Every profile, by key."""
    folder = files(__package__) / "profiles"
    found = (entry for entry in folder.iterdir() if entry.name.endswith(".toml"))
    return tuple(
        BoardProfile.model_validate(
            {"key": entry.name.removesuffix(".toml"), **tomllib.loads(entry.read_text(encoding="utf-8"))}
        )
        for entry in sorted(found, key=lambda entry: entry.name)
    )


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
