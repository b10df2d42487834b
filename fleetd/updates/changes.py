"""Changes to rollouts and assignments, each with all that follows from it, inside a caller's transaction.

A change is guarded by the old value and raises ConflictError when somebody was quicker: the whole transaction
is rolled back then. The desired state and the audit entry are written with it.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from fleetd.domain import assignment as lifecycle
from fleetd.domain.assignment import Change, Watched
from fleetd.domain.records import Assignment, AssignmentState, Release, Rollout, RolloutState
from fleetd.errors import ConflictError
from fleetd.logs import get_logger
from fleetd.ports import UnitOfWork

log = get_logger(__name__)

FLEETD: Final = "fleetd"  # who it was, in the audit trail, when nobody asked for it
BATCH: Final = 200  # cameras or reports in one transaction: others write too


def apply(work: UnitOfWork, watched: Watched, change: Change, now: float) -> Watched:
    """Writes what became of an assignment and answers it as it is now."""
    current = watched.assignment
    _advance(work, current, change, now)
    if change.state in lifecycle.UNDONE:
        _take_back(work, current, now)
    if change.state in lifecycle.TERMINAL:
        facts = {
            "rollout": current.rollout_id,
            "release": current.release_id,
            "reason": change.reason,
            "was": current.state.value,
        }
        work.access.record(FLEETD, f"update.{change.state}", current.camera, facts, now)
    done, total = change.blocks or (current.blocks_done, current.blocks_total)
    changed = replace(
        current,
        state=change.state,
        reason=change.reason,
        detail=change.detail,
        blocks_done=done,
        blocks_total=total,
        deadline_at=change.deadline_at,
    )
    return replace(watched, assignment=changed)


def offer(work: UnitOfWork, rollout: Rollout, release: Release, now: float) -> None:
    """Offers the release to the next cameras of the waves begun, a batch at a time."""
    offered: dict[str, int] = {}
    for one in work.rollouts.pending(rollout.id, rollout.wave, BATCH):
        desired = work.rollouts.set_desired(
            one.camera_id, release_id=release.id, digest=release.digest, deadline=None, now=now
        )
        change = Change(lifecycle.OFFERED, deadline_at=now + rollout.settings.silence_s)
        _advance(work, one, change, now, generation=desired.generation)
        offered[one.camera] = desired.generation
    if offered:
        facts = {"release": release.id, "wave": rollout.wave, "cameras": offered}
        work.access.record(FLEETD, "rollout.offer", str(rollout.id), facts, now)


def end(work: UnitOfWork, current: Assignment, state: AssignmentState, reason: str, now: float) -> None:
    """Ends an assignment from our side, or sets it back, and takes its offer back."""
    _advance(work, current, Change(state, reason), now)
    _take_back(work, current, now)


def halt(work: UnitOfWork, rollout: Rollout, reason: str, now: float, actor: str) -> None:
    """Stops a rollout and takes back what no camera tries yet; a trial that runs decides by itself."""
    for one in work.rollouts.assignments(rollout.id):
        if one.state in (lifecycle.OFFERED, lifecycle.TRANSFERRING, lifecycle.VERIFYING):
            end(work, one, lifecycle.PENDING, "halted", now)
    halted = replace(rollout, state=RolloutState.HALTED, reason=reason)
    change_rollout(work, halted, rollout.state, "halt", actor, now)


def change_rollout(
    work: UnitOfWork,
    rollout: Rollout,
    was: RolloutState,
    action: str,
    actor: str,
    now: float,
    why: str | None = None,
) -> Rollout:
    """Writes a rollout that is still in the state `was`."""
    if not work.rollouts.change(
        rollout.id,
        was=was,
        state=rollout.state,
        wave=rollout.wave,
        reason=rollout.reason,
        finished_at=rollout.finished_at,
        settings=rollout.settings,
    ):
        raise ConflictError(f"Rollout {rollout.id} is no longer {was}. Nothing was changed; look again.")
    facts: Mapping[str, object] = {
        "was": was.value,
        "state": rollout.state.value,
        "wave": rollout.wave,
        "accepted": rollout.settings.accepted,
        "reason": why or rollout.reason,
    }
    work.access.record(actor, f"rollout.{action}", str(rollout.id), facts, now)
    log.info("rollout_changed", rollout=rollout.id, action=action, actor=actor, **facts)
    return rollout


def _advance(
    work: UnitOfWork, current: Assignment, change: Change, now: float, *, generation: int | None = None
) -> None:
    if not work.rollouts.advance(
        current,
        state=change.state,
        now=now,
        reason=change.reason,
        detail=change.detail,
        generation=generation,
        blocks=change.blocks,
        deadline_at=change.deadline_at,
    ):
        raise ConflictError(
            f"The update of {current.camera} is no longer {current.state}. Nothing was changed."
        )
    if change.state is not current.state:
        log.info(
            "update_advanced",
            camera=current.camera,
            release=current.release_id,
            was=current.state.value,
            state=change.state.value,
            reason=change.reason,
        )


def _take_back(work: UnitOfWork, assignment: Assignment, now: float) -> None:
    """Asks the camera to stay as it is, if this assignment's release is still asked of it."""
    if assignment.generation is None:
        return
    desired = work.rollouts.desired(assignment.camera_id)
    if desired is not None and desired.release_id == assignment.release_id:
        work.rollouts.set_desired(assignment.camera_id, release_id=None, digest=None, deadline=None, now=now)
