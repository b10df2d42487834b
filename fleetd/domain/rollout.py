"""Rollouts: which cameras take part, in which wave, and whether the next wave may begin.

Cameras are ordered by SHA-256 of "salt:name", and a wave of p percent is the first p percent of that order:
raising a percentage only adds cameras, every wave of a non-empty target can have at least one, and another
salt makes other cameras go first. Whether to go on is decided by counting, and doubt halts:

- More harm than tolerated halts as soon as enough cameras have finished (`min_sample`), and in any case
  before the next wave. Harm is reverted, failed, lost and timed_out.
- A wave in which nobody has confirmed is no evidence, so the next one does not begin.
- `rejected` is not harm, the camera's model was not touched; but it is no success either.
- Cameras that are not there hold up the end of the rollout, not the next wave.
- Numbers that cannot be halt.

`next_step` sees only counts, so a better rule (confidence bounds, model health) takes its place without
anything else changing.
"""

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass
from enum import StrEnum
from typing import Final, NamedTuple

from fleetd.domain.assignment import CONFIRMED, HARM, OPEN, REJECTED
from fleetd.domain.records import AssignmentState, Camera, Release, RolloutSettings
from fleetd.errors import InvalidError

MAX_WAVES: Final = 20
MAX_SILENCE_S: Final = 30 * 86400.0


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

    @property
    def finished(self) -> int:
        """How many have an outcome that says something about the release."""
        return self.confirmed + self.harmed + self.rejected

    @property
    def is_possible(self) -> bool:
        """Whether these numbers can be."""
        targeted, *parts = astuple(self)
        return bool(min(targeted, *parts) >= 0 and sum(parts) == targeted)


def count(counts: Iterable[StateCount]) -> Tally:
    """Adds counts up, whatever their waves."""
    sums = dict.fromkeys(("confirmed", "harmed", "rejected", "gone", "waiting", "busy"), 0)
    for one in counts:
        sums[_column(one)] += one.cameras
    return Tally(targeted=sum(sums.values()), **sums)


def next_step(offered: Tally, wave: Tally, settings: RolloutSettings, *, last_wave: bool) -> Step:
    """What a running rollout does now. `offered` counts all waves begun so far, `wave` the newest of them."""
    if not offered.is_possible or not wave.is_possible or wave.targeted > offered.targeted:
        return Step(
            Move.HALT, "The counts do not add up; that is a defect of fleetd. Nothing more is offered."
        )
    harmed = offered.harmed - settings.accepted
    too_much = harmed > settings.max_failed
    if too_much and (offered.finished >= settings.min_sample or wave.busy == 0):
        return Step(
            Move.HALT,
            f"{offered.harmed} of {offered.finished} cameras that finished have not taken the release "
            f"(reverted, failed, lost or timed out); {settings.max_failed + settings.accepted} are tolerated.",
        )
    if wave.busy:
        return Step(Move.HOLD, f"{wave.busy} cameras of this wave are not done.")
    if last_wave:
        if offered.waiting or offered.busy:
            return Step(Move.HOLD, f"{offered.waiting + offered.busy} cameras have not taken it yet.")
        return Step(Move.FINISH, f"{offered.confirmed} of {offered.targeted} cameras have confirmed.")
    if wave.confirmed or not wave.targeted:
        return Step(Move.WIDEN, f"{wave.confirmed} of {wave.targeted} cameras of this wave have confirmed.")
    if wave.waiting:
        return Step(Move.HOLD, f"{wave.waiting} cameras of this wave are not there, and none has confirmed.")
    return Step(Move.HALT, f"None of the {wave.targeted} cameras of this wave has confirmed.")


def split(names: Iterable[str], waves: Sequence[int], salt: str) -> dict[str, int]:
    """The wave (from 0) of each camera. `waves` are cumulative percentages as `check_waves` accepts them."""
    ordered = sorted(set(names), key=lambda name: hashlib.sha256(f"{salt}:{name}".encode()).digest())
    ends = [-(-len(ordered) * percent // 100) for percent in waves]
    return {
        name: next(wave for wave, end in enumerate(ends) if place < end) for place, name in enumerate(ordered)
    }


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
    problems: Mapping[str, bool] = {
        "max_failed must be 0 or more": settings.max_failed < 0,
        "min_sample must be 1 or more": settings.min_sample < 1,
        f"silence_s must be between 1 and {MAX_SILENCE_S:.0f} seconds": not (
            math.isfinite(settings.silence_s) and 1 <= settings.silence_s <= MAX_SILENCE_S
        ),
        "accepted must be 0 or more": settings.accepted < 0,
    }
    wrong = [text for text, is_wrong in problems.items() if is_wrong]
    if wrong:
        raise InvalidError(
            f"The limits of the rollout cannot be used: {'; '.join(wrong)}. Nothing was changed."
        )
    return settings


def reason_to_skip(
    camera: Camera, release: Release, boards: Sequence[str], *, reverted_before: bool, on_its_way: bool
) -> tuple[str, str] | None:
    """Why this camera is not offered the release, as a word and a sentence; None when it is.

    What a camera has not said of itself speaks for it: an unknown board is offered, the camera refuses by
    itself what is not for it. `on_its_way`: another release is being brought to it, which this one ends.
    """
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
