"""Settings from afar: wanted once, kept in the desired state, never with a secret in answers or the audit trail."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.api_rig import Rig, error_of, running_rig
from tests.integration.cli_desk import Desk

KEY = "a-wifi-key-of-long-standing"


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    with running_rig(tmp_path) as made:
        made.enrol("cam-1", "cam-2")
        yield made


def change(rig: Rig, target: str, **body: object) -> dict[str, list[str]]:
    answer = rig.operator.patch("/config", json={"target": target, **body})
    assert answer.status_code == 200, answer.text
    found: dict[str, list[str]] = answer.json()
    return found


def test_settings_reach_the_desired_state_of_each_camera_named_and_of_no_other(rig: Rig) -> None:
    assert change(rig, "id=cam-1", set={"publish": "summary"}) == {"changed": ["cam-1"], "unchanged": []}
    change(rig, "id=cam-1", set={"threshold": 0.7})
    found = rig.viewer.get("/cameras/cam-1/config").json()
    assert found["settings"] == {"publish": "summary", "threshold": 0.7}
    assert found["generation"] == 2
    assert rig.viewer.get("/cameras/cam-2/config").json()["settings"] == {}
    with rig.store.reading() as work:
        camera = work.cameras.get("cam-1")
        assert camera is not None
        desired = work.rollouts.desired(camera.id)
    assert desired is not None
    assert desired.sent_generation < desired.generation, "it has to be published"


def test_the_same_wish_again_asks_nothing_of_a_camera(rig: Rig) -> None:
    change(rig, "all", set={"batch": 5})
    assert change(rig, "all", set={"batch": 5}) == {"changed": [], "unchanged": ["cam-1", "cam-2"]}
    assert rig.viewer.get("/cameras/cam-1/config").json()["generation"] == 1


def test_a_setting_can_be_wanted_no_more(rig: Rig) -> None:
    change(rig, "id=cam-1", set={"batch": 5, "scores": True})
    change(rig, "id=cam-1", unset=["batch"])
    assert rig.viewer.get("/cameras/cam-1/config").json()["settings"] == {"scores": True}


@pytest.mark.parametrize(
    "body",
    [
        {"target": "all", "set": {"treshold": 1}},
        {"target": "all", "set": {"batch": "many"}},
        {"target": "all", "unset": ["nothing"]},
        {"target": "all"},
        {"target": "id=cam-9", "set": {"batch": 1}},
        {"target": "all", "set": {"batch": 1}, "unset": ["batch"]},
    ],
    ids=["unknown", "wrong-value", "unknown-to-unset", "nothing", "nobody", "both"],
)
def test_what_cannot_be_wanted_changes_nothing(rig: Rig, body: dict[str, object]) -> None:
    answer = rig.operator.patch("/config", json=body)
    assert answer.status_code == 422
    assert "Nothing was changed" in error_of(answer)["message"]
    assert rig.viewer.get("/cameras/cam-1/config").json()["settings"] == {}


def test_a_wifi_key_is_kept_from_answers_and_the_audit_trail(rig: Rig) -> None:
    change(rig, "all", set={"wifi": {"ssid": "hall 4", "key": KEY}})
    shown = rig.viewer.get("/cameras/cam-1/config").text
    assert "hall 4" in shown
    assert KEY not in shown
    audit = rig.admin.get("/audit").text
    assert "cameras.configure" in audit
    assert KEY not in audit


@pytest.fixture
def desk(rig: Rig, tmp_path: Path) -> Desk:
    return Desk(rig, tmp_path)


def test_an_operator_changes_settings_from_the_command_line(desk: Desk) -> None:
    assert "Wanted of 2 cameras: cam-1, cam-2." in desk.ok(
        "config", "set", "publish=on_change", "roi=10,10,80,80", "frame_size=none", "--to", "all"
    )
    assert "Nothing new for 2" in desk.ok("config", "set", "publish=on_change", "--to", "all")
    shown = desk.ok("config", "show", "cam-1")
    assert "on_change" in shown
    assert "It has not said yet" in shown
    desk.ok("config", "unset", "publish", "roi", "frame_size", "--to", "all")
    assert "own config.json" in desk.ok("config", "show", "cam-1")


def test_a_wifi_key_comes_from_a_file_or_is_asked_for_but_never_from_the_command_line(desk: Desk) -> None:
    assert "command line" in desk.fails(2, "config", "set", "wifi=hall", "--to", "all")
    file = desk.folder / "key"
    file.write_text(KEY + "\n", encoding="utf-8")
    assert "Wanted of 2" in desk.ok("config", "wifi", "hall 4", "--key-file", file, "--to", "all")
    shown = desk.ok("config", "show", "cam-1")
    assert "hall 4" in shown
    assert KEY not in shown
    assert "Wanted of 2" in desk.ok("config", "wifi", "hall 5", "--to", "all", typed=KEY + "\n")
    assert "cannot be read" in desk.fails(
        2, "config", "wifi", "x", "--key-file", desk.folder / "no", "--to", "all"
    )


def test_a_wrong_setting_on_the_command_line_is_one_sentence_and_changes_nothing(desk: Desk) -> None:
    assert "treshold: no such setting" in desk.fails(2, "config", "set", "treshold=1", "--to", "all")
    assert "NAME=VALUE" in desk.fails(2, "config", "set", "batch", "--to", "all")
    assert "names no camera" in desk.fails(2, "config", "set", "batch=2", "--to", "id=cam-9")
