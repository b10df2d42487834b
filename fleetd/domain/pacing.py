"""How fast a rollout goes: when it may make offers, and to how many cameras at a time, in all and at each site.

A site is a place that shares a link or a switch, the `site` of its cameras; cameras without one are a site too. The
limits of a site count every rollout, because its link does. Only cameras that are there are offered anything while a
limit holds: an offer that waits at the broker for a sleeping camera cannot be counted.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol, TypeVar

from fleetd.domain.records import RolloutSettings
from fleetd.domain.windows import parse_window

HOUR_S: Final = 3600.0

AheadOfUtc = Callable[[str, float], float]  # time zone, Unix seconds -> seconds


class Placed(Protocol):
    """Something at a site."""

    @property
    def site(self) -> str:
        """The site's name, or nothing."""


T = TypeVar("T", bound=Placed)


@dataclass(frozen=True, slots=True)
class Load:
    """Cameras that are at an update right now: of this rollout, and of all rollouts by site; and how many were
    offered one at each site within the last hour.
    """

    here: int = 0
    at_site: Mapping[str, int] = field(default_factory=dict)
    last_hour: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Gate:
    """Whether offers may be made at all; if not, why, and when that changes (Unix seconds, if it is known)."""

    is_open: bool
    why: str = ""
    until: float | None = None


OPEN: Final = Gate(is_open=True)


def gate(settings: RolloutSettings, now: float, ahead_of_utc: AheadOfUtc) -> Gate:
    """Whether the hour is right, and everybody agrees whose word it takes."""
    if awaits_approval(settings):
        return Gate(is_open=False, why="It waits for somebody else than its creator to approve it.")
    if settings.start_at is not None and now < settings.start_at:
        return Gate(is_open=False, why="It is scheduled for later.", until=settings.start_at)
    if settings.window is None:
        return OPEN
    window = parse_window(settings.window)
    if window.is_open(now, ahead_of_utc(window.zone, now)):
        return OPEN
    return Gate(is_open=False, why=f"Its window ({settings.window}) is closed.")


def awaits_approval(settings: RolloutSettings) -> bool:
    """Whether a second person has still to agree."""
    return settings.approval and settings.approved_by is None


def opens_at(settings: RolloutSettings, now: float, ahead_of_utc: AheadOfUtc) -> float | None:
    """When a closed gate opens, as far as that can be told."""
    begin = max(now, settings.start_at or now)
    if settings.window is None:
        return begin
    window = parse_window(settings.window)
    if begin > now and window.is_open(begin, ahead_of_utc(window.zone, begin)):
        return begin
    return window.next_change(begin, lambda at: ahead_of_utc(window.zone, at))


def is_paced(settings: RolloutSettings) -> bool:
    """Whether there is a limit on how many cameras are at it at a time."""
    return any(one is not None for one in (settings.at_once, settings.site_at_once, settings.site_per_hour))


def full_sites(settings: RolloutSettings, load: Load) -> frozenset[str]:
    """The sites at which nothing more may be offered now."""
    known = {*load.at_site, *load.last_hour}
    return frozenset(
        site for site in known if (left := _room(settings, load, site)) is not None and left <= 0
    )


def choose(candidates: Iterable[T], settings: RolloutSettings, load: Load) -> list[T]:
    """As many of the candidates as the limits allow, in their order."""
    chosen: list[T] = []
    taken: Counter[str] = Counter()
    for one in candidates:
        if settings.at_once is not None and load.here + len(chosen) >= settings.at_once:
            break
        room = _room(settings, load, one.site)
        if room is None or taken[one.site] < room:
            taken[one.site] += 1
            chosen.append(one)
    return chosen


def _room(settings: RolloutSettings, load: Load, site: str) -> int | None:
    """How many more cameras of a site may be offered something now; None: no limit."""
    rooms = []
    if settings.site_at_once is not None:
        rooms.append(settings.site_at_once - load.at_site.get(site, 0))
    if settings.site_per_hour is not None:
        rooms.append(settings.site_per_hour - load.last_hour.get(site, 0))
    return min(rooms) if rooms else None
