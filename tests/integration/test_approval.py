"""Four eyes: a rollout that waits until somebody else than its creator has approved it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from fleetd.domain.records import Role, RolloutSettings
from fleetd.errors import AccessError, ConflictError
from tests.integration import api_rig, cli_desk
from tests.integration.update_rig import Rig

NEEDED = RolloutSettings(approval=True)


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(tmp_path)
    rig.release(5)
    rig.cameras("cam-1", "cam-2")
    yield rig
    rig.close()


def test_nothing_is_offered_before_a_second_person_has_approved(rig: Rig) -> None:
    rollout = rig.ota.start_rollout("model-5", "all", settings=NEEDED, actor="ann").id
    rig.settle()
    assert {one.state.value for one in rig.ota.rollout(rollout).assignments} == {"pending"}
    assert rig.broker.desired("cam-1").get("release") is None
    with pytest.raises(AccessError, match="somebody else"):
        rig.ota.approve(rollout, actor="ann")
    assert rig.ota.approve(rollout, actor="bob").settings.approved_by == "bob"
    rig.settle()
    assert rig.broker.desired("cam-1")["release"] == "model-5"
    with pytest.raises(ConflictError, match="approved by bob"):
        rig.ota.approve(rollout, actor="eve")


def test_what_is_on_its_way_goes_on_until_the_other_is_approved(rig: Rig) -> None:
    rig.release(6)
    earlier = rig.ota.start_rollout("model-5", "all", actor="ann").id
    rig.settle()
    later = rig.ota.start_rollout("model-6", "all", settings=NEEDED, actor="ann").id
    rig.settle()
    assert {one.state.value for one in rig.ota.rollout(earlier).assignments} == {"offered"}
    assert rig.broker.desired("cam-1")["release"] == "model-5"
    rig.ota.approve(later, actor="bob")
    rig.settle()
    assert {one.state.value for one in rig.ota.rollout(earlier).assignments} == {"superseded"}
    assert rig.broker.desired("cam-1")["release"] == "model-6"


def test_resuming_is_no_way_around_it(rig: Rig) -> None:
    rollout = rig.ota.start_rollout("model-5", "all", settings=NEEDED, actor="ann").id
    rig.ota.pause(rollout, actor="ann")
    rig.ota.resume(rollout, actor="ann")
    rig.settle()
    assert rig.broker.desired("cam-1").get("release") is None


def test_what_waits_is_explained_and_can_be_cancelled(rig: Rig) -> None:
    rollout = rig.ota.start_rollout("model-5", "all", settings=NEEDED, actor="ann").id
    story = rig.ota.explain(rollout)
    assert "approve" in story.why
    assert f"rollouts approve {rollout}" in story.next
    rig.ota.cancel(rollout, actor="ann")
    with pytest.raises(ConflictError, match="cannot be approved"):
        rig.ota.approve(rollout, actor="bob")


def test_most_rollouts_take_no_approval(rig: Rig) -> None:
    rollout = rig.ota.start_rollout("model-5", "all", actor="ann").id
    with pytest.raises(ConflictError, match="takes no approval"):
        rig.ota.approve(rollout, actor="bob")


def test_an_operator_pushes_and_another_token_lets_it_begin(tmp_path: Path) -> None:
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    try:
        with api_rig.running_rig(tmp_path) as made:
            desk = cli_desk.Desk(made, tmp_path)
            desk.make_key()
            cli_desk.Fleet(made, "cam-1")
            pushed = desk.run("push-model", desk.bundle(), "--to", "all", "--approval", "--yes", "--no-watch")
            assert "somebody else does `fleetctl rollouts approve 1`" in pushed.stderr
            assert "somebody else" in desk.fails(5, "rollouts", "approve", 1)
            assert "approved by the-operator" in desk.ok("rollouts", "approve", 1, role=Role.OPERATOR)
    finally:
        structlog.reset_defaults()
