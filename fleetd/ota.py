"""Updates: releases, the keys that may sign them, rollouts, and every camera's part in them.

Operators' wishes come in by method; `process` does what follows from cameras' reports and from the clock. A
transaction holds a change, the desired states that follow from it and the audit entries, and writes are
guarded by the old value: being killed anywhere repeats nothing, and two processes do not get in each other's
way. Publishing is not done here: `wake` says that there is something to publish.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Final

from fleetd.bundles.errors import ReleaseError
from fleetd.bundles.release import check_release
from fleetd.domain import assignment as lifecycle
from fleetd.domain.presence import PresenceRules
from fleetd.domain.records import (
    Assignment,
    AssignmentState,
    Release,
    Rollout,
    RolloutSettings,
    RolloutState,
    StoredEncoding,
)
from fleetd.domain.rollout import check_settings, check_waves, steps
from fleetd.domain.target import parse_target
from fleetd.errors import (
    ConflictError,
    FleetError,
    UnknownReleaseError,
    UnknownRolloutError,
)
from fleetd.logs import get_logger
from fleetd.ports import Clock, Store, UnitOfWork
from fleetd.updates.changes import change_rollout, end, offer
from fleetd.updates.judging import accept_so_far
from fleetd.updates.planning import Skipped, plan
from fleetd.updates.progress import Progress
from fleetd.updates.releases import StoredContents, as_release, check_key, check_not_expired, described
from fleetd.updates.trust import Trust

log = get_logger(__name__)

RUNNING, PAUSED, HALTED = RolloutState.RUNNING, RolloutState.PAUSED, RolloutState.HALTED
ACTIVE: Final = frozenset({RUNNING, PAUSED, HALTED})
RETRIED: Final = frozenset({lifecycle.FAILED, lifecycle.TIMED_OUT, lifecycle.LOST})


@dataclass(frozen=True, slots=True)
class RolloutPreview:
    """What a rollout would do: names of cameras by wave (`cameras` are all of them), and who is left out."""

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


class Ota(Trust):
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
        super().__init__(store, clock, wake)
        self._rules = rules or PresenceRules()
        self._progress = Progress(store, self._rules, listening)

    # -- releases --------------------------------------------------------------------------------------------

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
            keys = work.releases.keys()
        public = [bytes.fromhex(key.public) for key in keys if key.revoked_at is None]
        checked = check_release(manifest, encodings, public, contents=StoredContents(self._store))
        check_not_expired(checked.manifest, now)
        release = as_release(checked, now, actor)
        stored = [
            StoredEncoding(one.sha256, one.kind, one.base, one.size, one.data) for one in checked.encodings
        ]
        with self._store.transaction() as work:
            known = work.releases.get(release.id)
            if known is not None and known.digest == release.digest:
                return known
            highest = work.releases.highest(release.kind)
            if known is not None or (release.epoch, release.sequence) <= highest:
                raise ConflictError(
                    f"{release.id} (epoch {release.epoch}, sequence {release.sequence}) is not newer than what is "
                    f"here (epoch {highest[0]}, sequence {highest[1]}), or its id is taken. Nothing was changed; "
                    "sign it again as the next release.",
                    release=release.id,
                )
            check_key(work, release)
            work.releases.add(release, manifest, stored)
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

    def content(self, release_id: str) -> bytes:
        """What the release puts into a camera's slot, unpacked: up to 16 MB that are what its digest says."""
        sha256 = self.release(release_id).content_sha256
        try:
            content = StoredContents(self._store)[sha256]
        except (KeyError, ReleaseError):
            content = b""
        if hashlib.sha256(content).hexdigest() != sha256:
            log.error("content_damaged", release=release_id)
            raise FleetError(
                f"What is stored of {release_id} is damaged. Push the model again: that makes a new release.",
                release=release_id,
            )
        return content

    # -- rollouts --------------------------------------------------------------------------------------------

    def preview(
        self, release_id: str, target: str, waves: Sequence[int] = (100,), canaries: int = 0
    ) -> RolloutPreview:
        """What a rollout would do, without doing it."""
        shares, query, now = check_waves(waves), parse_target(target), self._clock()
        with self._store.reading() as work:
            release = _known_release(work, release_id)
            planned = plan(
                work, release, query, shares, now=now, rules=self._rules, canaries=max(0, canaries)
            )
        by_wave: list[list[str]] = [[] for _ in steps(shares, canaries)]
        for camera, wave in planned.members:
            by_wave[wave].append(camera.name)
        return RolloutPreview(
            release_id=release_id,
            target=target,
            cameras=tuple(camera.name for camera, _ in planned.members),
            skipped=tuple(planned.skipped),
            waves=tuple(map(tuple, by_wave)),
        )

    def start_rollout(
        self,
        release_id: str,
        target: str,
        *,
        waves: Sequence[int] = (100,),
        settings: RolloutSettings = RolloutSettings(),  # noqa: B008  # frozen
        actor: str,
    ) -> Rollout:
        """Brings a release to the cameras a query names. What else was on its way to them is superseded."""
        return self._start(release_id, target, check_waves(waves), settings, actor)

    def retry(self, rollout_id: int, *, actor: str) -> int:
        """Offers a release again, in a new rollout, to those who failed or fell silent; the new one's number.

        Cameras that rejected or reverted the release are left out: the same would happen again.
        """
        view = self.rollout(rollout_id)
        only = frozenset(one.camera for one in view.assignments if one.state in RETRIED)
        old = view.rollout
        limits = replace(old.settings, accepted=0, accepted_lost=0, accepted_dark=0, canaries=0)
        return self._start(old.release_id, old.target, (100,), limits, actor, again=(rollout_id, only)).id

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
        now = self._clock()
        with self._store.transaction() as work:
            rollout = _known_rollout(work, rollout_id)
            if rollout.state is PAUSED:
                return rollout
            _must_be(rollout, {RUNNING}, "paused")
            return change_rollout(
                work, replace(rollout, state=PAUSED, reason=None), RUNNING, "pause", actor, now
            )

    def resume(self, rollout_id: int, *, actor: str) -> Rollout:
        """Goes on. After a halt, the bad outcomes so far are accepted, and a wave in which nobody confirmed."""
        now = self._clock()
        with self._store.transaction() as work:
            rollout = _known_rollout(work, rollout_id)
            if rollout.state is RUNNING:
                return rollout
            _must_be(rollout, {PAUSED, HALTED}, "resumed")
            check_key(work, _known_release(work, rollout.release_id))
            resumed = replace(rollout, state=RUNNING, reason=None)
            if rollout.state is HALTED:
                resumed = accept_so_far(work, resumed, now)
            return change_rollout(work, resumed, rollout.state, "resume", actor, now)

    def cancel(self, rollout_id: int, *, actor: str) -> Rollout:
        """Ends a rollout. Its open offers are taken back, also from cameras that are transferring already."""
        now = self._clock()
        with self._store.transaction() as work:
            rollout = _known_rollout(work, rollout_id)
            if rollout.state is RolloutState.CANCELLED:
                return rollout
            _must_be(rollout, ACTIVE, "cancelled")
            for one in work.rollouts.assignments(rollout_id):
                if one.state in lifecycle.OPEN:
                    end(work, one, lifecycle.CANCELLED, "operator-cancelled", now)
            ended = replace(rollout, state=RolloutState.CANCELLED, reason=None, finished_at=now)
            change_rollout(work, ended, rollout.state, "cancel", actor, now)
        self._wake()
        return ended

    def process(self) -> bool:
        """Does one piece of what is due: reports, what cameras say of themselves, silence, waves.

        True when there was work, and there may be more.
        """
        try:
            worked = self._progress.step(self._clock())
        except ConflictError as error:  # whoever was quicker with the same piece wins
            log.info("update_changed_meanwhile", error=str(error))
            return False
        if worked:
            self._wake()
        return worked

    def _start(
        self,
        release_id: str,
        target: str,
        waves: tuple[int, ...],
        settings: RolloutSettings,
        actor: str,
        *,
        again: tuple[int, frozenset[str]] | None = None,
    ) -> Rollout:
        """Starts a rollout. `again`: the number of an earlier one and the cameras of it to offer it to again."""
        query, now = parse_target(target), self._clock()
        check_settings(settings)
        only = again[1] if again else None
        with self._store.transaction() as work:
            release = _known_release(work, release_id)
            check_key(work, release)
            check_not_expired(described(work.releases.manifest(release_id)), now)
            planned = plan(
                work,
                release,
                query,
                waves,
                now=now,
                rules=self._rules,
                canaries=settings.canaries,
                only=only,
            )
            planned.check_not_empty(release_id)
            members = {camera.id: wave for camera, wave in planned.members}
            rollout = work.rollouts.add(
                release_id=release_id,
                target=target,
                waves=waves,
                settings=settings,
                created_by=actor,
                now=now,
                members=members.items(),
            )
            for one in work.rollouts.open_assignments():
                if one.camera_id in members and one.rollout_id != rollout.id:
                    end(work, one, lifecycle.SUPERSEDED, f"rollout-{rollout.id}", now)
            facts = {
                "release": release_id,
                "target": target,
                "waves": list(waves),
                "settings": asdict(settings),
                "cameras": len(members),
                "skipped": {one.camera: one.reason for one in planned.skipped},
                "retry_of": again[0] if again else None,
            }
            work.access.record(actor, "rollout.start", str(rollout.id), facts, now)
            offer(work, rollout, release, now)
        log.info("rollout_started", rollout=rollout.id, release=release_id, cameras=len(members), actor=actor)
        self._wake()
        return rollout


def _must_be(rollout: Rollout, states: Iterable[RolloutState], wish: str) -> None:
    if rollout.state not in states:
        raise ConflictError(
            f"Rollout {rollout.id} is {rollout.state} and cannot be {wish}. Nothing was changed.",
            rollout=rollout.id,
            state=rollout.state.value,
        )


def _known_release(work: UnitOfWork, release_id: str) -> Release:
    release = work.releases.get(release_id)
    if release is None:
        raise UnknownReleaseError(release=release_id)
    return release


def _known_rollout(work: UnitOfWork, rollout_id: int) -> Rollout:
    rollout = work.rollouts.get(rollout_id)
    if rollout is None:
        raise UnknownRolloutError(rollout=rollout_id)
    return rollout
