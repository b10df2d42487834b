"""Updates from start to end on a real database: cameras, operators, the clock, and being killed anywhere."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from fleetd.bundles.keyrecords import make_record
from fleetd.bundles.opening import open_bundle
from fleetd.bundles.release import BuiltRelease, build_release
from fleetd.bundles.signing import OperatorKey
from fleetd.domain.assignment import LOST, PENDING, TERMINAL
from fleetd.domain.records import AssignmentState, RolloutSettings, RolloutState
from fleetd.errors import (
    ConflictError,
    InvalidError,
    NotFoundError,
    UnknownReleaseError,
    UnknownRolloutError,
)
from fleetd.ota import Ota
from fleetd.store import tables
from tests.integration.update_rig import START, Camera, Killed, Rig
from tests.unit.bundles import models

CONFIRMED, REVERTED = AssignmentState.CONFIRMED, AssignmentState.REVERTED
OFFERED, TRANSFERRING = AssignmentState.OFFERED, AssignmentState.TRANSFERRING
VERIFYING, TRIAL = AssignmentState.VERIFYING, AssignmentState.TRIAL
RUNNING, HALTED = RolloutState.RUNNING, RolloutState.HALTED
SILENCE = RolloutSettings().silence_s


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(tmp_path)
    rig.release(5)
    yield rig
    rig.close()


@pytest.fixture
def cam(rig: Rig) -> Camera:
    return rig.cameras("cam-1")[0]


def offer(rig: Rig, target: str = "all", **more: Any) -> int:
    """Starts a rollout of model-5 and publishes what follows; its number."""
    rollout = rig.ota.start_rollout("model-5", target, actor="ann", **more)
    rig.settle()
    return rollout.id


def stay_online(rig: Rig, seconds: float, *cameras: Camera) -> None:
    """Lets time pass while these cameras send statuses and everything is looked after."""
    end = rig.now + seconds
    while rig.now < end:
        rig.now = min(end, rig.now + 20)
        for camera in cameras:
            camera.status()
        rig.settle()


def pass_time(rig: Rig, seconds: float) -> None:
    """Lets time pass while fleetd looks after everything and nobody says anything."""
    stay_online(rig, seconds)


# -- keys and releases ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("public", ["", "00", "zz" * 64, "11" * 64, "00" * 64, "ab" * 65])
def test_a_key_that_is_no_point_of_the_curve_is_refused(rig: Rig, public: str) -> None:
    with pytest.raises(InvalidError, match="no public key"):
        rig.ota.add_key(public, "laptop", actor="ann")
    assert len(rig.ota.keys()) == 1


def test_a_key_is_added_once_and_does_not_come_back_after_it_was_revoked(rig: Rig) -> None:
    public = OperatorKey.generate().public.hex()
    key = rig.ota.add_key(public.upper(), "laptop", actor="ann")
    assert (key.public, len(key.key_id)) == (public, 16)
    with pytest.raises(ConflictError, match="accepted already"):
        rig.ota.add_key(public, "again", actor="ann")
    rig.ota.revoke_key(key.key_id, actor="ann")
    with pytest.raises(ConflictError, match="was revoked"):
        rig.ota.add_key(public, "again", actor="ann")
    with pytest.raises(NotFoundError):
        rig.ota.revoke_key(key.key_id, actor="ann")
    assert rig.audit()[-2:] == [("ann", "key.add", key.key_id), ("ann", "key.revoke", key.key_id)]


def built(key: OperatorKey, release_id: str, sequence: int, **more: Any) -> BuiltRelease:
    bundle = open_bundle(models.make(), "\n".join(models.LABELS).encode())
    facts = {"name": "pets", "version": "1", "epoch": 1, "boards": ["OMVRT1060"], "created": int(START)}
    return build_release(bundle, release_id=release_id, sequence=sequence, key=key, **{**facts, **more})


@pytest.fixture(scope="module")
def maker() -> OperatorKey:
    return OperatorKey.generate()


@pytest.fixture(scope="module")
def made(maker: OperatorKey) -> BuiltRelease:
    return built(maker, "model-6", 6)


def upload(rig: Rig, release: BuiltRelease) -> str:
    return rig.ota.add_release(release.blob, [one.data for one in release.encodings], actor="ann").id


def test_a_signed_release_is_stored_and_the_same_upload_again_changes_nothing(
    rig: Rig, maker: OperatorKey, made: BuiltRelease
) -> None:
    rig.ota.add_key(maker.public.hex(), "maker", actor="ann")
    assert rig.ota.next_release() == ("model-6", 1, 6)
    assert upload(rig, made) == "model-6"
    release = rig.ota.release("model-6")
    assert (release.digest, release.key_id) == (made.digest, maker.key_id.hex())
    assert (release.labels, release.content_sha256) == (models.LABELS, made.manifest.content.sha256)
    assert rig.ota.manifest("model-6") == made.blob
    assert upload(rig, made) == "model-6"
    assert [action for _, action, _ in rig.audit()].count("release.add") == 1
    assert rig.ota.next_release() == ("model-7", 1, 7)
    assert rig.ota.next_release("agent") == ("agent-1", 1, 1)


def test_a_release_signed_with_a_key_that_is_not_accepted_is_refused(
    rig: Rig, maker: OperatorKey, made: BuiltRelease
) -> None:
    with pytest.raises(InvalidError, match="not accepted"):
        upload(rig, made)
    key = rig.ota.add_key(maker.public.hex(), "maker", actor="ann")
    rig.ota.revoke_key(key.key_id, actor="ann")
    with pytest.raises(InvalidError, match="not accepted"):
        upload(rig, made)
    assert [one.id for one in rig.ota.releases()] == ["model-5", "model-1"]


def test_a_release_that_is_not_newer_or_whose_id_is_taken_is_refused(rig: Rig, maker: OperatorKey) -> None:
    rig.ota.add_key(maker.public.hex(), "maker", actor="ann")
    for release in (built(maker, "model-5", 6), built(maker, "other", 5), built(maker, "older", 4)):
        with pytest.raises(ConflictError, match="not newer"):
            upload(rig, release)
    keys = [maker.public.hex()]
    rig.ota.add_record(
        make_record(maker, serial=1, epoch=2, created=1, keys=keys, recovery=[]), "maker", actor="ann"
    )
    assert rig.ota.next_release() == ("model-2.1", 2, 1)
    assert upload(rig, built(maker, "model-2.1", 1, epoch=2)) == "model-2.1"
    assert rig.ota.next_release() == ("model-2.2", 2, 2)


def test_a_damaged_or_expired_release_is_refused(rig: Rig, maker: OperatorKey, made: BuiltRelease) -> None:
    rig.ota.add_key(maker.public.hex(), "maker", actor="ann")
    encodings = [one.data for one in made.encodings]
    with pytest.raises(InvalidError):
        rig.ota.add_release(made.blob[:-1] + b"!", encodings, actor="ann")
    with pytest.raises(InvalidError):
        rig.ota.add_release(made.blob, [encodings[0][:-1] + b"!"], actor="ann")
    with pytest.raises(InvalidError, match="expired"):
        upload(rig, built(maker, "model-7", 7, expires=int(START) - 1))
    assert "model-6" not in [one.id for one in rig.ota.releases()]


def test_a_patch_is_tried_on_the_content_it_is_made_for(
    rig: Rig, maker: OperatorKey, made: BuiltRelease
) -> None:
    rig.ota.add_key(maker.public.hex(), "maker", actor="ann")
    upload(rig, made)
    patched = built(maker, "model-7", 7, name="pets", bases=[made.content[:-16]])
    assert {one.kind for one in patched.encodings} <= {"deflate", "patch"}
    upload(rig, patched)
    assert rig.ota.release("model-7").content_sha256 == made.manifest.content.sha256


def test_revoking_a_key_halts_what_is_under_way_with_it(rig: Rig, cam: Camera) -> None:
    number = offer(rig)
    key = rig.ota.keys()[0].key_id
    rig.ota.revoke_key(key, actor="ann")
    rig.settle()
    view = rig.ota.rollout(number)
    assert view.rollout.state is HALTED
    assert cam.desired["release"] is None
    with pytest.raises(InvalidError, match="not accepted any more"):
        rig.ota.resume(number, actor="ann")
    with pytest.raises(InvalidError, match="not accepted any more"):
        rig.ota.start_rollout("model-5", "all", actor="ann")


# -- preview and start ---------------------------------------------------------------------------------------


def test_a_preview_is_what_the_rollout_then_does(rig: Rig) -> None:
    rig.cameras(*(f"cam-{n}" for n in range(8)))
    preview = rig.ota.preview("model-5", "id=cam-*", (10, 50, 100))
    assert [len(wave) for wave in preview.waves] == [1, 3, 4]
    assert sorted(preview.cameras) == sorted(sum(preview.waves, ()))
    number = offer(rig, "id=cam-*", waves=(10, 50, 100))
    waves: dict[int, set[str]] = {}
    for one in rig.ota.rollout(number).assignments:
        waves.setdefault(one.wave, set()).add(one.camera)
    assert waves == {n: set(names) for n, names in enumerate(preview.waves)}


def test_cameras_that_do_not_take_part_are_listed_with_the_reason(rig: Rig) -> None:
    runs, other, old, newer, *_ = rig.cameras(
        "cam-runs", "cam-board", "cam-old", "cam-newer", "cam-never-heard"
    )
    runs.running = ("model-5", rig.digest("model-5"), 5)
    newer.running = ("model-9", "9" * 64, 9)
    runs.status()
    newer.status()
    other.status(board="OMVH7 512")
    old.status()
    preview = rig.ota.preview("model-5", "all")
    assert {one.camera: one.reason for one in preview.skipped} == {
        "cam-runs": "already-runs-it",
        "cam-board": "unsuitable-board",
        "cam-newer": "runs-newer",
    }
    assert all(one.detail for one in preview.skipped)
    assert set(preview.cameras) == {"cam-old", "cam-never-heard"}


def test_a_rollout_to_nobody_is_refused_with_the_reasons(rig: Rig, cam: Camera) -> None:
    cam.running = ("model-5", rig.digest("model-5"), 5)
    cam.status()
    with pytest.raises(InvalidError, match="1 already-runs-it"):
        rig.ota.start_rollout("model-5", "all", actor="ann")
    with pytest.raises(InvalidError, match="names no camera"):
        rig.ota.start_rollout("model-5", "tag=nobody", actor="ann")
    assert rig.ota.rollouts() == []


def test_what_makes_no_sense_starts_nothing(rig: Rig, cam: Camera) -> None:
    rig.release(6, expires=int(START) - 5)
    wrong: list[tuple[type[Exception], Callable[[], object]]] = [
        (UnknownReleaseError, lambda: rig.ota.start_rollout("model-9", "all", actor="ann")),
        (UnknownReleaseError, lambda: rig.ota.preview("model-9", "all")),
        (UnknownReleaseError, lambda: rig.ota.release("model-9")),
        (UnknownReleaseError, lambda: rig.ota.manifest("model-9")),
        (InvalidError, lambda: rig.ota.start_rollout("model-5", "tag=", actor="ann")),
        (InvalidError, lambda: rig.ota.start_rollout("model-5", "all", waves=(50,), actor="ann")),
        (InvalidError, lambda: rig.ota.start_rollout("model-6", "all", actor="ann")),
        (UnknownRolloutError, lambda: rig.ota.rollout(7)),
        (UnknownRolloutError, lambda: rig.ota.cancel(7, actor="ann")),
    ]
    limits = RolloutSettings(min_sample=0)
    wrong.append(
        (InvalidError, lambda: rig.ota.start_rollout("model-5", "all", settings=limits, actor="ann"))
    )
    for error, call in wrong:
        with pytest.raises(error):
            call()
    assert rig.ota.rollouts() == []
    assert cam.desired == {}


def test_an_offer_is_made_at_once_with_generation_and_digest(rig: Rig, cam: Camera) -> None:
    woken = rig.wakes
    rollout = rig.ota.start_rollout("model-5", "all", actor="ann")
    assert rig.wakes == woken + 1
    while rig.delivery.step():
        pass
    assert cam.desired == {
        "generation": 1,
        "release": "model-5",
        "digest": rig.ota.release("model-5").digest,
        "config": {},
    }
    assert rig.states(rollout.id) == {"cam-1": OFFERED}
    assert rig.audit()[-2:] == [("ann", "rollout.start", "1"), ("fleetd", "rollout.offer", "1")]


# -- the whole way -------------------------------------------------------------------------------------------


def test_a_rollout_goes_wave_by_wave_to_its_end(rig: Rig) -> None:
    cameras = rig.cameras(*(f"cam-{n}" for n in range(6)))
    number = offer(rig, waves=(10, 50, 100))
    sizes = []
    for _ in range(3):
        sizes.append(sum(state is OFFERED for state in rig.states(number).values()))
        rig.act()
        rig.settle()
    assert sizes == [1, 2, 3]
    view = rig.ota.rollout(number)
    assert view.rollout.state is RolloutState.COMPLETED
    assert view.rollout.finished_at == rig.now
    assert view.tally == {CONFIRMED: 6}
    assert all(camera.running[0] == "model-5" for camera in cameras)
    assert Counter(action for _, action, _ in rig.audit())["update.confirmed"] == 6


def test_on_trial_is_not_yet_success(rig: Rig) -> None:
    """(q) The next wave waits until the trial is over."""
    rig.cameras("cam-1", "cam-2")
    number = offer(rig, waves=(50, 100))
    canary = rig.camera(next(name for name, state in rig.states(number).items() if state is OFFERED))
    for state in ("transferring", "verifying", "trial"):
        canary.report(state)
        rig.settle()
        assert rig.states(number)[canary.name] == state
    canary.trial = "model-5"
    canary.status()
    rig.settle()
    assert Counter(rig.states(number).values()) == {TRIAL: 1, PENDING: 1}
    assert rig.ota.rollout(number).rollout.wave == 0


def test_a_power_cut_mid_download_returns_to_offered_and_is_never_done(rig: Rig, cam: Camera) -> None:
    """(a) The camera is back with its old version: it can be reached, and nothing is done."""
    number = offer(rig)
    cam.report("transferring", blocks={"done": 3, "total": 7})
    rig.settle()
    assert rig.states(number) == {"cam-1": TRANSFERRING}
    cam.reboot()
    cam.status()
    rig.settle()
    (one,) = rig.ota.rollout(number).assignments
    assert (one.state, one.reason, one.blocks_done) == (OFFERED, "rebooted", None)
    assert cam.desired["release"] == "model-5"
    for state in ("transferring", "verifying", "trial", "confirmed"):
        cam.report(state)
    rig.settle()
    assert rig.states(number) == {"cam-1": CONFIRMED}


def test_success_comes_from_digest_and_confirmation_never_from_being_there(rig: Rig, cam: Camera) -> None:
    """(b)"""
    number = offer(rig)
    cam.report("trial")
    cam.report("confirmed", digest="0" * 64)
    cam.report("confirmed", digest=None)
    cam.report("confirmed", generation=99)
    cam.report("confirmed", release="model-1")
    cam.reboot()
    cam.status()
    stay_online(rig, 60, cam)
    assert rig.states(number) == {"cam-1": TRIAL}
    cam.status(release={"id": "model-5", "digest": "0" * 64, "sequence": 5})
    rig.settle()
    assert rig.states(number) == {"cam-1": TRIAL}
    cam.report("confirmed")
    rig.settle()
    assert rig.states(number) == {"cam-1": CONFIRMED}


def test_a_lost_confirmation_is_found_in_the_cameras_status(rig: Rig, cam: Camera) -> None:
    """(c) The reply is lost; the status names the confirmed release with the offer's generation."""
    number = offer(rig)
    cam.report("transferring")
    rig.settle()
    cam.running = ("model-5", rig.digest("model-5"), 5)
    cam.status()
    rig.settle()
    assert rig.states(number) == {"cam-1": CONFIRMED}
    assert rig.ota.rollout(number).rollout.state is RolloutState.COMPLETED


