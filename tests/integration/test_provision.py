"""`fleetctl provision` against the real API, on folders that look like camera drives, which then really boot."""

import errno
import hashlib
import json
import os
import shutil
import socket
import stat
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
import structlog
from typer.main import get_command

from fleetd.bundles.signing import OperatorKey
from fleetd.cli.main import app
from fleetd.domain.records import Role
from fleetd.provisioning import disk, package
from fleetd.provisioning.package import AgentPackage
from fleetd.store import tables
from tests.agent.micropython import ROOT, Arch, binary
from tests.integration.api_rig import Rig, running_rig
from tests.integration.cli_desk import Desk, Refusing
from tests.unit.provisioning.drives import (
    HARDWARE_ID,
    FailingDisk,
    config_in,
    formatted,
    found_by_camera,
    tree,
    with_old_agent,
)

WIFI_KEY = "the WiFi's own secret"
FAKES = ROOT / "tests" / "agent" / "device" / "fakes"
_load = package.load


@cache
def small(source: package.Source) -> AgentPackage:
    """Compiled once: what is written is not what these tests are about."""
    return _load(source)


@pytest.fixture(autouse=True)
def _quiet_services() -> Iterator[None]:
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    yield
    structlog.reset_defaults()


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(package, "load", small)
    monkeypatch.setattr(disk.Disk, "sync", lambda self: None)  # the whole machine's memory


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    with running_rig(tmp_path) as rig:
        rig.status |= {"prefix": "fleet/v1", "broker": {"connected": True, "address": "10.0.0.2:1883"}}
        rig.trust(OperatorKey.generate())
        yield rig


@pytest.fixture
def desk(rig: Rig, tmp_path: Path) -> Desk:
    desk = Desk(rig, tmp_path)
    desk.home.mkdir()
    (desk.folder / "wifi.key").write_text(WIFI_KEY + "\n")
    return desk


@pytest.fixture
def drive(tmp_path: Path) -> Path:
    return formatted(tmp_path / "OPENMV")


def wifi(desk: Desk) -> list[object]:
    return ["--wifi-ssid", "hall 3", "--wifi-key-file", desk.folder / "wifi.key", "--country", "de"]


def works(rig: Rig, camera: str, secret: str) -> bool:
    """Whether a broker would let this camera in."""
    with rig.store.engine.connect() as connection:
        cameras = tables.cameras
        known = connection.scalar(sa.select(cameras.c.secret_hash).where(cameras.c.name == camera))
    return bool(known == hashlib.sha256(secret.encode()).hexdigest())


def test_a_new_camera_is_enrolled_and_its_drive_written(desk: Desk, rig: Rig, drive: Path) -> None:
    result = desk.run("provision", drive, "--camera", "cam-07", "--tag", "line-3", *wifi(desk))
    assert result.exit_code == 0, result.output
    shown = result.output
    assert "freshly formatted, or never provisioned" in shown
    assert "cam-07, will be enrolled" in shown
    assert "10.0.0.2:1883" in shown
    assert "Provisioned cam-07." in shown
    assert "unplug the camera and plug it in again" in shown
    config = config_in(drive)
    assert config["password"] not in shown
    assert WIFI_KEY not in shown
    assert config["keys"] == [rig.ota.keys()[0].public]
    assert (config["host"], config["port"], config["country"]) == ("10.0.0.2", 1883, "DE")
    assert config["wifi"] == {"ssid": "hall 3", "key": WIFI_KEY}
    assert works(rig, "cam-07", config["password"])
    with rig.store.reading() as work:
        assert work.cameras.fresh_keys(["cam-07"]) == {"cam-07": (config["fresh_key"], 0)}
    assert config["fresh_key"] not in shown
    assert rig.registry.camera("cam-07").camera.tags == {"line-3"}
    assert found_by_camera(drive) == small("mpy").files
    assert (drive / "main.py").read_bytes() == (ROOT / "camera_agent" / "main.py").read_bytes()
    assert stat.S_IMODE((drive / "fleet" / "config.json").stat().st_mode) == 0o600


