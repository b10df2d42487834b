"""Halting a rollout that did harm, and the way back if its maker prepared one."""

from dataclasses import replace

from fleetd.domain import assignment as lifecycle
from fleetd.domain.presence import PresenceRules
from fleetd.domain.records import Rollout, RolloutSettings
from fleetd.domain.rollout import Step
from fleetd.errors import FleetError
from fleetd.logs import get_logger
from fleetd.ports import UnitOfWork
from fleetd.updates.changes import FLEETD, end, halt
from fleetd.updates.starting import Order, start

log = get_logger(__name__)

HALTED = "halted"


def stop(work: UnitOfWork, rollout: Rollout, step: Step, now: float, rules: PresenceRules) -> None:
    """Halts it for the reason that the step gives. With `take_back` cameras on trial go back to what they confirmed
    last, and the cameras that confirmed get the release that was signed as the way back.
    """
    counts = work.rollouts.counts(rollout.id)
    at_risk = sum(one.cameras for one in counts if one.state in (lifecycle.CONFIRMED, lifecycle.TRIAL))
    reason = f"{step.reason} {at_risk} cameras run or try the release."
    if rollout.settings.take_back:
        for one in work.rollouts.assignments(rollout.id):
            if one.state is lifecycle.TRIAL:
                end(work, one, lifecycle.CANCELLED, HALTED, now)
    back = _way_back(work, rollout, now, rules)
    if back is not None:
        reason += f" Rollout {back.id} brings {back.release_id} to those that confirmed."
    halt(work, rollout, reason, now, FLEETD)


def _way_back(work: UnitOfWork, rollout: Rollout, now: float, rules: PresenceRules) -> Rollout | None:
    """The rollout that brings the old content back, if there is one to be brought and somebody to bring it to."""
    if rollout.settings.way_back is None or not rollout.settings.take_back:
        return None
    took = [one.camera for one in work.rollouts.assignments(rollout.id) if one.state is lifecycle.CONFIRMED]
    if not took:
        return None
    old = rollout.settings
    order = Order(
        rollout.settings.way_back,
        rollout.target,  # of these, those that took it
        settings=replace(
            RolloutSettings(health=False, silence_s=old.silence_s, priority=old.priority),
            at_once=old.at_once,
            site_at_once=old.site_at_once,
        ),
        only=frozenset(took),
        reverts=rollout.id,
    )
    try:
        return start(work, order, now, FLEETD, rules)
    except FleetError as error:  # it expired, its key was revoked: the halt itself must happen all the same
        log.warning("way_back_refused", rollout=rollout.id, release=order.release_id, error=str(error))
        return None
