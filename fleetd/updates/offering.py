"""Making offers: to whom, when the hour and the limits allow it; and taking them back when the hour is over."""

from dataclasses import dataclass

from fleetd import zones
from fleetd.domain import assignment as lifecycle
from fleetd.domain.assignment import Change
from fleetd.domain.pacing import Gate, choose, full_sites, gate, is_paced
from fleetd.domain.presence import PresenceRules
from fleetd.domain.records import Assignment, Rollout
from fleetd.errors import UnknownReleaseError
from fleetd.ports import UnitOfWork
from fleetd.updates.changes import BATCH, FLEETD, advance, end

WINDOW_CLOSED = "window-closed"


@dataclass(frozen=True, slots=True)
class Due:
    """What is to be done about a rollout's offers now: some to be made, or some to be taken back."""

    offers: list[Assignment]
    too_late: list[Assignment]

    def __bool__(self) -> bool:
        return bool(self.offers or self.too_late)


def gate_of(rollout: Rollout, now: float) -> Gate:
    """Whether the rollout may make offers now, and why not."""
    return gate(rollout.settings, now, zones.ahead_of_utc)


def due(work: UnitOfWork, rollout: Rollout, now: float, rules: PresenceRules) -> Due:
    """The next offers of the waves begun, a batch at a time; or, outside of its hours, those nobody has taken."""
    settings = rollout.settings
    if not gate_of(rollout, now).is_open:
        open_ones = work.rollouts.offered(rollout.id, BATCH) if settings.window is not None else []
        return Due([], open_ones)
    if not is_paced(settings):
        return Due(work.rollouts.pending(rollout.id, rollout.wave, BATCH, now=now), [])
    load = work.rollouts.load(rollout.id, now)
    candidates = work.rollouts.pending(
        rollout.id, rollout.wave, BATCH, now=now, there=rules, not_at=full_sites(settings, load)
    )
    return Due(choose(candidates, settings, load), [])


def offer(work: UnitOfWork, rollout: Rollout, now: float, rules: PresenceRules) -> None:
    """Does what is due about the rollout's offers."""
    what = due(work, rollout, now, rules)
    for one in what.too_late:
        end(work, one, lifecycle.PENDING, WINDOW_CLOSED, now)
    if not what.offers:
        return
    release = work.releases.get(rollout.release_id)
    if release is None:
        raise UnknownReleaseError(release=rollout.release_id)
    offered: dict[str, int] = {}
    for one in what.offers:
        desired = work.rollouts.set_desired(
            one.camera_id, release_id=release.id, digest=release.digest, deadline=None, now=now
        )
        change = Change(lifecycle.OFFERED, deadline_at=now + rollout.settings.silence_s)
        advance(work, one, change, now, generation=desired.generation)
        offered[one.camera] = desired.generation
    facts = {"release": release.id, "wave": rollout.wave, "cameras": offered}
    work.access.record(FLEETD, "rollout.offer", str(rollout.id), facts, now)
