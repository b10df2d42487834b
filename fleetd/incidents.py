"""The service around incidents: notices what needs a person, keeps its story, tells those who want to know.

`process` is a job. It looks at the whole fleet at a glance, closer at every camera that is not simply online, and at
a few of the others in turn. What it decides is in `domain/incidents.py`.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from fleetd.domain.incidents import (
    SEVERITY,
    SITE,
    Incident,
    IncidentRules,
    Kind,
    Symptom,
    best_kind,
    key_of,
    review,
    site_of,
    site_symptoms,
    site_views,
    symptoms,
)
from fleetd.domain.presence import Presence, PresenceRules
from fleetd.domain.records import Camera
from fleetd.errors import ConflictError, InvalidError, NotFoundError, UnknownCameraError
from fleetd.evidence import BOOTS_S, causes_of, gather
from fleetd.logs import get_logger
from fleetd.ports import Clock, Store, UnitOfWork

log = get_logger(__name__)

TURN: Final = 50  # cameras that are online and are looked at in one run
ABSENCE_S: Final = 60.0  # not looked for so long: silence meanwhile was fleetd's own
MUTE_MOST_S: Final = 366 * 86400
FLEETD: Final = "fleetd"
EVERYTHING: Final = "all"


class UnknownIncidentError(NotFoundError):
    """There is no incident with that number. `fleetctl incidents ls` shows those that exist."""

    code = "unknown_incident"


class Incidents:
    """See the module. `channels` are told of what opens and closes; `listening`: cameras can be heard now."""

    def __init__(
        self,
        store: Store,
        clock: Clock = time.time,
        *,
        rules: IncidentRules | None = None,
        presence: PresenceRules | None = None,
        channels: Sequence[str] = (),
        listening: Callable[[], bool] = lambda: True,
        wake: Callable[[], None] = lambda: None,
    ) -> None:
        self._store = store
        self._clock = clock
        self._rules = rules or IncidentRules()
        self._presence = presence or PresenceRules()
        self._channels = tuple(channels)
        self._listening = listening
        self._wake = wake
        self._since: float | None = None  # listening without a break since then
        self._looked_at: float | None = None
        self._place = 0  # in the round of cameras that are online

    # --- the watch ----------------------------------------------------------------------------------------

    def process(self) -> bool:
        """One look at the fleet. Answers False: it is not to be repeated at once."""
        now = self._clock()
        if not self._listening():
            self._since = None
            return False
        last, self._looked_at = self._looked_at, now
        if self._since is None or last is None or not 0 <= now - last < ABSENCE_S:
            self._since = now  # fleetd or the broker was away, or the clock was set
        with self._store.reading() as work:
            found, judged = self._look(work, now, self._since)
            opened = work.incidents.opened()
            recent = work.incidents.closed_since(now - self._rules.reopen_s)
        changes = review(found, opened, recent, judged, self._rules, now)
        if not (changes.open or changes.reopen or changes.keep or changes.close):
            return False
        told = 0
        for symptom in changes.open:
            told += self._open(symptom, now)
        for incident, symptom in changes.reopen:
            told += self._reopen(incident, symptom, now)
        for incident, symptom in changes.keep:
            told += self._refresh(incident, symptom, now)
        for incident, outcome in changes.close:
            told += self._close(incident, outcome, now)
        if told:
            self._wake()
        return False

    def _look(self, work: UnitOfWork, now: float, since: float) -> tuple[list[Symptom], dict[int, bool]]:
        """What is wrong; which cameras were looked at, and whether they report."""
        cameras, rules = work.cameras.all(), self._rules
        opened = work.incidents.opened()
        muted = {str(one["subject"]) for one in work.incidents.mutes(now)}
        out = {one.site for one in opened if one.kind is Kind.SITE_OUTAGE}
        ended = _ended_outages(work.incidents.closed_since(now - rules.silence_s))
        awake = [camera for camera in cameras if not _is_muted(camera, muted)]
        views = site_views(awake, rules, self._presence.late_after, now, since)
        sites = site_symptoms(views, out, rules)
        suspicious = work.evidence.booted_since(now - BOOTS_S) | {
            one.camera_id for one in opened if one.camera_id
        }
        chosen: list[Camera] = []
        rest: list[Camera] = []
        for camera in awake:
            if camera.seen_at is None:
                continue
            is_silent = now - camera.seen_at >= self._presence.late_after
            if is_silent and (site_of(camera) in sites or site_of(camera) in out):
                continue  # its site's incident speaks for it, also while that is about to close
            (chosen if is_silent or not camera.connected or camera.id in suspicious else rest).append(camera)
        if rest:
            self._place %= len(rest)
            chosen += (rest + rest)[self._place : self._place + min(TURN, len(rest))]
            self._place += TURN
        found = [symptom for symptom in sites.values() if symptom is not None]
        judged = {}
        for facts in gather(work, chosen, now, self._presence):
            judged[facts.camera.id] = facts.clues.presence is Presence.ONLINE
            own_since = max(since, ended.get(site_of(facts.camera), since))
            found += symptoms(facts, rules, now, own_since)
        return found, judged

    def _open(self, symptom: Symptom, now: float) -> int:
        severity = SEVERITY[symptom.kind]
        try:
            with self._store.transaction() as work:
                incident = work.incidents.add(symptom, severity, causes_of(symptom.findings), now)
                work.incidents.add_note(incident.id, FLEETD, f"opened: {symptom.summary}", now)
                self._tell(work, incident, "opened", now)
        except ConflictError:  # another fleetd was quicker
            return 0
        log.warning("incident_opened", incident=incident.id, kind=symptom.kind, camera=incident.camera)
        return 1

    def _reopen(self, incident: Incident, symptom: Symptom, now: float) -> int:
        try:
            with self._store.transaction() as work:
                current = work.incidents.get(incident.id)
                if current is None or current.closed_at is None:
                    return 0
                work.incidents.reopen(current, now)
                kind = best_kind(current, symptom)
                causes = causes_of(symptom.findings)
                work.incidents.change(incident.id, kind=kind, severity=SEVERITY[kind], causes=causes)
                if current.times <= self._rules.steadier:  # after that it is known
                    work.incidents.add_note(incident.id, FLEETD, f"again: {symptom.summary}", now)
        except ConflictError:
            return 0
        log.info("incident_again", incident=incident.id, times=incident.times + 1)
        return 0  # nobody is told twice about what comes and goes

    def _refresh(self, incident: Incident, symptom: Symptom, now: float) -> int:
        """Keeps an open incident up to date; writes only what differs, and the time now and then."""
        kind = best_kind(incident, symptom)
        causes = causes_of(symptom.findings)
        is_other = kind is not incident.kind
        values: dict[str, Any] = {}
        if is_other:
            values |= {"kind": kind, "severity": SEVERITY[kind], "summary": symptom.summary}
        if causes and [one["cause"] for one in causes] != [one["cause"] for one in incident.causes]:
            values["causes"] = causes
        if symptom.cameras > incident.cameras:
            values |= {"cameras": symptom.cameras, "summary": symptom.summary}
        if values:
            values["changed_at"] = now
        if values or now - incident.bad_at >= min(self._rules.clear_s / 2, 30.0):
            values["bad_at"] = now
        if not values:
            return 0
        with self._store.transaction() as work:
            current = work.incidents.get(incident.id)
            if current is None or current.closed_at is not None:
                return 0
            work.incidents.change(incident.id, **values)
            if is_other:
                text = f"{incident.kind} is in truth {kind}: {symptom.summary}"
                work.incidents.add_note(incident.id, FLEETD, text, now)
                found = work.incidents.get(incident.id)
                if found is not None and found.severity != incident.severity:
                    return self._tell(work, found, "changed", now)
        return 0

    def _close(self, incident: Incident, outcome: str, now: float) -> int:
        with self._store.transaction() as work:
            current = work.incidents.get(incident.id)
            if current is None or current.closed_at is not None:
                return 0
            outcome = current.outcome or outcome  # a recovery knows better how it came about
            work.incidents.close(incident.id, outcome, now)
            work.incidents.add_note(incident.id, FLEETD, f"closed: {outcome}", now)
            told = self._tell(work, current, "closed", now, outcome=outcome)
        log.info("incident_closed", incident=incident.id, after_s=round(now - incident.opened_at))
        return told

    def _tell(
        self, work: UnitOfWork, incident: Incident, what: str, now: float, *, outcome: str | None = None
    ) -> int:
        """Puts notices into the outbox, unless somebody asked for quiet."""
        if incident.muted_until is not None and now < incident.muted_until:
            return 0
        if what == "closed" and not work.incidents.notices(incident.id):
            return 0  # nobody heard of it
        body = {
            "incident": incident.id,
            "what": what,
            "kind": str(incident.kind),
            "severity": incident.severity,
            "camera": incident.camera,
            "site": incident.site or None,
            "cameras": incident.cameras,
            "summary": incident.summary,
            "cause": incident.causes[0]["title"] if incident.causes else None,
            "todo": incident.causes[0]["todo"] if incident.causes else None,
            "opened_at": incident.opened_at,
            "at": now,
            "outcome": outcome,
        }
        for channel in self._channels:
            work.incidents.add_notice(incident.id, channel, what, body, now)
        return len(self._channels)

    # --- people -------------------------------------------------------------------------------------------

    def incidents(
        self,
        *,
        is_open: bool | None = True,
        camera: str | None = None,
        since: float | None = None,
        limit: int = 100,
    ) -> list[Incident]:
        """Incidents, newest first."""
        with self._store.reading() as work:
            return work.incidents.all(is_open=is_open, camera=camera, since=since, limit=limit)

    def incident(
        self, incident_id: int
    ) -> tuple[Incident, Sequence[Mapping[str, Any]], Sequence[Mapping[str, Any]]]:
        """One with its notes and its notices; UnknownIncidentError."""
        with self._store.reading() as work:
            found = self._get(work, incident_id)
            return found, work.incidents.notes(incident_id), work.incidents.notices(incident_id)

    def note(self, incident_id: int, text: str, *, actor: str) -> None:
        """Adds a line to an incident's story."""
        with self._store.transaction() as work:
            self._get(work, incident_id)
            work.incidents.add_note(incident_id, actor, text, self._clock())
            work.access.record(actor, "incident.note", str(incident_id), {}, self._clock())

    def own(self, incident_id: int, owner: str | None, *, actor: str) -> None:
        """Says who looks after it; None: nobody."""
        with self._store.transaction() as work:
            self._get(work, incident_id)
            now = self._clock()
            work.incidents.change(incident_id, owner=owner, changed_at=now)
            work.incidents.add_note(incident_id, actor, f"owner: {owner or 'nobody'}", now)
            work.access.record(actor, "incident.own", str(incident_id), {"owner": owner}, now)

    def mute(self, incident_id: int, seconds: float, *, actor: str) -> None:
        """No notices about it for so long; 0: again at once."""
        with self._store.transaction() as work:
            self._get(work, incident_id)
            now = self._clock()
            until = now + min(seconds, MUTE_MOST_S) if seconds > 0 else None
            work.incidents.change(incident_id, muted_until=until, changed_at=now)
            text = f"muted for {seconds:.0f} s" if until else "no longer muted"
            work.incidents.add_note(incident_id, actor, text, now)
            work.access.record(actor, "incident.mute", str(incident_id), {"seconds": seconds}, now)

    def close(self, incident_id: int, reason: str, *, actor: str) -> None:
        """Closes it by hand; refused while it is still true, because it would open again at once."""
        with self._store.transaction() as work:
            incident = self._get(work, incident_id)
            now = self._clock()
            if incident.closed_at is not None:
                return  # what was asked for is so
            if self._is_true(work, incident, now):
                raise ConflictError(
                    f"Incident {incident_id} is still true: {incident.summary}. Nothing was changed. It closes by "
                    f"itself when the camera reports; `fleetctl incidents mute {incident_id}` stops the notices."
                )
            work.incidents.close(incident_id, reason, now)
            work.incidents.add_note(incident_id, actor, f"closed by hand: {reason}", now)
            work.access.record(actor, "incident.close", str(incident_id), {"reason": reason}, now)
            self._tell(work, incident, "closed", now, outcome=reason)
        self._wake()

    def _is_true(self, work: UnitOfWork, incident: Incident, now: float) -> bool:
        if incident.camera is None:
            views = site_views(work.cameras.all(), self._rules, self._presence.late_after, now, 0.0)
            return incident.site in site_symptoms(views, {incident.site}, self._rules)
        camera = work.cameras.get(incident.camera)
        if camera is None:
            return False
        (facts,) = gather(work, [camera], now, self._presence)
        keys = {symptom.key for symptom in symptoms(facts, self._rules, now, 0.0)}
        return key_of(incident) in keys

    def mutes(self) -> list[Mapping[str, Any]]:
        """Maintenance under way."""
        with self._store.reading() as work:
            return work.incidents.mutes(self._clock())

    def start_maintenance(self, subject: str, seconds: float, reason: str, *, actor: str) -> None:
        """No new incidents about a camera, a site (`site=hall-3`) or `all` for so long."""
        with self._store.transaction() as work:
            if subject != EVERYTHING and not subject.startswith(SITE) and work.cameras.get(subject) is None:
                raise UnknownCameraError(
                    f"No camera named {subject} is enrolled. A site is written site=NAME, everything: all.",
                    camera=subject,
                )
            if not 0 < seconds <= MUTE_MOST_S:
                raise InvalidError("A maintenance lasts between a second and a year. Nothing was changed.")
            now = self._clock()
            work.incidents.set_mute(subject, now + seconds, reason, actor, now)
            facts = {"seconds": seconds, "reason": reason}
            work.access.record(actor, "maintenance.start", subject, facts, now)

    def end_maintenance(self, subject: str, *, actor: str) -> None:
        """Ends it early, if there is one."""
        with self._store.transaction() as work:
            if work.incidents.remove_mute(subject):
                work.access.record(actor, "maintenance.end", subject, {}, self._clock())

    def _get(self, work: UnitOfWork, incident_id: int) -> Incident:
        found = work.incidents.get(incident_id)
        if found is None:
            raise UnknownIncidentError(incident=incident_id)
        return found


def _is_muted(camera: Camera, muted: set[str]) -> bool:
    return bool(muted) and (
        EVERYTHING in muted or camera.name in muted or f"{SITE}{site_of(camera)}" in muted
    )


def _ended_outages(closed: Sequence[Incident]) -> dict[str, float]:
    """When a site's outage has ended: its cameras' own silence counts from then."""
    return {one.site: one.closed_at or 0.0 for one in closed if one.kind is Kind.SITE_OUTAGE}
