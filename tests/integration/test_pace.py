"""When and how fast: schedules, windows, limits per site, retries, pins, priorities; going back and forgetting."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fleetd.domain.assignment import LOST, PENDING
from fleetd.domain.records import AssignmentState, RolloutSettings, RolloutState
from fleetd.errors import ConflictError, InvalidError, UnknownCameraError, UnknownReleaseError
from tests.integration.update_rig import START, Camera, Rig

CONFIRMED, OFFERED = AssignmentState.CONFIRMED, AssignmentState.OFFERED
TRANSFERRING, CANCELLED = AssignmentState.TRANSFERRING, AssignmentState.CANCELLED
FAILED, TRIAL = AssignmentState.FAILED, AssignmentState.TRIAL
HOUR = 3600.0


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(tmp_path)
    rig.release(5)
    yield rig
    rig.close()


def begin(rig: Rig, target: str = "all", release: str = "model-5", waves: Any = (100,), **limits: Any) -> int:
    number = rig.ota.start_rollout(
        release, target, waves=waves, settings=RolloutSettings(**limits), actor="ann"
    ).id
    rig.settle()
    return number


def tally(rig: Rig, number: int) -> Counter[AssignmentState]:
    return Counter(rig.states(number).values())


def later(rig: Rig, seconds: float, *, say: bool = True) -> None:
    """Time passes; cameras that are there say so."""
    rig.now += seconds
    if say:
        for camera in rig.fleet:
            if camera.behaviour != "away":
                camera.status()
    rig.settle()


# -- when ----------------------------------------------------------------------------------------------------


def test_a_scheduled_rollout_waits_for_its_hour(rig: Rig) -> None:
    rig.cameras("cam-1", "cam-2")
    number = begin(rig, start_at=START + HOUR)
    assert tally(rig, number) == {PENDING: 2}
    later(rig, HOUR - 60)
    assert tally(rig, number) == {PENDING: 2}
    later(rig, 120)
    assert tally(rig, number) == {OFFERED: 2}


def test_offers_are_made_in_the_window_and_taken_back_when_it_closes(rig: Rig) -> None:
    """START is 22:13:20 UTC on a Tuesday."""
    away, there = rig.cameras("cam-1", "cam-2")
    away.disconnect()
    away.behaviour = there.behaviour = "away"
    number = begin(rig, window="22:00-23:00 UTC", silence_s=7200.0)
    assert tally(rig, number) == {OFFERED: 2}
    there.report("transferring")
    later(rig, HOUR)
    assert rig.states(number) == {"cam-1": PENDING, "cam-2": TRANSFERRING}, "what has begun goes on"
    assert away.desired.get("release") is None
    (sleeping,) = [one for one in rig.ota.rollout(number).assignments if one.camera == "cam-1"]
    assert sleeping.reason == "window-closed"
    later(rig, 22.9 * HOUR, say=False)
    away.behaviour = "confirm"
    assert rig.states(number)["cam-1"] is OFFERED, "the next evening"
    rig.act()
    rig.settle()
    assert rig.states(number)["cam-1"] is CONFIRMED


def test_a_window_in_an_unknown_zone_starts_nothing(rig: Rig) -> None:
    rig.cameras("cam-1")
    with pytest.raises(InvalidError, match="no time zone"):
        begin(rig, window="22:00-23:00 Mars/Olympus")
    with pytest.raises(InvalidError, match="cannot be read"):
        begin(rig, window="at night")
    assert rig.ota.rollouts() == []


# -- how fast ------------------------------------------------------------------------------------------------


def test_no_site_has_more_at_a_time_than_its_limit_whatever_the_rollouts(rig: Rig) -> None:
    rig.release(6)
    for number, camera in enumerate(rig.cameras(*(f"cam-{n}" for n in range(8)))):
        rig.registry.move(camera.name, "berlin" if number < 5 else "porto", actor="ann")
        camera.behaviour = "away"
    first = begin(rig, "id=cam-0 or id=cam-5", site_at_once=2)
    second = begin(rig, "not (id=cam-0 or id=cam-5)", "model-6", site_at_once=2)
    busy = {
        name
        for states in (rig.states(first), rig.states(second))
        for name, state in states.items()
        if state is OFFERED
    }
    assert Counter(rig.site(name) for name in busy) == {"berlin": 2, "porto": 2}
    most = Counter[str]()
    for _ in range(8):
        for camera in rig.fleet:
            camera.behaviour = "confirm"
        now = Counter(
            rig.site(name)
            for states in (rig.states(first), rig.states(second))
            for name, state in states.items()
            if state is OFFERED
        )
        most |= now
        rig.act()
        rig.settle()
    assert most == {"berlin": 2, "porto": 2}
    assert tally(rig, first) + tally(rig, second) == {CONFIRMED: 8}


def test_a_rate_per_hour_is_kept_and_the_rest_follows(rig: Rig) -> None:
    rig.cameras(*(f"cam-{n}" for n in range(7)))
    number = begin(rig, site_per_hour=3)
    rig.act()
    rig.settle()
    assert tally(rig, number) == {CONFIRMED: 3, PENDING: 4}
    later(rig, HOUR / 2)
    assert tally(rig, number) == {CONFIRMED: 3, PENDING: 4}
    later(rig, HOUR / 2)
    rig.act()
    rig.settle()
    assert tally(rig, number) == {CONFIRMED: 6, PENDING: 1}


def test_with_a_limit_sleeping_cameras_are_offered_it_when_they_wake(rig: Rig) -> None:
    """They neither take up room nor hold up the next wave."""
    cameras = rig.cameras(*(f"cam-{n}" for n in range(4)))
    for camera in cameras[:3]:
        camera.disconnect()
        camera.behaviour = "away"
    number = begin(rig, at_once=1)
    assert rig.states(number) == {"cam-0": PENDING, "cam-1": PENDING, "cam-2": PENDING, "cam-3": OFFERED}
    rig.act()
    rig.settle()
    assert rig.ota.rollout(number).rollout.state is RolloutState.RUNNING
    for camera in cameras[:3]:
        camera.behaviour = "confirm"
        later(rig, 10)
        assert rig.states(number)[camera.name] is OFFERED
        rig.act()
        rig.settle()
    assert tally(rig, number) == {CONFIRMED: 4}


def test_a_higher_priority_goes_first_and_keeps_its_cameras(rig: Rig) -> None:
    rig.release(6)
    cameras = rig.cameras("cam-1", "cam-2", "cam-3")
    for camera in cameras:
        camera.behaviour = "away"
    urgent = begin(rig, "id=cam-1", "model-6", priority=5)
    preview = rig.ota.preview("model-5", "all")
    assert [(one.camera, one.reason) for one in preview.skipped] == [("cam-1", "higher-priority")]
    calm = begin(rig, "all")
    assert set(rig.states(calm)) == {"cam-2", "cam-3"}
    assert rig.states(urgent) == {"cam-1": OFFERED}
    begin(rig, "id=cam-1", "model-5", priority=5)
    assert rig.states(urgent) == {"cam-1": AssignmentState.SUPERSEDED}, "an equal one supersedes"


# -- trying again --------------------------------------------------------------------------------------------


def fail(rig: Rig, camera: Camera, reason: str = "connection-lost") -> None:
    camera.report("transferring")
    camera.report("failed", reason=reason)
    rig.settle()


def test_a_broken_link_is_tried_again_by_itself_and_succeeds(rig: Rig) -> None:
    (cam,) = rig.cameras("cam-1")
    number = begin(rig, retries=2, retry_after_s=60.0)
    fail(rig, cam)
    (one,) = rig.ota.rollout(number).assignments
    assert (one.state, one.reason, one.retry_at) == (PENDING, "connection-lost", rig.now + 60)
    assert cam.desired["release"] is None, "the camera is left alone meanwhile"
    later(rig, 59)
    assert rig.states(number) == {"cam-1": PENDING}
    later(rig, 2)
    assert rig.states(number) == {"cam-1": OFFERED}
    rig.act()
    rig.settle()
    assert rig.states(number) == {"cam-1": CONFIRMED}


def test_the_retry_budget_survives_leaving_and_rejoining_a_group(rig: Rig) -> None:
    """(l) It belongs to camera and release, not to the rollout or the tag that brought them together."""
    (cam,) = rig.cameras("cam-1")
    rig.registry.tag("cam-1", add=["line-1"], actor="ann")
    first = begin(rig, "tag=line-1", retries=1, retry_after_s=60.0, max_failed=9)
    fail(rig, cam)
    assert rig.states(first) == {"cam-1": PENDING}
    rig.registry.tag("cam-1", remove=["line-1"], add=["line-2"], actor="ann")
    rig.ota.cancel(first, actor="ann")
    second = begin(rig, "tag=line-2", retries=1, retry_after_s=60.0, max_failed=9)
    fail(rig, cam)
    assert rig.states(second) == {"cam-1": FAILED}
    rig.ota.delete(first, actor="ann")
    rig.registry.tag("cam-1", remove=["line-2"], add=["line-1"], actor="ann")
    third = begin(rig, "tag=line-1", retries=1, retry_after_s=60.0, max_failed=9)
    fail(rig, cam)
    assert rig.states(third) == {"cam-1": FAILED}, "though the first rollout is forgotten"


def test_only_reasons_that_may_go_away_are_tried_again(rig: Rig) -> None:
    (cam,) = rig.cameras("cam-1")
    number = begin(rig, retries=5)
    fail(rig, cam, "signature-invalid")
    assert rig.states(number) == {"cam-1": FAILED}
    with pytest.raises(InvalidError, match="retry_reasons"):
        begin(rig, retries=1, retry_reasons=("silent",))


# -- pins ----------------------------------------------------------------------------------------------------


def test_a_pinned_camera_is_left_alone_until_it_is_unpinned(rig: Rig) -> None:
    cam, _ = rig.cameras("cam-1", "cam-2")
    number = begin(rig)
    cam.report("transferring")
    rig.settle()
    assert rig.ota.pin("cam-1", None, actor="ann") == "model-1"
    rig.settle()
    (one,) = [one for one in rig.ota.rollout(number).assignments if one.camera == "cam-1"]
    assert (one.state, one.reason) == (CANCELLED, "pinned")
    assert cam.desired["release"] is None, "it stops what it has begun"
    preview = rig.ota.preview("model-5", "all")
    assert ("cam-1", "pinned") in [(one.camera, one.reason) for one in preview.skipped]
    rig.ota.unpin("cam-1", actor="ann")
    assert rig.ota.preview("model-5", "id=cam-1").cameras == ("cam-1",)
    rig.ota.pin("cam-1", "model-5", actor="ann")
    assert rig.ota.preview("model-5", "id=cam-1").cameras == ("cam-1",), "to that one it may go"
    assert ("ann", "camera.unpin", "cam-1") in rig.audit()
    for call in (
        lambda: rig.ota.pin("cam-9", None, actor="ann"),
        lambda: rig.ota.unpin("cam-9", actor="ann"),
    ):
        with pytest.raises(UnknownCameraError):
            call()
    with pytest.raises(UnknownReleaseError):
        rig.ota.pin("cam-1", "model-99", actor="ann")


# -- going back and forgetting -------------------------------------------------------------------------------


def old_content(rig: Rig, sequence: int) -> str:
    """The content of model-1 again, signed as a newer release."""
    return rig.release(sequence, content=rig.content("model-1")).id


def test_a_revert_is_a_new_release_with_the_old_content_to_those_that_took_it(rig: Rig) -> None:
    one, two = rig.cameras("cam-1", "cam-2")
    two.behaviour = "revert"
    number = begin(rig, max_failed=9)
    rig.act()
    rig.settle()
    back = old_content(rig, 6)
    reverted = rig.ota.revert(number, back, actor="ann").id
    rig.settle()
    assert rig.states(reverted) == {"cam-1": OFFERED}
    rig.act()
    rig.settle()
    assert rig.states(reverted) == {"cam-1": CONFIRMED}
    assert one.running[1] == rig.digest("model-1")
    (part,) = rig.ota.rollout(reverted).assignments
    assert part.was_release == "model-5"


def test_a_rollout_that_nobody_took_has_nothing_to_revert(rig: Rig) -> None:
    rig.cameras("cam-1")
    number = begin(rig)
    with pytest.raises(InvalidError, match="nothing to revert"):
        rig.ota.revert(number, old_content(rig, 6), actor="ann")
    assert rig.ota.rollout(number).rollout.state is RolloutState.RUNNING, "nothing was changed"


def test_a_halt_starts_the_way_back_and_ends_trials(rig: Rig) -> None:
    cameras = rig.cameras(*(f"cam-{n}" for n in range(8)))
    for camera in cameras[:3]:
        camera.behaviour = "revert"
    back = old_content(rig, 6)
    number = begin(rig, max_failed=1, take_back=True, way_back=back)
    cameras[7].behaviour = "away"
    for state in ("transferring", "verifying", "trial"):
        cameras[7].report(state)
    rig.act()
    rig.settle()
    view = rig.ota.rollout(number)
    assert view.rollout.state is RolloutState.HALTED
    assert view.rollout.reason is not None
    assert "Rollout 2 brings model-6 to those that confirmed" in view.rollout.reason
    assert rig.states(number)["cam-7"] is CANCELLED
    assert cameras[7].desired["release"] is None
    assert set(rig.states(2)) == {camera.name for camera in cameras[3:7]}
    rig.act()
    rig.settle()
    assert set(rig.states(2).values()) == {CONFIRMED}
    assert {camera.running[1] for camera in cameras[3:7]} == {rig.digest("model-1")}


def test_a_way_back_that_cameras_would_refuse_is_refused_before_it_is_needed(rig: Rig) -> None:
    rig.cameras("cam-1")
    rig.release(6)
    for wrong in ("model-1", "model-5"):
        with pytest.raises(InvalidError, match="no way back"):
            begin(rig, take_back=True, way_back=wrong)
    with pytest.raises(InvalidError, match="way_back needs take_back"):
        begin(rig, way_back="model-6")
    assert rig.ota.rollouts() == []


def test_a_rollout_that_has_ended_can_be_forgotten_but_not_what_was_reverted(rig: Rig) -> None:
    (cam,) = rig.cameras("cam-1")
    cam.behaviour = "revert"
    number = begin(rig, max_failed=9)
    with pytest.raises(ConflictError, match="cancel it first"):
        rig.ota.delete(number, actor="ann")
    rig.act()
    rig.settle()
    rig.ota.delete(number, actor="ann")
    assert rig.ota.rollouts() == []
    assert [one.reason for one in rig.ota.preview("model-5", "all").skipped] == ["reverted-before"]
    assert rig.audit()[-1] == ("ann", "rollout.delete", str(number))
    cam.behaviour = "confirm"
    rig.release(6)
    assert begin(rig, release="model-6") == number + 1, "a number is never given twice"


def test_silence_is_not_tried_again_and_counts_at_once(rig: Rig) -> None:
    (cam,) = rig.cameras("cam-1")
    number = begin(rig, retries=5)
    cam.report("transferring")
    rig.settle()
    for _ in range(60):
        later(rig, 20, say=False)
    assert rig.states(number) == {"cam-1": LOST}
