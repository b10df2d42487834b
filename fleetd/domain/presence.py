"""Whether a camera is there: computed from what is known and the clock, never stored."""

from dataclasses import dataclass
from enum import StrEnum

from fleetd.domain.records import Camera


class Presence(StrEnum):
    """What the clock makes of a camera's silence."""

    NEW = "new"  # enrolled, never heard of
    ONLINE = "online"
    LATE = "late"  # silent longer than usual; may be a short radio outage
    OFFLINE = "offline"
    ASLEEP = "asleep"  # it said until when, and that time is not over


@dataclass(frozen=True, slots=True)
class PresenceRules:
    """How long silence is ordinary, in seconds. Cameras report every 30 s unless set otherwise."""

    late_after: float = 75.0
    offline_after: float = 180.0
    wake_grace: float = (
        120.0  # after the time until which it wanted to sleep: starting and joining take a while
    )


def presence(
    *,
    seen_at: float | None,
    connected: bool,
    now: float,
    rules: PresenceRules,
    asleep_until: float | None = None,
) -> Presence:
    """What a camera last seen at `seen_at` is at `now`. `asleep_until`: when it wanted to be back.

    `connected` is the camera's last claim. Its last will (connected false) makes a silent camera offline as
    soon as it would be late; it never makes one offline that still talks, because wills may arrive out of
    order after a quick reconnect.
    """
    if seen_at is None:
        return Presence.NEW
    if asleep_until is not None and not connected and now < asleep_until + rules.wake_grace:
        return Presence.ASLEEP
    silent = abs(now - seen_at)  # seen in the future: the clock was set back, and that was long ago too
    if silent >= rules.offline_after:
        return Presence.OFFLINE
    if silent >= rules.late_after:
        return Presence.LATE if connected else Presence.OFFLINE
    return Presence.ONLINE if connected else Presence.LATE


def presence_of(camera: Camera, now: float, rules: PresenceRules) -> Presence:
    """The same for a camera as it is known."""
    return presence(
        seen_at=camera.seen_at,
        connected=camera.connected,
        now=now,
        rules=rules,
        asleep_until=camera.asleep_until,
    )
