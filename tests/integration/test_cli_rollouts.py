"""fleetctl on rollouts: explained, taken back by a newer release, forgotten; cameras pinned and moved."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.api_rig import Rig, running_rig
from tests.integration.cli_desk import Desk, Fleet
from tests.unit.bundles.models import Plan


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    with running_rig(tmp_path) as rig:
        yield rig


@pytest.fixture
def desk(rig: Rig, tmp_path: Path) -> Desk:
    return Desk(rig, tmp_path)


@pytest.fixture
def fleet(rig: Rig, desk: Desk) -> Fleet:
    fleet = Fleet(rig, "cam-1", "cam-2", "cam-3")
    desk.meanwhile = fleet.step
    return fleet


def push(desk: Desk, *options: str) -> str:
    return desk.ok("push-model", desk.bundle(), "--to", "all", "--yes", *options)


def test_a_rollout_is_explained_while_it_goes_on_and_afterwards(desk: Desk, rig: Rig, fleet: Fleet) -> None:
    desk.make_key()
    push(
        desk,
        "--no-watch",
        "--waves",
        "34,100",
        "--retries",
        "1",
        "--site-at-once",
        "5",
        "--window",
        "00:00-24:00 UTC",
    )
    said = desk.ok("rollouts", "explain", "1")
    assert "next     When they are done, the next wave (100 %) begins." in said
    assert "5 at a time at a site" in said
    assert "1 retry a camera" in said
    assert "34 %" in said
    found = desk.json("rollouts", "explain", "1")
    assert [one["state"] for one in found["waves"]] == ["now", "later"]
    for _ in range(12):
        fleet.step()
    assert "Every camera" in desk.ok("rollouts", "explain", "1") or "have confirmed" in desk.ok(
        "rollouts", "explain", "1"
    )
    assert "no rollout with that number" in desk.fails(1, "rollouts", "explain", "9")


def test_going_back_signs_the_old_content_again_and_brings_it_to_those_that_took_it(
    desk: Desk, rig: Rig, fleet: Fleet
) -> None:
    desk.make_key()
    push(desk)
    old = rig.ota.release("model-1")
    for name in ("cam-1", "cam-2", "cam-3"):
        fleet.runs(name, "model-1", old.content_sha256)
    plan = Plan()
    desk.ok("push-model", desk.bundle(plan), "--to", "all", "--yes", "--name", "worse", "--threshold", "0.5")
    said = desk.run("rollouts", "revert", "2", "--yes")
    assert said.exit_code == 0, said.output
    assert "Signed the content of model-1 again, as model-3." in said.stderr
    made = rig.ota.release("model-3")
    assert (made.content_sha256, made.sequence) == (old.content_sha256, 3)
    assert rig.ota.rollout(3).rollout.release_id == "model-3"
    assert "is forgotten" in desk.ok("rollouts", "delete", "2", "--yes")
    desk.fails(1, "rollouts", "show", "2")


def test_a_release_of_another_key_is_not_signed_again(desk: Desk, rig: Rig, fleet: Fleet) -> None:
    desk.make_key()
    push(desk)
    for name in ("cam-1", "cam-2", "cam-3"):
        fleet.runs(name, "model-1", rig.ota.release("model-1").content_sha256)
    other = desk.folder / "other.pem"
    desk.ok("keys", "init", "--no-password", "--key", other)
    desk.ok("keys", "trust", "--name", "eve", "--key", other)
    desk.ok("push-model", desk.bundle(), "--to", "all", "--yes", "--key", other, "--threshold", "0.5")
    complaint = desk.fails(2, "rollouts", "revert", "2", "--yes", "--key", other)
    assert "was not signed with this key" in complaint


def test_a_rollout_without_anybody_to_take_back_says_so(desk: Desk, rig: Rig, fleet: Fleet) -> None:
    desk.make_key()
    push(desk, "--no-watch")
    assert "No camera has taken it" in desk.fails(2, "rollouts", "revert", "1", "--yes")


def test_a_way_back_is_signed_before_it_is_needed(desk: Desk, rig: Rig, fleet: Fleet) -> None:
    desk.make_key()
    push(desk)
    old = rig.ota.release("model-1")
    for name in ("cam-1", "cam-2", "cam-3"):
        fleet.runs(name, "model-1", old.content_sha256)
    push(desk, "--way-back", "--no-watch", "--threshold", "0.5", "--ignore", "confidence")
    settings = rig.ota.rollout(2).rollout.settings
    assert (settings.take_back, settings.way_back, settings.ignore) == (True, "model-3", ("confidence",))
    assert rig.ota.release("model-3").content_sha256 == old.content_sha256


def test_cameras_are_pinned_moved_and_explained(desk: Desk, rig: Rig, fleet: Fleet) -> None:
    desk.make_key()
    push(desk, "--waves", "100")
    fleet.runs("cam-1", "model-1", rig.ota.release("model-1").content_sha256)
    assert "pinned to model-1" in desk.ok("cameras", "pin", "cam-1")
    assert "berlin" in desk.ok("cameras", "move", "cam-1", "berlin")
    assert "site         berlin" in desk.ok("cameras", "show", "cam-1")
    said = desk.ok("cameras", "explain", "cam-1")
    assert "is pinned to model-1" in said
    assert "says it runs" in said
    assert desk.json("cameras", "explain", "cam-1")["pinned"] == "model-1"
    assert "not pinned" in desk.ok("cameras", "unpin", "cam-1")
    assert "cannot be a site" in desk.fails(2, "cameras", "move", "cam-1", "Nowhere!")