def test_a_lost_offer_is_made_again_by_the_next_session_with_the_broker(rig: Rig, cam: Camera) -> None:
    """(c) The broker forgets the first offer before the camera sees it."""
    number = offer(rig)
    rig.broker.forget()
    assert cam.desired == {}
    rig.connect()
    rig.settle()
    cam.act()
    rig.settle()
    assert rig.states(number) == {"cam-1": CONFIRMED}
    assert cam.begun == [1]


def test_the_same_report_twice_is_one_action(rig: Rig, cam: Camera) -> None:
    """(g)"""
    number = offer(rig)
    for _ in range(3):
        cam.report("reverted", reason="trial-crashed", generation=1, release="model-5")
        rig.settle()
    assert rig.states(number) == {"cam-1": REVERTED}
    assert Counter(action for _, action, _ in rig.audit())["update.reverted"] == 1
    assert cam.generation == 2  # the offer, and taking it back


def test_cancelling_reaches_a_camera_that_is_transferring(rig: Rig) -> None:
    """(k)"""
    one, two = rig.cameras("cam-1", "cam-2")
    number = offer(rig)
    one.report("transferring", blocks={"done": 1, "total": 7})
    rig.settle()
    rig.ota.cancel(number, actor="ann")
    rig.settle()
    view = rig.ota.rollout(number)
    assert (view.rollout.state, view.rollout.finished_at) == (RolloutState.CANCELLED, rig.now)
    assert view.tally == {AssignmentState.CANCELLED: 2}
    for camera in (one, two):
        assert camera.desired["release"] is None
        assert camera.generation == 2
    one.report("transferring", generation=1, release="model-5")
    one.report("confirmed", generation=1, release="model-5")
    rig.settle()
    assert rig.ota.rollout(number).tally == {AssignmentState.CANCELLED: 2}
    assert not rig.broker.blobs()


