"""Why a rollout is where it is and what happens next; the same for one camera. Nothing is changed here."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from fleetd import zones
from fleetd.domain import assignment as lifecycle
from fleetd.domain.assignment import STAGES
from fleetd.domain.halting import Dark
from fleetd.domain.health import Finding
from fleetd.domain.pacing import awaits_approval, is_paced, opens_at
from fleetd.domain.presence import Presence, PresenceRules, presence_of
from fleetd.domain.records import (
    Assignment,
    AssignmentState,
    Attempt,
    Camera,
    DesiredState,
    Rollout,
    RolloutState,
)
from fleetd.domain.rollout import Move, steps
from fleetd.errors import UnknownCameraError, UnknownRolloutError
from fleetd.ports import Clock, Store, UnitOfWork
from fleetd.updates.judging import Judge, Verdict
from fleetd.updates.offering import gate_of

SETTLED: Final = lifecycle.TERMINAL
ATTEMPTS: Final = 10  # shown of a camera


@dataclass(frozen=True, slots=True)
class WaveState:
    """One wave: what it is, and how many of its cameras are in which state."""

    name: str
    state: str  # "done", "now" or "later"
    cameras: int
    tally: Mapping[AssignmentState, int]


@dataclass(frozen=True, slots=True)
class Explanation:
    """Where a rollout stands. Times are Unix seconds, spans are seconds; None: not known, or there is none."""

    rollout: Rollout
    why: str
    next: str
    at: float | None  # when that is, if the clock decides it
    waves: tuple[WaveState, ...]
    findings: tuple[Finding, ...]
    dark: Dark | None
    soaking_s: float
    per_minute: float | None  # cameras that come to an end, since the first offer
    left_s: float | None  # an estimate for all that is left
    next_tries: tuple[Assignment, ...]  # cameras that wait for another try, the next one first


@dataclass(frozen=True, slots=True)
class CameraExplanation:
    """What a camera should run, what it says it runs, and when it was last heard of."""

    camera: Camera
    presence: Presence
    silent_s: float | None
    desired: DesiredState | None
    assignment: Assignment | None
    attempts: tuple[Attempt, ...]
    why: str
    next: str


class Explaining:
    """The part of the update service that explains."""

    _store: Store
    _clock: Clock
    _rules: PresenceRules

    def explain(self, rollout_id: int) -> Explanation:
        """Why a rollout is where it is, and what happens next."""
        now = self._clock()
        with self._store.reading() as work:
            rollout = work.rollouts.get(rollout_id)
            if rollout is None:
                raise UnknownRolloutError(rollout=rollout_id)
            members = work.rollouts.assignments(rollout_id)
            verdict = Judge(self._rules).verdict(work, rollout, now)
        why, coming, at = _story(rollout, verdict, members, now)
        per_minute = _rate(members, now)
        tries = sorted(
            (one for one in members if one.retry_at is not None), key=lambda one: one.retry_at or 0
        )
        return Explanation(
            rollout=rollout,
            why=why,
            next=coming,
            at=at,
            waves=_waves(rollout, members),
            findings=verdict.evidence.findings,
            dark=verdict.evidence.dark,
            soaking_s=verdict.evidence.soaking_s,
            per_minute=per_minute,
            left_s=_left(rollout, members, per_minute, verdict.evidence.soaking_s),
            next_tries=tuple(tries),
        )

    def explain_camera(self, name: str) -> CameraExplanation:
        """What a camera should run, what it says, and what its part in a rollout waits for."""
        now = self._clock()
        with self._store.reading() as work:
            camera = work.cameras.get(name)
            if camera is None:
                raise UnknownCameraError(camera=name)
            seen = presence_of(camera, now, self._rules)
            desired = work.rollouts.desired(camera.id)
            open_ones = work.rollouts.open_assignments(camera.id)
            current = open_ones[-1] if open_ones else None
            why, coming = _camera_story(work, camera, seen, desired, current)
            tries = tuple(work.rollouts.attempts(camera.id, None, ATTEMPTS))
        silent = None if camera.seen_at is None else max(0.0, now - camera.seen_at)
        return CameraExplanation(camera, seen, silent, desired, current, tries, why, coming)


def _story(
    rollout: Rollout, verdict: Verdict, members: Sequence[Assignment], now: float
) -> tuple[str, str, float | None]:
    """Why, what next, and when, if the clock decides it."""
    number = rollout.id
    match rollout.state:
        case RolloutState.COMPLETED:
            return rollout.reason or "Every camera has come to an end.", "Nothing.", None
        case RolloutState.CANCELLED:
            return "An operator cancelled it.", "Nothing. Cameras that confirmed keep the release.", None
        case RolloutState.HALTED:
            choices = (
                f"Nothing until somebody decides: `fleetctl rollouts resume {number}` accepts what was seen, "
                f"`revert {number}` brings the old model back, `cancel {number}` ends it."
            )
            return rollout.reason or "fleetd halted it.", choices, None
        case RolloutState.PAUSED:
            return (
                "An operator paused it.",
                f"Cameras that were offered the release go on; `fleetctl rollouts resume {number}` offers it to more.",
                None,
            )
        case RolloutState.RUNNING:
            return _running_story(rollout, verdict, members, now)


def _running_story(
    rollout: Rollout, verdict: Verdict, members: Sequence[Assignment], now: float
) -> tuple[str, str, float | None]:
    step, soaking = verdict.step, verdict.evidence.soaking_s
    gate = gate_of(rollout, now)
    names = steps(rollout.waves, rollout.settings.canaries)
    following = rollout.wave + 1
    after = (
        f"the next wave ({names[following]}) begins" if following < len(names) else "the rollout is completed"
    )
    to_offer = [one for one in members if one.state is lifecycle.PENDING and one.wave <= rollout.wave]
    if to_offer and awaits_approval(rollout.settings):
        return (
            gate.why,
            f"`fleetctl rollouts approve {rollout.id}`, by another token than {rollout.created_by}.",
            None,
        )
    if to_offer and not gate.is_open:
        until = gate.until if rollout.settings.window is None else None
        at = until or opens_at(rollout.settings, now, zones.ahead_of_utc)
        return gate.why, f"{len(to_offer)} cameras are offered the release when it opens.", at
    if step.move is Move.HALT:
        return step.reason, "It is about to be halted.", now
    if step.move is not Move.HOLD:
        return step.reason, f"At once: {after}.", now
    waits = [one for one in to_offer if one.retry_at is not None and one.retry_at > now]
    if waits and len(waits) == len(to_offer) and not verdict.wave.busy - len(waits):
        at = min(one.retry_at or now for one in waits)
        return f"{len(waits)} cameras failed and are tried again.", "The next try begins.", at
    if to_offer and is_paced(rollout.settings):
        return (
            step.reason,
            f"{len(to_offer)} cameras wait for room within the limits, or are not there.",
            None,
        )
    if soaking > 0 and not verdict.wave.busy:
        return step.reason, f"If nothing moves, {after}.", now + soaking
    if verdict.wave.busy:
        deadlines = [one.deadline_at for one in members if one.deadline_at is not None]
        return step.reason, f"When they are done, {after}.", min(deadlines, default=None)
    return step.reason, f"When they come back and are done, {after}.", None


def _waves(rollout: Rollout, members: Sequence[Assignment]) -> tuple[WaveState, ...]:
    found = []
    for wave, name in enumerate(steps(rollout.waves, rollout.settings.canaries)):
        tally = Counter(one.state for one in members if one.wave == wave)
        finished = all(state in SETTLED for state in tally)
        state = "later" if wave > rollout.wave else "done" if finished else "now"
        found.append(WaveState(name, state, tally.total(), dict(tally)))
    return tuple(found)


def _rate(members: Sequence[Assignment], now: float) -> float | None:
    """Cameras that came to an end, per minute since the first offer."""
    offered = [one.offered_at for one in members if one.offered_at is not None]
    ended = [one.finished_at for one in members if one.finished_at is not None and one.offered_at is not None]
    if not offered or not ended:
        return None
    span = max(max(ended) - min(offered), 1.0)
    return 60.0 * len(ended) / span if 0 <= min(offered) <= now else None


def _left(
    rollout: Rollout, members: Sequence[Assignment], per_minute: float | None, soaking_s: float
) -> float | None:
    """How long it still takes if it goes on like this, the watching of waves included."""
    if rollout.state is not RolloutState.RUNNING or not per_minute:
        return None
    waiting = sum(one.state in lifecycle.OPEN for one in members)
    waves_left = rollout.wave_count - rollout.wave - 1
    return 60.0 * waiting / per_minute + soaking_s + waves_left * rollout.settings.soak_s


def _camera_story(
    work: UnitOfWork,
    camera: Camera,
    seen: Presence,
    desired: DesiredState | None,
    current: Assignment | None,
) -> tuple[str, str]:
    runs = camera.release_id or ("something unnamed" if camera.release_digest else "nothing yet")
    says = f"It says it runs {runs}" if camera.status_at is not None else "It has never said what it runs"
    pinned = f", and is pinned to {camera.pinned}" if camera.pinned else ""
    if current is None:
        asked = desired.release_id if desired is not None else None
        if asked is not None and asked == camera.release_id:
            return f"{says}, as it should{pinned}.", "Nothing."
        return f"{says}; nothing else is asked of it{pinned}.", "Nothing."
    rollout = work.rollouts.get(current.rollout_id)
    halted = rollout is not None and rollout.state in (RolloutState.HALTED, RolloutState.PAUSED)
    why = f"{says}. Rollout {current.rollout_id} brings {current.release_id} to it: {current.state}{pinned}."
    if current.state is lifecycle.PENDING and halted and rollout is not None:
        return why, f"The rollout is {rollout.state}: nothing is offered until it is resumed."
    if (
        current.state is lifecycle.OFFERED
        and desired is not None
        and desired.sent_generation < desired.generation
    ):
        return why, "The offer goes to the broker first; it has not taken it yet."
    if current.state is lifecycle.OFFERED and seen is Presence.ASLEEP:
        return why, "It sleeps. It takes the offer up when it wakes."
    if current.state is lifecycle.OFFERED and seen in (Presence.OFFLINE, Presence.NEW):
        return why, "It is not there. The offer waits for it at the broker."
    stage = STAGES[current.state]
    return why, f"The {stage.owner} acts next: {stage.next_action}."
