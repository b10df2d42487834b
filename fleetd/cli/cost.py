"""What a push costs on the radio: bytes and seconds, by what the cameras run now."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from fleetd.bundles.encodings import Encoded
from fleetd.bundles.release import Draft
from fleetd.cli.aim import Aim, Member
from fleetd.cli.bases import Group, grouped
from fleetd.cli.output import Output
from fleetd.cli.text import counted, safe, size

DIGEST_BYTES = 32
DIGEST_CHARS = 12  # of a digest, to tell contents apart


@dataclass(frozen=True, slots=True)
class Share:
    """What each camera of a group fetches: an encoding, its index and the manifest."""

    group: Group
    takes: Literal["patch", "deflate"]
    bytes: int

    def seconds(self, link_kbit: int) -> float:
        """How long that takes on a link of so many kbit/s."""
        return self.bytes * 8 / (link_kbit * 1000)


@dataclass(frozen=True, slots=True)
class Cost:
    """Bytes on the air. `unable` are cameras that cannot take the release, each with the reason."""

    full_bytes: int  # for one camera that takes the full encoding
    shares: tuple[Share, ...]
    unable: tuple[tuple[str, str], ...]

    @property
    def cameras(self) -> int:
        """How many take it."""
        return sum(share.group.cameras for share in self.shares)

    @property
    def total(self) -> int:
        """Bytes for all of them together."""
        return sum(share.group.cameras * share.bytes for share in self.shares)


def cost_of(draft: Draft, aim: Aim, unable: Sequence[tuple[str, str]] = ()) -> Cost:
    """What the draft costs these cameras; `unable` are others, of which it is known that they cannot take it."""
    small = {one.name: _too_small(one, len(draft.content)) for one in aim.members}
    able = [one for one in aim.members if small[one.name] is None]

    def wire(encoded: Encoded) -> int:
        return draft.manifest_bytes + DIGEST_BYTES * len(encoded.blocks) + encoded.size

    shares = []
    for group in grouped(able):
        encoded = _chosen(draft, group.digest)
        shares.append(Share(group, encoded.kind, wire(encoded)))
    return Cost(
        full_bytes=wire(draft.encodings[0]),
        shares=tuple(shares),
        unable=(*unable, *((name, why) for name, why in small.items() if why is not None)),
    )


def _chosen(draft: Draft, digest: str | None) -> Encoded:
    """The encoding that a camera with this content picks: the smallest that it can unpack."""
    usable = [one for one in draft.encodings if one.kind == "deflate" or one.base == digest]
    return min(usable, key=lambda one: one.size)


def _too_small(member: Member, content_bytes: int) -> str | None:
    """Why the content does not fit into the camera's slots, by what it said of them."""
    if member.slot_bytes is None or content_bytes <= member.slot_bytes:
        return None
    return f"its slots hold {size(member.slot_bytes)}, the content has {size(content_bytes)}"


def print_cost(out: Output, cost: Cost, link_kbit: int) -> None:
    """The whole of it, for a decision."""
    out.table(
        ("runs", "cameras", "takes", "bytes each", "seconds each"),
        (
            (
                _label(share.group),
                share.group.cameras,
                "patch" if share.takes == "patch" else "full",
                share.bytes,
                f"{share.seconds(link_kbit):.1f}",
            )
            for share in cost.shares
        ),
        empty="No camera can take it.",
    )
    out.facts(
        [
            ("in full", f"{cost.full_bytes} bytes ({size(cost.full_bytes)}) for one camera"),
            ("in all", f"{cost.total} bytes ({size(cost.total)}) for {counted(cost.cameras, 'camera')}"),
            ("without patches", size(cost.full_bytes * cost.cameras)),
            ("link", f"{link_kbit} kbit/s; manifest and index are counted, MQTT's own bytes are not"),
        ]
    )
    for name, why in cost.unable:
        out.say(f"cannot take it: {safe(name)}: {safe(why)}")


def summary(cost: Cost) -> str:
    """The same in a line."""
    parts = []
    for takes, words in (("patch", "by a patch"), ("deflate", "in full")):
        some = [share for share in cost.shares if share.takes == takes]
        if some:
            least, most = (size(edge(share.bytes for share in some)) for edge in (min, max))
            spread = least if least == most else f"{least} to {most}"
            cameras = counted(sum(share.group.cameras for share in some), "camera")
            parts.append(f"{cameras} {words}, {spread} each")
    return f"Over the air: {'; '.join([*parts, f'{size(cost.total)} in all'])}."


def as_data(cost: Cost, link_kbit: int) -> dict[str, Any]:
    """The same for programs. Bytes, and seconds at `link_kbit`."""
    return {
        "full_bytes": cost.full_bytes,
        "total_bytes": cost.total,
        "cameras": cost.cameras,
        "link_kbit": link_kbit,
        "groups": [
            {
                "release": share.group.release,
                "digest": share.group.digest,
                "cameras": share.group.cameras,
                "encoding": share.takes,
                "bytes": share.bytes,
                "seconds": round(share.seconds(link_kbit), 3),
            }
            for share in cost.shares
        ],
        "unable": [{"camera": name, "why": why} for name, why in cost.unable],
    }


def _label(group: Group) -> str:
    if group.digest is None:
        return "nothing, or not known"
    return f"{group.release or 'no name'} ({group.digest[:DIGEST_CHARS]})"