def test_silence_after_an_update_is_a_failure(rig: Rig, cam: Camera) -> None:
    """(o)"""
    number = offer(rig)
    cam.report("trial")
    rig.settle()
    pass_time(rig, SILENCE - 1)
    assert rig.states(number) == {"cam-1": TRIAL}
    pass_time(rig, 2)
    assert rig.states(number) == {"cam-1": LOST}
    assert cam.desired["release"] is None
    cam.report("confirmed", generation=1, release="model-5")
    rig.settle()
    assert rig.states(number) == {"cam-1": LOST}


def test_every_report_renews_the_time_a_camera_has(rig: Rig, cam: Camera) -> None:
    number = offer(rig)
    for done in range(10):
        cam.report("transferring", blocks={"done": done, "total": 10})
        pass_time(rig, SILENCE - 10)
    assert rig.states(number) == {"cam-1": TRANSFERRING}
    assert rig.ota.rollout(number).assignments[0].blocks_done == 9


def test_a_camera_that_reverted_is_not_offered_the_same_release_again(rig: Rig, cam: Camera) -> None:
    """(p) Neither by the offer that still lies at the broker, nor by a later rollout."""
    cam.behaviour = "revert"
    offer(rig)
    cam.act()
    rig.settle()
    assert cam.desired["release"] is None
    (skipped,) = rig.ota.preview("model-5", "all").skipped
    assert skipped.reason == "reverted-before"
    with pytest.raises(InvalidError, match="1 reverted-before"):
        rig.ota.start_rollout("model-5", "all", actor="ann")
    rig.release(6)
    assert rig.ota.preview("model-6", "all").cameras == ("cam-1",)


