"""`fleetctl recover` against the real API, a virtual board, and stand-ins for the programs that check everything."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from fleetd.boards import named, profiles
from fleetd.boards.shape import BoardProfile
from fleetd.bundles.signing import OperatorKey
from fleetd.cli import bench, flashing, recover
from fleetd.cli.session import Session
from fleetd.provisioning import disk, package
from tests.bench.person import BenchDesk, Person, answers, make_ide
from tests.bench.virtual_board import PORT, VirtualBoard, World
from tests.integration.api_rig import Rig, running_rig
from tests.unit.provisioning.drives import NEW, config_in

SCRIPTED = [board for board in profiles() if board.recovery.tool != "ide"]
GOLDEN = Path(__file__).resolve().parents[1] / "unit" / "boards" / "golden"


@pytest.fixture(autouse=True)
def _quiet_services() -> Iterator[None]:
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    yield
    structlog.reset_defaults()


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        package, "load", lambda _source: NEW
    )  # what is written is not what these tests are about
    monkeypatch.setattr(disk.Disk, "sync", lambda self: None)  # the whole machine's memory


class Shop:
    """Everything for one test: server, board, person, desk."""

    def __init__(self, rig: Rig, folder: Path, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.rig = rig
        self.profile = named(key)
        self.board = VirtualBoard.make(folder / "board", key)
        self.world = World(self.board)
        self.desk = BenchDesk(rig, folder, self.board, self.world)
        self.person = Person(self.board, self.world, rig)
        self.desk.meanwhile = self.person.breathe
        self.ide = make_ide(folder / "ide")
        arch = f"{self.profile.arch} x"
        rig.enrol("cam-7")
        rig.land("cam-7", "status", 1, online=True, board=arch, reset="power-on", firmware="4.8.1")
        rig.now += 900
        printed = recover._Walk._print

        def act_too(walk: Any, step: dict[str, Any]) -> None:
            printed(walk, step)
            self.person.act(step)

        monkeypatch.setattr(recover._Walk, "_print", act_too)

    def recover(self, *options: object, code: int = 0, **special: Any) -> Any:
        file = self.desk.folder / "answers.json"
        file.write_text(json.dumps(answers(**special)))
        result = self.desk.run(
            *("recover", "cam-7", "--answers", file, "--json", "--ide", self.ide),
            *("--broker-host", "10.0.0.2", *options),
        )
        assert result.exit_code == code, result.output
        return json.loads(result.stdout) if result.stdout.strip() else result.stderr

    def outcomes(self, way: Any) -> dict[str, str]:
        return {entry["step"]: entry["outcome"] for entry in way["log"]}


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    with running_rig(tmp_path) as rig:
        rig.status |= {"prefix": "fleet/v1", "broker": {"connected": True, "address": "10.0.0.2:1883"}}
        rig.trust(OperatorKey.generate())
        yield rig


@pytest.fixture
def shop(
    rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[Shop]:
    shop = Shop(rig, tmp_path, getattr(request, "param", "rt1062"), monkeypatch)
    with shop.world:
        yield shop


def golden(board: BoardProfile, rung: str) -> list[str]:
    lines = (GOLDEN / f"{board.key}.txt").read_text().splitlines()
    start = lines.index(f"# {rung}") + 1
    end = next((at for at in range(start, len(lines)) if lines[at].startswith("#")), len(lines))
    return lines[start:end]


def same_lines(ran: list[str], wanted: list[str], ide: Path, board: BoardProfile) -> None:
    assert board.firmware is not None
    folder = f"{ide}/share/qtcreator/firmware/{board.firmware.folder}"
    names = {"{firmware}": "firmware.bin", "{romfs}": "romfs0.img", "{bootloader}": "bootloader.bin",
             "{sdphost-loader}": "sdphost_flash_loader.bin", "{blhost-loader}": "blhost_flash_loader.bin"}  # fmt: skip
    lengths = {"{len:firmware}": "0x2000", "{len:romfs}": "0x1000", "{len:blhost-loader}": "0x1000"}
    filled = {**{word: f"{folder}/{name}" for word, name in names.items()}, **lengths}
    for line, wish in zip(ran, wanted, strict=True):
        pattern = " ".join(filled.get(word, word) for word in wish.split(" "))
        before, _, rest = pattern.partition("{zeros}")
        assert line == pattern or (line.startswith(before) and line.endswith("zeros.bin") and not rest)


@pytest.mark.parametrize("shop", [board.key for board in SCRIPTED], indirect=True)
def test_every_board_comes_back_by_erasing_its_storage_with_exactly_the_documented_commands(
    shop: Shop,
) -> None:
    way = shop.recover("--guide", "erase")
    assert way["state"] == "recovered"
    same_lines(shop.board.log, golden(shop.profile, "erase"), shop.ide, shop.profile)
    config = config_in(shop.board.drive)
    assert config["camera"] == "cam-7", "the same identity"
    assert shop.board.state["mode"] == "running"
    assert shop.board.state["parts"]["firmware"] == "good"


@pytest.mark.parametrize("shop", ["rt1062", "h7-plus", "n6", "portenta-h7"], indirect=True)
def test_boards_come_back_by_new_firmware(shop: Shop) -> None:
    shop.board.part("firmware", "bad")
    way = shop.recover("--guide", "reflash")
    assert way["state"] == "recovered"
    same_lines(shop.board.log, golden(shop.profile, "reflash"), shop.ide, shop.profile)


@pytest.mark.parametrize("shop", ["rt1062", "h7"], indirect=True)
def test_a_board_without_a_bootloader_comes_back_over_the_bridge(shop: Shop) -> None:
    shop.board.part("bootloader", "bad")
    shop.board.part("firmware", "bad")
    shop.board.plug()
    way = shop.recover()
    assert (way["cause"], way["state"]) == ("bootloader-lost", "recovered")
    wanted = golden(shop.profile, "jumper")
    if shop.profile.recovery.tool == "dfu":
        wanted += golden(shop.profile, "reflash")
    same_lines(shop.board.log, wanted, shop.ide, shop.profile)
    assert not shop.board.state["bridge"], "the wire is out"
    order = shop.person.steps
    assert order.index("bridge-off") < order.index("bridge-out")


def test_the_ladder_is_climbed_rung_by_rung(shop: Shop) -> None:
    """A power cycle does not help, erasing does not help, new firmware does."""
    shop.board.part("firmware", "bad")
    shop.board.plug()
    shop.person.skips = set()
    way = shop.recover("--guide", "ladder")
    done = shop.outcomes(way)
    assert done["back-after-power"] == "failed"
    assert done["running"] == "failed" or done["reflash-run"] == "ok"
    assert way["state"] == "recovered"
    assert [step for step in shop.person.steps if step in ("unplug", "erase", "reflash")] == [
        "unplug",
        "erase",
        "reflash",
    ]


def test_a_left_over_bridge_is_found_before_anything_is_written(shop: Shop) -> None:
    shop.board.bridge(True)
    shop.board.plug()
    assert shop.board.state["mode"] == "rom"
    (shop.board.drive / "fleet").mkdir(parents=True)
    (shop.board.drive / "fleet" / "config.json").write_text("{}")
    way = shop.recover(bridge_there="yes")
    assert way["state"] == "recovered"
    assert shop.board.log == []


def test_a_formatted_camera_is_provisioned_and_nothing_is_flashed(shop: Shop) -> None:
    shop.board.part("storage", "erased")
    shop.board.start_firmware()
    way = shop.recover(look_at_led="blue double-blink")
    assert (way["cause"], way["state"]) == ("storage-reset", "recovered")
    assert shop.board.log == []
    assert shop.rig.registry.sightings("cam-7")[0].color == "blue"
    assert config_in(shop.board.drive)["camera"] == "cam-7"


@pytest.mark.parametrize(
    "fail_at", range(1, 15) if os.environ.get("EVERY_FAULT") else [1, 2, 14]
)  # `make faults`
def test_a_command_that_fails_anywhere_leads_on_and_never_to_a_traceback(shop: Shop, fail_at: int) -> None:
    shop.board.part("bootloader", "bad")
    shop.board.plug()
    shop.board.fault("fail-at", fail_at)
    way = shop.recover(code=3)
    assert way["state"] == "stopped"
    assert len(shop.board.log) == fail_at
    failed = [entry for entry in way["log"] if entry["outcome"] == "failed"]
    assert "injected failure" in failed[0]["detail"]
    assert not shop.board.state["bridge"], "even when it is given up, the wire comes out"
    assert shop.person.steps[-2:] == ["bridge-out-first", "bridge-out-last"]


def test_trying_again_after_a_failure_works(shop: Shop) -> None:
    shop.board.part("bootloader", "bad")
    shop.board.plug()
    shop.board.fault("fail-at", 5)
    way = shop.recover(bridge_again=["again", "give-up"])
    assert way["state"] == "recovered"


def test_a_program_that_hangs_is_stopped(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.board.part("bootloader", "bad")
    shop.board.plug()
    shop.board.fault("slow", 60)
    waited = flashing.Running.wait
    monkeypatch.setattr(flashing.Running, "wait", lambda self, _limit: waited(self, 0.5))
    way = shop.recover(code=3)
    assert any("was stopped" in entry["detail"] for entry in way["log"])


def test_a_loader_that_does_not_appear_is_a_failure_with_what_usb_shows_instead(shop: Shop) -> None:
    shop.board.part("bootloader", "bad")
    shop.board.plug()
    shop.board.fault("stuck")
    way = shop.recover(code=3)
    details = " ".join(entry["detail"] for entry in way["log"])
    assert "did not show as bootloader; USB shows 1FC9:0135" in details


@pytest.mark.parametrize("shop", ["rt1062", "h7"], indirect=True)
def test_two_devices_that_look_alike_are_never_written_to(shop: Shop) -> None:
    other = shop.profile.usb_id("bootloader")
    assert other is not None
    shop.board.tree.plug("1-9", other)
    way = shop.recover("--guide", "erase", code=3, bridge_again="give-up")
    assert any("leave only one connected" in entry["detail"] for entry in way["log"])
    assert shop.board.state["parts"]["storage"] == "good"


def test_another_board_is_named_and_not_written_to(shop: Shop) -> None:
    shop.person.skips = {"erase", "bridge-plug"}
    shop.board.tree.plug("1-9", "37C5:9204")
    way = shop.recover("--guide", "erase", code=3)
    details = " ".join(entry["detail"] for entry in way["log"])
    assert "USB shows 37C5:9204 (H7 / H7 R2: bootloader) at port 1-9" in details
    assert shop.board.log == []


@pytest.mark.parametrize("shop", ["rt1062", "h7"], indirect=True)
def test_nobody_plugs_it_in(shop: Shop) -> None:
    shop.desk.env["FLEETCTL_CATCH_SECONDS"] = "0.3"
    shop.person.skips = {"erase", "bridge-plug", "firmware"}
    way = shop.recover("--guide", "erase", code=3)
    assert shop.outcomes(way)["erase"] == "failed"
    assert shop.board.state["parts"]["storage"] == "good"


@pytest.mark.parametrize(
    ("name", "data", "complaint"),
    [
        ("firmware", b"OMV4 H7 1024" + bytes(100), "it is the firmware of OpenMV Cam H7"),
        ("firmware", bytes(1000), "does not name that board"),
        ("firmware", b"", "it is empty"),
        ("firmware", b"OMVRT1060" + bytes(5_000_000), "there is room for 3932160"),
        ("romfs", b"PK\x03\x04" + bytes(100), "it is no ROMFS image"),
    ],
)
def test_an_image_of_another_board_is_refused_before_anybody_has_to_plug(
    shop: Shop, name: str, data: bytes, complaint: str
) -> None:
    file = shop.desk.folder / "image.bin"
    file.write_bytes(data)
    said = shop.recover("--guide", "reflash", f"--{name}", file, code=2)
    assert complaint in said
    assert "Nothing was written" in said
    assert shop.board.log == []
    assert shop.rig.recovery.recoveries("cam-7")[0].state == "open", "it goes on with the right file"


def test_files_from_another_boards_folder_are_refused(shop: Shop) -> None:
    wrong = shop.ide / "share/qtcreator/firmware/OPENMV4/romfs0.img"
    assert "lies in the folder of OpenMV Cam H7" in shop.recover(
        "--guide", "reflash", "--romfs", wrong, code=2
    )


def test_a_missing_file_says_which_and_how_to_give_it(shop: Shop, tmp_path: Path) -> None:
    said = shop.recover("--guide", "reflash", "--ide", tmp_path / "empty", code=2)
    assert "firmware.bin of OpenMV Cam RT1062 is not here" in said
    assert "--firmware FILE" in said


def test_without_the_programs_it_says_how_to_get_them(shop: Shop) -> None:
    (shop.board.folder / "bin" / "blhost").unlink()
    said = shop.recover("--guide", "erase", code=2)
    assert "blhost is not installed" in said
    assert "fleetd[recovery]" in said


def test_it_goes_on_where_it_was_stopped(shop: Shop) -> None:
    shop.board.part("storage", "erased")
    shop.board.start_firmware()
    file = shop.desk.folder / "a.json"
    file.write_text(json.dumps({"look-at-led": "blue double-blink"}))
    shop.person.skips = {"connect"}
    result = shop.desk.run(
        "recover",
        "cam-7",
        "--answers",
        file,
        "--json",
        "--mount",
        tmp_missing(shop),
        "--broker-host",
        "10.0.0.2",
    )
    assert result.exit_code == 2, result.output
    opened = shop.rig.recovery.recoveries("cam-7")[0]
    assert opened.state == "open"
    way = shop.recover()
    assert way["id"] == opened.id
    assert way["state"] == "recovered"


def tmp_missing(shop: Shop) -> Path:
    return shop.desk.folder / "no-such-drive"


def test_a_dry_run_prints_everything_and_begins_nothing(shop: Shop) -> None:
    result = shop.desk.run("recover", "cam-7", "--dry-run", "--guide", "jumper", "--ide", shop.ide)
    assert result.exit_code == 0, result.output
    for part in (
        "Bridge SBL to 3.3V",
        "[SBL]",
        "sdphost -u 0x1FC9,0x0135 -- write-file 0x20001C00",
        "OPENMV_RT1060/sdphost_flash_loader.bin",
        "flash-erase-region 0x60001000 0x1000",
        "With OpenMV IDE instead",
        "Careful:",
    ):
        assert part in result.stdout, part
    assert "efuse" not in result.stdout
    assert "Dry run" in result.stderr
    plug = result.stdout.partition("[bridge-plug]")[2].partition("==")[0]
    assert "These follow at once" in plug, "what plugging in will set off is said before"
    assert "Careful: Do not unplug while it writes" in plug
    assert shop.board.log == []
    assert shop.rig.recovery.recoveries() == []


def test_a_person_is_asked_what_the_light_does_and_may_stop_at_any_time(shop: Shop) -> None:
    result = shop.desk.run("recover", "cam-7", typed="white blink-fast\nq\n")
    assert result.exit_code == 3, result.output
    assert "What does the LED do?" in result.stdout
    assert "the firmware has given up" in result.stdout + result.stderr
    assert "goes on at this step" in result.stderr
    way = shop.rig.recovery.recoveries("cam-7")[0]
    assert (way.cause, way.step) == ("firmware-panic", "unplug")
    again = shop.desk.run("recover", "cam-7", typed="q\n")
    assert f"Going on with recovery {way.id}" in again.stdout
    assert "is over" in shop.desk.ok("recover", "cam-7", "--abandon")
    assert "No recovery" in shop.desk.ok("recover", "cam-7", "--abandon")


def test_a_power_cycle_that_helps_ends_the_recovery_and_names_it_in_the_incident(shop: Shop) -> None:
    for _ in range(20):
        shop.rig.now += 30
        shop.rig.incidents.process()
    (incident,) = shop.rig.incidents.incidents()
    (shop.board.drive / "fleet").mkdir(parents=True)
    (shop.board.drive / "fleet" / "config.json").write_text("{}")
    way = shop.recover(look_at_led="off")
    assert (way["cause"], way["state"]) == ("firmware-fault", "recovered")
    assert [entry["step"] for entry in way["log"]] == ["look-at-led", "unplug", "plug-in", "back-after-power"]
    for seq in range(6):
        shop.rig.land("cam-7", "status", 5000 + seq, online=True)
        shop.rig.now += 30
        shop.rig.incidents.process()
    closed, notes, _ = shop.rig.incidents.incident(incident.id)
    assert closed.outcome == f"recovered after firmware-fault (recovery {way['id']})"
    assert any("recovery 1 begun" in note["text"] for note in notes)


def test_nxps_bootloader_is_spoken_to_at_once_so_that_it_stays(shop: Shop) -> None:
    """Report 1, then a "get property" command: what blhost would say, were it not too slow to start."""
    board = shop.profile
    at_bench = bench.Bench(
        Session(env=shop.desk.env), board, flashing.Files(board, {}, shop.ide, shop.desk.home)
    )
    shop.world.hold = lambda: True
    shop.board.plug()
    result = at_bench.wait(["bootloader"], 60)
    assert (result.ok, result.usb) == (True, "bootloader")
    said = (shop.board.folder / "dev" / "hidraw0").read_bytes()
    assert said == bytes.fromhex("01 00 0c00 07 00 00 02 01000000 00000000")
    shop.board.show("off")
    shop.board.tree.plug(PORT, "15A2:0073", hidraw="hidraw5")
    result = at_bench.wait(["bootloader"], 60)
    assert result.ok
    assert "hidraw5: No such file" in result.detail
    assert "udev rule" in result.detail


def test_an_incident_that_closed_first_still_learns_what_helped(shop: Shop) -> None:
    for _ in range(20):
        shop.rig.now += 30
        shop.rig.incidents.process()
    (incident,) = shop.rig.incidents.incidents()
    way = shop.rig.recovery.start("cam-7", guide="ladder", actor="ada")
    for step in ("unplug", "plug-in"):
        way = shop.rig.recovery.report(way.recovery.id, step, "ok", actor="ada")
    for seq in range(6):
        shop.rig.now += 30
        shop.rig.land("cam-7", "status", 5000 + seq, online=True)
        shop.rig.incidents.process()
    assert shop.rig.incidents.incidents() == [], "the watch was quicker"
    shop.rig.recovery.report(way.recovery.id, "back-after-power", "ok", actor="ada")
    outcome = shop.rig.incidents.incident(incident.id)[0].outcome
    assert outcome is not None
    assert outcome.startswith("recovered after")


def test_wrong_input_is_one_line_and_a_remedy(shop: Shop) -> None:
    assert "No camera" in shop.desk.fails(1, "recover", "cam-9")
    assert "no guide" in shop.desk.fails(1, "recover", "cam-7", "--guide", "magic")
    file = shop.desk.folder / "a.json"
    file.write_text("[]")
    assert "no JSON object" in shop.desk.fails(2, "recover", "cam-7", "--answers", file)
    assert "cannot be read" in shop.desk.fails(2, "recover", "cam-7", "--answers", "nowhere.json")
    file.write_text('{"look-at-led": "pink"}')
    assert "is no light" in shop.desk.fails(2, "recover", "cam-7", "--answers", file)
    file.write_text("{}")
    assert "say nothing about the step look-at-led" in shop.desk.fails(
        2, "recover", "cam-7", "--answers", file
    )


def test_a_camera_is_not_back_because_somebody_says_so(shop: Shop) -> None:
    way = shop.rig.recovery.start("cam-7", guide="ladder", actor="ada")
    for step in ("unplug", "plug-in"):
        way = shop.rig.recovery.report(way.recovery.id, step, "ok", actor="ada")
    answer = shop.rig.operator.post(
        f"/recoveries/{way.recovery.id}/outcomes", json={"step": "back-after-power", "outcome": "ok"}
    )
    assert answer.status_code == 409
    assert "has not reported" in answer.json()["error"]["message"]


def test_every_option_is_documented() -> None:
    from typer.main import get_command

    from fleetd.cli.main import app

    text = (Path(__file__).resolve().parents[2] / "docs" / "recovery.md").read_text()
    command = get_command(app).commands["recover"]  # type: ignore[attr-defined]  # the root is a group
    options = [option for one in command.params for option in one.opts if option.startswith("--")]
    assert [option for option in options if f"`{option}" not in text and option != "--help"] == []
