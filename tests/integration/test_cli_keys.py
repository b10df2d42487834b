"""fleetctl keys rotate, ring, revoke: all cameras get other keys, and an interrupted run can be repeated."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from fleetd.bundles.keyrecords import check_record, make_record
from fleetd.bundles.opening import open_bundle
from fleetd.bundles.release import build_release
from fleetd.bundles.signing import OperatorKey
from fleetd.domain.records import Role
from fleetd.errors import ConflictError, InvalidError
from tests.integration.api_rig import Rig, running_rig
from tests.integration.cli_desk import Desk, Fleet
from tests.unit.bundles.models import LABELS, make


@pytest.fixture(autouse=True)
def _quiet_services() -> Iterator[None]:
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    yield
    structlog.reset_defaults()


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    with running_rig(tmp_path) as rig:
        yield rig


@pytest.fixture
def desk(rig: Rig, tmp_path: Path) -> Desk:
    desk = Desk(rig, tmp_path)
    desk.make_key()
    return desk


def ring(desk: Desk) -> dict[str, Any]:
    found: dict[str, Any] = desk.json("keys", "ring")
    return found


def own_key(desk: Desk) -> Path:
    return desk.home / ".config" / "fleetctl" / "keys" / "operator.pem"


def test_before_the_first_record_cameras_go_by_their_provisioning(desk: Desk) -> None:
    public = desk.json("keys", "show")["public"]
    assert ring(desk) == {"serial": 0, "epoch": 1, "keys": [public], "recovery": [], "behind": []}
    assert "as provisioned" in desk.ok("keys", "ring")


def test_a_new_key_replaces_mine_and_a_new_epoch_begins(desk: Desk, rig: Rig) -> None:
    before = desk.json("keys", "show")
    fleet = Fleet(rig, "cam-1")
    desk.ok("keys", "rotate", "--no-password", "--yes")
    after = desk.json("keys", "show")
    assert after["public"] != before["public"]
    assert ring(desk) == {
        "serial": 1,
        "epoch": 2,
        "keys": [after["public"]],
        "recovery": [],
        "behind": ["cam-1"],
    }
    (kept,) = own_key(desk).parent.glob(f"operator-{before['key_id']}.pem")
    assert OperatorKey.load(kept).public.hex() == before["public"]
    assert {one["key_id"]: one["revoked_at"] is None for one in desk.json("keys", "list")} == {
        before["key_id"]: False,
        after["key_id"]: True,
    }
    fleet._land("cam-1", "status", online=True, keys={"serial": 1, "epoch": 2})
    assert ring(desk)["behind"] == []
    assert "record 1, epoch 2" in desk.ok("cameras", "show", "cam-1")


def test_a_push_after_a_rotation_is_the_first_of_its_epoch(desk: Desk, rig: Rig) -> None:
    fleet = Fleet(rig, "cam-1")
    desk.meanwhile = fleet.step
    desk.ok("push-model", desk.bundle(), "--to", "all", "--yes")
    desk.ok("keys", "rotate", "--no-password", "--yes")
    pushed = desk.json("push-model", desk.bundle(), "--to", "all", "--yes")
    assert (pushed["release"]["id"], pushed["release"]["epoch"], pushed["release"]["sequence"]) == (
        "model-2.1",
        2,
        1,
    )
    with pytest.raises(InvalidError, match="not accepted any more"):
        rig.ota.start_rollout("model-1", "all", actor="ada")


def test_a_rotation_asks_for_passwords_and_says_what_will_halt(desk: Desk, rig: Rig, tmp_path: Path) -> None:
    Fleet(rig, "cam-1")
    desk.ok("push-model", desk.bundle(), "--to", "all", "--yes", "--no-watch")
    asked = desk.run("keys", "rotate", typed="one two\none two\nn\n")
    assert asked.exit_code == 1
    assert "Rollout 1 of model-1 will halt" in asked.output
    assert ring(desk)["serial"] == 0
    again = desk.run("keys", "rotate", "--yes")
    assert again.exit_code == 0, again.output
    assert "unfinished run" in again.output
    assert OperatorKey.load(own_key(desk), "one two").public.hex() == ring(desk)["keys"][0]
    assert rig.ota.rollout(1).rollout.state.value == "halted"
    password = tmp_path / "password"
    password.write_text("one two\n")
    desk.ok("keys", "rotate", "--password-file", password, "--yes")
    assert ring(desk)["serial"] == 2


def test_a_colleagues_key_comes_and_goes(desk: Desk, tmp_path: Path) -> None:
    bob = OperatorKey.generate()
    file = tmp_path / "bob.pub"
    file.write_text(bob.public.hex() + "\n")
    desk.ok("keys", "rotate", "--add", file, "--yes")
    assert (ring(desk)["serial"], ring(desk)["epoch"], bob.public.hex() in ring(desk)["keys"]) == (1, 1, True)
    assert "keys rotate --add" in desk.fails(1, "keys", "trust", OperatorKey.generate().public.hex())
    told = desk.run("keys", "revoke", bob.key_id.hex(), "--yes")
    assert f"keys rotate --drop {bob.key_id.hex()}" in told.stderr
    desk.ok("keys", "rotate", "--drop", bob.key_id.hex(), "--yes")
    assert (ring(desk)["epoch"], ring(desk)["keys"]) == (2, [desk.json("keys", "show")["public"]])


def test_a_stolen_key_that_was_the_only_one_ends_by_its_own_signature(desk: Desk) -> None:
    stolen = desk.json("keys", "show")
    desk.ok("keys", "revoke", stolen["key_id"], "--yes")
    desk.ok("keys", "rotate", "--no-password", "--yes")
    assert ring(desk)["keys"] == [desk.json("keys", "show")["public"]]
    assert ring(desk)["epoch"] == 2


def test_with_a_recovery_key_a_stolen_key_signs_no_record(desk: Desk, rig: Rig) -> None:
    vault = own_key(desk).with_name("recovery.pem")
    desk.ok("keys", "init", "--no-password", "--key", vault)
    desk.ok("keys", "rotate", "--recovery", vault.with_suffix(".pub"), "--yes")
    assert "a recovery key" in desk.fails(2, "keys", "rotate", "--no-password", "--yes")
    stolen = OperatorKey.load(own_key(desk))
    evil = OperatorKey.generate()
    forged = make_record(
        stolen, serial=2, epoch=2, created=1, keys=[evil.public.hex()], recovery=[evil.public.hex()]
    )
    with pytest.raises(InvalidError, match="not accepted here"):
        rig.ota.add_record(forged, "eve", actor="eve")
    desk.ok("keys", "rotate", "--sign-with", vault, "--no-password", "--yes")
    assert ring(desk)["keys"] == [desk.json("keys", "show")["public"]]
    assert len(ring(desk)["recovery"]) == 1


def test_wrong_input_is_named_and_changes_nothing(desk: Desk, tmp_path: Path) -> None:
    assert "no public key" in desk.fails(2, "keys", "rotate", "--add", "bob", "--yes")
    assert "no key 12" in desk.fails(2, "keys", "rotate", "--drop", "12", "--yes")
    own = desk.json("keys", "show")["key_id"]
    assert "No key would be left" in desk.fails(2, "keys", "rotate", "--drop", own, "--yes")
    assert "no signing key" in desk.fails(2, "keys", "rotate", "--sign-with", tmp_path / "no.pem", "--yes")
    desk.ok("keys", "init", "--no-password", "--key", tmp_path / "other.pem")
    assert "--sign-with" in desk.fails(
        2, "keys", "rotate", "--sign-with", tmp_path / "other.pem", "--no-password", "--yes"
    )
    assert "role admin" in desk.fails(
        5, "keys", "rotate", "--add", "ab" * 64, "--no-password", "--yes", role=Role.OPERATOR
    )
    assert ring(desk)["serial"] == 0


def test_the_same_record_twice_changes_nothing_and_a_number_is_given_once(desk: Desk, rig: Rig) -> None:
    mine, bob = OperatorKey.load(own_key(desk)), OperatorKey.generate()
    keys = [mine.public.hex(), bob.public.hex()]
    record = make_record(mine, serial=1, epoch=1, created=1, keys=keys, recovery=[])
    assert check_record(record, [mine.public]).serial == 1
    assert rig.ota.add_record(record, "ada", actor="ada") == rig.ota.add_record(record, "ada", actor="ada")
    for serial, epoch in ((1, 1), (3, 1), (2, 3)):
        other = make_record(bob, serial=serial, epoch=epoch, created=2, keys=keys, recovery=[])
        with pytest.raises(ConflictError, match="number 2 in epoch 1 or 2"):
            rig.ota.add_record(other, "ada", actor="ada")
    assert [entry["action"] for entry in rig.access.audit()].count("key.record") == 1


def test_a_revoked_key_does_not_come_back(desk: Desk, rig: Rig) -> None:
    mine, bob = OperatorKey.load(own_key(desk)), OperatorKey.generate()
    rig.ota.add_key(bob.public.hex(), "bob", actor="ada")
    rig.ota.revoke_key(bob.key_id.hex(), actor="ada")
    keys = [mine.public.hex(), bob.public.hex()]
    with pytest.raises(ConflictError, match="cannot come back"):
        rig.ota.add_record(
            make_record(bob, serial=1, epoch=1, created=1, keys=keys, recovery=[]), "eve", actor="eve"
        )
    assert rig.ota.ring().serial == 0


def test_a_release_of_another_epoch_than_the_cameras_is_refused(desk: Desk, rig: Rig) -> None:
    built = build_release(
        open_bundle(make(), "\n".join(LABELS).encode()),
        release_id="model-99",
        name="bees",
        version="1",
        epoch=2,
        sequence=2**32 - 1,
        boards=["*"],
        created=1,
        key=OperatorKey.load(own_key(desk)),
    )
    with pytest.raises(InvalidError, match="key epoch 2, cameras are in epoch 1"):
        rig.ota.add_release(built.blob, [one.data for one in built.encodings], actor="eve")
