"""What landing gets, and what it answers."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple


class Arrival(NamedTuple):
    """One valid message from a camera. `channel` is the first word after `up/`, `rest` what follows it."""

    camera: str
    channel: str
    rest: str
    body: Any  # a dict that the channel's TypeAdapter has validated
    received_at: float
    retained: bool


class DeadLetter(NamedTuple):
    """A message that could not be stored as what it claims to be."""

    topic: str
    payload: bytes
    reason: str
    detail: str
    received_at: float


@dataclass(slots=True)
class Landed:
    """What one batch did. `receipts` are all stored ranges of the boots it touched."""

    stored: int = 0
    repeated: int = 0
    unknown: int = 0
    dead: int = 0
    lost: int = 0  # sequence numbers that cameras declared lost
    updates: bool = False  # an update report is among the rows
    receipts: dict[tuple[str, str], list[tuple[int, int]]] = field(default_factory=dict)
    nonces: dict[str, str] = field(default_factory=dict)  # by camera: what its newest status asks with


def in_pieces(items: Sequence[Any], size: int) -> Iterable[Sequence[Any]]:
    """The items in pieces of at most `size`: databases take so many parameters and no more."""
    return (items[i : i + size] for i in range(0, len(items), size))
