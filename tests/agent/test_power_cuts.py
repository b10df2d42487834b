"""The power may go at any write: the camera then has the old model or the new one, never none, and goes on."""

from collections.abc import Callable
from pathlib import Path

import pytest

from camera_agent import crypto
from tests.agent.micropython import Arch, run_device
from tests.agent.update_kit import (
    Camera,
    MemoryFiles,
    PowerCut,
    Release,
    Signer,
    lay_out,
    make_release,
    weights,
)

SIGNER = Signer()
V1 = weights(9_000, seed=1)
V2 = weights(9_500, seed=2)
ONE = make_release(SIGNER, "model-1", V1, 1)
TWO = make_release(SIGNER, "model-2", V2, 2, notes="x" * 5000)  # its manifest has more than one block
TEARS = ("lost", "kept", "half", "swapped", "after")
DEVICE = Path(__file__).parent / "device"

Scenario = Callable[[Camera], object]
Model = tuple[str, bytes] | None


@pytest.fixture(autouse=True)
def _every_signature_is_checked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """There are thousands of boots here; what verify() says is tested elsewhere."""
    judged: dict[tuple[bytes, bytes], bool] = {}
    verify = crypto.verify

    def remembered(key: bytes, signature: memoryview, digest: bytes) -> bool:
        what = (bytes(signature), bytes(digest))
        if what not in judged:
            judged[what] = verify(key, signature, digest)
        return judged[what]

    monkeypatch.setattr(crypto, "verify", remembered)


def small_files() -> MemoryFiles:
    return MemoryFiles(12288 + 3 * 4096, 3 * 4096)


def updates(camera: Camera) -> None:
    camera.want(TWO, 2).run().classify().run()


def trial_fails(camera: Camera) -> None:
    camera.want(TWO, 2).run()
    camera.updater.trial_failed("labels-mismatch", None)


def trial_crashes(camera: Camera) -> None:
    camera.want(TWO, 2).run()
    camera.boot().boot().boot()


def trial_is_cancelled(camera: Camera) -> None:
    camera.want(TWO, 2).run()
    camera.want(None, 3).run()


def prepared(before: list[Release]) -> tuple[Camera, list[bytes]]:
    """A camera on which these releases were installed, and what its storage holds."""
    camera = Camera(SIGNER, small_files()).boot()
    for n, release in enumerate(before):
        camera.install(release, n)
    for release in (ONE, TWO):
        camera.broker.publish(release)
    camera.files.medium.power_on()
    return camera, [bytes(region.settled) for region in camera.files.medium.regions]


def restore(camera: Camera, storage: list[bytes]) -> None:
    for region, data in zip(camera.files.medium.regions, storage, strict=True):
        region.settled[:] = data


def operations(camera: Camera, scenario: Scenario) -> int:
    """How many writes and syncs a run without a cut makes."""
    camera.files.medium.power_on()
    camera.boot()
    scenario(camera)
    total: int = camera.files.medium.operations
    return total


def run_until(camera: Camera, scenario: Scenario, cut: int, tear: str) -> None:
    camera.files.medium.power_on(cut, tear)
    try:
        camera.boot()
        scenario(camera)
    except PowerCut:
        pass
    camera.files.medium.power_on()


@pytest.mark.parametrize("tear", TEARS)
@pytest.mark.parametrize("scenario", [updates, trial_fails, trial_crashes, trial_is_cancelled])
@pytest.mark.parametrize(
    ("before", "allowed"),
    [([], [None]), ([ONE], [(ONE.id, V1)])],
    ids=["first install", "second install"],
)
def test_after_a_cut_at_any_write_there_is_the_old_or_the_new_model(
    before: list[Release], allowed: list[Model], scenario: Scenario, tear: str
) -> None:
    camera, storage = prepared(before)
    total = operations(camera, scenario)
    assert total > 10
    for cut in range(1, total + 1):
        restore(camera, storage)
        run_until(camera, scenario, cut, tear)
        camera.boot()
        assert camera.model() in [*allowed, (TWO.id, V2)], f"cut {cut} of {total}"
        camera.want(TWO, 4).run().classify().run()
        ended = camera.last()
        model = camera.boot().model()
        if ended == ("confirmed", None):
            assert model == (TWO.id, V2), f"cut {cut} of {total}"
        else:  # the trial had already failed for good
            assert ended[0] == "rejected", f"cut {cut} of {total}"
            assert model in allowed


@pytest.mark.parametrize(
    "tears", [("half", "lost"), ("swapped", "half"), ("kept", "swapped"), ("after", "half")]
)
def test_a_second_cut_while_it_recovers_costs_nothing_either(tears: tuple[str, str]) -> None:
    camera, storage = prepared([ONE])
    total = operations(camera, updates)
    for first in range(1, total + 1):
        for second in range(1, total + 1):
            restore(camera, storage)
            run_until(camera, updates, first, tears[0])
            run_until(camera, updates, second, tears[1])
            assert camera.boot().model() in [(ONE.id, V1), (TWO.id, V2)], (first, second)


def test_the_model_survives_any_number_of_cuts_in_a_row() -> None:
    """Each boot lives one write longer than the one before: in the end the update is through."""
    camera, _ = prepared([ONE])
    for cut in range(1, 60):
        run_until(camera, updates, cut, "half")
        assert camera.boot().model() in [(ONE.id, V1), (TWO.id, V2)], cut


def test_a_slot_that_says_it_is_valid_is_valid_only_because_of_the_syncs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On a medium that reorders writes. Also the proof that these tests can see a missing sync."""
    camera, storage = prepared([ONE])

    def trials_lost() -> int:
        restore(camera, storage)
        total = operations(camera, updates)
        lost = 0
        for cut in range(1, total + 1):
            restore(camera, storage)
            run_until(camera, updates, cut, "swapped")
            lost += "trial-lost" in camera.boot().updater.status()["problems"]
        return lost

    assert trials_lost() == 0
    monkeypatch.setattr("tests.agent.update_kit.MemoryRegion.sync", lambda _self: None)
    assert trials_lost() > 0


@pytest.mark.parametrize(
    ("arch", "sector", "stride"), [("i386", 4096, 1), ("amd64", 512, 5)], ids=["4096", "512"]
)
def test_on_fat_a_cut_inside_any_flash_block_leaves_a_mountable_volume_and_a_model(
    tmp_path: Path, arch: Arch, sector: int, stride: int
) -> None:
    """Slots filled to the last byte, so that files that share an erase block would be seen."""
    releases = [
        make_release(SIGNER, f"model-{n}", weights(3 * 4096, seed=n), n, encodings=None) for n in (1, 2, 3)
    ]
    lay_out(tmp_path, SIGNER, releases)
    named = [word for release in releases for word in (release.id, release.digest)]
    done = run_device(
        arch,
        DEVICE / "check_fat_cuts.py",
        str(tmp_path),
        str(sector),
        str(stride),
        *named,
        heapsize="64m",
        timeout=550,
    )
    words = done.stdout.split()
    assert int(words[1]) >= 50
    assert words[2:] == ["unmountable", "0", "none", "0", "stuck", "0"]
