"""Incidents: what a person must look at. Facts about the whole fleet and the clock in, changes out. Pure.

A camera has at most one open incident in each lane: whether it can be reached, whether it runs steadily, its picture,
its identity. Better evidence renames the open one instead of adding another. A site where most cameras fall silent
together gets one incident for all of them. What comes back soon after it was closed is the same incident again, and
the more often that happens the longer it has to be quiet before it closes.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from fleetd.domain.diagnosis import Clues, Finding
from fleetd.domain.presence import Presence
from fleetd.domain.records import Camera


class Kind(StrEnum):
    """What an incident is about."""

    SILENCE = "silence"
    SITE_OUTAGE = "site-outage"
    LOST_AFTER_UPDATE = "lost-after-update"
    PANIC = "panic"
    BOOTLOADER = "stuck-in-bootloader"
    STORAGE_RESET = "storage-reset"
    NO_NETWORK = "no-network"
    BOOT_LOOP = "boot-loop"
    POWER = "power"
    FROZEN_PICTURE = "frozen-picture"
    DUPLICATE_IDENTITY = "duplicate-identity"


class Lane(StrEnum):
    """What excludes each other: at most one open incident of a camera in each."""

    REACH = "reach"
    STEADY = "steady"
    PICTURE = "picture"
    IDENTITY = "identity"
    SITE = "site"


LANES: Final[Mapping[Kind, Lane]] = {
    Kind.SILENCE: Lane.REACH,
    Kind.LOST_AFTER_UPDATE: Lane.REACH,
    Kind.PANIC: Lane.REACH,
    Kind.BOOTLOADER: Lane.REACH,
    Kind.STORAGE_RESET: Lane.REACH,
    Kind.NO_NETWORK: Lane.REACH,
    Kind.BOOT_LOOP: Lane.STEADY,
    Kind.POWER: Lane.STEADY,
    Kind.FROZEN_PICTURE: Lane.PICTURE,
    Kind.DUPLICATE_IDENTITY: Lane.IDENTITY,
    Kind.SITE_OUTAGE: Lane.SITE,
}
SEVERITY: Final[Mapping[Kind, str]] = {
    **dict.fromkeys(Kind, "critical"),
    Kind.SILENCE: "warning",
    Kind.POWER: "warning",
    Kind.FROZEN_PICTURE: "warning",
}
# What a diagnosis makes of an unreachable camera; the more telling kinds win over mere silence.
_BY_CAUSE: Final = {
    "firmware-panic": Kind.PANIC,
    "stuck-in-bootloader": Kind.BOOTLOADER,
    "flash-interrupted": Kind.BOOTLOADER,
    "bootloader-lost": Kind.BOOTLOADER,
    "storage-reset": Kind.STORAGE_RESET,
    "no-network": Kind.NO_NETWORK,
    "no-broker": Kind.NO_NETWORK,
    "lost-over-update": Kind.LOST_AFTER_UPDATE,
}
SITE: Final = "site="  # before a site's name, where a camera's could stand as well


@dataclass(frozen=True, slots=True)
class IncidentRules:
    """How patient to be. Seconds, except where it says otherwise."""

    silence_s: float = 300.0
    clear_s: float = 60.0  # quiet for so long before an incident closes
    reopen_s: float = 1800.0  # back within this time: the same incident again
    steadier: int = 10  # an incident that keeps coming back has to be quiet for up to so many times `clear_s`
    boots: int = 4  # within a quarter of an hour
    frozen_s: float = 600.0
    outages: int = 5  # lost connections within an hour
    site_least: int = 5  # cameras
    site_share: float = 0.5  # of a site's cameras
    site_over_share: float = 0.1  # an outage is over when no more than this share is still silent


@dataclass(frozen=True, slots=True)
class CameraFacts:
    """One camera, what is known for a diagnosis, and the diagnosis."""

    camera: Camera
    clues: Clues
    findings: tuple[Finding, ...]
    seen_light_at: float | None = None  # when somebody else than the agent last saw its light, or it on USB


@dataclass(frozen=True, slots=True)
class Incident:
    """An incident as it is kept. `camera` is None for a whole site."""

    id: int
    kind: Kind
    camera_id: int | None
    camera: str | None
    site: str
    severity: str
    summary: str
    causes: tuple[Mapping[str, object], ...]
    opened_at: float
    changed_at: float
    bad_at: float  # when it was last true
    closed_at: float | None
    outcome: str | None
    owner: str | None
    muted_until: float | None
    times: int
    cameras: int  # that a site's outage took at its height

    @property
    def lane(self) -> Lane:
        """What it excludes."""
        return LANES[self.kind]


@dataclass(frozen=True, slots=True)
class Symptom:
    """Something that is true now and deserves an incident."""

    kind: Kind
    camera: Camera | None
    site: str
    summary: str
    findings: tuple[Finding, ...] = ()
    cameras: int = 1

    @property
    def lane(self) -> Lane:
        """What it excludes."""
        return LANES[self.kind]

    @property
    def key(self) -> str:
        """The same for everything that belongs into one open incident."""
        return open_key(self.lane, None if self.camera is None else self.camera.id, self.site)


def open_key(lane: Lane, camera_id: int | None, site: str) -> str:
    """What no two open incidents share."""
    return f"{lane}:{site if camera_id is None else camera_id}"


def key_of(incident: Incident) -> str:
    """The same for an incident."""
    return open_key(incident.lane, incident.camera_id, incident.site)


def site_of(camera: Camera) -> str:
    """The camera's site; "" for all that have none: they are a site together."""
    return camera.site


