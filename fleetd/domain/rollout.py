"""Rollouts: which cameras take part, in which wave, and whether the next wave may begin.

Cameras are ordered by SHA-256 of "salt:name", and a wave of p percent is the first p percent of that order:
raising a percentage only adds cameras, every wave of a non-empty target can have at least one, and another
salt makes other cameras go first. Whether to go on is decided by counting, and doubt halts:

- More harm than tolerated halts as soon as enough cameras have finished (`min_sample`), and in any case
  before the next wave. Harm is reverted, failed, lost and timed_out. What is too much, `halting.py` says: a
  bound for the share, not a bare ratio, and a stricter one for cameras that fell silent.
- A model that does worse on the cameras that run it than it did before, and than on others, halts (`health.py`).
- A wave that is done is watched for `soak_s` before the next one begins; the last one before the end.
- A wave in which nobody has confirmed is no evidence, so the next one does not begin.
- `rejected` is not harm, the camera's model was not touched; but it is no success either.
- Cameras that are not there hold up the end of the rollout, not the next wave.
- Numbers that cannot be halt.
"""

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass
from enum import StrEnum
from typing import Final, NamedTuple

from fleetd.domain.assignment import CONFIRMED, HARM, LOST, OPEN, REJECTED
from fleetd.domain.halting import Dark, darkness, excess
from fleetd.domain.health import Finding, SignalName
from fleetd.domain.records import AssignmentState, Camera, Release, RolloutSettings
from fleetd.domain.retrying import MAX_DELAY_S, MAX_RETRIES, RETRYABLE
from fleetd.domain.windows import parse_window
from fleetd.errors import InvalidError

MAX_WAVES: Final = 20
MAX_SILENCE_S: Final = 30 * 86400.0
MAX_SOAK_S: Final = 14 * 86400.0
AT_RISK: Final = 5  # cameras that a reason names


class Move(StrEnum):
    """What a rollout does next."""

    HOLD = "hold"
    WIDEN = "widen"
    FINISH = "finish"
    HALT = "halt"