def test_a_report_counts_only_for_the_camera_whose_lane_it_came_on(rig: Rig) -> None:
    """(s) What another camera says of the same offer moves nothing."""
    one, two = rig.cameras("cam-1", "cam-2")
    number = offer(rig, "id=cam-1")
    two.report("confirmed", generation=1, release="model-5")
    rig.settle()
    assert rig.states(number) == {"cam-1": OFFERED}
    one.report("confirmed")
    rig.settle()
    assert rig.states(number) == {"cam-1": CONFIRMED}


def test_a_hundred_cameras_that_go_silent_halt_the_rollout(rig: Rig) -> None:
    """(r) And the rest is never offered it."""
    names = [f"cam-{n}" for n in range(120)]
    for camera in rig.cameras(*names):
        camera.behaviour = "silent"
    number = offer(rig, waves=(85, 100))
    rig.act()
    rig.settle()
    pass_time(rig, SILENCE + 20)
    view = rig.ota.rollout(number)
    assert view.rollout.state is HALTED
    assert view.rollout.reason is not None
    assert "102 of 102" in view.rollout.reason
    assert view.tally == {LOST: 102, PENDING: 18}
    assert all(camera.desired.get("release") is None for camera in map(rig.camera, names))


# -- cameras that are away, clocks that jump -----------------------------------------------------------------