def silent_for(camera: Camera, now: float, since: float) -> float:
    """Seconds of silence that are the camera's own: `since` then fleetd has been listening."""
    return 0.0 if camera.seen_at is None else max(0.0, now - max(camera.seen_at, since))


def symptoms(facts: CameraFacts, rules: IncidentRules, now: float, since: float) -> list[Symptom]:
    """What is wrong with one camera right now, by itself."""
    camera, clues = facts.camera, facts.clues
    found = []

    def add(kind: Kind, summary: str) -> None:
        found.append(Symptom(kind, camera, site_of(camera), summary, facts.findings))

    kind = _unreachable(facts, rules, now, since)
    if kind is not None:
        add(kind, f"{camera.name}: {facts.findings[0].cause.title}" if kind is not Kind.SILENCE else
            f"{camera.name} is silent")  # fmt: skip
    elif clues.outages >= rules.outages:
        add(Kind.NO_NETWORK, f"{camera.name} lost its connection {clues.outages} times within an hour")
    if clues.brown_outs:
        add(Kind.POWER, f"{camera.name} restarts because its supply voltage drops")
    elif clues.boots >= rules.boots:
        add(Kind.BOOT_LOOP, f"{camera.name} started {clues.boots} times within a quarter of an hour")
    if clues.presence is Presence.ONLINE and clues.frozen_s >= rules.frozen_s:
        add(
            Kind.FROZEN_PICTURE,
            f"{camera.name} has sent the same picture for {clues.frozen_s / 60:.0f} minutes",
        )
    if clues.is_twin:
        add(Kind.DUPLICATE_IDENTITY, f"two devices use the name {camera.name}")
    return found


def _unreachable(facts: CameraFacts, rules: IncidentRules, now: float, since: float) -> Kind | None:
    camera, clues = facts.camera, facts.clues
    if clues.presence in (Presence.NEW, Presence.ONLINE) or camera.seen_at is None:
        return None
    kind = _BY_CAUSE.get(facts.findings[0].cause.key)
    was_seen = facts.seen_light_at is not None and facts.seen_light_at >= camera.seen_at
    if kind is not None and was_seen:
        return kind  # somebody has looked: no need to wait
    if clues.update == "lost" and clues.presence is Presence.OFFLINE:
        return Kind.LOST_AFTER_UPDATE  # the rollout has waited long enough
    if silent_for(camera, now, since) < rules.silence_s or clues.presence is not Presence.OFFLINE:
        return None
    return kind or Kind.SILENCE