@dataclass(frozen=True, slots=True)
class Step:
    """What a rollout does next, and why, for a person."""

    move: Move
    reason: str
    signal: str | None = None  # what a halt is about: harm, silence, or one of model health


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known beyond counts. `soaking_s`: how long the newest wave is still to be watched."""

    dark: Dark | None = None
    findings: tuple[Finding, ...] = ()
    soaking_s: float = 0.0


class StateCount(NamedTuple):
    """How many cameras of a wave are in a state. `waiting`: offered, but they are not there to take it."""

    wave: int
    state: AssignmentState
    waiting: bool
    cameras: int


@dataclass(frozen=True, slots=True)
class Tally:
    """Cameras by what became of them. All add up to `targeted`."""

    targeted: int = 0
    confirmed: int = 0
    harmed: int = 0
    rejected: int = 0
    gone: int = 0  # superseded or cancelled
    waiting: int = 0
    busy: int = 0  # everything else that is open
    lost: int = 0  # of the harmed: those that fell silent

    @property
    def finished(self) -> int:
        """How many have an outcome that says something about the release."""
        return self.confirmed + self.harmed + self.rejected

    @property
    def is_possible(self) -> bool:
        """Whether these numbers can be."""
        targeted, *parts, lost = astuple(self)
        return bool(min(targeted, *parts) >= 0 and sum(parts) == targeted and 0 <= lost <= self.harmed)


def count(counts: Iterable[StateCount]) -> Tally:
    """Adds counts up, whatever their waves."""
    sums = dict.fromkeys(("confirmed", "harmed", "rejected", "gone", "waiting", "busy"), 0)
    lost = 0
    for one in counts:
        sums[_column(one)] += one.cameras
        lost += one.cameras if one.state is LOST else 0
    return Tally(targeted=sum(sums.values()), lost=lost, **sums)


def next_step(
    offered: Tally,
    wave: Tally,
    settings: RolloutSettings,
    *,
    last_wave: bool,
    evidence: Evidence = Evidence(),
) -> Step:
    """What a running rollout does now. `offered` counts all waves begun so far, `wave` the newest of them."""
    if not offered.is_possible or not wave.is_possible or wave.targeted > offered.targeted:
        return Step(
            Move.HALT, "The counts do not add up; that is a defect of fleetd. Nothing more is offered."
        )
    worse = _too_much_harm(offered, wave, settings) or _too_dark(evidence, settings) or _unhealthy(evidence)
    if worse is not None:
        return worse
    if wave.busy:
        return Step(Move.HOLD, f"{wave.busy} cameras of this wave are not done.")
    if evidence.soaking_s > 0 and wave.confirmed:
        return Step(Move.HOLD, f"This wave is done and is watched for {_span(evidence.soaking_s)} more.")
    if last_wave:
        if offered.waiting or offered.busy:
            return Step(Move.HOLD, f"{offered.waiting + offered.busy} cameras have not taken it yet.")
        return Step(Move.FINISH, f"{offered.confirmed} of {offered.targeted} cameras have confirmed.")
    if (doubt := _doubtful(evidence)) is not None:
        return doubt
    if wave.confirmed or not wave.targeted:
        return Step(Move.WIDEN, f"{wave.confirmed} of {wave.targeted} cameras of this wave have confirmed.")
    if wave.waiting:
        return Step(Move.HOLD, f"{wave.waiting} cameras of this wave are not there, and none has confirmed.")
    return Step(Move.HALT, f"None of the {wave.targeted} cameras of this wave has confirmed.", "harm")


def _too_much_harm(offered: Tally, wave: Tally, settings: RolloutSettings) -> Step | None:
    if offered.finished < settings.min_sample and wave.busy:
        return None
    harmed, lost = offered.harmed - settings.accepted, offered.lost - settings.accepted_lost
    outcomes = offered.confirmed + harmed
    found = excess(
        "silence", lost, outcomes, free=settings.max_failed, tolerated=settings.tolerated_silence
    ) or excess("harm", harmed, outcomes, free=settings.max_failed, tolerated=settings.tolerated)
    return None if found is None else Step(Move.HALT, str(found), found.signal)


def _too_dark(evidence: Evidence, settings: RolloutSettings) -> Step | None:
    """Cameras that confirmed and then fell silent, more than others do."""
    dark = evidence.dark
    if dark is None or not settings.health:
        return None
    found = darkness(dark, free=settings.max_failed, tolerated=settings.tolerated_silence)
    if found is None:
        return None
    return Step(
        Move.HALT,
        f"{dark.silent} of {dark.running} cameras that run the release are silent; "
        f"of {dark.others} others {dark.others_silent} are.",
        found.signal,
    )


def _unhealthy(evidence: Evidence) -> Step | None:
    moved = [one for one in evidence.findings if one.moved]
    if not moved:
        return None
    most = moved[0]
    also = f" Also: {'; '.join(map(str, moved[1:]))}." if moved[1:] else ""
    named = ", ".join(most.cameras[:AT_RISK]) + (" and others" if len(most.cameras) > AT_RISK else "")
    seen = f" Most of all on {named}." if named else ""
    return Step(
        Move.HALT, f"The model does worse than before ({most.signal}): {most}.{also}{seen}", most.signal
    )


def _doubtful(evidence: Evidence) -> Step | None:
    """A move so large that the next wave does not begin, though too little is known to be sure: doubt stops."""
    found = next((one for one in evidence.findings if one.is_doubtful), None)
    if found is None:
        return None
    return Step(
        Move.HALT,
        f"The model may do worse than before ({found.signal}): {found}. Too little is known to be sure; look at it, "
        "then resume or revert.",
        found.signal,
    )


def _span(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def split(names: Iterable[str], waves: Sequence[int], salt: str, canaries: int = 0) -> dict[str, int]:
    """The wave (from 0) of each camera. `waves` are cumulative percentages as `check_waves` accepts them; before
    them comes a wave of so many canaries, unless there are none.
    """
    ordered = sorted(set(names), key=lambda name: hashlib.sha256(f"{salt}:{name}".encode()).digest())
    ends = [min(canaries, len(ordered))] if canaries else []
    ends += [-(-len(ordered) * percent // 100) for percent in waves]
    return {
        name: next(wave for wave, end in enumerate(ends) if place < end) for place, name in enumerate(ordered)
    }


def steps(waves: Sequence[int], canaries: int) -> tuple[str, ...]:
    """What each wave is, for a person: `1 camera`, `5 %`, `100 %`."""
    first = [f"{canaries} camera{'' if canaries == 1 else 's'}"] if canaries else []
    return (*first, *(f"{percent} %" for percent in waves))


def soaking(settled_at: float | None, soak_s: float, now: float) -> float:
    """How many seconds a wave whose last outcome came at `settled_at` is still watched. A clock that was set by
    more than that ends it: time must not stand still.
    """
    if settled_at is None:
        return 0.0
    return max(0.0, soak_s - abs(now - settled_at))


def check_waves(waves: Sequence[int]) -> tuple[int, ...]:
    """Cumulative percentages that grow and end at 100, or an InvalidError."""
    rising = all(low < high for low, high in zip([0, *waves], waves, strict=False))
    if not 1 <= len(waves) <= MAX_WAVES or not rising or waves[-1] != 100:
        raise InvalidError(
            f"The waves {list(waves)[:MAX_WAVES]} cannot be used. They are percentages that grow and end at 100, "
            f"at most {MAX_WAVES} of them, for example 5, 25, 100. Nothing was changed."
        )
    return tuple(waves)


def check_settings(settings: RolloutSettings) -> RolloutSettings:
    """The limits if they make sense, or an InvalidError."""
    counts = (settings.at_once, settings.site_at_once, settings.site_per_hour)
    problems: Mapping[str, bool] = {
        "max_failed must be 0 or more": settings.max_failed < 0,
        "min_sample must be 1 or more": settings.min_sample < 1,
        f"silence_s must be between 1 and {MAX_SILENCE_S:.0f} seconds": not (
            math.isfinite(settings.silence_s) and 1 <= settings.silence_s <= MAX_SILENCE_S
        ),
        "accepted must be 0 or more": min(settings.accepted, settings.accepted_lost, settings.accepted_dark)
        < 0,
        "tolerated must be a share from 0 to 1": not 0 <= settings.tolerated <= 1,
        "tolerated_silence must be a share from 0 to 1": not 0 <= settings.tolerated_silence <= 1,
        f"soak_s must be between 0 and {MAX_SOAK_S:.0f} seconds": not 0 <= settings.soak_s <= MAX_SOAK_S,
        "canaries must be 0 or more": settings.canaries < 0,
        "at_once, site_at_once and site_per_hour must be 1 or more": any(
            one is not None and one < 1 for one in counts
        ),
        f"retries must be between 0 and {MAX_RETRIES}": not 0 <= settings.retries <= MAX_RETRIES,
        f"retry_after_s must be between 1 and {MAX_DELAY_S:.0f} seconds": not (
            1 <= settings.retry_after_s <= MAX_DELAY_S
        ),
        f"retry_reasons takes {', '.join(RETRYABLE)}": not set(settings.retry_reasons) <= set(RETRYABLE),
        "priority must be between -100 and 100": not -100 <= settings.priority <= 100,
        "start_at must be a time": settings.start_at is not None and not 0 <= settings.start_at <= 2**40,
        "way_back needs take_back": settings.way_back is not None and not settings.take_back,
        f"ignore takes {', '.join(SignalName)}": not set(settings.ignore) <= set(SignalName),
    }
    if settings.window is not None:
        parse_window(settings.window)
    wrong = [text for text, is_wrong in problems.items() if is_wrong]
    if wrong:
        raise InvalidError(
            f"The limits of the rollout cannot be used: {'; '.join(wrong)}. Nothing was changed."
        )
    return settings


def reason_to_skip(
    camera: Camera,
    release: Release,
    boards: Sequence[str],
    *,
    reverted_before: bool,
    on_its_way: bool,
    held_by: int | None = None,
) -> tuple[str, str] | None:
    """Why this camera is not offered the release, as a word and a sentence; None when it is.

    What a camera has not said of itself speaks for it: an unknown board is offered, the camera refuses by
    itself what is not for it. `on_its_way`: another release is being brought to it, which this one ends.
    `held_by`: the number of a rollout with a higher priority that has it.
    """
    if held_by is not None:
        return "higher-priority", f"Rollout {held_by} has it, with a higher priority."
    if camera.pinned is not None and camera.pinned != release.id:
        return "pinned", f"It is pinned to {camera.pinned}."
    same = camera.release_id == release.id and camera.release_digest == release.content_sha256
    if same and not on_its_way:
        return "already-runs-it", f"It reports that it runs {release.id}."
    if camera.board and not any(board == "*" or camera.board.startswith(board) for board in boards):
        return "unsuitable-board", f"It is a {camera.board}; the release is for {', '.join(boards)}."
    if reverted_before:
        return "reverted-before", f"It has reverted {release.id} before. Build a new release for it."
    running = (camera.release_epoch or 1, camera.release_sequence or 0)
    if release.kind == "model" and running > (release.epoch, release.sequence):
        return (
            "runs-newer",
            f"It runs {camera.release_id}, which is newer, and would refuse an older release.",
        )
    return None


def _column(one: StateCount) -> str:
    if one.state in OPEN:
        return "waiting" if one.waiting else "busy"
    if one.state is CONFIRMED:
        return "confirmed"
    if one.state in HARM:
        return "harmed"
    return "rejected" if one.state is REJECTED else "gone"
