"""Updates: releases, the keys that may sign them, rollouts, and every camera's part in them.

Operators' wishes come in by method; `process` does everything that follows from what cameras report and from
the clock, one small transaction at a time. A transaction holds the change, the desired states that follow from
it and the audit entries, and update reports are read behind a cursor that moves in the same transaction, so
being killed anywhere repeats nothing and loses nothing. Writes are guarded by the old value. Publishing is not
done here: `wake` says that there is something to publish.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Final

from fleetd.bundles.release import check_release
from fleetd.domain import assignment as lifecycle
from fleetd.domain.assignment import Change, Watched
from fleetd.domain.presence import PresenceRules, presence
from fleetd.domain.records import (
    Assignment,
    AssignmentState,
    Camera,
    Release,
    Rollout,
    RolloutSettings,
    RolloutState,
    SigningKey,
    StoredEncoding,
    UpdateReport,
)
from fleetd.domain.rollout import (
    Move,
    Step,
    check_settings,
    check_waves,
    count,
    next_step,
    reason_to_skip,
    split,
)
from fleetd.domain.target import matches, parse_target
from fleetd.errors import ConflictError, InvalidError, NotFoundError, UnknownReleaseError, UnknownRolloutError
from fleetd.logs import get_logger
from fleetd.ports import Clock, Store, UnitOfWork
from fleetd.protocol.manifest import HEADER_BYTES, Manifest

log = get_logger(__name__)

CURSOR: Final = "ota_reports_cursor"  # the fact that names the last update report that was read
FLEETD: Final = "fleetd"  # who it was, in the audit trail, when nobody asked for it
BATCH: Final = 200  # cameras or reports in one transaction: others write too
HOLE_S: Final = 10.0  # a missing report number may belong to a transaction that is still running
ABSENCE_S: Final = 60.0  # not looked for so long: silence says nothing about the cameras

RUNNING, PAUSED, HALTED = RolloutState.RUNNING, RolloutState.PAUSED, RolloutState.HALTED
ACTIVE: Final = frozenset({RUNNING, PAUSED, HALTED})


@dataclass(frozen=True, slots=True)
class Skipped:
    """A camera that the target names and that is not offered the release."""

    camera: str
    reason: str  # already-runs-it, unsuitable-board, reverted-before, runs-newer
    detail: str


@dataclass(frozen=True, slots=True)
class RolloutPreview:
    """What a rollout would do. Names of cameras by wave; `cameras` are those of all waves."""

    release_id: str
    target: str
    cameras: tuple[str, ...]
    skipped: tuple[Skipped, ...]
    waves: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class RolloutView:
    """A rollout with its cameras, and how many are in which state."""

    rollout: Rollout
    assignments: tuple[Assignment, ...]
    tally: Mapping[AssignmentState, int]


@dataclass(frozen=True, slots=True)
class _Plan:
    members: Sequence[tuple[Camera, int]]  # with their waves, from 0
    skipped: Sequence[Skipped]


class Ota:
    """The service around updates. `listening` says whether cameras can be heard right now."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        wake: Callable[[], None] = lambda: None,
        *,
        rules: PresenceRules | None = None,
        listening: Callable[[], bool] = lambda: True,
    ) -> None:
        self._store = store
        self._clock = clock
        self._wake = wake
        self._rules = rules or PresenceRules()
        self._listening = listening
        self._looked_at: float | None = None

    # -- keys and releases -----------------------------------------------------------------------------------

    def add_key(self, public_hex: str, name: str, *, actor: str) -> SigningKey:
        """Accepts releases signed with this public key (x || y in hex) from now on."""
        now = self._clock()
        key = SigningKey(key_id(public_hex), public_hex.lower(), name, now, None)
        with self._store.transaction() as work:
            known = {one.key_id: one for one in work.releases.keys()}
            if key.key_id in known:
                was = "was revoked" if known[key.key_id].revoked_at else "is accepted"
                raise ConflictError(f"The key {key.key_id} {was} already. Nothing was changed.", key=key.key_id)
            work.releases.add_key(key)
            work.access.record(actor, "key.add", key.key_id, {"name": name}, now)
        return key

    def keys(self) -> list[SigningKey]:
        """All keys, revoked ones too."""
        with self._store.reading() as work:
            return work.releases.keys()

    def revoke_key(self, key_id: str, *, actor: str) -> None:
        """Accepts nothing more from this key and halts what is under way with it. Cameras keep what they run."""
        now = self._clock()
        with self._store.transaction() as work:
            if not work.releases.revoke_key(key_id, now):
                raise NotFoundError(f"No key {key_id} is in force. Nothing was changed.", key=key_id)
            work.access.record(actor, "key.revoke", key_id, {}, now)
            signed = {release.id for release in work.releases.all() if release.key_id == key_id}
            for rollout in work.rollouts.all({RUNNING, PAUSED}):
                if rollout.release_id in signed:
                    self._halt(work, rollout, f"The signing key {key_id} was revoked.", now, actor)
        self._wake()

    def next_release(self, kind: str = "model") -> tuple[str, int, int]:
        """The id, epoch and sequence number for the next release of that kind, e.g. ("model-7", 1, 7)."""
        with self._store.reading() as work:
            epoch, sequence = work.releases.highest(kind)
            while True:
                sequence += 1
                release_id = f"{kind}-{sequence}" if epoch == 1 else f"{kind}-{epoch}.{sequence}"
                if work.releases.get(release_id) is None:
                    return release_id, epoch, sequence

    def add_release(self, manifest: bytes, encodings: Sequence[bytes], *, actor: str) -> Release:
        """Stores a signed release after checking all of it. The same upload again changes nothing."""
        now = self._clock()
        with self._store.reading() as work:
            keys = {key.key_id: key.public for key in work.releases.keys() if key.revoked_at is None}
        described = check_release(manifest, encodings, keys, now)
        release = _release(described, manifest, now, actor)
        with self._store.transaction() as work:
            known = work.releases.get(release.id)
            if known is not None and known.digest == release.digest:
                return known
            highest = work.releases.highest(release.kind)
            if known is not None or (release.epoch, release.sequence) <= highest:
                raise ConflictError(
                    f"{release.id} (sequence {release.epoch}.{release.sequence}) is not newer than what is here "
                    f"({highest[0]}.{highest[1]}), or its id is taken. Nothing was changed; sign it again as the "
                    "next release.",
                    release=release.id,
                )
            work.releases.add(release, manifest, _encodings(described, encodings))
            facts = {"digest": release.digest, "key": release.key_id, "content": release.content_sha256}
            work.access.record(actor, "release.add", release.id, facts, now)
        log.info("release_added", release=release.id, actor=actor)
        return release

    def releases(self) -> list[Release]:
        """All releases."""
        with self._store.reading() as work:
            return work.releases.all()

    def release(self, release_id: str) -> Release:
        """One release, or UnknownReleaseError."""
        with self._store.reading() as work:
            return _known_release(work, release_id)

    def manifest(self, release_id: str) -> bytes:
        """The signed manifest, byte for byte."""
        with self._store.reading() as work:
            return work.releases.manifest(release_id)

    # -- rollouts, as operators see them ---------------------------------------------------------------------

    def preview(self, release_id: str, target: str, waves: Sequence[int] = (100,)) -> RolloutPreview:
        """What a rollout would do, without doing it."""
        shares = check_waves(waves)
        with self._store.reading() as work:
            plan = self._plan(work, _known_release(work, release_id), target, shares)
        by_wave = [
            tuple(camera.name for camera, wave in plan.members if wave == n) for n in range(len(shares))
        ]
        names = tuple(camera.name for camera, _ in plan.members)
        return RolloutPreview(release_id, target, names, tuple(plan.skipped), tuple(by_wave))

    def start_rollout(
        self,
        release_id: str,
        target: str,
        *,
        waves: Sequence[int] = (100,),
        settings: RolloutSettings | None = None,
        actor: str,
    ) -> Rollout:
        """Brings a release to the cameras a query names. What else was on its way to them is superseded."""
        return self._start(release_id, target, check_waves(waves), settings or RolloutSettings(), actor, None)

    def retry(self, rollout_id: int, *, actor: str) -> int:
        """Offers a release again, in a new rollout, to those who failed or fell silent; the new one's number.

        Cameras that rejected or reverted the release are left out: the same would happen again.
        """
        again = {lifecycle.FAILED, lifecycle.TIMED_OUT, lifecycle.LOST}
        view = self.rollout(rollout_id)
        only = frozenset(one.camera for one in view.assignments if one.state in again)
        old = view.rollout
        limits = replace(old.settings, accepted=0)
        return self._start(old.release_id, old.target, (100,), limits, actor, (old, only)).id

    def rollouts(self) -> list[Rollout]:
        """All rollouts, newest first."""
        with self._store.reading() as work:
            return work.rollouts.all()

    def rollout(self, rollout_id: int) -> RolloutView:
        """One rollout with its cameras, or UnknownRolloutError."""
        with self._store.reading() as work:
            rollout = _known_rollout(work, rollout_id)
            assignments = tuple(work.rollouts.assignments(rollout_id))
        return RolloutView(rollout, assignments, Counter(one.state for one in assignments))

    def pause(self, rollout_id: int, *, actor: str) -> Rollout:
        """Offers nothing more for now; cameras that were offered the release go on."""
        return self._turn(rollout_id, PAUSED, {RUNNING}, "rollout.pause", actor)

    def resume(self, rollout_id: int, *, actor: str) -> Rollout:
        """Goes on. After a halt that accepts the bad outcomes so far, and a wave nobody confirmed in."""
        now = self._clock()
        with self._store.transaction() as work:
            rollout = _known_rollout(work, rollout_id)
            if rollout.state is HALTED:
                _check_key(work, _known_release(work, rollout.release_id))
                offered = count(one for one in work.rollouts.counts(rollout_id) if one.wave <= rollout.wave)
                rollout = replace(rollout, settings=replace(rollout.settings, accepted=offered.harmed))
                if self._step(work, rollout).move is Move.HALT and rollout.wave + 1 < len(rollout.waves):
                    rollout = replace(rollout, wave=rollout.wave + 1)
        return self._turn(rollout_id, RUNNING, {PAUSED, HALTED}, "rollout.resume", actor, rollout)

    def cancel(self, rollout_id: int, *, actor: str) -> Rollout:
        """Ends a rollout. Its open offers are taken back, also from cameras that are transferring already."""
        return self._turn(rollout_id, RolloutState.CANCELLED, ACTIVE, "rollout.cancel", actor)