def test_an_offline_camera_takes_the_offer_when_it_comes_back(rig: Rig, cam: Camera) -> None:
    cam.disconnect()
    number = offer(rig)
    pass_time(rig, 5 * SILENCE)
    (one,) = rig.ota.rollout(number).assignments
    assert (one.state, one.deadline_at) == (OFFERED, None)
    rig.now += 30 * 86400
    rig.settle()
    cam.act()
    rig.settle()
    assert rig.states(number) == {"cam-1": CONFIRMED}


def test_a_camera_that_is_there_and_does_not_take_the_offer_times_out(rig: Rig, cam: Camera) -> None:
    number = offer(rig)
    stay_online(rig, SILENCE + 60, cam)
    (one,) = rig.ota.rollout(number).assignments
    assert (one.state, one.reason) == (AssignmentState.TIMED_OUT, "offer-not-taken")
    assert cam.desired["release"] is None


def test_nobody_is_blamed_for_an_offer_that_the_broker_never_took(rig: Rig, cam: Camera) -> None:
    rig.broker.down = True
    number = rig.ota.start_rollout("model-5", "all", actor="ann").id
    for _ in range(60):
        rig.now += 30
        cam.status()
        while rig.ota.process():
            pass
    assert rig.states(number) == {"cam-1": OFFERED}


def test_offline_cameras_do_not_hold_up_the_next_wave_but_the_end(rig: Rig) -> None:
    cameras = rig.cameras(*(f"cam-{n}" for n in range(4)))
    number = offer(rig, waves=(50, 100))
    first = [camera for camera in cameras if rig.states(number)[camera.name] is OFFERED]
    first[0].disconnect()
    first[0].behaviour = "away"
    rig.act()
    rig.settle()
    rig.act()
    rig.settle()
    view = rig.ota.rollout(number)
    assert (view.rollout.state, view.rollout.wave) == (RUNNING, 1)
    assert view.tally == {CONFIRMED: 3, OFFERED: 1}
    assert rig.broker.blobs(), "its blocks stay for it"
    first[0].behaviour = "confirm"
    first[0].act()
    rig.settle()
    assert rig.ota.rollout(number).rollout.state is RolloutState.COMPLETED
    assert not rig.broker.blobs()


def test_time_that_fleetd_was_away_is_not_held_against_cameras(rig: Rig, cam: Camera) -> None:
    number = offer(rig)
    cam.report("trial")
    rig.settle()
    rig.now += 10 * SILENCE
    rig.restart()
    rig.settle()
    assert rig.states(number) == {"cam-1": TRIAL}
    cam.report("confirmed")
    rig.settle()
    assert rig.states(number) == {"cam-1": CONFIRMED}


def test_time_that_the_broker_was_away_is_not_held_against_cameras(rig: Rig, cam: Camera) -> None:
    number = offer(rig)
    cam.report("trial")
    rig.settle()
    rig.listening = False
    pass_time(rig, 3 * SILENCE)
    rig.listening = True
    rig.settle()
    assert rig.states(number) == {"cam-1": TRIAL}
    pass_time(rig, SILENCE + 1)
    assert rig.states(number) == {"cam-1": LOST}


@pytest.mark.parametrize("reboot", [True, False])
@pytest.mark.parametrize("years", [-4, 4])
def test_a_clock_that_jumps_executes_nothing_twice_and_loses_nobody(
    rig: Rig, years: int, reboot: bool
) -> None:
    """(f) The clock is years off after a reboot, or is set while fleetd runs; either way."""
    one, two = rig.cameras("cam-1", "cam-2")
    number = offer(rig)
    one.report("transferring")
    rig.settle()
    rig.now += years * 365 * 86400
    if reboot:
        rig.restart()
    rig.settle()
    two.status()
    assert rig.states(number) == {"cam-1": TRANSFERRING, "cam-2": OFFERED}
    assert (one.generation, two.generation) == (1, 1)
    rig.settle()
    rig.act()
    rig.settle()
    assert rig.states(number) == {"cam-1": CONFIRMED, "cam-2": CONFIRMED}
    assert (one.begun, two.begun) == ([1], [1])
    pass_time(rig, 2 * SILENCE)
    assert rig.ota.rollout(number).tally == {CONFIRMED: 2}


# -- operators -----------------------------------------------------------------------------------------------


def test_a_pause_offers_nothing_more_and_lets_go_on_what_was_offered(rig: Rig) -> None:
    rig.cameras("cam-1", "cam-2")
    number = offer(rig, waves=(50, 100))
    assert rig.ota.pause(number, actor="ann").state is RolloutState.PAUSED
    rig.act()
    rig.settle()
    assert rig.ota.rollout(number).tally == {CONFIRMED: 1, PENDING: 1}
    assert rig.ota.resume(number, actor="ann").state is RUNNING
    rig.settle()
    rig.act()
    rig.settle()
    assert rig.ota.rollout(number).tally == {CONFIRMED: 2}


def test_harm_that_was_done_during_a_pause_halts_before_anything_more_is_offered(rig: Rig) -> None:
    cameras = rig.cameras("cam-1", "cam-2", "cam-3", "cam-4")
    number = offer(rig, waves=(50, 100))
    rig.ota.pause(number, actor="ann")
    for camera in cameras:
        camera.behaviour = "revert"
    rig.act()
    rig.settle()
    rig.ota.resume(number, actor="ann")
    rig.settle()
    view = rig.ota.rollout(number)
    assert view.rollout.state is HALTED
    assert view.tally == {REVERTED: 2, PENDING: 2}


