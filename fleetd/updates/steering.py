"""What operators may do with rollouts: try them out on paper, start, pause, resume, cancel, retry, revert, delete.

Every wish is one transaction that holds the change, the desired states that follow from it and the audit entries.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from fleetd.domain import assignment as lifecycle
from fleetd.domain.pacing import awaits_approval
from fleetd.domain.presence import PresenceRules
from fleetd.domain.records import Assignment, AssignmentState, Rollout, RolloutSettings, RolloutState
from fleetd.domain.rollout import check_waves, steps
from fleetd.domain.target import parse_target
from fleetd.errors import AccessError, ConflictError, InvalidError, UnknownRolloutError
from fleetd.ports import Clock, Store, UnitOfWork
from fleetd.updates.changes import change_rollout, end
from fleetd.updates.judging import accept_so_far
from fleetd.updates.planning import Skipped, plan
from fleetd.updates.releases import check_key, known_release
from fleetd.updates.starting import Order, start, supersede

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


class Steering:
    """The part of the update service that carries operators' wishes out."""

    _store: Store
    _clock: Clock
    _wake: Callable[[], None]
    _rules: PresenceRules

    def preview(
        self, release_id: str, target: str, waves: Sequence[int] = (100,), canaries: int = 0
    ) -> RolloutPreview:
        """What a rollout would do, without doing it."""
        shares, query, now = check_waves(waves), parse_target(target), self._clock()
        with self._store.reading() as work:
            release = known_release(work, release_id)
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
        return self._begin(Order(release_id, target, check_waves(waves), settings), actor)

    def retry(self, rollout_id: int, *, actor: str) -> int:
        """Offers a release again, in a new rollout, to those who failed or fell silent; the new one's number.

        Cameras that rejected or reverted the release are left out: the same would happen again.
        """
        view = self.rollout(rollout_id)
        only = frozenset(one.camera for one in view.assignments if one.state in RETRIED)
        old = view.rollout
        limits = replace(
            old.settings,
            accepted=0,
            accepted_lost=0,
            accepted_dark=0,
            canaries=0,
            start_at=None,
            approved_by=None,
        )
        order = Order(old.release_id, old.target, settings=limits, only=only, retry_of=rollout_id)
        return self._begin(order, actor).id

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

    def approve(self, rollout_id: int, *, actor: str) -> Rollout:
        """Lets a rollout begin that takes a second person. AccessError for the one who made it."""
        now = self._clock()
        with self._store.transaction() as work:
            rollout = _known_rollout(work, rollout_id)
            _must_be(rollout, ACTIVE, "approved")
            if not awaits_approval(rollout.settings):
                by = rollout.settings.approved_by
                raise ConflictError(
                    f"Rollout {rollout_id} {f'was approved by {by}' if by else 'takes no approval'}. "
                    "Nothing was changed.",
                    rollout=rollout_id,
                )
            if actor == rollout.created_by:
                raise AccessError(
                    f"{actor} has made rollout {rollout_id}: it takes somebody else to approve it. "
                    "Nothing was changed.",
                    rollout=rollout_id,
                )
            check_key(work, known_release(work, rollout.release_id))
            approved = replace(rollout, settings=replace(rollout.settings, approved_by=actor))
            change_rollout(work, approved, rollout.state, "approve", actor, now)
            supersede(work, approved, now)
        self._wake()
        return approved

    def resume(self, rollout_id: int, *, actor: str) -> Rollout:
        """Goes on. After a halt, the bad outcomes so far are accepted, and a wave in which nobody confirmed."""
        now = self._clock()
        with self._store.transaction() as work:
            rollout = _known_rollout(work, rollout_id)
            if rollout.state is RUNNING:
                return rollout
            _must_be(rollout, {PAUSED, HALTED}, "resumed")
            check_key(work, known_release(work, rollout.release_id))
            resumed = replace(rollout, state=RUNNING, reason=None)
            if rollout.state is HALTED:
                resumed = accept_so_far(work, resumed, now, self._rules)
            return change_rollout(work, resumed, rollout.state, "resume", actor, now)

    def cancel(self, rollout_id: int, *, actor: str) -> Rollout:
        """Ends a rollout. Its open offers are taken back, also from cameras that are transferring already."""
        now = self._clock()
        with self._store.transaction() as work:
            rollout = _known_rollout(work, rollout_id)
            if rollout.state is RolloutState.CANCELLED:
                return rollout
            _must_be(rollout, ACTIVE, "cancelled")
            ended = _cancel(work, rollout, actor, now)
        self._wake()
        return ended

    def revert(self, rollout_id: int, release_id: str, *, actor: str) -> Rollout:
        """Brings another release to the cameras that took this rollout's, and cancels it if it still goes on.

        The release is a newer one, as a rule with the content that these cameras ran before.
        """
        now = self._clock()
        with self._store.transaction() as work:
            rollout = _known_rollout(work, rollout_id)
            took = (lifecycle.CONFIRMED, lifecycle.TRIAL)
            members = work.rollouts.assignments(rollout_id)
            only = frozenset(one.camera for one in members if one.state in took)
            if not only:
                raise InvalidError(
                    f"No camera has taken {rollout.release_id} in rollout {rollout_id}: there is nothing to revert. "
                    "Nothing was changed; `fleetctl rollouts cancel` ends it.",
                    rollout=rollout_id,
                )
            if rollout.state in ACTIVE:
                _cancel(work, rollout, actor, now)
            limits = RolloutSettings(silence_s=rollout.settings.silence_s, priority=rollout.settings.priority)
            order = Order(release_id, rollout.target, settings=limits, only=only, reverts=rollout_id)
            started = start(work, order, now, actor, self._rules)
        self._wake()
        return started

    def delete(self, rollout_id: int, *, actor: str) -> None:
        """Forgets a rollout that has ended. What cameras reverted, and the audit trail, are kept."""
        now = self._clock()
        with self._store.transaction() as work:
            rollout = _known_rollout(work, rollout_id)
            _must_be(rollout, {RolloutState.COMPLETED, RolloutState.CANCELLED}, "deleted; cancel it first")
            work.rollouts.remove(rollout_id)
            facts = {"release": rollout.release_id, "target": rollout.target, "state": rollout.state.value}
            work.access.record(actor, "rollout.delete", str(rollout_id), facts, now)

    def _begin(self, order: Order, actor: str) -> Rollout:
        parse_target(order.target)
        with self._store.transaction() as work:
            rollout = start(work, order, self._clock(), actor, self._rules)
        self._wake()
        return rollout


def _cancel(work: UnitOfWork, rollout: Rollout, actor: str, now: float) -> Rollout:
    for one in work.rollouts.assignments(rollout.id):
        if one.state in lifecycle.OPEN:
            end(work, one, lifecycle.CANCELLED, lifecycle.CALLED_OFF, now)
    ended = replace(rollout, state=RolloutState.CANCELLED, reason=None, finished_at=now)
    return change_rollout(work, ended, rollout.state, "cancel", actor, now)


def _must_be(rollout: Rollout, states: Iterable[RolloutState], wish: str) -> None:
    if rollout.state not in states:
        raise ConflictError(
            f"Rollout {rollout.id} is {rollout.state} and cannot be {wish}. Nothing was changed.",
            rollout=rollout.id,
            state=rollout.state.value,
        )


def _known_rollout(work: UnitOfWork, rollout_id: int) -> Rollout:
    rollout = work.rollouts.get(rollout_id)
    if rollout is None:
        raise UnknownRolloutError(rollout=rollout_id)
    return rollout
