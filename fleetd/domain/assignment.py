"""One camera's part of a rollout, as a state machine. Facts and `now` in, a change or None out.

    pending -> offered -> transferring -> verifying -> trial -> confirmed
                 the camera may be anywhere on that way when it ends as
                 reverted | failed | rejected | timed_out | lost | superseded | cancelled

`STAGES` says for each state who has to act, until when, and what is done next; `NEXT` says what may follow
what. A camera's word counts only for its own assignment: the release and the generation must be the offered
ones, and `confirmed` counts only with the digest of the target's content. Whatever arrives late, twice or
makes no sense changes no state. States that end an assignment are final.
"""

from dataclasses import dataclass, field
from typing import Final

from fleetd.domain.presence import Presence, PresenceRules, presence
from fleetd.domain.records import Assignment, AssignmentState, RolloutSettings, UpdateReport

PENDING: Final = AssignmentState.PENDING
OFFERED: Final = AssignmentState.OFFERED
TRANSFERRING: Final = AssignmentState.TRANSFERRING
VERIFYING: Final = AssignmentState.VERIFYING
TRIAL: Final = AssignmentState.TRIAL
CONFIRMED: Final = AssignmentState.CONFIRMED
REVERTED: Final = AssignmentState.REVERTED
FAILED: Final = AssignmentState.FAILED
REJECTED: Final = AssignmentState.REJECTED
TIMED_OUT: Final = AssignmentState.TIMED_OUT
LOST: Final = AssignmentState.LOST
SUPERSEDED: Final = AssignmentState.SUPERSEDED
CANCELLED: Final = AssignmentState.CANCELLED

BUSY: Final = frozenset({TRANSFERRING, VERIFYING, TRIAL})  # the camera is at it and keeps reporting
OPEN: Final = frozenset({PENDING, OFFERED}) | BUSY
TERMINAL: Final = frozenset(AssignmentState) - OPEN
HARM: Final = frozenset({REVERTED, FAILED, TIMED_OUT, LOST})  # what a rollout halts on
UNDONE: Final = HARM | {REJECTED}  # ended without the camera running the release; the offer is withdrawn

CALLED_OFF: Final = "operator-cancelled"  # the camera stopped because we asked it to
STILL_ASKING: Final = "unknown-release"  # told as failed, but the camera goes on asking for the manifest


@dataclass(frozen=True, slots=True)
class Stage:
    """Who has to act in a state, how long that may take, and what happens next."""

    owner: str
    deadline: str
    next_action: str


STAGES: Final[dict[AssignmentState, Stage]] = {
    PENDING: Stage("fleetd", "none", "offered when its wave begins"),
    OFFERED: Stage(
        "camera",
        "silence_s while the camera is there and the offer is at the broker, else none",
        "the camera takes it, also weeks later; one that is there and does not: timed_out",
    ),
    TRANSFERRING: Stage("camera", "silence_s after each report", "all blocks: verifying; silence: lost"),
    VERIFYING: Stage("camera", "silence_s after each report", "digest right: trial; silence: lost"),
    TRIAL: Stage("camera", "silence_s after each report", "confirmed or reverted; silence: lost"),
    CONFIRMED: Stage("nobody", "none", "counts as success"),
    REVERTED: Stage("operator", "none", "not offered this release again"),
    FAILED: Stage("operator", "none", "`retry` offers it again in a new rollout"),
    REJECTED: Stage(
        "operator", "none", "the reason says what does not fit; counts as not updated, not as harm"
    ),
    TIMED_OUT: Stage("operator", "none", "`retry` offers it again in a new rollout"),
    LOST: Stage("operator", "none", "look at the camera; `retry` offers it again in a new rollout"),
    SUPERSEDED: Stage("nobody", "none", "a newer rollout has this camera"),
    CANCELLED: Stage("nobody", "none", "an operator ended the rollout"),
}

# A camera can skip steps that we never hear of, and can answer an offer that was just withdrawn (pending).
# Back to offered: it booted the old version before the trial. Back to pending: the rollout was halted.
NEXT: Final[dict[AssignmentState, frozenset[AssignmentState]]] = {
    PENDING: frozenset({OFFERED, TRANSFERRING, VERIFYING, TRIAL}) | (TERMINAL - {TIMED_OUT, LOST}),
    OFFERED: frozenset({PENDING, TRANSFERRING, VERIFYING, TRIAL}) | (TERMINAL - {LOST}),
    TRANSFERRING: frozenset({PENDING, OFFERED, VERIFYING, TRIAL}) | (TERMINAL - {TIMED_OUT}),
    VERIFYING: frozenset({PENDING, OFFERED, TRIAL}) | (TERMINAL - {TIMED_OUT}),
    TRIAL: TERMINAL - {TIMED_OUT},
    **{state: frozenset() for state in TERMINAL},
}

_REPORTED: Final = {state.value: state for state in (*BUSY, CONFIRMED, REVERTED, FAILED, REJECTED)}


@dataclass(frozen=True, slots=True)
class Watched:
    """An assignment that was offered, with everything that decides what becomes of it."""

    assignment: Assignment
    content_sha256: str  # of the release it is about
    silence_s: float
    desired_generation: int  # the newest generation of the camera's desired state
    desired_release: str | None  # what that generation asks for; None once the offer was withdrawn
    sent_generation: int  # the newest one that the broker has
    reported_boot: str | None  # the boot that the camera's last update report came from
    boot: str | None  # what follows is the camera's last status
    connected: bool
    seen_at: float | None
    reported_generation: int | None
    running: str | None
    running_digest: str | None
    trial: str | None
    settings: RolloutSettings = field(default_factory=RolloutSettings)


