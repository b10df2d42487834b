"""Rollouts that halt on what a model does, on real rows; and on cameras that fall silent after success."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleetd.domain.records import AssignmentState, Rollout, RolloutSettings, RolloutState
from fleetd.updates.judging import bucket_seconds, observe
from tests.integration.update_rig import Camera, Rig

SOAK = 600.0
BUCKET = bucket_seconds(SOAK)
CAMERAS = 8


class Fleet:
    """Cameras in front of a busy road, with habits and noise of their own."""

    def __init__(self, folder: Path) -> None:
        self.rig = Rig(folder)
        self.rig.release(5)
        self.cameras = self.rig.cameras(*(f"cam-{n}" for n in range(CAMERAS)))
        self._chance = random.Random(3)
        self._level = {camera.name: self._chance.uniform(0.75, 0.85) for camera in self.cameras}
        self.broken: set[str] = set()  # answers "bee" to everything with the new release
        self.dead: set[str] = set()  # falls silent with the new release

    def live(self, seconds: float) -> None:
        """Time passes; everybody sees things."""
        end = self.rig.now + seconds
        while self.rig.now < end:
            self.grow_old(2)
            self.rig.settle()

    def grow_old(self, buckets: int) -> None:
        """The same without anybody who decides."""
        with self.rig.in_one_batch():
            for _ in range(buckets):
                self.rig.now += BUCKET
                self._everybody()

    def _everybody(self) -> None:
        for camera in self.cameras:
            if camera.running[0] != "model-5" or camera.name not in self.dead:
                self._look(camera)
                camera.status()

    def _look(self, camera: Camera) -> None:
        if camera.running[0] == "model-5" and camera.name in self.broken:
            camera.see(["bee"] * 15, score=0.99)
            return
        labels = self._chance.choices(("bee", "wasp", "fly"), (5, 3, 2), k=15)
        camera.see(labels, self._level[camera.name] + self._chance.gauss(0, 0.02))

    def push(self, **more: object) -> int:
        """Begins a rollout of model-5 to a canary, then everybody, and lets the canary take it."""
        settings = RolloutSettings(**{"canaries": 2, "soak_s": SOAK, **more})  # type: ignore[arg-type]
        number = self.rig.ota.start_rollout("model-5", "all", settings=settings, actor="ann").id
        self.rig.settle()
        self.rig.act()
        self.rig.settle()
        return number

    def rollout(self, number: int = 1) -> Rollout:
        return self.rig.ota.rollout(number).rollout

    def runs_it(self) -> set[str]:
        return {camera.name for camera in self.cameras if camera.running[0] == "model-5"}


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    fleet = Fleet(tmp_path)
    fleet.grow_old(30)
    yield fleet
    fleet.rig.close()


def test_a_model_that_answers_wrongly_halts_in_its_first_wave(fleet: Fleet) -> None:
    fleet.broken = {camera.name for camera in fleet.cameras}
    number = fleet.push()
    fleet.live(SOAK + BUCKET)
    rollout = fleet.rollout(number)
    assert rollout.state is RolloutState.HALTED
    assert rollout.wave == 0
    assert rollout.reason is not None
    assert "class-mix" in rollout.reason or "frozen-picture" in rollout.reason
    assert len(fleet.runs_it()) == 2
    assert any(name in rollout.reason for name in fleet.runs_it()), "it names cameras at risk"


def test_a_good_model_goes_through_all_waves_and_each_is_watched(fleet: Fleet) -> None:
    number = fleet.push()
    fleet.live(SOAK - 2 * BUCKET)
    assert (fleet.rollout(number).state, fleet.rollout(number).wave) == (RolloutState.RUNNING, 0)
    fleet.live(4 * BUCKET)
    assert fleet.rollout(number).wave == 1
    fleet.rig.act()
    fleet.rig.settle()
    assert fleet.rollout(number).state is RolloutState.RUNNING, "the last wave is watched too"
    fleet.live(SOAK + 2 * BUCKET)
    assert fleet.rollout(number).state is RolloutState.COMPLETED
    assert len(fleet.runs_it()) == CAMERAS


def test_cameras_that_confirm_and_then_fall_silent_halt_it(fleet: Fleet) -> None:
    fleet.dead = {camera.name for camera in fleet.cameras}
    number = fleet.push(silence_s=300.0)
    fleet.live(SOAK + BUCKET)
    rollout = fleet.rollout(number)
    assert rollout.state is RolloutState.HALTED
    assert rollout.reason is not None
    assert "2 of 2 cameras that run the release are silent" in rollout.reason


def test_health_can_be_left_out_and_single_signals_ignored(fleet: Fleet) -> None:
    fleet.broken = {camera.name for camera in fleet.cameras}
    number = fleet.push(health=False)
    fleet.live(SOAK + BUCKET)
    assert fleet.rollout(number).wave == 1
    fleet.rig.ota.cancel(number, actor="ann")


def test_a_resume_accepts_the_signals_that_moved_and_no_others(fleet: Fleet) -> None:
    fleet.broken = {camera.name for camera in fleet.cameras}
    number = fleet.push()
    fleet.live(SOAK + BUCKET)
    assert fleet.rollout(number).state is RolloutState.HALTED
    fleet.rig.ota.resume(number, actor="ann")
    accepted = set(fleet.rollout(number).settings.ignore)
    assert accepted
    fleet.rig.settle()
    assert fleet.rollout(number).state is RolloutState.RUNNING
    with fleet.rig.database.reading() as work:
        seen = observe(work, fleet.rollout(number), fleet.rig.now)
    assert not accepted & {one.signal.value for one in seen.findings}


def test_a_release_with_other_classes_is_not_judged_by_their_mix(fleet: Fleet) -> None:
    with fleet.rig.database.reading() as work:
        release = work.releases.get("model-5")
    assert release is not None
    fleet.rig.release(6, labels=("bee", "wasp", "hornet"))
    fleet.cameras[0].running = ("model-1", fleet.rig.digest("model-1"), 1)
    number = fleet.rig.ota.start_rollout(
        "model-6", "all", settings=RolloutSettings(canaries=2, soak_s=SOAK), actor="ann"
    ).id
    fleet.rig.settle()
    fleet.rig.act()
    fleet.live(SOAK / 2)
    with fleet.rig.database.reading() as work:
        seen = observe(work, fleet.rollout(number), fleet.rig.now)
    assert seen.findings
    assert "class-mix" not in {one.signal.value for one in seen.findings}


def test_what_is_read_is_bounded_whatever_the_history(fleet: Fleet) -> None:
    fleet.push()
    fleet.live(SOAK / 2)
    with fleet.rig.database.reading() as work:
        canaries, controls = work.health.watches(
            1, "model-5", bucket_s=BUCKET, threshold=0.5, now=fleet.rig.now
        )
        dark = work.health.dark(1, "model-5", silence_s=300.0, now=fleet.rig.now)
    assert (len(canaries), len(controls)) == (2, CAMERAS - 2)
    assert all(len(one.before) <= 40 for one in canaries)
    assert all(one.buckets[number].results == 15 for one in canaries for number in one.after)
    assert all(one.buckets[number].unknown == 0 for one in canaries for number in one.before)
    assert (dark.running, dark.silent, dark.others, dark.others_silent) == (2, 0, CAMERAS - 2, 0)


def test_a_clock_that_was_set_back_years_does_not_stop_the_watch_for_years(fleet: Fleet) -> None:
    number = fleet.push()
    fleet.rig.now -= 4 * 365 * 86400
    fleet.live(2 * BUCKET)
    assert fleet.rollout(number).wave == 1
    states = fleet.rig.states(number)
    assert sum(state is AssignmentState.CONFIRMED for state in states.values()) == 2