def test_wishes_twice_are_one_action_and_impossible_ones_are_refused(rig: Rig, cam: Camera) -> None:
    number = offer(rig)
    rig.ota.pause(number, actor="ann")
    rig.ota.pause(number, actor="ann")
    rig.ota.resume(number, actor="ann")
    rig.ota.resume(number, actor="ann")
    rig.ota.cancel(number, actor="ann")
    rig.ota.cancel(number, actor="ann")
    actions = Counter(action for actor, action, _ in rig.audit() if actor == "ann")
    assert (actions["rollout.pause"], actions["rollout.resume"], actions["rollout.cancel"]) == (1, 1, 1)
    for wish in (rig.ota.pause, rig.ota.resume):
        with pytest.raises(ConflictError, match="is cancelled and cannot be"):
            wish(number, actor="ann")


def test_a_halt_takes_offers_back_and_a_resume_makes_them_again(rig: Rig) -> None:
    cameras = rig.cameras(*(f"cam-{n}" for n in range(4)))
    bad, worse, moving, waiting = cameras
    number = offer(rig)
    moving.report("transferring")
    bad.behaviour = worse.behaviour = "revert"
    bad.act()
    worse.act()
    rig.settle()
    view = rig.ota.rollout(number)
    assert view.rollout.state is HALTED
    assert view.tally == {REVERTED: 2, PENDING: 2}
    assert moving.desired["release"] is waiting.desired["release"] is None
    moving.report("transferring", generation=1, release="model-5")  # said before it heard of that
    moving.report("failed", generation=1, release="model-5", reason="operator-cancelled")
    rig.settle()
    assert rig.states(number)[moving.name] is PENDING
    resumed = rig.ota.resume(number, actor="ann")
    assert (resumed.state, resumed.settings.accepted) == (RUNNING, 2)
    rig.settle()
    rig.act()
    rig.settle()
    view = rig.ota.rollout(number)
    assert view.rollout.state is RolloutState.COMPLETED
    assert view.tally == {REVERTED: 2, CONFIRMED: 2}


def test_cancelling_a_halted_rollout_asks_nothing_new_of_cameras(rig: Rig) -> None:
    one, two, three = rig.cameras("cam-1", "cam-2", "cam-3")
    number = offer(rig)
    one.behaviour = two.behaviour = "revert"
    one.act()
    two.act()
    rig.settle()
    assert three.generation == 2
    rig.ota.cancel(number, actor="ann")
    rig.settle()
    assert three.generation == 2
    assert rig.ota.rollout(number).tally == {REVERTED: 2, AssignmentState.CANCELLED: 1}


def test_a_trial_that_runs_during_a_halt_decides_by_itself(rig: Rig) -> None:
    one, two, trying = rig.cameras("cam-1", "cam-2", "cam-3")
    number = offer(rig)
    trying.report("trial")
    one.behaviour = two.behaviour = "revert"
    one.act()
    two.act()
    rig.settle()
    assert rig.ota.rollout(number).rollout.state is HALTED
    assert rig.states(number)["cam-3"] is TRIAL
    trying.report("confirmed")
    rig.settle()
    assert rig.states(number)["cam-3"] is CONFIRMED


def test_a_resume_goes_past_a_wave_that_brought_no_evidence(rig: Rig) -> None:
    rig.cameras("cam-1", "cam-2", "cam-3")
    number = offer(rig, waves=(10, 100))
    canary = rig.camera(next(name for name, state in rig.states(number).items() if state is OFFERED))
    canary.behaviour = "reject"
    canary.act()
    rig.settle()
    view = rig.ota.rollout(number)
    assert view.rollout.state is HALTED
    assert "None of the 1 cameras" in str(view.rollout.reason)
    assert rig.ota.resume(number, actor="ann").wave == 1
    rig.settle()
    rig.act()
    rig.settle()
    assert rig.ota.rollout(number).tally == {AssignmentState.REJECTED: 1, CONFIRMED: 2}


def test_a_newer_rollout_supersedes_what_was_on_its_way(rig: Rig) -> None:
    one, two, three = rig.cameras("cam-1", "cam-2", "cam-3")
    first = offer(rig)
    one.report("transferring")
    rig.settle()
    rig.release(6)
    second = rig.ota.start_rollout("model-6", "id=cam-1 or id=cam-2", waves=(50, 100), actor="ann").id
    rig.settle()
    assert rig.ota.rollout(first).tally == {AssignmentState.SUPERSEDED: 2, OFFERED: 1}
    offered = [name for name, state in rig.states(second).items() if state is OFFERED]
    assert len(offered) == 1
    for camera in (one, two):
        assert camera.desired["release"] == ("model-6" if camera.name in offered else None)
    assert three.desired["release"] == "model-5"
    for _ in range(3):
        rig.act()
        rig.settle()
    assert rig.ota.rollout(second).tally == {CONFIRMED: 2}
    assert {name: camera.running[0] for name, camera in (("1", one), ("2", two), ("3", three))} == {
        "1": "model-6",
        "2": "model-6",
        "3": "model-5",
    }


