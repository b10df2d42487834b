"""Beginning a rollout, by an operator's wish or by fleetd itself when an earlier one did harm."""

from dataclasses import asdict, dataclass

from fleetd import zones
from fleetd.domain import assignment as lifecycle
from fleetd.domain.pacing import awaits_approval
from fleetd.domain.presence import PresenceRules
from fleetd.domain.records import Rollout, RolloutSettings
from fleetd.domain.rollout import check_settings
from fleetd.domain.target import parse_target
from fleetd.domain.windows import parse_window
from fleetd.errors import InvalidError
from fleetd.logs import get_logger
from fleetd.ports import UnitOfWork
from fleetd.updates.changes import end
from fleetd.updates.offering import offer
from fleetd.updates.planning import plan
from fleetd.updates.releases import check_key, check_not_expired, described, known_release

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Order:
    """A rollout that is wished for. `only`: of the cameras that the target names, none but these."""

    release_id: str
    target: str
    waves: tuple[int, ...] = (100,)
    settings: RolloutSettings = RolloutSettings()  # noqa: RUF009  # frozen
    only: frozenset[str] | None = None
    retry_of: int | None = None
    reverts: int | None = None


def start(work: UnitOfWork, order: Order, now: float, actor: str, rules: PresenceRules) -> Rollout:
    """Begins it inside the caller's transaction. What else was on its way to these cameras is superseded, once nobody
    has to approve it any more.
    """
    query, settings = parse_target(order.target), check_settings(order.settings)
    if settings.window is not None:
        zones.ahead_of_utc(parse_window(settings.window).zone, now)
    release = known_release(work, order.release_id)
    check_key(work, release)
    check_not_expired(described(work.releases.manifest(release.id)), now)
    if settings.way_back is not None:
        _check_way_back(work, order, settings.way_back)
    planned = plan(
        work,
        release,
        query,
        order.waves,
        now=now,
        rules=rules,
        canaries=settings.canaries,
        priority=settings.priority,
        only=order.only,
    )
    planned.check_not_empty(release.id)
    members = {camera.id: wave for camera, wave in planned.members}
    rollout = work.rollouts.add(
        release_id=release.id,
        target=order.target,
        waves=order.waves,
        settings=settings,
        created_by=actor,
        now=now,
        members=members.items(),
    )
    if not awaits_approval(settings):
        supersede(work, rollout, now)
    facts = {
        "release": release.id,
        "target": order.target,
        "waves": list(order.waves),
        "settings": asdict(settings),
        "cameras": len(members),
        "skipped": {one.camera: one.reason for one in planned.skipped},
        "retry_of": order.retry_of,
        "reverts": order.reverts,
    }
    work.access.record(actor, "rollout.start", str(rollout.id), facts, now)
    offer(work, rollout, now, rules)
    log.info("rollout_started", rollout=rollout.id, release=release.id, cameras=len(members), actor=actor)
    return rollout


def supersede(work: UnitOfWork, rollout: Rollout, now: float) -> None:
    """Ends what else is on its way to the cameras that take part in this rollout."""
    everything = work.rollouts.open_assignments()
    here = {one.camera_id for one in everything if one.rollout_id == rollout.id}
    for one in everything:
        if one.camera_id in here and one.rollout_id != rollout.id:
            end(work, one, lifecycle.SUPERSEDED, f"rollout-{rollout.id}", now)


def _check_way_back(work: UnitOfWork, order: Order, way_back: str) -> None:
    """Refuses a way back that cameras would refuse when it is needed."""
    ahead, back = known_release(work, order.release_id), known_release(work, way_back)
    check_key(work, back)
    newer = (back.epoch, back.sequence) > (ahead.epoch, ahead.sequence)
    if not newer or back.kind != ahead.kind:
        raise InvalidError(
            f"{way_back} is no way back from {ahead.id}: cameras would refuse it, it is not newer. "
            "Nothing was started; sign the old content again as the next release.",
            release=ahead.id,
            way_back=way_back,
        )