def test_the_agent_can_go_as_source(desk: Desk, drive: Path) -> None:
    desk.ok("provision", drive, "--camera", "cam-07", "--source", "py")
    assert found_by_camera(drive) == small("py").files


def test_revoked_keys_do_not_reach_the_camera(desk: Desk, rig: Rig, drive: Path) -> None:
    rig.ota.revoke_key(rig.ota.keys()[0].key_id, actor="rig")
    result = desk.run("provision", drive, "-c", "cam-07")
    assert result.exit_code == 0
    assert "the camera will refuse every model" in result.stderr
    assert config_in(drive)["keys"] == []


def test_provisioning_again_keeps_name_credential_and_settings(desk: Desk, rig: Rig, drive: Path) -> None:
    desk.ok("provision", drive, "-c", "cam-07", "--set", "interval_ms=500", *wifi(desk))
    before = config_in(drive)
    answer = desk.json("provision", drive, "--tag", "new", "--set", "batch=5")
    assert (answer["camera"], answer["credential"], answer["enrolled"]) == ("cam-07", "kept", False)
    assert answer["written"] == {"agent": False, "settings": True, "main": False}
    assert config_in(drive) == {**before, "batch": 5}
    assert works(rig, "cam-07", before["password"])
    assert rig.registry.camera("cam-07").camera.tags == {"new"}
    assert before["password"] not in json.dumps(answer)


def test_rotate_gives_a_new_credential(desk: Desk, rig: Rig, drive: Path) -> None:
    desk.ok("provision", drive, "-c", "cam-07")
    before = config_in(drive)["password"]
    desk.ok("provision", drive, "--rotate")
    after = config_in(drive)["password"]
    assert after != before
    assert works(rig, "cam-07", after)
    assert not works(rig, "cam-07", before)


def test_a_formatted_camera_gets_its_old_name_again(
    desk: Desk, rig: Rig, drive: Path, tmp_path: Path
) -> None:
    desk.ok("provision", drive, "-c", "cam-07")
    lost = config_in(drive)["password"]
    rig.land("cam-07", "status", 1, online=False, uid=HARDWARE_ID.lower(), board="OMVRT1060 32768 SDRAM")
    rig.now += 1000
    again = formatted(tmp_path / "again" / "OPENMV")
    assert "fleetd knows this board as cam-07: give --camera cam-07" in desk.fails(2, "provision", again)
    result = desk.run("provision", again, "--camera", "cam-07")
    assert result.exit_code == 0, result.output
    assert "The drive was formatted; cam-07 gets its old name again" in result.stderr
    assert works(rig, "cam-07", config_in(again)["password"])
    assert not works(rig, "cam-07", lost)
    assert rig.registry.counts()["cameras"] == 1


def test_a_name_that_is_at_work_elsewhere_is_not_taken_from_it(desk: Desk, rig: Rig, drive: Path) -> None:
    rig.enrol("cam-07")
    rig.land("cam-07", "status", 1, online=True, uid="ff" * 8, board="OMVRT1060 32768 SDRAM")
    before = tree(drive)
    assert "cam-07 is online right now" in desk.fails(2, "provision", drive, "-c", "cam-07")
    assert tree(drive) == before
    result = desk.run("provision", drive, "-c", "cam-07", "--rotate")
    assert result.exit_code == 0
    assert "cam-07 was another board until now" in result.stderr


def test_a_drive_of_another_camera_needs_a_word(desk: Desk, rig: Rig, drive: Path) -> None:
    desk.ok("provision", drive, "-c", "cam-07")
    before = tree(drive)
    assert "belongs to cam-07" in desk.fails(2, "provision", drive, "-c", "cam-08")
    assert tree(drive) == before
    desk.ok("provision", drive, "-c", "cam-08", "--replace")
    assert works(rig, "cam-08", config_in(drive)["password"])


def test_a_dry_run_changes_nothing(desk: Desk, rig: Rig, drive: Path) -> None:
    before = tree(drive)
    result = desk.run("provision", drive, "-c", "cam-07", "--dry-run", *wifi(desk))
    assert result.exit_code == 0
    assert "Dry run: nothing was written" in result.stderr
    assert "cam-07, will be enrolled" in result.stdout
    assert tree(drive) == before
    assert rig.registry.cameras() == []