@dataclass(frozen=True, slots=True)
class SiteView:
    """How a site's cameras are: how many were ever heard, how many are silent now, and for how long enough."""

    site: str
    known: int
    silent: int  # longer than usual
    long_silent: int  # long enough for an incident of its own


def site_views(
    cameras: Iterable[Camera], rules: IncidentRules, late_s: float, now: float, since: float
) -> dict[str, SiteView]:
    """Every site at a glance."""
    counts: dict[str, list[int]] = {}
    for camera in cameras:
        if camera.seen_at is None:
            continue
        silence = silent_for(camera, now, since)
        row = counts.setdefault(site_of(camera), [0, 0, 0])
        row[0] += 1
        row[1] += silence >= late_s
        row[2] += silence >= rules.silence_s
    return {site: SiteView(site, *row) for site, row in counts.items()}


def site_symptoms(
    views: Mapping[str, SiteView], opened: Collection[str], rules: IncidentRules
) -> dict[str, Symptom | None]:
    """Sites that are out, or about to be.

    A symptom: one incident for the site. None: most of it is silent, but not for long enough; its cameras get no
    incident of their own meanwhile. An outage that has begun lasts until all but a few are back.
    """
    found: dict[str, Symptom | None] = {}
    for site, view in views.items():
        least = max(rules.site_least, rules.site_share * view.known)
        is_open = site in opened
        if is_open:
            if view.silent > rules.site_over_share * view.known:
                found[site] = _outage(view)
        elif view.silent >= least:
            found[site] = _outage(view) if view.long_silent >= least else None
    return found


def _outage(view: SiteView) -> Symptom:
    where = f"Site {view.site}" if view.site else "The fleet"
    summary = f"{where}: {view.silent} of {view.known} cameras are silent"
    return Symptom(Kind.SITE_OUTAGE, None, view.site, summary, cameras=view.silent)


@dataclass(frozen=True, slots=True)
class Changes:
    """What to do with incidents now."""

    open: Sequence[Symptom]
    reopen: Sequence[tuple[Incident, Symptom]]
    keep: Sequence[tuple[Incident, Symptom]]  # still true; rename and refresh where it differs
    close: Sequence[tuple[Incident, str]]  # with the outcome


def review(
    found: Iterable[Symptom],
    opened: Iterable[Incident],
    recent: Iterable[Incident],
    judged: Mapping[int, bool],
    rules: IncidentRules,
    now: float,
) -> Changes:
    """Compares what is true with what is open. `recent`: closed lately. `judged`: the cameras that were looked at, and
    whether they report right now; nothing is concluded about others, and nothing but a camera's own reports ends its
    silence. Sites are always looked at.
    """
    wanted = {symptom.key: symptom for symptom in found}
    held = {key_of(incident): incident for incident in opened}
    before = {key_of(one): one for one in sorted(recent, key=lambda one: one.closed_at or 0.0)}
    new, again = [], []
    for key, symptom in wanted.items():
        if key in held:
            continue
        old = before.get(key)
        if old is not None and old.closed_at is not None and 0 <= now - old.closed_at < rules.reopen_s:
            again.append((old, symptom))
        else:
            new.append(symptom)
    keep = [(incident, wanted[key]) for key, incident in held.items() if key in wanted]
    close = [
        (incident, "the site is back" if incident.camera_id is None else "the camera reports again")
        for key, incident in held.items()
        if key not in wanted
        and _may_close(incident, judged)
        and now - incident.bad_at >= rules.clear_s * min(incident.times, rules.steadier)
    ]
    return Changes(new, again, keep, close)


def _may_close(incident: Incident, judged: Mapping[int, bool]) -> bool:
    if incident.camera_id is None:
        return True
    if incident.lane is Lane.REACH:
        return judged.get(incident.camera_id, False)
    return incident.camera_id in judged


def best_kind(incident: Incident, symptom: Symptom) -> Kind:
    """The kind after a renewed look: mere silence never replaces what somebody has found out."""
    return incident.kind if symptom.kind is Kind.SILENCE else symptom.kind
