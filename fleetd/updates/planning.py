"""Who would be offered a release, in which wave, and who not, and why."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from fleetd.domain.pacing import awaits_approval
from fleetd.domain.presence import PresenceRules, presence_of
from fleetd.domain.records import Camera, Release, RolloutState
from fleetd.domain.rollout import reason_to_skip, split
from fleetd.domain.target import Target, matches
from fleetd.errors import InvalidError
from fleetd.ports import UnitOfWork
from fleetd.updates.releases import described

SHOWN = 100  # skipped cameras in an error


@dataclass(frozen=True, slots=True)
class Skipped:
    """A camera that the target names and that is not offered the release."""

    camera: str
    reason: str  # already-runs-it, unsuitable-board, reverted-before, runs-newer
    detail: str


@dataclass(frozen=True, slots=True)
class Plan:
    """Cameras with their waves (from 0), first waves first; and those that are left out."""

    members: Sequence[tuple[Camera, int]]
    skipped: Sequence[Skipped]

    def check_not_empty(self, release_id: str) -> None:
        """Refuses a rollout to nobody, saying why."""
        if self.members:
            return
        why = Counter(one.reason for one in self.skipped)
        counted = ", ".join(f"{number} {reason}" for reason, number in why.most_common())
        raise InvalidError(
            f"The target names no camera to offer {release_id} to{f' ({counted})' if counted else ''}. "
            "Nothing was started.",
            skipped={one.camera: one.reason for one in self.skipped[:SHOWN]},
        )


def plan(
    work: UnitOfWork,
    release: Release,
    query: Target,
    waves: Sequence[int],
    *,
    now: float,
    rules: PresenceRules,
    canaries: int = 0,
    priority: int = 0,
    only: frozenset[str] | None = None,
) -> Plan:
    """Sorts the cameras that a query names (`only`: of these). The release's id is the salt of the waves, so
    a preview and the rollout itself come to the same.
    """
    boards = described(work.releases.manifest(release.id)).boards
    reverted = work.rollouts.reverted(release.id)
    held = _held(work, priority)
    other = {one.camera_id for one in work.rollouts.open_assignments() if one.release_id != release.id}
    chosen: list[Camera] = []
    skipped: list[Skipped] = []
    for camera in work.cameras.all():
        seen = presence_of(camera, now, rules)
        if not matches(query, camera, seen) or (only is not None and camera.name not in only):
            continue
        why = reason_to_skip(
            camera,
            release,
            boards,
            reverted_before=camera.id in reverted,
            on_its_way=camera.id in other,
            held_by=held.get(camera.id),
        )
        if why is None:
            chosen.append(camera)
        else:
            skipped.append(Skipped(camera.name, *why))
    wave = split((camera.name for camera in chosen), waves, release.id, canaries)
    members = sorted(((camera, wave[camera.name]) for camera in chosen), key=lambda member: member[1])
    return Plan(members, skipped)


def _held(work: UnitOfWork, priority: int) -> dict[int, int]:
    """Cameras that another rollout with a higher priority has, with its number; one to be approved has none yet."""
    going = (RolloutState.RUNNING, RolloutState.PAUSED)
    higher = {
        one.id
        for one in work.rollouts.all(going)
        if one.settings.priority > priority and not awaits_approval(one.settings)
    }
    if not higher:
        return {}
    return {
        one.camera_id: one.rollout_id for one in work.rollouts.open_assignments() if one.rollout_id in higher
    }