def test_the_same_release_again_for_a_camera_that_is_on_its_way_elsewhere(rig: Rig, cam: Camera) -> None:
    """It runs model-5, is being brought to model-6, and is called back."""
    cam.running = ("model-5", rig.digest("model-5"), 5)
    cam.status()
    rig.release(6)
    first = rig.ota.start_rollout("model-6", "all", actor="ann").id
    rig.settle()
    second = offer(rig)
    cam.act()
    rig.settle()
    assert rig.states(first) == {"cam-1": AssignmentState.SUPERSEDED}
    assert rig.states(second) == {"cam-1": CONFIRMED}
    assert cam.begun == []


def test_a_retry_is_a_new_rollout_to_those_who_failed_or_fell_silent(rig: Rig) -> None:
    good, bad, silent, failed = rig.cameras("cam-1", "cam-2", "cam-3", "cam-4")
    limits = RolloutSettings(max_failed=9)
    number = offer(rig, settings=limits)
    bad.behaviour, silent.behaviour = "revert", "silent"
    failed.report("failed", reason="connection-lost")
    for camera in (good, bad, silent):
        camera.act()
    pass_time(rig, SILENCE + 20)
    again = rig.ota.retry(number, actor="ann")
    assert set(rig.states(again)) == {"cam-3", "cam-4"}
    assert rig.ota.rollout(again).rollout.settings == limits
    rig.settle()
    silent.behaviour = "confirm"
    silent.act()
    failed.act()
    rig.settle()
    assert rig.ota.rollout(again).tally == {CONFIRMED: 2}
    with pytest.raises(InvalidError, match="names no camera"):
        rig.ota.retry(again, actor="ann")


def test_a_configuration_change_during_an_update_loses_nothing(rig: Rig, cam: Camera) -> None:
    number = offer(rig)
    cam.report("transferring")
    with rig.database.transaction() as work:
        work.rollouts.set_config(cam.id, {"fps": 3}, rig.now)
    rig.settle()
    assert (cam.generation, cam.desired["release"], cam.desired["config"]) == (2, "model-5", {"fps": 3})
    cam.report("confirmed")
    rig.settle()
    assert rig.states(number) == {"cam-1": CONFIRMED}


def test_a_camera_that_is_removed_does_not_hold_up_its_rollout(rig: Rig) -> None:
    rig.cameras("cam-1", "cam-2")
    number = offer(rig)
    rig.camera("cam-2").act()
    rig.settle()
    rig.registry.remove("cam-1", actor="ann")
    rig.settle()
    assert rig.ota.rollout(number).rollout.state is RolloutState.COMPLETED


def test_reports_behind_a_missing_number_wait_until_it_can_no_longer_come(rig: Rig) -> None:
    """Another process may have taken a number and not committed yet; passing over it would lose a report."""
    one, two = rig.cameras("cam-1", "cam-2")
    number = offer(rig)
    one.report("transferring")
    rig.settle()
    one.report("verifying")
    two.report("transferring")
    with rig.database.connect(write=True) as connection:
        table = tables.update_reports
        row = connection.execute(sa.select(table).where(table.c.state == "verifying")).one()
        connection.execute(sa.delete(table).where(table.c.id == row.id))
    rig.settle()
    assert rig.states(number) == {"cam-1": TRANSFERRING, "cam-2": OFFERED}
    with rig.database.connect(write=True) as connection:
        connection.execute(sa.insert(table).values(row._mapping))
    rig.settle()
    assert rig.states(number) == {"cam-1": VERIFYING, "cam-2": TRANSFERRING}


def test_a_number_that_never_comes_stops_nothing_for_long(rig: Rig, cam: Camera) -> None:
    number = offer(rig)
    cam.report("transferring")
    cam.report("verifying")
    with rig.database.connect(write=True) as connection:
        table = tables.update_reports
        connection.execute(sa.delete(table).where(table.c.state == "transferring"))
    rig.settle()
    assert rig.states(number) == {"cam-1": OFFERED}
    pass_time(rig, 20)
    assert rig.states(number) == {"cam-1": VERIFYING}


# -- two processes, and being killed -------------------------------------------------------------------------


