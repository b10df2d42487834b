"""Two hundred cameras and a release that does harm: how far it gets.

Services, database, landing and delivery are the real ones; cameras are driven from here. What the models answer comes
from the real models: drawings that each of them classified once. `collapsed` says the same to everything.
"""

import functools
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleetd.domain.assignment import CONFIRMED, LOST
from fleetd.domain.records import RolloutSettings, RolloutState
from fleetd.simulator.assets import bundle_folder
from fleetd.simulator.drawings import LABELS, draw
from fleetd.simulator.models import Engine
from fleetd.updates.judging import bucket_seconds
from tests.integration.update_rig import Camera, Rig

CAMERAS = 200
SOAK = 300.0
BUCKET = bucket_seconds(SOAK)
CALM = RolloutSettings(canaries=1, soak_s=SOAK, silence_s=SOAK)
WAVES = (5, 25, 50, 100)
DRAWINGS = 120
FRAMES = 8  # results of a camera in a bucket
PRESENT_S = 120.0  # between two statuses

Answer = tuple[str, float]


@functools.cache
def answers(model: str) -> tuple[Answer, ...]:
    """What a model says to some drawings of all classes, and how surely."""
    folder = bundle_folder(model)
    engine = Engine((folder / "trained.tflite").read_bytes())
    labels = (folder / "labels.txt").read_text().split()
    found = []
    for number in range(DRAWINGS):
        edge = engine.input_shape[0]
        picture = draw(number % len(LABELS), number, -(-edge // 8) * 8)[:edge, :edge]
        scores = engine.classify(picture)
        best = max(range(len(scores)), key=scores.__getitem__)
        found.append((labels[best], min(1.0, max(0.0, scores[best]))))
    return tuple(found)


class Site:
    """Two hundred cameras, their clocks and what they see."""

    def __init__(self, folder: Path) -> None:
        self.rig = Rig(folder)
        self.rig.release(5)
        with self.rig.in_one_batch():
            self.cameras = self.rig.cameras(*(f"cam-{n}" for n in range(CAMERAS)))
        self._chance = random.Random(7)
        self.bricked: set[str] = set()
        self.looked_at: set[str] = set()
        self._said: dict[str, float] = {}
        self.new_model = "demo-v2"

    def look(self, camera: Camera) -> None:
        """A bucket's results with whatever it runs."""
        pool = answers(self.new_model if camera.running[0] == "model-5" else "demo-v1")
        chosen = self._chance.choices(pool, k=FRAMES)
        camera.see_all(chosen)

    def live(self, seconds: float, *, watched: bool, every: float = BUCKET) -> None:
        """Time passes; cameras that are not bricked say now and then that they are there, and those that somebody
        looks at what they see.
        """
        end = self.rig.now + seconds
        while self.rig.now < end:
            self.rig.now += every
            with self.rig.in_one_batch():
                for camera in self.cameras:
                    if camera.name in self.bricked and camera.begun:
                        continue
                    if watched and camera.name in self.looked_at:
                        self.look(camera)
                    if self.rig.now - self._said.get(camera.name, 0.0) >= PRESENT_S:
                        self._said[camera.name] = self.rig.now
                        camera.status()
            self.rig.settle()

    def look_at_some(self) -> None:
        """Those that go first and some that go last: what the others see, nobody reads."""
        waves = self.rig.ota.preview("model-5", "all", WAVES, 1).waves
        self.looked_at = {*waves[0], *waves[1], *waves[-1][:25]}

    def push(self) -> int:
        number = self.rig.ota.start_rollout("model-5", "all", waves=WAVES, settings=CALM, actor="ann").id
        self.rig.settle()
        return number

    def take(self) -> None:
        """Everybody takes what it was offered; the bricked ones begin and are never heard of again."""
        for camera in self.cameras:
            if camera.name in self.bricked:
                camera.behaviour = "silent"
        self.rig.act()
        self.rig.settle()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    site.rig.close()


def test_a_release_that_silently_bricks_one_in_twenty_is_stopped_in_the_first_waves(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    site.bricked = set(random.Random(11).sample([camera.name for camera in site.cameras], CAMERAS // 20))
    number = site.push()
    for _ in range(60):
        site.take()
        site.live(50.0, watched=False, every=50.0)
        if site.rig.ota.rollout(number).rollout.state is not RolloutState.RUNNING:
            break
    view = site.rig.ota.rollout(number)
    assert view.rollout.state is RolloutState.HALTED
    assert view.rollout.wave <= 3, "the last wave never begins"
    bricked = view.tally[LOST]
    assert 1 <= bricked <= 6, f"{bricked} of {len(site.bricked)} that it would have bricked"
    assert view.rollout.reason is not None
    assert "fell silent" in view.rollout.reason
    with capsys.disabled():
        print(
            f"\n200 cameras, 10 would be bricked: halted in wave {view.rollout.wave + 1} of 5, {bricked} bricked"
        )


def test_a_model_that_runs_and_answers_wrongly_is_stopped_at_its_first_camera(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    site.new_model = "collapsed"
    site.look_at_some()
    site.live(20 * BUCKET, watched=True)
    number = site.push()
    site.take()
    site.live(SOAK + 2 * BUCKET, watched=True)
    view = site.rig.ota.rollout(number)
    assert view.rollout.state is RolloutState.HALTED
    assert (view.rollout.wave, view.tally[CONFIRMED]) == (0, 1)
    assert view.rollout.reason is not None
    assert "frozen-picture" in view.rollout.reason or "class-mix" in view.rollout.reason
    with capsys.disabled():
        print(f"\n200 cameras, a model that always says the same: 1 camera ran it. {view.rollout.reason}")