@dataclass(frozen=True, slots=True)
class Change:
    """What an assignment becomes. The same state again means: only deadline or progress are new."""

    state: AssignmentState
    reason: str | None = None
    detail: str | None = None
    blocks: tuple[int, int] | None = None
    deadline_at: float | None = None
    retry_at: float | None = None  # pending again, but not before that


def may_follow(current: AssignmentState, reported: AssignmentState) -> bool:
    """Whether an assignment in `current` may become `reported`."""
    return reported in NEXT[current]


def advance(watched: Watched, report: UpdateReport) -> Change | None:
    """What a camera's report makes of its assignment; None when it changes nothing.

    The report counts from `report.received_at`, so reading it twice comes to the same.
    """
    current = watched.assignment
    state = _REPORTED.get(report.state)
    if state is None or current.state in TERMINAL or not _is_about(watched, report):
        return None
    if state is CONFIRMED and report.digest != watched.content_sha256:
        return None  # it runs something, but not what was sent
    if watched.desired_release != current.release_id and _follows_withdrawal(state, report.reason):
        return None
    if state is FAILED and report.reason == STILL_ASKING:
        if current.state not in (TRANSFERRING, VERIFYING):
            return None
        state = OFFERED
    deadline = report.received_at + watched.silence_s if state in OPEN else None
    if may_follow(current.state, state):
        blocks = _progress(report) if state is TRANSFERRING else None
        return Change(state, report.reason, report.detail, blocks, deadline)
    if current.state in BUSY and deadline is not None:
        return _still_alive(current, report, deadline)
    return None


def read_status(watched: Watched, now: float) -> Change | None:
    """What the camera's last status makes of its assignment; None when it changes nothing.

    A status names only confirmed releases, so it stands in for a `confirmed` that got lost. A camera that
    booted its old version before the trial has to be offered the release again, and is never done.
    """
    current = watched.assignment
    if current.state in TERMINAL or not _generation_fits(watched, watched.reported_generation):
        return None
    if watched.running == current.release_id and watched.running_digest == watched.content_sha256:
        return Change(CONFIRMED)
    if watched.trial == current.release_id and may_follow(current.state, TRIAL):
        return Change(TRIAL, deadline_at=now + watched.silence_s)
    return None


def read_boot(watched: Watched, now: float) -> Change | None:
    """Back to offered for a camera that booted anew while it transferred or verified; else None."""
    current = watched.assignment
    if current.state not in (TRANSFERRING, VERIFYING):
        return None
    if watched.boot is None or watched.reported_boot is None or watched.boot == watched.reported_boot:
        return None
    if watched.trial == current.release_id:
        return None
    return Change(OFFERED, "rebooted", deadline_at=now + watched.silence_s)


def read_clock(watched: Watched, now: float, rules: PresenceRules) -> Change | None:
    """What silence makes of an assignment at `now`; None when it changes nothing."""
    current = watched.assignment
    fresh = now + watched.silence_s
    if current.state is OFFERED:
        seen = presence(seen_at=watched.seen_at, connected=watched.connected, now=now, rules=rules)
        if seen in (Presence.NEW, Presence.OFFLINE):
            return None if current.deadline_at is None else Change(OFFERED, current.reason)
        if current.deadline_at is None:
            return Change(OFFERED, current.reason, deadline_at=fresh)
        if now < current.deadline_at:
            return None
        if watched.sent_generation < (current.generation or 0):
            return Change(OFFERED, current.reason, deadline_at=fresh)  # it cannot know of the offer yet
        return Change(TIMED_OUT, "offer-not-taken", "The camera is there but did not take the offer up.")
    if current.state in BUSY:
        if current.deadline_at is None:
            return Change(current.state, current.reason, current.detail, deadline_at=fresh)
        if now >= current.deadline_at:
            detail = f"Nothing was heard of this update for {watched.silence_s:.0f} s while {current.state}."
            return Change(LOST, "silent", detail)
    return None


def fresh_deadline(watched: Watched, now: float) -> Change | None:
    """The full time again, for when silence was not the camera's: fleetd or the broker was away."""
    current = watched.assignment
    if current.deadline_at is None or current.state in TERMINAL:
        return None
    return Change(current.state, current.reason, current.detail, deadline_at=now + watched.silence_s)


def _is_about(watched: Watched, report: UpdateReport) -> bool:
    current = watched.assignment
    return (
        report.camera_id == current.camera_id
        and report.release_id == current.release_id
        and _generation_fits(watched, report.generation)
    )


def _generation_fits(watched: Watched, generation: int | None) -> bool:
    """An offer's generation, or a later one: a change of configuration raises it and offers the same."""
    offered = watched.assignment.generation
    if offered is None or generation is None:
        return False
    return offered <= generation <= watched.desired_generation


def _follows_withdrawal(state: AssignmentState, reason: str | None) -> bool:
    """What a camera says before it hears that the offer was taken back, or because it did: nothing new to us.
    Only a trial may go on after that, and come to its own end.
    """
    return state in (TRANSFERRING, VERIFYING) or (state in (FAILED, REVERTED) and reason == CALLED_OFF)


def _progress(report: UpdateReport) -> tuple[int, int] | None:
    if report.blocks_done is None or report.blocks_total is None:
        return None
    return report.blocks_done, report.blocks_total


def _still_alive(current: Assignment, report: UpdateReport, deadline: float) -> Change | None:
    """A report from an earlier step, or from the same one: progress grows, the deadline is renewed."""
    blocks = _progress(report) if current.state is TRANSFERRING else None
    if blocks is not None and current.blocks_total == blocks[1] and (current.blocks_done or 0) >= blocks[0]:
        blocks = None
    later = max(deadline, current.deadline_at or 0.0)
    if blocks is None and later == current.deadline_at:
        return None
    return Change(current.state, current.reason, current.detail, blocks, later)
