"""Releases, rollouts, assignments and desired states in a real database."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa

from fleetd.domain.assignment import OPEN, TERMINAL
from fleetd.domain.records import AssignmentState, Release, RolloutSettings, RolloutState, SigningKey
from fleetd.domain.rollout import StateCount
from fleetd.errors import ConflictError, InvalidError, UnknownCameraError, UnknownReleaseError
from fleetd.store import tables
from tests.integration.update_rig import START, Rig

OFFERED, TRANSFERRING = AssignmentState.OFFERED, AssignmentState.TRANSFERRING


@pytest.fixture
def rig(tmp_path: Path, database_url: str) -> Iterator[Rig]:
    rig = Rig(tmp_path, database_url)
    rig.cameras("cam-1", "cam-2", "cam-3")
    rig.release(5)
    yield rig
    rig.close()


def start(rig: Rig, *, waves: tuple[int, ...] = (100,), release: str = "model-5") -> int:
    """A rollout with cam-1 in the first wave and the others in the last."""
    with rig.database.transaction() as work:
        last = len(waves) - 1
        members = [(camera.id, 0 if camera.name == "cam-1" else last) for camera in work.cameras.all()]
        rollout = work.rollouts.add(
            release_id=release,
            target="all",
            waves=waves,
            settings=RolloutSettings(max_failed=3, silence_s=60.0),
            created_by="me",
            now=START,
            members=members,
        )
    return rollout.id


# -- releases ------------------------------------------------------------------------------------------------


def test_a_release_comes_back_as_it_went_in(rig: Rig) -> None:
    with rig.database.reading() as work:
        release = work.releases.get("model-5")
        assert release is not None
        assert isinstance(release, Release)
        assert release.labels == ("bee", "wasp")
        assert work.releases.manifest("model-5")[:4] == b"FLM1"
        stored = work.releases.encodings("model-5")
        assert [one.size for one in stored] == [len(one.data) for one in stored]
        assert work.releases.encoding("model-5", stored[0].sha256) == stored[0]
        assert work.releases.encoding("model-1", stored[0].sha256) is None
        assert [one.id for one in work.releases.all()] == ["model-5", "model-1"]
        assert work.releases.highest("model") == (1, 5)
        assert work.releases.highest("agent") == (1, 0)


def test_unknown_releases_are_none_or_say_so(rig: Rig) -> None:
    with rig.database.reading() as work:
        assert work.releases.get("model-9") is None
        assert work.releases.encodings("model-9") == []
        with pytest.raises(UnknownReleaseError):
            work.releases.manifest("model-9")


def test_an_id_or_a_sequence_is_given_once(rig: Rig) -> None:
    with rig.database.reading() as work:
        release = work.releases.get("model-5")
    assert release is not None
    for twin in (release, replace(release, id="other")):
        with pytest.raises(ConflictError), rig.database.transaction() as work:
            work.releases.add(twin, b"x", [])


def test_a_release_that_a_rollout_names_cannot_be_removed(rig: Rig) -> None:
    start(rig)
    with pytest.raises(ConflictError), rig.database.transaction() as work:
        work.releases.remove("model-5")
    with rig.database.transaction() as work:
        work.releases.remove("model-1")
    with rig.database.reading() as work:
        assert work.releases.get("model-1") is None
        assert work.releases.encodings("model-1") == []


def test_keys_are_added_once_and_revoked_once(rig: Rig) -> None:
    key = SigningKey("0011223344556677", "ab" * 64, "laptop", START, None)
    with rig.database.transaction() as work:
        work.releases.add_key(key)
        assert work.releases.revoke_key(key.key_id, START + 1)
        assert not work.releases.revoke_key(key.key_id, START + 2)
        assert not work.releases.revoke_key("ff" * 8, START + 2)
        keys = work.releases.keys()
    assert replace(key, revoked_at=START + 1) in keys
    with pytest.raises(ConflictError), rig.database.transaction() as work:
        work.releases.add_key(key)


def test_what_is_published_is_remembered_by_session_and_goes_with_its_release(rig: Rig) -> None:
    with rig.database.transaction() as work:
        work.releases.mark_published("model-1", "first", START)
        work.releases.mark_published("model-5", "first", START)
        work.releases.mark_published("model-1", "second", START)
        assert work.releases.published() == {"model-1": "second", "model-5": "first"}
        work.releases.forget_published("model-5")
        work.releases.remove("model-1")
        assert work.releases.published() == {}


# -- rollouts and assignments --------------------------------------------------------------------------------


def test_a_rollout_comes_back_as_it_went_in(rig: Rig) -> None:
    number = start(rig, waves=(5, 100))
    with rig.database.reading() as work:
        rollout = work.rollouts.get(number)
        assert rollout is not None
        assert (rollout.waves, rollout.wave, rollout.state) == ((5, 100), 0, RolloutState.RUNNING)
        assert rollout.settings == RolloutSettings(max_failed=3, silence_s=60.0)
        assert [(one.camera, one.wave) for one in work.rollouts.assignments(number)] == [
            ("cam-1", 0),
            ("cam-2", 1),
            ("cam-3", 1),
        ]
        assert work.rollouts.get(99) is None
        assert work.rollouts.all({RolloutState.PAUSED}) == []
        assert work.rollouts.all({RolloutState.RUNNING}) == [rollout]


def test_settings_of_an_older_version_are_read_with_defaults(rig: Rig) -> None:
    number = start(rig)
    with rig.database.connect(write=True) as connection:
        connection.execute(
            sa.update(tables.rollouts).values(settings={"max_failed": 7, "of_another_time": 1})
        )
    with rig.database.reading() as work:
        rollout = work.rollouts.get(number)
    assert rollout is not None
    assert rollout.settings == RolloutSettings(max_failed=7)


def test_a_rollout_changes_only_from_the_state_it_was_seen_in(rig: Rig) -> None:
    number = start(rig)
    with rig.database.transaction() as work:
        halted = {"state": RolloutState.HALTED, "wave": 0, "reason": "x", "finished_at": None}
        assert not work.rollouts.change(number, was=RolloutState.PAUSED, **halted)  # type: ignore[arg-type]  # one dict, several types
        assert work.rollouts.change(number, was=RolloutState.RUNNING, **halted)  # type: ignore[arg-type]
        kept = work.rollouts.get(number)
        assert kept is not None
        assert (kept.state, kept.settings.max_failed) == (RolloutState.HALTED, 3)
        limits = replace(kept.settings, accepted=2)
        running = {"state": RolloutState.RUNNING, "wave": 0, "reason": None, "finished_at": None}
        assert work.rollouts.change(number, was=RolloutState.HALTED, settings=limits, **running)  # type: ignore[arg-type]
        changed = work.rollouts.get(number)
        assert changed is not None
        assert changed.settings.accepted == 2


def test_an_assignment_changes_only_from_the_state_it_was_seen_in(rig: Rig) -> None:
    number = start(rig)
    with rig.database.transaction() as work:
        first = work.rollouts.assignments(number)[0]
        assert work.rollouts.advance(
            first, state=OFFERED, now=START + 5, generation=4, deadline_at=START + 65
        )
        assert not work.rollouts.advance(first, state=TRANSFERRING, now=START + 6)
        offered = work.rollouts.assignments(number)[0]
        assert (offered.state, offered.generation, offered.offered_at) == (OFFERED, 4, START + 5)
        assert (offered.changed_at, offered.deadline_at) == (START + 5, START + 65)
        assert work.rollouts.advance(
            offered, state=TRANSFERRING, now=START + 7, blocks=(3, 9), deadline_at=1.0
        )
        moving = work.rollouts.assignments(number)[0]
        assert (moving.blocks_done, moving.blocks_total, moving.generation) == (3, 9, 4)
        assert work.rollouts.advance(moving, state=TRANSFERRING, now=START + 8, deadline_at=2.0)
        renewed = work.rollouts.assignments(number)[0]
        assert (renewed.changed_at, renewed.deadline_at, renewed.blocks_done) == (START + 7, 2.0, 3)
        assert work.rollouts.advance(renewed, state=AssignmentState.LOST, now=START + 9, reason="silent")
        lost = work.rollouts.assignments(number)[0]
        assert (lost.finished_at, lost.deadline_at, lost.reason) == (START + 9, None, "silent")


def test_a_camera_that_is_offered_again_begins_at_no_blocks(rig: Rig) -> None:
    number = start(rig)
    with rig.database.transaction() as work:
        first = work.rollouts.assignments(number)[0]
        assert work.rollouts.advance(first, state=TRANSFERRING, now=START, blocks=(3, 9))
        moving = work.rollouts.assignments(number)[0]
        assert work.rollouts.advance(moving, state=OFFERED, now=START)
        again = work.rollouts.assignments(number)[0]
    assert (again.blocks_done, again.blocks_total, again.offered_at) == (None, None, None)


def test_pending_ones_come_wave_by_wave_and_counts_tell_who_waits(rig: Rig) -> None:
    number = start(rig, waves=(5, 100))
    with rig.database.transaction() as work:
        assert [one.camera for one in work.rollouts.pending(number, 0, 10)] == ["cam-1"]
        assert [one.camera for one in work.rollouts.pending(number, 1, 2)] == ["cam-1", "cam-2"]
        one, two, _ = work.rollouts.assignments(number)
        work.rollouts.advance(one, state=OFFERED, now=START, generation=1, deadline_at=START)
        work.rollouts.advance(two, state=OFFERED, now=START, generation=1)
        assert sorted(work.rollouts.counts(number)) == [
            StateCount(0, OFFERED, False, 1),
            StateCount(1, OFFERED, True, 1),
            StateCount(1, AssignmentState.PENDING, False, 1),
        ]


@pytest.mark.parametrize("state", sorted(AssignmentState))
def test_open_is_what_has_no_outcome_yet(rig: Rig, state: AssignmentState) -> None:
    number = start(rig)
    with rig.database.transaction() as work:
        for one in work.rollouts.assignments(number):
            work.rollouts.advance(one, state=state, now=START, generation=1)
        expected = 3 if state in OPEN else 0
        assert len(work.rollouts.open_assignments()) == expected
        assert len(work.rollouts.open_assignments(rig.camera("cam-1").id)) == expected // 3
        assert work.rollouts.open_releases() == ({"model-5"} if state in OPEN else set())
        finished = {one.finished_at for one in work.rollouts.assignments(number)}
        assert finished == ({START} if state in TERMINAL else {None})


def test_what_is_watched_has_all_that_decides(rig: Rig) -> None:
    number = start(rig)
    rig.camera("cam-1").status(trial="model-5", generation=1)
    with rig.database.transaction() as work:
        camera_id = rig.camera("cam-1").id
        asked = work.rollouts.set_desired(
            camera_id, release_id="model-5", digest="d", deadline=None, now=START
        )
        first = work.rollouts.assignments(number)[0]
        work.rollouts.advance(first, state=TRANSFERRING, now=START, generation=asked.generation)
    rig.camera("cam-1").report("transferring", release="model-5", generation=2)
    said = rig.camera("cam-1").boot
    rig.camera("cam-1").reboot()
    rig.camera("cam-1").status(generation=2)
    with rig.database.reading() as work:
        (watched,) = work.rollouts.watched()
        assert work.rollouts.watched([rig.camera("cam-2").id]) == []
        assert work.rollouts.watched([]) == []
        assert work.rollouts.watched([camera_id, *range(100, 2000)]) == [watched]
    assert watched.assignment.camera == "cam-1"
    assert (watched.content_sha256, watched.silence_s) == (rig.digest("model-5"), 60.0)
    assert (watched.desired_generation, watched.sent_generation, watched.desired_release) == (2, 0, "model-5")
    assert (watched.reported_boot, watched.boot) == (said, rig.camera("cam-1").boot)
    assert (watched.running, watched.running_digest) == ("model-1", rig.digest("model-1"))
    assert (watched.connected, watched.reported_generation, watched.trial) == (True, 2, None)


def test_cameras_that_reverted_a_release_are_known_over_all_rollouts(rig: Rig) -> None:
    number = start(rig)
    with rig.database.transaction() as work:
        one, two, _ = work.rollouts.assignments(number)
        work.rollouts.advance(one, state=AssignmentState.REVERTED, now=START)
        work.rollouts.advance(two, state=AssignmentState.FAILED, now=START)
        assert work.rollouts.reverted("model-5") == {one.camera_id}
        assert work.rollouts.reverted("model-1") == set()


# -- update reports ------------------------------------------------------------------------------------------


def test_update_reports_come_in_order_behind_a_number(rig: Rig) -> None:
    camera = rig.camera("cam-1")
    for state in ("transferring", "verifying", "trial"):
        camera.report(state, release="model-5", generation=1, blocks={"done": 1, "total": 2})
    with rig.database.reading() as work:
        reports = work.rollouts.reports_after(0, 2)
        assert [one.state for one in reports] == ["transferring", "verifying"]
        assert [one.state for one in work.rollouts.reports_after(reports[-1].id, 9)] == ["trial"]
        assert (reports[0].boot, reports[0].blocks_done, reports[0].camera_id) == (camera.boot, 1, camera.id)


def test_a_report_number_is_never_given_twice(rig: Rig) -> None:
    """A camera that is removed takes its reports along; the cursor must not pass over what comes next."""
    rig.camera("cam-1").report("transferring", release="model-5", generation=1)
    with rig.database.reading() as work:
        last = work.rollouts.reports_after(0, 9)[-1].id
    rig.registry.remove("cam-1", actor="me")
    rig.camera("cam-2").report("transferring", release="model-5", generation=1)
    with rig.database.reading() as work:
        assert [one.camera_id for one in work.rollouts.reports_after(last, 9)] == [rig.camera("cam-2").id]


# -- desired states ------------------------------------------------------------------------------------------


def test_every_change_of_what_is_desired_is_a_new_generation(rig: Rig) -> None:
    camera_id = rig.camera("cam-1").id
    with rig.database.transaction() as work:
        assert work.rollouts.desired(camera_id) is None
        one = work.rollouts.set_desired(camera_id, release_id="model-5", digest="d", deadline=9.0, now=START)
        two = work.rollouts.set_config(camera_id, {"fps": 5}, START)
        three = work.rollouts.set_desired(camera_id, release_id=None, digest=None, deadline=None, now=START)
        assert [one.generation, two.generation, three.generation] == [1, 2, 3]
        assert (two.release_id, two.digest, two.deadline, two.config) == ("model-5", "d", 9.0, {"fps": 5})
        assert (three.release_id, three.config, three.camera) == (None, {"fps": 5}, "cam-1")
        assert work.rollouts.desired(camera_id) == three


def test_a_camera_that_is_enrolled_anew_gets_generations_above_those_it_knows(rig: Rig) -> None:
    rig.camera("cam-1").status(generation=41)
    with rig.database.transaction() as work:
        camera_id = rig.camera("cam-1").id
        assert work.rollouts.set_config(camera_id, {}, START).generation == 42


def test_a_camera_cannot_push_generations_out_of_range(rig: Rig) -> None:
    rig.camera("cam-1").status(generation=2**53 - 1)
    with rig.database.transaction() as work:
        assert work.rollouts.set_config(rig.camera("cam-1").id, {}, START).generation == 1


def test_a_configuration_that_does_not_fit_into_a_message_is_refused(rig: Rig) -> None:
    with pytest.raises(InvalidError, match="longer"), rig.database.transaction() as work:
        work.rollouts.set_config(rig.camera("cam-1").id, {"x": "y" * 4000}, START)


def test_nothing_is_desired_of_a_camera_that_does_not_exist(rig: Rig) -> None:
    with pytest.raises(UnknownCameraError), rig.database.transaction() as work:
        work.rollouts.set_config(99, {}, START)


def test_sent_generations_only_grow(rig: Rig) -> None:
    camera_id = rig.camera("cam-1").id
    with rig.database.transaction() as work:
        work.rollouts.set_config(camera_id, {}, START)
        work.rollouts.set_config(camera_id, {}, START)
        assert len(work.rollouts.all_desired(unsent_only=True)) == 1
        work.rollouts.mark_sent(camera_id, 2)
        work.rollouts.mark_sent(camera_id, 1)
        assert work.rollouts.all_desired(unsent_only=True) == []
        assert [one.sent_generation for one in work.rollouts.all_desired(unsent_only=False)] == [2]


def test_a_removed_camera_leaves_nothing_behind(rig: Rig) -> None:
    number = start(rig)
    with rig.database.transaction() as work:
        work.rollouts.set_config(rig.camera("cam-1").id, {}, START)
    rig.registry.remove("cam-1", actor="me")
    with rig.database.reading() as work:
        assert [one.camera for one in work.rollouts.assignments(number)] == ["cam-2", "cam-3"]
        assert work.rollouts.all_desired(unsent_only=False) == []
