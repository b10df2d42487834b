"""Profiles as data: complete, checked when read, and clear about what is wrong."""

import tomllib
from importlib.resources import files
from pathlib import Path

import pytest

from fleetd.boards import GENERIC, ProfileError, named, profiles, read_profile
from fleetd.boards.shape import BoardProfile
from fleetd.boards.usb import LINGERS_S, candidates, state_of

ROOT = Path(__file__).resolve().parents[3]
LEAST = 'name = "A board"\narch = "AB 1"\nmodel_formats = ["tflite"]\n'


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("name = ", "is no TOML"),
        ('name = "x"\n', "arch: Field required"),
        (LEAST + "colour = 3\n", "colour: no such field"),
        (LEAST + '[[usb]]\nid = "37c5:1060"\nmode = "running"\n', "usb.0.id: String should match pattern"),
        (LEAST + '[[usb]]\nid = "37C5:1060"\nmode = "asleep"\n', "usb.0.mode: Input should be"),
        (LEAST + '[[usb]]\nid = "37C5:1060"\nmode = "rom"\n' * 2, "an id stands there twice"),
        (
            LEAST + '[[leds]]\ncolor = "green"\npattern = "blink"\nmeans = "panic"\ntext = "something"\n',
            "leds.0.text: String should have at least 10",
        ),
        (
            LEAST
            + '[[leds]]\ncolor = "green"\npattern = "blink"\nmeans = "panic"\ntext = "something long"\n' * 2,
            "leds: green blink has two meanings",
        ),
        (
            LEAST + '[[leds]]\ncolor = "pink"\npattern = "blink"\nmeans = "panic"\ntext = "something long"\n',
            "leds.0.color: Input should be",
        ),
        (
            LEAST + '[[flash]]\nname = "firmware"\nbytes = 4096\nstart = 0\n'
            '[[flash]]\nname = "storage"\nbytes = 4096\nstart = 100\n',
            "flash: firmware reaches into storage",
        ),
        (LEAST + '[recovery]\ntool = "dfu"\n', 'no usb entry has mode = "bootloader"'),
        (LEAST + '[recovery]\ntool = "nxp"\n', "needs flash parts"),
        (
            LEAST + '[recovery]\ntool = "dfu"\n[[usb]]\nid = "37C5:1060"\nmode = "bootloader"\n'
            '[[flash]]\nname = "firmware"\nbytes = 4096\n',
            "flash part firmware needs an alt",
        ),
    ],
)
def test_a_wrong_profile_is_refused_and_the_complaint_names_the_field(text: str, complaint: str) -> None:
    with pytest.raises(ProfileError) as caught:
        read_profile("mine", text)
    assert complaint in caught.value.message
    assert "mine.toml" in caught.value.message


def test_the_least_that_a_profile_needs() -> None:
    board = read_profile("mine", LEAST)
    assert (board.key, board.recovery.tool, board.usb) == ("mine", "ide", ())


@pytest.mark.parametrize("board", profiles(), ids=lambda board: board.key)
def test_every_profile_says_how_to_recognise_and_recover_the_board(board: BoardProfile) -> None:
    assert board.firmware is not None
    assert board.usb_id("running")
    assert board.usb_id("bootloader")
    assert any(light.means == "default-main" for light in board.leds)
    assert any(light.means == "bootloader" for light in board.leds)
    assert board.recovery.tool in ("dfu", "nxp") or board.recovery.ide_only
    for other in profiles():
        if other is not board and other.firmware is not None:
            assert not set(board.firmware.markers) & set(other.firmware.markers)
            assert board.firmware.folder != other.firmware.folder


def test_facts_of_the_rt1062() -> None:
    board = named("rt1062")
    assert (board.recovery.tool, board.recovery.bridge) == ("nxp", ("SBL", "3.3V"))
    assert board.has_power_led
    assert board.freezes_on_fault
    assert [(one.id, one.mode) for one in board.usb if one.id != "1209:ABD1"] == [
        ("37C5:1060", "running"),
        ("15A2:0073", "bootloader"),
        ("1FC9:0135", "rom"),
    ]
    starts = {part.name: part.start for part in board.flash}
    assert starts == {
        "fcb": 0x60000000,
        "bootloader": 0x60001000,
        "firmware": 0x60040000,
        "storage": 0x60400000,
        "romfs": 0x60800000,
    }


def test_boards_with_a_power_led_are_the_rt1062_and_the_n6() -> None:
    assert {board.key for board in profiles() if board.has_power_led} == {"rt1062", "n6"}


def test_usb_ids_lead_to_boards_and_what_they_do() -> None:
    assert [(one.board.key, one.mode) for one in candidates("37c5:9204")] == [("h7", "bootloader")]
    assert {one.board.key for one in candidates("0483:DF11")} == {"h7", "h7-plus", "pure-thermal", "m7", "n6"}
    assert len(candidates("1209:ABD1")) == 7
    assert candidates("1D6B:0002") == ()
    rt1062, h7 = named("rt1062"), named("h7")
    assert state_of(rt1062, "15a2:0073") == "bootloader"
    assert state_of(rt1062, "15A2:0073", LINGERS_S + 1) == "interrupted"
    assert state_of(h7, "37C5:9204", 1000) == "bootloader"
    assert state_of(h7, "15A2:0073") is None


def test_the_profiles_are_in_the_package() -> None:
    """`package-data` in pyproject.toml has to name what lies beside the code."""
    names = {entry.name for entry in files("fleetd.boards").iterdir()}
    assert "agent_leds.toml" in names
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    assert "**/*.toml" in patterns["fleetd"]


def test_the_document_explains_every_field_of_a_profile() -> None:
    text = (ROOT / "docs" / "boards.md").read_text(encoding="utf-8")
    schema = BoardProfile.model_json_schema()
    fields = set(schema["properties"]) - {"key"}
    for part in schema["$defs"].values():
        fields |= set(part.get("properties", ()))
    assert [name for name in sorted(fields) if f"`{name}`" not in text] == []


def test_an_unknown_board_still_has_lights() -> None:
    assert {light.means for light in GENERIC.leds} == {"bootloader", "default-main"}
