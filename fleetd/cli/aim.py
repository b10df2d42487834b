"""Whom a push would reach: the cameras a query names, their boards, and what they run now."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fleetd import boards
from fleetd.boards import BoardProfile
from fleetd.cli.errors import UNUSABLE, CliError
from fleetd.cli.session import Session
from fleetd.cli.text import safe


@dataclass(frozen=True, slots=True)
class Member:
    """One camera, as far as it has told about itself."""

    name: str
    board: BoardProfile | None
    arch: str | None  # omv.arch() as reported
    digest: str | None  # SHA-256 of the content it runs
    release: str | None
    slot_bytes: int | None  # room for a content

    @classmethod
    def of(cls, camera: Mapping[str, Any]) -> "Member":
        """The member that fleetd's answer about a camera describes."""
        running, storage = camera["release"] or {}, camera["storage"] or {}
        return cls(
            name=camera["name"],
            board=boards.find(camera["board"]) if camera["board"] else None,
            arch=camera["board"],
            digest=running.get("digest"),
            release=running.get("id"),
            slot_bytes=storage.get("slot_bytes"),
        )


@dataclass(frozen=True, slots=True)
class Aim:
    """The cameras of a push. `chosen` are the boards it is limited to, if it is."""

    members: tuple[Member, ...]
    chosen: tuple[BoardProfile, ...] = ()

    @property
    def boards(self) -> tuple[BoardProfile, ...]:
        """Every board that has to be able to run the model."""
        known = [one.board for one in self.members if one.board is not None]
        return tuple(dict.fromkeys((*self.chosen, *known))) or (boards.GENERIC,)

    @property
    def counts(self) -> Mapping[str, int]:
        """Cameras by board key."""
        return Counter(one.board.key for one in self.members if one.board is not None)

    @property
    def silent(self) -> int:
        """Cameras that have not said which board they are."""
        return sum(one.board is None for one in self.members)

    @property
    def prefixes(self) -> tuple[str, ...]:
        """What the manifest names as boards: beginnings of omv.arch()."""
        found = {board.arch for board in self.chosen}
        for one in self.members:  # a board without a profile is named by what its cameras report
            if one.board is not None and one.arch is not None:
                found.add(one.arch if one.board is boards.GENERIC else one.board.arch)
        return tuple(sorted(found)) or ("*",)

    def without(self, refused: Collection[BoardProfile]) -> "Aim":
        """The same without the cameras of these boards."""
        return Aim(
            members=tuple(one for one in self.members if one.board not in refused),
            chosen=tuple(board for board in self.chosen if board not in refused),
        )


def aim_at(session: Session, to: str, wanted: Sequence[str]) -> Aim:
    """The cameras a query names, on the wanted boards if any are named; CliError when there are none."""
    chosen = tuple(boards.named(name) for name in wanted)
    found: list[dict[str, Any]] = session.api.get("cameras", target=to)
    members = tuple(map(Member.of, found))
    if chosen:
        members = tuple(one for one in members if one.board is None or one.board in chosen)
    if not members:
        raise CliError(
            f"No camera matches {safe(to)}{' on these boards' if chosen else ''}.",
            "`fleetctl cameras list` shows them; docs/updates.md explains queries.",
            exit_code=UNUSABLE,
        )
    return Aim(members, chosen)
