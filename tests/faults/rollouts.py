"""fleetd killed at every database commit and every publish of a three-wave rollout.

    python -m tests.faults.rollouts            all of them; `--step 7` every seventh

Six cameras, one of which reverts and one of which fails once and is tried again by itself. After every death a new
process takes over; states, desired generations, retained messages, audit entries and what every camera began must be
those of the run that nobody cut. Commits are cut just before and just after they happen, publishes with all that was
handed to the network arriving, lost, or the broker starting empty.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import structlog

from fleetd.domain.records import RolloutSettings
from tests.integration.test_ota import (
    go_on,
    nothing_is_lost,
    outcome,
    the_broker_forgets,
    what_is_under_way_is_lost,
)
from tests.integration.update_rig import Rig

WAVES: Final = (20, 60, 100)
RETRY_S: Final = 60.0
LOSSES: Final[tuple[Callable[[Rig], None], ...]] = (
    nothing_is_lost,
    what_is_under_way_is_lost,
    the_broker_forgets,
)
SETTINGS: Final = RolloutSettings(max_failed=9, tolerated=1.0, retries=1, retry_after_s=RETRY_S)


def bring_up(folder: Path) -> Rig:
    rig = Rig(folder)
    rig.release(5, content=b"two blocks " * 500)
    for camera in rig.cameras(*(f"cam-{n}" for n in range(6))):
        camera.behaviour = {"cam-1": "revert", "cam-4": "flaky"}.get(camera.name, "confirm")
    return rig


def three_waves(rig: Rig) -> None:
    """An operator and a fleet until the rollout is over; begun again from anywhere, it goes on."""
    if not rig.ota.rollouts():
        rig.ota.start_rollout("model-5", "all", waves=WAVES, settings=SETTINGS, actor="ann")
    while True:
        rig.settle()
        before = rig.states()
        rig.act()
        rig.settle()
        if rig.states() == before:
            waiting = [one.retry_at for one in rig.ota.rollout(1).assignments if one.retry_at is not None]
            if not waiting:
                return
            rig.now = max(rig.now, min(waiting) + 1)


def uncut() -> tuple[dict[str, Any], int, int]:
    """The outcome without any trouble; how many commits and publishes it took."""
    with tempfile.TemporaryDirectory() as folder:
        rig = bring_up(Path(folder))
        before = rig.store.commits
        assert go_on(rig, three_waves) == 0
        found = outcome(rig)
        counted = rig.store.commits - before, rig.broker.published
        rig.close()
    assert found["rollout"][:2] == ("completed", len(WAVES) - 1), found["rollout"]
    assert sorted(found["states"].values()) == ["confirmed"] * 5 + ["reverted"]
    return found, *counted


def cuts(commits: int, publishes: int, step: int) -> Iterator[tuple[str, int, Callable[[Rig], None]]]:
    """Every place to be killed at, and what the network makes of it."""
    for when in ("kill_before", "kill_after"):
        for at in range(1, commits + 1, step):
            yield when, at, nothing_is_lost
    for loss in LOSSES:
        for at in range(1, publishes + 1, step):
            yield "publish", at, loss


def cut(when: str, at: int, loss: Callable[[Rig], None]) -> dict[str, Any]:
    """The outcome when fleetd is killed there."""
    with tempfile.TemporaryDirectory() as folder:
        rig = bring_up(Path(folder))
        if when == "publish":
            rig.broker.kill_at = at
        else:
            setattr(rig.store, when, rig.store.commits + at)
        deaths = go_on(rig, three_waves, loss)
        found = outcome(rig)
        rig.close()
    assert deaths == 1, f"{when} {at}: nobody was killed"
    return found


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--step", type=int, default=1, help="cut at every so many-th place only")
    wanted, _ = parser.parse_known_args()  # `make faults ARGS=...` has arguments of others
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    began = time.monotonic()
    expected, commits, publishes = uncut()
    tried, wrong = 0, []
    for when, at, loss in cuts(commits, publishes, wanted.step):
        tried += 1
        if cut(when, at, loss) != expected:
            wrong.append(f"{when} {at} ({loss.__name__})")
    seconds = time.monotonic() - began
    print(
        f"three-wave rollout: {commits} commits (each cut before and after), {publishes} publishes (each with "
        f"{len(LOSSES)} losses): {tried} kills, {len(wrong)} came to another end, {seconds:.0f} s"
    )
    for one in wrong:
        print(f"  {one}")
    facts = {"commits": commits, "publishes": publishes, "kills": tried, "wrong": len(wrong)}
    print(json.dumps({"faults": "rollouts", **facts}))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
