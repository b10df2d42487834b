"""The order of writing, with a failure at every single operation."""

import contextlib
import errno
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from fleetd.provisioning import looking
from fleetd.provisioning.config import Credential
from fleetd.provisioning.disk import Disk, Room
from fleetd.provisioning.errors import (
    DriveError,
    DriveFullError,
    DriveGoneError,
    DriveReadOnlyError,
    DriveRefusedError,
)
from fleetd.provisioning.install import Done, KnownSecret, install
from tests.unit.provisioning.drives import (
    DRAFT,
    HARDWARE_ID,
    NEW,
    OLD_CONFIG,
    OLD_FILES,
    OLD_MAIN,
    FailingDisk,
    config_in,
    formatted,
    found_by_camera,
    tree,
    with_old_agent,
)

NEVER = 10**9


class Server:
    """Gives a credential, another one each time; only the last one works."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self) -> Credential:
        self.asked += 1
        return Credential(self.valid)

    @property
    def valid(self) -> str:
        return f"credential-{self.asked:016d}"


def run(disk: Disk, secret: Callable[[], Credential], *, in_place: bool = False) -> Done:
    before = looking.look(disk)
    return install(disk, NEW, DRAFT, secret, main_before=before.main, in_place=in_place)


def is_done(folder: Path, password: str) -> bool:
    return (
        found_by_camera(folder) == dict(NEW.files)
        and (folder / "main.py").read_bytes() == NEW.main
        and config_in(folder)["password"] == password
        and not any((folder / name).exists() for name in ("lib", "camera_agent.old", "camera_agent.new"))
        and not (folder / "fleet" / "config.new").exists()
    )


def operations(start: Callable[[Path], Path], folder: Path) -> int:
    disk = FailingDisk(start(folder), NEVER, errno.EIO, for_good=False)
    run(disk, Server())
    return len(disk.operations)


def test_a_fresh_drive_gets_agent_settings_and_main(tmp_path: Path) -> None:
    folder = formatted(tmp_path / "drive")
    done = run(Disk(folder), Server())
    assert (done.agent, done.config, done.main, done.kept_main) == (True, True, True, None)
    assert is_done(folder, "credential-0000000000000001")
    assert config_in(folder) == {**DRAFT.values, "password": "credential-0000000000000001"}
    assert (folder / ".openmv_disk").read_text() == HARDWARE_ID
    assert (folder / "fleet" / "config.json").stat().st_mode & 0o777 == 0o600


def test_an_old_agent_is_replaced_and_nothing_else_is_touched(tmp_path: Path) -> None:
    folder = with_old_agent(tmp_path / "drive")
    others = {name: data for name, data in tree(folder).items() if not is_the_agents(name)}
    run(Disk(folder), Server())
    assert is_done(folder, "credential-0000000000000001")
    assert {name: data for name, data in tree(folder).items() if not is_the_agents(name)} == others
    assert "camera_agent/notes.txt" in others
    assert "camera_agent/__pycache__/x.pyc" in others
    assert "fleet/slot_a.bin" in others


def is_the_agents(name: str) -> bool:
    return name in {"main.py", "fleet/config.json", "camera_agent/agent.json"} or (
        name.startswith("camera_agent/") and name.endswith((".py", ".mpy"))
    )


@pytest.mark.parametrize("for_good", [False, True], ids=["once", "for-good"])
@pytest.mark.parametrize("start", [formatted, with_old_agent])
def test_after_a_failure_at_any_operation_there_is_one_complete_agent_and_a_second_run_finishes(
    start: Callable[[Path], Path], for_good: bool, tmp_path: Path
) -> None:
    count = operations(start, tmp_path / "clean")
    expected = tree(tmp_path / "clean")
    assert count > 40
    old_agent = found_by_camera(start(tmp_path / "old"))
    old_main = (tmp_path / "old" / "main.py").read_bytes()
    for number in range(1, count + 1):
        folder = start(tmp_path / f"at-{number}")
        server = Server()
        disk = FailingDisk(folder, number, errno.EIO, for_good=for_good)
        try:
            run(disk, server)
        except DriveError:
            pass
        else:
            assert not for_good, f"operation {number} failed, and nobody noticed"
        agent, main = found_by_camera(folder), (folder / "main.py").read_bytes()
        at = f"operation {number}: {disk.operations[number - 1]}"
        assert agent in (old_agent, dict(NEW.files)), at
        assert main in (old_main, NEW.main), at
        assert main != NEW.main or agent == dict(NEW.files), at
        config = folder / "fleet" / "config.json"
        if start is with_old_agent or main == NEW.main:
            assert json.loads(config.read_text())["password"] in (OLD_CONFIG["password"], server.valid), at

        again = looking.look(Disk(folder))
        if again.config is None or again.begun is not None or again.config["password"] != server.valid:
            # What the next run goes by: it asks again whenever the drive does not surely have the newest one.
            assert server.asked == 0 or again.config is None or again.begun is not None, at
            run(FailingDisk(folder, NEVER, 0, for_good=False), server)
        else:
            run(
                FailingDisk(folder, NEVER, 0, for_good=False),
                KnownSecret(Credential(again.config["password"])),
            )
        assert is_done(folder, server.valid), at
        assert set(tree(folder)) == set(expected), at
        shutil.rmtree(folder)


def test_a_finished_drive_is_not_written_again(tmp_path: Path) -> None:
    folder = with_old_agent(tmp_path / "drive")
    server = Server()
    run(Disk(folder), server)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    done = run(Disk(folder), KnownSecret(Credential(server.valid)))
    assert (done.agent, done.config, done.main) == (False, False, False)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()} == before


def test_an_agent_that_lost_a_file_is_written_again(tmp_path: Path) -> None:
    folder = formatted(tmp_path / "drive")
    server = Server()
    run(Disk(folder), server)
    (folder / "camera_agent" / "agent.mpy").write_bytes(b"M\x06 damaged")
    assert run(Disk(folder), KnownSecret(Credential(server.valid))).agent
    assert is_done(folder, server.valid)


def test_somebodys_own_main_is_kept_under_another_name(tmp_path: Path) -> None:
    folder = formatted(tmp_path / "drive")
    (folder / "main.py").write_text("import sensor\n")
    (folder / "main-before-1.py").write_text("# an earlier one\n")
    done = run(Disk(folder), Server())
    assert done.kept_main == "main-before-2.py"
    assert (folder / "main-before-2.py").read_text() == "import sensor\n"
    assert (folder / "main-before-1.py").read_text() == "# an earlier one\n"


class Small(FailingDisk):
    """A drive of that many bytes, in clusters of 512."""

    def __init__(self, root: Path, total: int, fail_at: int = NEVER) -> None:
        super().__init__(root, fail_at, errno.EIO, for_good=False)
        self._total = total

    def room(self) -> Room:
        used = sum(-(-len(data) // 512) * 512 for data in tree(self.root).values())
        return Room(self._total - used, self._total, 512)


TIGHT = 18 * 1024  # room for one agent and a little more


def test_a_drive_without_room_is_left_as_it_is(tmp_path: Path) -> None:
    folder = with_old_agent(tmp_path / "drive")
    before = tree(folder)
    with pytest.raises(DriveFullError, match="--in-place") as caught:
        run(Small(folder, TIGHT), Server())
    assert "still has its old agent" in caught.value.message
    assert tree(folder) == before
    with pytest.raises(DriveFullError, match="needs") as caught:
        run(Small(folder, 12 * 1024), Server(), in_place=True)
    assert "--in-place" not in caught.value.message


def test_without_room_for_two_the_old_agent_can_be_taken_away_first(tmp_path: Path) -> None:
    folder = with_old_agent(tmp_path / "drive")
    server = Server()
    run(Small(folder, TIGHT), server, in_place=True)
    assert is_done(folder, server.valid)
    assert (folder / "camera_agent" / "notes.txt").read_text() == "mine"


def test_in_place_a_half_replaced_agent_is_never_started(tmp_path: Path) -> None:
    probe = Small(with_old_agent(tmp_path / "clean"), TIGHT)
    run(probe, Server(), in_place=True)
    for number in range(1, len(probe.operations) + 1):
        folder = with_old_agent(tmp_path / f"at-{number}")
        server = Server()
        disk = Small(folder, TIGHT, number)
        with contextlib.suppress(DriveError):
            run(disk, server, in_place=True)
        if (folder / "main.py").exists():
            assert found_by_camera(folder) in (OLD_FILES, dict(NEW.files)), disk.operations[number - 1]
            assert (folder / "main.py").read_bytes() in (OLD_MAIN, NEW.main)
        run(Small(folder, TIGHT), server, in_place=True)
        assert is_done(folder, server.valid)
        shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOSPC, DriveFullError),
        (errno.EROFS, DriveReadOnlyError),
        (errno.EACCES, DriveRefusedError),
        (errno.ENODEV, DriveGoneError),
        (errno.EIO, DriveError),
    ],
)
def test_every_failure_says_what_happened_what_is_left_and_what_to_do(
    number: int, kind: type[DriveError], tmp_path: Path
) -> None:
    folder = with_old_agent(tmp_path / "drive")
    probe = FailingDisk(folder, NEVER, 0, for_good=False)
    looking.look(probe)
    disk = FailingDisk(folder, len(probe.operations) + 40, number, for_good=True)
    with pytest.raises(kind) as caught:
        run(disk, Server())
    assert type(caught.value) is kind
    assert caught.value.message.startswith("Could not ")
    assert "The camera still has its old agent." in caught.value.message
    assert caught.value.message.endswith("run the same command again.")


def test_a_drive_that_fills_up_is_not_left_full(tmp_path: Path) -> None:
    folder = with_old_agent(tmp_path / "drive")
    before = tree(folder)
    probe = FailingDisk(with_old_agent(tmp_path / "clean"), NEVER, 0, for_good=False)
    run(probe, Server())
    at = probe.operations.index("write camera_agent.new/agent.mpy") + 3
    with pytest.raises(DriveFullError):
        run(FailingDisk(folder, at, errno.ENOSPC, for_good=False), Server())
    assert tree(folder) == before


def test_a_mount_point_without_its_drive_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = formatted(tmp_path / "drive")
    disk = Disk(folder)
    monkeypatch.setattr(disk, "_device", -1)  # as after an unmount: the same folder on another file system
    with pytest.raises(DriveGoneError):
        disk.write("main.py", b"x")
    folder.rename(tmp_path / "elsewhere")
    with pytest.raises(DriveGoneError):
        disk.names(".")
    with pytest.raises(DriveGoneError):
        Disk(folder)


def test_what_does_not_read_back_as_written_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(formatted(tmp_path / "drive"))
    monkeypatch.setattr(disk, "read", lambda name, limit: b"something else")
    with pytest.raises(DriveError, match="does not read back"):
        disk.write("x", b"data")


def test_files_of_others_in_the_agents_temporary_folders_stop_the_run(tmp_path: Path) -> None:
    folder = with_old_agent(tmp_path / "drive")
    (folder / "lib" / "camera_agent").mkdir(parents=True)
    (folder / "lib" / "camera_agent" / "theirs.txt").write_text("x")
    with pytest.raises(DriveError, match=r"theirs|do not belong to the agent"):
        run(Disk(folder), Server())
    assert found_by_camera(folder) == OLD_FILES
    assert (folder / "lib" / "camera_agent" / "theirs.txt").exists()


def test_a_credential_does_not_show(tmp_path: Path) -> None:
    assert "hidden" not in repr(KnownSecret(Credential("hidden", "hidden")))
    assert "hidden" not in repr(Credential("hidden", "hidden"))
