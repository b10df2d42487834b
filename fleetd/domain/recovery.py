"""A recovery: one camera on its way back, as it is kept, so that it can go on after a break."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

LOG_ENTRIES: Final = 200  # of one recovery; whoever needs more has gone in circles
LED_STEP: Final = "look-at-led"  # comes before the guide, when nobody has seen the light yet


@dataclass(frozen=True, slots=True)
class Recovery:
    """How far somebody is. `step` is a step of the guide `guide` for `board`, or LED_STEP."""

    id: int
    camera_id: int
    camera: str
    incident_id: int | None
    board: str
    cause: str
    guide: str
    step: str
    state: str  # open, recovered, stopped, abandoned
    causes: tuple[Mapping[str, Any], ...]
    log: tuple[Mapping[str, Any], ...]  # at, step, outcome, detail, by
    created_at: float
    created_by: str
    changed_at: float
    finished_at: float | None


def is_back(seen_at: float | None, since: float, *, online: bool) -> bool:
    """Whether the camera itself has reported after `since`: nothing else counts."""
    return online and seen_at is not None and seen_at > since
