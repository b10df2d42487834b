"""From an uploaded release to its rollout: what `push-model` and `push-agent` do after signing."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fleetd.cli.reasons import advice
from fleetd.cli.session import Session
from fleetd.cli.text import safe
from fleetd.cli.watch import conclude, watch

if TYPE_CHECKING:
    from fleetd.cli.pace import Pace


@dataclass(frozen=True, slots=True)
class Started:
    """A rollout as it began, whom it leaves out, and how it ended if somebody watched."""

    rollout: dict[str, Any]
    skipped: list[dict[str, Any]]
    outcome: Mapping[str, Any] | None

    def as_data(self) -> dict[str, Any]:
        """For `--json`."""
        return {"rollout": self.rollout, "skipped": self.skipped, "outcome": self.outcome}


def roll_out(
    session: Session,
    release: str,
    to: str,
    pace: "Pace",
    settings: Mapping[str, Any],
    *,
    approval: bool = False,
    watching: bool,
    quiet: bool,
) -> Started:
    """Makes the rollout, says who is left out, and watches it if that is wanted. `approval`: a second person starts
    it.
    """
    plan: dict[str, Any] = {
        "release": release,
        "target": to,
        "waves": list(pace.waves),
        "canaries": pace.canaries,
    }
    skipped = session.api.post("rollouts", "preview", body=plan)["skipped"]
    for one in skipped:
        found = advice(one["reason"])
        todo = f" {found.todo}" if found is not None else ""
        session.out.warn(f"  {safe(one['camera'])} is left out: {safe(one['detail'])}{todo}")
    chosen = {**settings, "approval": True} if approval else dict(settings)
    rollout = session.api.post("rollouts", body={**plan, "settings": chosen})
    if approval:
        session.out.warn(
            f"Rollout {rollout['id']} waits: somebody else does `fleetctl rollouts approve {rollout['id']}`."
        )
    else:
        session.out.warn(f"Rollout {rollout['id']} has started: {pace}.")
    return Started(rollout, skipped, watch(session, rollout["id"], quiet=quiet) if watching else None)


def finish(session: Session, started: Started, *, as_json: bool) -> None:
    """The exit code, or how to go on watching."""
    if started.outcome is not None:
        conclude(session, started.outcome)
    elif not as_json:
        session.out.say(f"`fleetctl rollouts watch {started.rollout['id']}` watches it.")