def test_two_processes_do_everything_once(rig: Rig) -> None:
    cameras = rig.cameras(*(f"cam-{n}" for n in range(30)))
    number = offer(rig, waves=(10, 100))
    errors: list[BaseException] = []

    def work(ota: Ota) -> None:
        try:
            while ota.process():
                pass
        except BaseException as error:  # noqa: BLE001  # told to the test's own thread
            errors.append(error)

    for _ in range(3):
        for camera in cameras:
            camera.act()
        threads = [
            threading.Thread(target=work, args=(Ota(rig.database, lambda: rig.now),)) for _ in range(2)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        rig.settle()
    assert not errors
    assert rig.ota.rollout(number).tally == {CONFIRMED: 30}
    counted = Counter(rig.audit())
    assert all(counted["fleetd", "update.confirmed", camera.name] == 1 for camera in cameras)
    assert counted["fleetd", "rollout.widen", str(number)] == 1
    assert counted["fleetd", "rollout.complete", str(number)] == 1
    assert all(camera.begun == [1] for camera in cameras)


Scene = Callable[[Rig], None]


def bring_up(folder: Path) -> Rig:
    rig = Rig(folder)
    rig.release(5, content=b"two blocks " * 500)
    for camera in rig.cameras("cam-1", "cam-2", "cam-3", "cam-4"):
        camera.behaviour = "revert" if camera.name == "cam-2" else "confirm"
    return rig


def whole_rollout(rig: Rig) -> None:
    """An operator and a fleet until the rollout is over; begun again from anywhere, it goes on."""
    if not rig.ota.rollouts():
        rig.ota.start_rollout("model-5", "all", waves=(60, 100), actor="ann")
    while True:
        rig.settle()
        before = rig.states()
        rig.act()
        rig.settle()
        if rig.states() == before:
            return


def cancelled_rollout(rig: Rig) -> None:
    """One camera is transferring when the operator cancels."""
    if not rig.ota.rollouts():
        rig.ota.start_rollout("model-5", "all", waves=(60, 100), actor="ann")
    rig.settle()
    rollout = rig.ota.rollouts()[0]
    if rollout.state is RUNNING:
        name = min(name for name, state in rig.states().items() if state in (OFFERED, TRANSFERRING))
        if rig.states()[name] is OFFERED:
            rig.camera(name).report("transferring")
            rig.settle()
        rig.ota.cancel(rollout.id, actor="ann")
    rig.settle()


def outcome(rig: Rig) -> dict[str, Any]:
    """Everything that must not depend on where a process was killed."""
    with rig.database.reading() as work:
        desired = {
            one.camera: (one.generation, one.release_id)
            for one in work.rollouts.all_desired(unsent_only=False)
        }
        assert all(
            one.generation == one.sent_generation for one in work.rollouts.all_desired(unsent_only=False)
        )
        published = sorted(work.releases.published())
    rollout = rig.ota.rollouts()[0]
    return {
        "states": rig.states(),
        "rollout": (rollout.state, rollout.wave, rollout.reason),
        "desired": desired,
        "published": published,
        "retained": rig.broker.retained,
        "audit": sorted(rig.audit()),
        "begun": {name: rig.camera(name).begun for name in rig.states()},
    }


def go_on(rig: Rig, scene: Scene, loss: Callable[[Rig], None] = lambda _rig: None) -> int:
    """Plays a scene; whenever the process is killed, a new one takes over. How often it was killed."""
    deaths = 0
    while True:
        try:
            scene(rig)
        except Killed:
            deaths += 1
            loss(rig)
            rig.restart()
        else:
            return deaths


def nothing_is_lost(_rig: Rig) -> None:
    """What was handed to the network still arrives."""


def what_is_under_way_is_lost(rig: Rig) -> None:
    rig.broker.drop_waiting()


def the_broker_forgets(rig: Rig) -> None:
    rig.broker.forget()


@pytest.mark.parametrize("scene", [whole_rollout, cancelled_rollout])
@pytest.mark.parametrize("when", ["kill_before", "kill_after"])
def test_being_killed_at_any_commit_comes_to_the_same_end(scene: Scene, when: str, tmp_path: Path) -> None:
    """(e) At each database write of a rollout: just before its commit, and just after."""
    expected, commits = _uncut(scene, tmp_path)[:2]
    assert commits >= 8
    for at in range(1, commits + 1):
        rig = bring_up(_folder(tmp_path, at))
        setattr(rig.store, when, rig.store.commits + at)
        assert go_on(rig, scene) == 1
        assert outcome(rig) == expected, f"{when} commit {at} of {commits}"
        rig.close()


@pytest.mark.parametrize("scene", [whole_rollout, cancelled_rollout])
@pytest.mark.parametrize("loss", [nothing_is_lost, what_is_under_way_is_lost, the_broker_forgets])
def test_being_killed_at_any_publish_comes_to_the_same_end(
    scene: Scene, loss: Callable[[Rig], None], tmp_path: Path
) -> None:
    """(e) The same for each message to the broker."""
    expected, _, publishes = _uncut(scene, tmp_path)
    assert publishes >= 10
    for at in range(1, publishes + 1):
        rig = bring_up(_folder(tmp_path, at))
        rig.broker.kill_at = at
        assert go_on(rig, scene, loss) == 1
        assert outcome(rig) == expected, f"publish {at} of {publishes}"
        rig.close()


def test_being_killed_again_and_again_comes_to_the_same_end(tmp_path: Path) -> None:
    expected = _uncut(whole_rollout, tmp_path)[0]
    rig = bring_up(_folder(tmp_path, 1))
    deaths = 0
    while True:
        rig.store.kill_after = rig.store.commits + 4  # all that a process lives for
        try:
            whole_rollout(rig)
        except Killed:
            deaths += 1
            rig.restart()
        else:
            break
    assert deaths > 3
    assert outcome(rig) == expected
    rig.close()


def _folder(parent: Path, number: int) -> Path:
    folder = parent / str(number)
    folder.mkdir()
    return folder


def _uncut(scene: Scene, tmp_path: Path) -> tuple[dict[str, Any], int, int]:
    """The outcome without any trouble; commits and publishes it took."""
    rig = bring_up(_folder(tmp_path, 0))
    before = rig.store.commits
    assert go_on(rig, scene) == 0
    found = outcome(rig)
    assert all(state in TERMINAL for state in found["states"].values())
    commits, publishes = rig.store.commits - before, rig.broker.published
    rig.close()
    return found, commits, publishes
