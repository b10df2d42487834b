"""What is recognised on a drive, and what is not taken for one."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetd.provisioning import looking, package
from fleetd.provisioning.disk import Disk
from fleetd.provisioning.errors import DriveError, DriveGoneError, NotACameraDriveError
from fleetd.provisioning.looking import Agent, Found
from tests.unit.provisioning.drives import HARDWARE_ID, NEW, OLD_CONFIG, formatted, with_old_agent


def look(folder: Path) -> Found:
    return looking.look(Disk(folder))


def test_a_freshly_formatted_drive_is_recognised(tmp_path: Path) -> None:
    found = look(formatted(tmp_path / "drive"))
    assert found.is_camera
    assert found.was_formatted
    assert found.hardware_id == HARDWARE_ID.lower()
    assert found.in_words().startswith("freshly formatted")
    assert found.room.total > found.room.free > 0


def test_the_marker_may_be_empty(tmp_path: Path) -> None:
    folder = formatted(tmp_path / "drive")
    (folder / ".openmv_disk").write_text("")
    (folder / "README.txt").unlink()
    found = look(folder)
    assert (found.is_camera, found.hardware_id) == (True, None)


def test_the_firmwares_older_main_is_no_main_of_somebody(tmp_path: Path) -> None:
    folder = formatted(tmp_path / "drive")
    (folder / "main.py").write_text(
        "# main.py -- put your code here!\nimport pyb, time\nled = pyb.LED(3)\nusb = pyb.USB_VCP()\n"
        "while (usb.isconnected()==False):\n   led.on()\n   time.sleep(150)\n   led.off()\n   time.sleep(100)\n"
        "   led.on()\n   time.sleep(150)\n   led.off()\n   time.sleep(600)\n"
    )
    assert look(folder).main == "default"
    (folder / "main.py").write_text("import sensor\n")
    assert look(folder).main == "other"
    assert "somebody's own main.py" in look(folder).in_words()
    assert not look(folder).was_formatted


def test_an_agent_that_was_copied_by_hand_is_recognised(tmp_path: Path) -> None:
    found = look(with_old_agent(tmp_path / "drive"))
    assert found.agent == Agent("0.0.9", "py", whole=None)
    assert (found.main, found.camera, found.has_slots) == ("agent", "cam-07", True)
    assert found.in_words() == "agent 0.0.9 (py, copied by hand), settings of cam-07, models"


def test_a_provisioned_agent_knows_whether_it_is_whole(tmp_path: Path) -> None:
    folder = formatted(tmp_path / "drive")
    (folder / "camera_agent").mkdir()
    for name, data in {**NEW.files, package.RECORD: NEW.record()}.items():
        (folder / "camera_agent" / name).write_bytes(data)
    assert look(folder).agent == Agent("0.1.0", "mpy", whole=True)
    (folder / "camera_agent" / "agent.mpy").write_bytes(b"")
    assert look(folder).agent == Agent("0.1.0", "mpy", whole=False)
    (folder / "camera_agent").rename(folder / "aside")
    (folder / "lib").mkdir()
    (folder / "aside").rename(folder / "lib" / "camera_agent")
    assert look(folder).agent == Agent("0.1.0", "mpy", whole=False)
    assert look(folder).has_leftovers


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b'{"camera": "CAM", "host": "x"}',
        b"\xff\xfe",
        b"[" * 5000,
        b" " * 9000,
        b"null",
    ],
)
def test_settings_that_the_agent_could_not_use_are_none(text: bytes, tmp_path: Path) -> None:
    folder = with_old_agent(tmp_path / "drive")
    (folder / "fleet" / "config.json").write_bytes(text)
    found = look(folder)
    assert found.config is None
    assert found.config_problem
    assert "unusable settings" in found.in_words()


@given(st.binary(max_size=200))
def test_nothing_on_a_drive_breaks_the_look(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    folder = with_old_agent(tmp_path_factory.mktemp("any") / "drive")
    for name in (
        "main.py",
        ".openmv_disk",
        "fleet/config.json",
        "fleet/config.new",
        "camera_agent/agent.json",
    ):
        (folder / name).write_bytes(data)
    look(folder).in_words()


def test_an_unfinished_run_names_its_camera(tmp_path: Path) -> None:
    folder = formatted(tmp_path / "drive")
    (folder / "fleet").mkdir()
    (folder / "fleet" / "config.new").write_text(json.dumps(OLD_CONFIG))
    assert look(folder).begun == "cam-07"
    assert "an unfinished run" in look(folder).in_words() or look(folder).was_formatted
    (folder / "fleet" / "config.new").write_text("torn")
    assert look(folder).begun == ""


def test_an_ordinary_folder_is_no_camera(tmp_path: Path) -> None:
    (tmp_path / "README.txt").write_text("holiday pictures")
    (tmp_path / "main.py").write_text("print()")
    assert not look(tmp_path).is_camera


def test_places_that_can_never_be_a_camera_are_refused(tmp_path: Path) -> None:
    home = tmp_path / "home" / "ada"
    home.mkdir(parents=True)
    (tmp_path / "link").symlink_to(home)
    for place in (home, home.parent, tmp_path, Path("/"), tmp_path / "link"):
        with pytest.raises(NotACameraDriveError):
            looking.refuse_place(place, home)
    drive = formatted(home / "OPENMV")
    looking.refuse_place(drive, home)
    for missing in (tmp_path / "nothing", drive / "main.py"):
        with pytest.raises(DriveGoneError):
            looking.refuse_place(missing, home)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_drive_that_cannot_be_read_says_so(tmp_path: Path) -> None:
    folder = formatted(tmp_path / "drive")
    (folder / "main.py").chmod(0)
    with pytest.raises(DriveError, match=r"main\.py"):
        look(folder)
