"""One camera's story in one line each: starts, silences, lights, updates, events, incidents, recoveries."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

from fleetd.domain.records import Camera
from fleetd.ports import UnitOfWork


@dataclass(frozen=True, slots=True)
class Moment:
    """Something that happened. `kind`: boot, silence, light, usb, update, event, incident, recovery."""

    at: float
    kind: str
    text: str


def timeline(
    work: UnitOfWork, camera: Camera, *, since: float, now: float, late_s: float, limit: int
) -> list[Moment]:
    """The newest moments first."""
    found = [
        *_boots(work, camera, since, now, late_s),
        *_lights(work, camera, since, limit),
        *_updates(work, camera, since, limit),
        *_events(work, camera, since, limit),
        *_incidents(work, camera, since, limit),
        *_recoveries(work, camera, since, limit),
    ]
    return sorted(found, key=lambda moment: moment.at, reverse=True)[:limit]


def _boots(work: UnitOfWork, camera: Camera, since: float, now: float, late_s: float) -> Iterable[Moment]:
    boots = work.evidence.boots([camera.id], since).get(camera.id, ())
    for boot in boots:
        if boot["first_seen"] >= since:
            yield Moment(boot["first_seen"], "boot", f"started (boot {boot['boot'][:8]})")
    for before, after in pairwise(boots):
        gap = after["first_seen"] - before["last_seen"]
        if gap >= late_s:
            yield Moment(before["last_seen"], "silence", f"silent for {gap:.0f} s, then it started again")
    if camera.seen_at is not None and now - camera.seen_at >= late_s and camera.seen_at >= since:
        yield Moment(camera.seen_at, "silence", f"silent since then, {now - camera.seen_at:.0f} s")


def _lights(work: UnitOfWork, camera: Camera, since: float, limit: int) -> Iterable[Moment]:
    for one in work.history.sightings(camera=camera.name, since=since, limit=limit):
        reason = f" ({one.reason})" if one.reason else ""
        if one.source == "usb":
            yield Moment(one.at, "usb", f"USB showed: {one.reason}")
        else:
            yield Moment(one.at, "light", f"{one.color} {one.pattern}, seen by {one.source}{reason}")


def _updates(work: UnitOfWork, camera: Camera, since: float, limit: int) -> Iterable[Moment]:
    last = None
    for one in reversed(work.evidence.reports(camera.id, since, limit)):
        told = (one["release_id"], one["state"], one["reason"])
        if told != last:  # progress within a step is no news
            why = f": {one['reason']}" if one["reason"] else ""
            yield Moment(one["at"], "update", f"{one['release_id']} {one['state']}{why}")
        last = told


def _events(work: UnitOfWork, camera: Camera, since: float, limit: int) -> Iterable[Moment]:
    for one in work.history.events(camera=camera.name, since=since, until=None, limit=limit):
        text = (one["text"] or "").strip()
        yield Moment(one["at"], "event", f"{one['kind']}: {text.splitlines()[-1] if text else '-'}")


def _incidents(work: UnitOfWork, camera: Camera, since: float, limit: int) -> Iterable[Moment]:
    for one in work.incidents.all(is_open=None, camera=camera.name, since=None, limit=limit):
        if one.opened_at >= since:
            yield Moment(one.opened_at, "incident", f"{one.id} opened, {one.kind}: {one.summary}")
        if one.closed_at is not None and one.closed_at >= since:
            yield Moment(one.closed_at, "incident", f"{one.id} closed: {one.outcome}")


def _recoveries(work: UnitOfWork, camera: Camera, since: float, limit: int) -> Iterable[Moment]:
    for one in work.recoveries.all(camera=camera.name, limit=limit):
        if one.created_at >= since:
            yield Moment(one.created_at, "recovery", f"{one.id} begun by {one.created_by}: {one.cause}")
        if one.finished_at is not None and one.finished_at >= since:
            yield Moment(one.finished_at, "recovery", f"{one.id} {one.state}")
