"""Where the golden messages are and which message each of them is."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from fleetd.protocol import messages

FOLDER = Path(__file__).parent / "golden"

# What a file's name begins with -> what fleetd reads it with.
FLEETD: dict[str, TypeAdapter[Any]] = {
    **messages.UP,
    **messages.DOWN,
    "daemon": messages.DAEMON_STATUS,
}
DOWN = ("desired", "ack", "fresh", "cmd", "daemon")


def name_of(path: Path) -> str:
    """`update-reverted.json` is an `update`; a bad one is named by its folder."""
    return path.parent.name if path.parent.parent.name == "bad" else path.stem.partition("-")[0]


def files(folder: str) -> list[Path]:
    """Every golden message below `golden/<folder>`."""
    return sorted(path for path in (FOLDER / folder).rglob("*") if path.is_file())


def bad_down() -> list[Path]:
    """Those that both sides must refuse."""
    return [path for path in files("bad") if name_of(path) in DOWN]


def each(paths: list[Path]) -> pytest.MarkDecorator:
    """One test for each, named like the file."""
    return pytest.mark.parametrize("path", paths, ids=[f"{path.parent.name}/{path.stem}" for path in paths])