def test_a_broker_on_loopback_is_no_address_for_a_camera(desk: Desk, rig: Rig, drive: Path) -> None:
    rig.status["broker"] = {"address": "127.0.0.1:1883"}
    before = tree(drive)
    said = desk.fails(2, "provision", drive, "-c", "cam-07")
    assert "this machine only" in said
    assert "--broker-host" in said
    assert tree(drive) == before
    desk.ok("provision", drive, "-c", "cam-07", "--broker-host", "10.0.0.9", "--broker-port", "8883")
    assert (config_in(drive)["host"], config_in(drive)["port"]) == ("10.0.0.9", 8883)


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (["-c", "CAM"], "is no name for a camera"),
        (["-c", "../x"], "is no name for a camera"),
        ([], "does not say which camera it is"),
        (["-c", "cam-07", "--set", "colour=1"], "no setting 'colour'"),
        (["-c", "cam-07", "--set", "batch=0"], "batch"),
        (["-c", "cam-07", "--set", "password=x"], "--rotate"),
        (["-c", "cam-07", "--wifi-key-file", "/nothing"], "cannot be read"),
        (["-c", "cam-07", "--country", "Germany"], "country"),
        (["-c", "cam-07", "--names", "cam-{n}"], "--watch"),
        (["--watch", "--names", "cam"], "makes no names"),
        (["--watch", "--names", "{n.__class__}"], "makes no names"),
        (["--watch", "--names", "cam-{n}", "-c", "cam-07"], "--watch goes with --names"),
        (["--watch"], "--watch goes with --names"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_written(
    options: list[str], part: str, desk: Desk, rig: Rig, drive: Path
) -> None:
    before = tree(drive)
    assert part in desk.fails(2, "provision", drive, *options)
    assert tree(drive) == before
    assert rig.registry.cameras() == []


def test_a_folder_that_is_no_camera_is_not_written(desk: Desk, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    assert "does not look like" in desk.fails(2, "provision", folder, "-c", "cam-07")
    assert tree(folder) == {}
    for place in ("/", desk.home, desk.home.parent):
        assert "not the drive" in desk.fails(2, "provision", place, "-c", "cam-07", "--force")
    assert "Is the camera connected" in desk.fails(1, "provision", tmp_path / "none", "-c", "cam-07")
    desk.ok("provision", folder, "-c", "cam-07", "--force")
    assert found_by_camera(folder) == small("mpy").files


def test_without_fleetd_nothing_is_written(desk: Desk, drive: Path) -> None:
    before = tree(drive)
    assert "cannot be reached" in desk.fails(4, "provision", drive, "-c", "cam-07", transport=Refusing())
    assert tree(drive) == before


def test_enrolling_takes_an_admin(desk: Desk, rig: Rig, drive: Path) -> None:
    desk.fails(5, "provision", drive, "-c", "cam-07", role=Role.OPERATOR)
    assert rig.registry.cameras() == []
    assert not (drive / "fleet" / "config.json").exists()
    desk.ok("provision", drive)  # the drive remembers the name
    assert works(rig, "cam-07", config_in(drive)["password"])


def test_a_label_is_written(desk: Desk, drive: Path) -> None:
    shown = desk.ok("provision", drive, "-c", "cam-07", "--label-dir", "labels")
    label = desk.folder / "labels" / "cam-07.svg"
    assert str(label) in shown
    assert "cam-07</text>" in label.read_text()


# -- failures ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "said"),
    [(errno.ENOSPC, "Remove files"), (errno.EROFS, "read-only"), (errno.ENODEV, "Connect the camera again")],
)
def test_a_drive_that_fails_ends_in_one_line_and_a_second_run_finishes(
    number: int, said: str, desk: Desk, rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, at = disk.Disk, [10**9]
    made: list[FailingDisk] = []

    def failing(root: Path) -> disk.Disk:
        made.append(FailingDisk(root, at[0], number, for_good=True))
        return made[-1]

    monkeypatch.setattr(disk, "Disk", failing)
    desk.ok("provision", with_old_agent(tmp_path / "whole"), "--broker-host", "10.0.0.2")
    rig.registry.remove("cam-07", actor="rig")
    count = len(made[0].operations)

    drive = with_old_agent(tmp_path / "OPENMV")
    before = found_by_camera(drive)
    for place in (10, count // 3, count - 60, count):
        at[0] = place
        monkeypatch.setattr(disk, "Disk", failing)
        complaint = desk.fails(1, "provision", drive, "--broker-host", "10.0.0.2")
        assert said in complaint
        assert "run the same command again" in complaint
        assert "Could not" in complaint
        assert found_by_camera(drive) in (before, small("mpy").files)
        monkeypatch.setattr(disk, "Disk", real)
        desk.ok("provision", drive)
        assert found_by_camera(drive) == small("mpy").files
        assert works(rig, "cam-07", config_in(drive)["password"])
        shutil.rmtree(drive)
        with_old_agent(drive)
        rig.registry.remove("cam-07", actor="rig")


def test_when_fleetd_goes_away_in_between_the_next_run_asks_for_a_credential_again(
    desk: Desk, rig: Rig, drive: Path
) -> None:
    desk.ok("provision", drive, "-c", "cam-07")

    class LosesTheAnswer(httpx.BaseTransport):
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            answer = rig.transport.handle_request(request)
            if request.url.path.endswith("/secret"):
                raise httpx.ReadTimeout("timed out", request=request)
            return answer

    desk.fails(4, "provision", drive, "--rotate", transport=LosesTheAnswer())
    assert not works(rig, "cam-07", config_in(drive)["password"])
    assert desk.json("provision", drive)["credential"] == "new"
    assert works(rig, "cam-07", config_in(drive)["password"])


# -- many ----------------------------------------------------------------------------------------------------


class Bench:
    """Somebody who connects one camera after the other, each time something waits."""

    def __init__(self, desk: Desk, mount: Path, *drives: Callable[[Path], Any]) -> None:
        self._mount = mount
        self._waiting = list(drives)
        self.taken: list[Path] = []
        self._pause = 0
        desk.meanwhile = self.step

    def step(self) -> None:
        self._pause += 1
        if self._pause % 4:  # longer than a drive takes to settle
            return
        if self._mount.exists():
            away = self._mount.with_name(f"taken-{len(self.taken)}")
            self._mount.rename(away)
            self.taken.append(away)
        elif self._waiting:
            self._waiting.pop(0)(self._mount)


def test_many_cameras_are_provisioned_in_a_row(desk: Desk, rig: Rig, tmp_path: Path) -> None:
    rig.enrol("cam-08")
    bench = Bench(desk, tmp_path / "OPENMV", formatted, with_old_agent, formatted)
    result = desk.run(
        "provision",
        "--watch",
        "--names",
        "cam-{n:02d}",
        "--start",
        "7",
        "--count",
        "2",
        tmp_path / "OPENMV",
        "--json",
    )
    assert result.exit_code == 0, result.output
    reports = [json.loads(line) for line in result.stdout.splitlines()]
    assert [report["camera"] for report in reports] == ["cam-07", "cam-09"]
    assert "cam-08 is enrolled already." in result.stderr
    for folder, name in zip((bench.taken[0], bench.taken[2]), ("cam-07", "cam-09"), strict=True):
        assert config_in(folder)["camera"] == name
        assert works(rig, name, config_in(folder)["password"])
    # The second one had a name already; it was left as it was.
    assert "This drive belongs to cam-07" in result.stderr
    assert config_in(bench.taken[1])["password"] == "the-old-credential"


def test_a_camera_that_was_pulled_out_too_early_gets_its_name_at_the_next_try(
    desk: Desk, rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mount = tmp_path / "OPENMV"
    real, tries = disk.Disk, [0]

    def first_fails(root: Path) -> disk.Disk:
        tries[0] += 1
        if tries[0] == 2:  # the first is only looked at
            return FailingDisk(root, 150, errno.EIO, for_good=True)
        return real(root)

    monkeypatch.setattr(disk, "Disk", first_fails)
    bench = Bench(desk, mount, formatted, lambda path: shutil.move(bench.taken[0], path), formatted)
    result = desk.run("provision", "--watch", "--names", "cam-{n}", "--count", "2", mount)
    assert result.exit_code == 0, result.output
    assert "Could not" in result.stderr
    names = [config_in(folder)["camera"] for folder in bench.taken[1:]]
    assert names == ["cam-1", "cam-2"]
    assert [view.camera.name for view in rig.registry.cameras()] == ["cam-1", "cam-2"]


# -- the drive boots -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arch", "source", "moment"),
    [
        ("amd64", "mpy", "done"),
        ("i386", "mpy", "done"),
        ("amd64", "py", "done"),
        ("i386", "mpy", "before the switch"),
        ("i386", "mpy", "after the switch"),
    ],
)
def test_a_provisioned_drive_boots_on_micropython_and_knocks_at_its_broker(
    arch: Arch, source: str, moment: str, desk: Desk, drive: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as broker:
        broker.settimeout(30)
        desk.ok(
            *("provision", drive, "-c", "cam-07", "--source", source, "--set", "slot_bytes=65536"),
            *("--broker-host", "127.0.0.1", "--broker-port", broker.getsockname()[1], *wifi(desk)),
        )
        if moment == "before the switch":  # another agent in lib is not the one that is found
            (drive / "lib" / "camera_agent").mkdir(parents=True)
            (drive / "lib" / "camera_agent" / "agent.py").write_text("raise SystemExit")
        if moment == "after the switch":
            (drive / "lib").mkdir()
            (drive / "camera_agent").rename(drive / "lib" / "camera_agent")
        log = (drive.parent / "board.log").open("wb")
        board = subprocess.Popen(
            [binary(arch), "-X", "heapsize=640k", "main.py"],
            cwd=drive,
            # As the firmware's: the folder it starts in, the drive, its lib.
            env={"PATH": os.defpath, "MICROPYPATH": f":{drive}:{drive}/lib:{FAKES}:.frozen"},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        with log, board:
            try:
                connection, _ = broker.accept()
                with connection:
                    connection.settimeout(10)
                    packet = connection.recv(1024)
            finally:
                board.kill()
    assert packet[0] == 0x10, "an MQTT CONNECT"
    assert b"cam-07" in packet
    assert config_in(drive)["password"].encode() in packet
    assert b"fleet/v1/cam-07/up/status" in packet


def test_the_agent_comes_from_the_installed_package_wherever_that_is(tmp_path: Path) -> None:
    """Even from an archive: nothing looks for files of a checkout."""
    archive = tmp_path / "site.zip"
    with zipfile.ZipFile(archive, "w") as made:
        for path in [*(ROOT / "fleetd").rglob("*.py"), *(ROOT / "camera_agent").glob("*.py")]:
            made.write(path, path.relative_to(ROOT))
    script = (
        "from fleetd.provisioning import package; print(package.__file__, *sorted(package.load('py').files))"
    )
    said = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env={"PATH": os.defpath, "PYTHONPATH": str(archive)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert said[0].startswith(str(archive))
    assert said[1:] == sorted(small("py").files)
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]["find"]
    assert "camera_agent*" in packages["include"]


def test_every_option_is_documented() -> None:
    text = (ROOT / "docs" / "provisioning.md").read_text()
    command = get_command(app).commands["provision"]  # type: ignore[attr-defined]  # the root is a group
    options = [option for one in command.params for option in one.opts if option.startswith("--")]
    assert len(options) > 15
    assert [option for option in options if f"`{option}" not in text and option != "--help"] == []


def test_help_needs_no_agent() -> None:
    """Only what provisions loads the compiler and the agent."""
    script = (
        "import sys, fleetd.cli.main; print([n for n in sys.modules if 'camera_agent' in n or 'mpy' in n])"
    )
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert said.strip() == "[]"
