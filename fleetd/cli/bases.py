"""What cameras run now, as bases for patches. Nothing here can stop a push: full encodings always work."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from fleetd.cli.aim import Member
from fleetd.cli.errors import CliError
from fleetd.cli.session import Session
from fleetd.cli.text import counted, safe
from fleetd.protocol import limits

BASES: Final = 4  # a patch on each costs time here, memory at the broker and room in the manifest


@dataclass(frozen=True, slots=True)
class Group:
    """Cameras that run the same content; `digest` is None for those that run none, or have not said."""

    digest: str | None
    release: str | None  # what most of them call it
    cameras: int


def grouped(members: Iterable[Member]) -> list[Group]:
    """The cameras by what they run, the most common first, those without anything last."""
    names: dict[str | None, Counter[str | None]] = defaultdict(Counter)
    for one in members:
        names[one.digest][one.release] += 1
    groups = [Group(digest, called.most_common(1)[0][0], called.total()) for digest, called in names.items()]
    return sorted(groups, key=lambda group: (group.digest is None, -group.cameras, group.digest or ""))


def fetch(session: Session, groups: Sequence[Group]) -> list[bytes]:
    """The most common contents. One that cannot be had, or is not what the cameras run, costs a warning."""
    known = [group for group in groups if group.digest is not None and group.release is not None]
    found = []
    for group in known[:BASES]:
        try:
            found.append(_content(session, group))
        except CliError as error:
            session.out.warn(
                f"No patch for {counted(group.cameras, 'camera')} with {safe(group.release)}: {error.message}"
            )
    return found


def _content(session: Session, group: Group) -> bytes:
    """What these cameras run, checked here: neither fleetd nor a camera is taken at its word."""
    content = session.api.download("releases", str(group.release), "content", limit=limits.CONTENT_BYTES)
    if hashlib.sha256(content).hexdigest() != group.digest:
        raise CliError("what fleetd has under that name is not what they run.")
    return content
