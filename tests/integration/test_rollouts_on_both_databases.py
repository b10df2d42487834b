"""What rollouts read and write in SQL, on each database that fleetd supports."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from fleetd.domain.assignment import FAILED, OFFERED, PENDING, REVERTED
from fleetd.domain.presence import PresenceRules
from fleetd.domain.records import RolloutSettings
from fleetd.domain.rollout import StateCount
from tests.integration.update_rig import START, Rig

RULES = PresenceRules()
BUCKET = 60.0


@pytest.fixture
def rig(tmp_path: Path, database_url: str) -> Iterator[Rig]:
    rig = Rig(tmp_path, database_url)
    rig.release(5)
    yield rig
    rig.close()


def begin(rig: Rig, **limits: object) -> int:
    settings = RolloutSettings(**limits)  # type: ignore[arg-type]
    number = rig.ota.start_rollout("model-5", "all", settings=settings, actor="ann").id
    rig.settle()
    return number


def test_what_cameras_saw_is_counted_in_buckets(rig: Rig) -> None:
    cameras = rig.cameras("cam-1", "cam-2", "cam-3")

    def minutes(count: int) -> None:
        with rig.in_one_batch():
            for _ in range(count):
                rig.now += BUCKET
                for camera in cameras:
                    camera.see(["bee", "bee", "wasp"], score=0.75, ms=40.0)
                    camera.status()

    minutes(10)
    number = begin(rig, canaries=1, soak_s=3600.0)
    rig.act()
    rig.settle()
    taken = {name for name, state in rig.states(number).items() if state == "confirmed"}
    minutes(6)
    with rig.database.reading() as work:
        canaries, controls = work.health.watches(
            number, "model-5", bucket_s=BUCKET, threshold=0.8, now=rig.now
        )
        dark = work.health.dark(number, "model-5", silence_s=300.0, now=rig.now + 400)
        assert work.health.release_before(number) == "model-1"
        assert work.health.settled_at(number, 0) == START + 600
    (canary,) = canaries
    assert canary.camera in taken
    assert {one.camera for one in controls} == {camera.name for camera in cameras} - taken
    bucket = canary.buckets[canary.before[2]]
    assert (bucket.results, dict(bucket.labels)) == (3, {"bee": 2, "wasp": 1})
    assert bucket.score == pytest.approx(0.75)
    assert bucket.inference_ms == pytest.approx(40.0)
    assert bucket.unknown == 1.0
    assert len(canary.after) >= 4
    assert (dark.running, dark.silent, dark.others, dark.others_silent) == (1, 1, 2, 2)


def test_offers_keep_to_sites_and_to_cameras_that_are_there(rig: Rig) -> None:
    one, two, three = rig.cameras("cam-1", "cam-2", "cam-3")
    rig.registry.move("cam-1", "berlin", actor="ann")
    rig.registry.move("cam-2", "berlin", actor="ann")
    three.disconnect()
    number = begin(rig, site_at_once=1)
    assert rig.states(number) == {"cam-1": OFFERED, "cam-2": PENDING, "cam-3": PENDING}
    with rig.database.reading() as work:
        load = work.rollouts.load(number, rig.now)
        assert (load.here, dict(load.at_site), dict(load.last_hour)) == (1, {"berlin": 1}, {"berlin": 1})
        counts = work.rollouts.counts(number, now=rig.now, there=RULES)
        assert StateCount(0, PENDING, True, 1) in counts
        assert work.rollouts.pending(number, 0, 9, now=rig.now, there=RULES, not_at=["berlin"]) == []
    one.report("transferring")
    one.report("failed", reason="connection-lost")
    rig.settle()
    assert rig.states(number)["cam-1"] is FAILED
    assert rig.states(number)["cam-2"] is OFFERED
    with rig.database.reading() as work:
        assert [tried.reason for tried in work.rollouts.attempts(one.id)] == ["connection-lost"]
        assert work.rollouts.assignments(number)[0].was_release == "model-1"
    assert two.desired["release"] == "model-5"


def test_a_deleted_rollout_leaves_what_was_reverted_and_its_number(rig: Rig) -> None:
    (cam,) = rig.cameras("cam-1")
    cam.behaviour = "revert"
    number = begin(rig, max_failed=9)
    rig.act()
    rig.settle()
    assert rig.states(number) == {"cam-1": REVERTED}
    rig.ota.delete(number, actor="ann")
    with rig.database.reading() as work:
        assert work.rollouts.reverted("model-5") == {cam.id}
    rig.release(6)
    rig.ota.pin("cam-1", "model-6", actor="ann")
    assert rig.ota.start_rollout("model-6", "all", actor="ann").id == number + 1
    assert rig.ota.explain_camera("cam-1").camera.pinned == "model-6"
