"""Why a rollout or a camera is where it is: said in every state, with what happens next and when."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from fleetd.domain.records import RolloutSettings
from fleetd.errors import UnknownCameraError, UnknownRolloutError
from tests.integration.update_rig import START, Rig


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(tmp_path)
    rig.release(5)
    yield rig
    rig.close()


def begin(rig: Rig, **limits: object) -> int:
    settings = RolloutSettings(**limits)  # type: ignore[arg-type]
    number = rig.ota.start_rollout("model-5", "all", waves=(50, 100), settings=settings, actor="ann").id
    rig.settle()
    return number


def test_a_wave_that_is_under_way_names_what_follows_and_the_next_deadline(rig: Rig) -> None:
    rig.cameras("cam-1", "cam-2")
    number = begin(rig)
    found = rig.ota.explain(number)
    assert found.why == "1 cameras of this wave are not done."
    assert found.next == "When they are done, the next wave (100 %) begins."
    assert found.at == START + 600
    assert [(one.name, one.state, one.cameras) for one in found.waves] == [
        ("50 %", "now", 1),
        ("100 %", "later", 1),
    ]
    assert (found.per_minute, found.left_s) == (None, None)


def test_a_wave_that_is_watched_says_for_how_long(rig: Rig) -> None:
    rig.cameras("cam-1", "cam-2")
    number = begin(rig, soak_s=600.0)
    rig.now += 30
    rig.act()
    rig.settle()
    rig.now += 60
    found = rig.ota.explain(number)
    assert "is watched for 9 min more" in found.why
    assert found.at == START + 630
    assert found.per_minute == pytest.approx(2.0)
    assert found.left_s == pytest.approx(30 + 540 + 600)
    assert [one.state for one in found.waves] == ["done", "later"]


def test_a_closed_window_and_a_schedule_say_when_they_open(rig: Rig) -> None:
    rig.cameras("cam-1", "cam-2")
    window = rig.ota.explain(begin(rig, window="23:00-24:00 UTC"))
    assert "23:00-24:00 UTC" in window.why
    assert window.at == START + 46 * 60 + 40
    scheduled = rig.ota.explain(begin(rig, start_at=START + 3600))
    assert (scheduled.why, scheduled.at) == ("It is scheduled for later.", START + 3600)


def test_a_try_again_is_told_with_its_time(rig: Rig) -> None:
    (cam,) = rig.cameras("cam-1")
    number = begin(rig, retries=1, retry_after_s=120.0)
    cam.report("failed", reason="connection-lost")
    rig.settle()
    found = rig.ota.explain(number)
    assert found.why == "1 cameras failed and are tried again."
    assert found.at == START + 120
    assert [one.camera for one in found.next_tries] == ["cam-1"]


def test_paused_halted_cancelled_and_completed_say_what_an_operator_can_do(rig: Rig) -> None:
    cameras = rig.cameras("cam-1", "cam-2")
    for camera in cameras:
        camera.behaviour = "revert"
    number = begin(rig)
    rig.ota.pause(number, actor="ann")
    assert f"fleetctl rollouts resume {number}" in rig.ota.explain(number).next
    rig.ota.resume(number, actor="ann")
    rig.act()
    rig.settle()
    halted = rig.ota.explain(number)
    assert "None of the 1 cameras" in halted.why
    assert f"revert {number}" in halted.next
    rig.ota.cancel(number, actor="ann")
    assert rig.ota.explain(number).why == "An operator cancelled it."
    with pytest.raises(UnknownRolloutError):
        rig.ota.explain(99)


def test_a_camera_is_explained_by_what_is_desired_reported_and_seen(rig: Rig) -> None:
    cam, away = rig.cameras("cam-1", "cam-2")
    idle = rig.ota.explain_camera("cam-1")
    assert idle.why == "It says it runs model-1; nothing else is asked of it."
    away.disconnect()
    number = rig.ota.start_rollout("model-5", "all", actor="ann").id
    unsent = rig.ota.explain_camera("cam-1")
    assert "the broker first" in unsent.next
    rig.settle()
    waiting = rig.ota.explain_camera("cam-2")
    assert waiting.next == "It is not there. The offer waits for it at the broker."
    cam.report("transferring")
    rig.settle()
    busy = rig.ota.explain_camera("cam-1")
    assert f"Rollout {number} brings model-5 to it: transferring" in busy.why
    assert busy.next.startswith("The camera acts next")
    rig.ota.pause(number, actor="ann")
    cam.report("failed", reason="digest-mismatch")
    rig.settle()
    failed = rig.ota.explain_camera("cam-1")
    assert [(one.release_id, one.reason) for one in failed.attempts] == [("model-5", "digest-mismatch")]
    rig.ota.pin("cam-1", None, actor="ann")
    assert "is pinned to model-1" in rig.ota.explain_camera("cam-1").why
    with pytest.raises(UnknownCameraError):
        rig.ota.explain_camera("cam-9")
