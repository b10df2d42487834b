"""`fleetctl usb` on a virtual /sys: which boards are there, when they come, go and change."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleetd.boards import named
from fleetd.cli.usb_devices import Looker, devices, hidraw
from tests.integration.api_rig import Rig, running_rig
from tests.integration.cli_desk import RT1062, Desk
from tests.usb_tree import UsbTree


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    with running_rig(tmp_path) as rig:
        rig.enrol("cam-7")
        yield rig


@pytest.fixture
def tree(tmp_path: Path) -> UsbTree:
    return UsbTree(tmp_path / "sys")


@pytest.fixture
def desk(rig: Rig, tmp_path: Path, tree: UsbTree) -> Desk:
    desk = Desk(rig, tmp_path)
    desk.env["FLEETCTL_SYSFS"] = str(tree.root)
    return desk


def test_it_lists_boards_and_what_they_are_doing(desk: Desk, tree: UsbTree) -> None:
    tree.plug("1-1", "37C5:1060", serial="00112233", product="OpenMV Cam RT1062")
    tree.plug("1-2", "0483:df11", serial="x")
    tree.plug("1-3", "046D:C077", product="a mouse")
    said = desk.ok("usb", "ls").splitlines()
    assert said[0].split() == ["PORT", "ID", "BOARD", "STATE", "SERIAL", "CAMERA"]
    assert said[1].split() == ["1-1", "37C5:1060", "RT1062", "running", "00112233", "-"]
    assert "one of 5 boards" in said[2]
    assert "rom" in said[2]
    assert len(said) == 3
    assert len(desk.json("usb", "ls", "--all")) == 4


def test_it_says_which_camera_a_board_is(desk: Desk, tree: UsbTree, rig: Rig) -> None:
    rig.land("cam-7", "status", 1, online=True, board=RT1062, uid="00112233AABB")
    tree.plug("1-1", "37C5:1060", serial="00112233aabb")
    assert desk.json("usb", "ls", "--names")[0]["camera"] == "cam-7"


def test_without_any_board_it_says_so(desk: Desk) -> None:
    assert "No board is connected" in desk.run("usb", "ls").stderr
    assert desk.json("usb", "ls") == []


def test_a_system_without_sysfs_is_an_error_with_a_way_out(desk: Desk, tmp_path: Path) -> None:
    desk.env["FLEETCTL_SYSFS"] = str(tmp_path / "nothing")
    assert "OpenMV IDE" in desk.fails(1, "usb", "ls")


def test_a_hostile_device_cannot_act_on_the_terminal(desk: Desk, tree: UsbTree) -> None:
    tree.plug("1-1", "37C5:1060", serial="\x1b[2J" + "x" * 5000)
    said = desk.ok("usb", "ls")
    assert "\x1b" not in said
    assert len(said) < 1000


def test_watching_tells_what_comes_and_goes_and_tells_fleetd(desk: Desk, tree: UsbTree, rig: Rig) -> None:
    story = [
        lambda: tree.pull("1-1"),
        lambda: tree.plug("1-1", "37C5:1060"),
        lambda: tree.plug("1-1", "15A2:0073"),
    ]
    desk.meanwhile = lambda: story.pop()() if story else None
    said = [
        json.loads(line)
        for line in desk.ok("usb", "watch", "-c", "cam-7", "--changes", "4", "--json").splitlines()
    ]
    assert [(row["id"], row["state"], row["seen"]) for row in said] == [
        ("15A2:0073", "bootloader", True),
        ("15A2:0073", "bootloader", False),
        ("37C5:1060", "running", True),
        ("37C5:1060", "running", False),
    ]
    seen = rig.registry.sightings("cam-7")
    assert [(one.source, one.reason) for one in seen] == [("usb", "running"), ("usb", "bootloader")]
    assert rig.registry.camera("cam-7").camera.led_color is None, "USB is no light"
    assert "usb" in desk.ok("led", "history", "cam-7")


def test_nxps_bootloader_that_stays_is_an_interrupted_flash(tree: UsbTree) -> None:
    now = [0.0]
    looker = Looker(tree.root, lambda: now[0])
    tree.plug("1-1", "15A2:0073", hidraw="hidraw7")
    assert [state for _, state in looker.of_board(named("rt1062"))] == ["bootloader"]
    now[0] = 60.0
    assert [state for _, state in looker.of_board(named("rt1062"))] == ["interrupted"]
    tree.pull("1-1")
    looker.look()
    tree.plug("1-1", "15A2:0073")
    assert [state for _, state in looker.of_board(named("rt1062"))] == ["bootloader"]
    assert looker.of_board(named("h7")) == []


def test_a_raw_hid_node_is_found_by_port(tree: UsbTree) -> None:
    tree.plug("1-1", "15A2:0073", hidraw="hidraw7")
    assert hidraw(tree.root, "1-1") == "hidraw7"
    assert hidraw(tree.root, "1-9") is None
    assert [one.id for one in devices(tree.root)] == ["15A2:0073", "1D6B:0002"]
