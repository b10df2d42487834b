"""fleetctl keys, inspect and push-model: what fits goes out signed, and the exit code tells the outcome."""

import json
import re
import stat
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import structlog

from fleetd.bundles.signing import OperatorKey
from fleetd.cli import watch
from fleetd.domain.records import Role
from tests.integration.api_rig import START, Rig, running_rig
from tests.integration.cli_desk import Desk, Fleet
from tests.unit.bundles.models import LABELS, make


@pytest.fixture(autouse=True)
def _quiet_services() -> Iterator[None]:
    """The services run in the same process here; what they log is not what fleetctl prints."""
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    yield
    structlog.reset_defaults()


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    with running_rig(tmp_path) as rig:
        yield rig


@pytest.fixture
def desk(rig: Rig, tmp_path: Path) -> Desk:
    return Desk(rig, tmp_path)


@pytest.fixture
def fleet(rig: Rig, desk: Desk) -> Fleet:
    fleet = Fleet(rig, "cam-1", "cam-2", "cam-3")
    desk.meanwhile = fleet.step
    return fleet


def test_a_key_is_made_with_a_password_asked_for_twice(desk: Desk, rig: Rig) -> None:
    result = desk.run("keys", "init", typed="correct horse\ncorrect horse\n")
    assert result.exit_code == 0, result.output
    assert "correct horse" not in result.output
    path = desk.home / ".config" / "fleetctl" / "keys" / "operator.pem"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert b"ENCRYPTED" in path.read_bytes()
    key = OperatorKey.load(path, "correct horse")
    shown = desk.json("keys", "show")
    assert (shown["key_id"], shown["public"]) == (key.key_id.hex(), key.public.hex())
    assert "exists already" in desk.fails(2, "keys", "init", "--no-password")
    assert OperatorKey.load(path, "correct horse").public == key.public


def test_passwords_that_differ_make_no_key(desk: Desk) -> None:
    assert desk.run("keys", "init", typed="one\ntwo\n").exit_code != 0
    assert not (desk.home / ".config" / "fleetctl" / "keys" / "operator.pem").exists()


def test_a_key_is_trusted_listed_and_revoked(desk: Desk, rig: Rig) -> None:
    assert "keys init" in desk.fails(2, "keys", "trust")
    desk.make_key()
    (listed,) = desk.json("keys", "list")
    assert (listed["name"], listed["public"]) == ("ada", desk.json("keys", "show")["public"])
    assert re.search(r"yes$", desk.ok("keys", "list"), re.MULTILINE)
    other = OperatorKey.generate()
    desk.ok("keys", "trust", other.public.hex(), "--name", "bob")
    desk.ok("keys", "revoke", other.key_id.hex(), "--yes")
    assert {one["name"]: one["revoked_at"] for one in desk.json("keys", "list")} == {
        "ada": None,
        "bob": START,
    }
    assert "role admin" in desk.fails(5, "keys", "trust", role=Role.OPERATOR)


# -- inspect and push-model ----------------------------------------------------------------------------------


def test_inspect_says_what_is_in_a_bundle_and_where_it_runs(desk: Desk) -> None:
    del desk.env["FLEETCTL_URL"], desk.env["FLEETCTL_TOKEN"]  # it needs no server
    text = desk.ok("inspect", desk.bundle(), "--board", "RT1062")
    for part in ("1x8x8x3 int8", "3: cat, dog, fox", "FULLY_CONNECTED", "OpenMV Cam RT1062", "fits"):
        assert part in text
    data = desk.json("inspect", desk.bundle(), "--board", "RT1062")
    assert [(board["board"], board["verdict"]) for board in data["boards"]] == [("rt1062", "fits")]
    assert data["labels"] == list(LABELS)


def test_inspect_exits_2_for_a_model_that_does_not_fit(desk: Desk) -> None:
    result = desk.run("inspect", desk.bundle(labels=("cat", "dog")), "--board", "RT1062")
    assert result.exit_code == 2
    assert "3 classes and labels.txt names 2" in result.stdout
    assert "cannot run on OpenMV Cam RT1062" in result.stderr
    assert "No board is called" in desk.fails(2, "inspect", desk.bundle(), "--board", "toaster")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 not a zip", b"\x00" * 100, make()[:200]])
def test_inspect_refuses_what_is_no_bundle(desk: Desk, content: bytes) -> None:
    path = desk.folder / "broken.tflite"
    path.write_bytes(content)
    (desk.folder / "labels.txt").write_text("a\nb\n")
    desk.fails(2, "inspect", path)


def test_a_model_goes_to_all_cameras_and_the_exit_code_says_so(desk: Desk, rig: Rig, fleet: Fleet) -> None:
    desk.make_key()
    result = desk.run("push-model", desk.bundle(), "--to", "all", "--waves", "34,100", typed="y\n")
    assert result.exit_code == 0, result.output
    assert "Push to 3 cameras (34 %, 100 %)?" in result.stderr
    assert "3 of 3 cameras confirmed model-1" in result.stderr
    for camera in ("cam-1", "cam-2", "cam-3"):
        assert f"{camera}  confirmed" in result.stdout
    release = desk.json("releases", "show", "model-1")
    assert (release["name"], release["version"], release["labels"]) == ("bees", "1", list(LABELS))
    assert desk.json("rollouts", "show", 1)["tally"] == {"confirmed": 3}
    assert "model-1" in desk.ok("releases", "list")
    assert "completed" in desk.ok("rollouts", "list")


def test_what_the_operator_wishes_is_in_the_signed_manifest(desk: Desk, rig: Rig, fleet: Fleet) -> None:
    desk.make_key()
    labels = desk.folder / "others.txt"
    labels.write_text("ant\nbee\nwasp\n")
    desk.ok(
        *("push-model", desk.bundle(), "--to", "id=cam-1", "--yes", "--no-watch", "--name", "insects"),
        *(
            "--version",
            "2.1",
            "--threshold",
            0.6,
            "--expires-days",
            30,
            "--labels",
            labels,
            "--max-failed",
            0,
        ),
    )
    manifest = json.loads(rig.ota.manifest("model-1")[76:])
    assert (manifest["name"], manifest["version"], manifest["threshold"]) == ("insects", "2.1", 0.6)
    assert manifest["expires"] == manifest["created"] + 30 * 86400
    assert manifest["boards"] == ["OMVRT1060"]
    assert rig.ota.release("model-1").labels == ("ant", "bee", "wasp")
    assert rig.ota.rollout(1).rollout.settings.max_failed == 0


def test_a_rollout_that_halts_exits_3_with_the_reason_in_words(desk: Desk, rig: Rig, fleet: Fleet) -> None:
    desk.make_key()
    fleet.outcome, fleet.reason = "reverted", "trial-crashed"
    result = desk.run("push-model", desk.bundle(), "--to", "all", "--yes")
    assert result.exit_code == 3, result.output
    assert "Rollout 1 is halted: 0 of 3 cameras confirmed" in result.stderr
    assert "trial-crashed: The camera restarted while it tried the model" in result.stderr
    assert "\x1b" not in result.output
    assert desk.run("rollouts", "watch", 1).exit_code == 3


def test_a_completed_rollout_that_some_cameras_refused_is_no_success(
    desk: Desk, rig: Rig, fleet: Fleet
) -> None:
    desk.make_key()
    fleet.outcome, fleet.reason = "rejected", "unknown-key"
    result = desk.run("push-model", desk.bundle(), "--to", "id=cam-1", "--yes")
    assert result.exit_code == 3
    assert "completed: 0 of 1 camera confirmed" in result.stderr
    assert "The camera does not know the key" in result.stderr


def test_a_rollout_cancelled_while_watched_exits_3(desk: Desk, rig: Rig, fleet: Fleet) -> None:
    desk.make_key()

    def cancel() -> None:
        rig.ota.cancel(1, actor="rig")

    desk.meanwhile = cancel
    assert desk.run("push-model", desk.bundle(), "--to", "all", "--yes").exit_code == 3


def test_interrupting_the_watch_leaves_the_rollout_running(desk: Desk, rig: Rig, fleet: Fleet) -> None:
    desk.make_key()

    def interrupt() -> None:
        raise KeyboardInterrupt

    desk.meanwhile = interrupt
    result = desk.run("push-model", desk.bundle(), "--to", "all", "--yes")
    assert result.exit_code == 130
    assert "fleetctl rollouts watch 1" in result.stderr
    assert desk.json("rollouts", "show", 1)["rollout"]["state"] == "running"


def test_a_model_that_does_not_fit_is_refused_before_anything_is_sent(
    desk: Desk, rig: Rig, fleet: Fleet
) -> None:
    desk.make_key()
    result = desk.run("push-model", desk.bundle(labels=("cat",)), "--to", "all", "--yes")
    assert result.exit_code == 2
    assert "cannot run on OpenMV Cam RT1062. Nothing was sent." in result.stderr
    assert "labels.txt names 1" in result.stdout
    assert desk.json("releases", "list") == []
    as_json = desk.run("push-model", desk.bundle(labels=("cat",)), "--to", "all", "--yes", "--json")
    assert as_json.exit_code == 2
    assert "labels.txt names 1" in as_json.stderr, "the reason is not lost with the tables"


def test_a_board_that_cannot_run_it_can_be_left_out(desk: Desk, rig: Rig, fleet: Fleet) -> None:
    desk.make_key()
    Fleet(rig, "cam-n6", board="OpenMV N6 65536")
    result = desk.run("push-model", desk.bundle(), "--to", "all", "--yes")
    assert result.exit_code == 2
    assert "To push to the others only: --board rt1062" in result.stderr
    result = desk.run("push-model", desk.bundle(), "--to", "all", "--yes", "--board", "rt1062")
    assert result.exit_code == 0, result.output
    assert "3 of 3 cameras confirmed" in result.stderr
    assert "cam-n6 is left out" in result.stderr


def test_a_dry_run_signs_and_sends_nothing_and_needs_no_key(desk: Desk, rig: Rig, fleet: Fleet) -> None:
    before = rig.access.audit()
    result = desk.run("push-model", desk.bundle(), "--to", "all", "--dry-run")
    assert result.exit_code == 0
    assert "It would go to 3 cameras" in result.stderr
    assert rig.access.audit() == before


def test_a_declined_push_sends_nothing(desk: Desk, rig: Rig, fleet: Fleet) -> None:
    desk.make_key()
    assert desk.run("push-model", desk.bundle(), "--to", "all", typed="n\n").exit_code == 1
    assert desk.run("push-model", desk.bundle(), "--to", "all", typed="").exit_code == 1
    assert desk.json("releases", "list") == []


def test_a_push_says_early_what_is_missing(desk: Desk, rig: Rig, fleet: Fleet) -> None:
    assert "keys init" in desk.fails(2, "push-model", desk.bundle(), "--to", "all", "--yes")
    desk.make_key(trusted=False)
    assert "keys trust" in desk.fails(2, "push-model", desk.bundle(), "--to", "all", "--yes")
    assert "No camera matches" in desk.fails(2, "push-model", desk.bundle(), "--to", "tag=none", "--yes")
    assert "no waves" in desk.fails(2, "push-model", desk.bundle(), "--to", "all", "--waves", "a,b")
    assert "percentages" in desk.fails(2, "push-model", desk.bundle(), "--to", "all", "--waves", "50,20")
    assert desk.run("push-model", desk.bundle()).exit_code == 2
    assert desk.json("releases", "list") == []


def test_a_protected_key_is_opened_with_its_password_only(desk: Desk, rig: Rig, fleet: Fleet) -> None:
    desk.run("keys", "init", typed="right\nright\n")
    desk.ok("keys", "trust")
    push = ("push-model", desk.bundle(), "--to", "all", "--yes")
    assert desk.run(*push, typed="wrong\n").exit_code == 1
    assert desk.json("releases", "list") == []
    assert desk.run(*push, typed="right\n").exit_code == 0
    password = desk.folder / "password"
    password.write_text("right\n")
    assert desk.run(*push, "--password-file", password).exit_code == 0
    assert {release["id"] for release in desk.json("releases", "list")} == {"model-1", "model-2"}


def test_a_push_for_programs_prints_one_json_document(desk: Desk, rig: Rig, fleet: Fleet) -> None:
    desk.make_key()
    answer = desk.json("push-model", desk.bundle(), "--to", "all", "--yes")
    assert answer["release"]["id"] == "model-1"
    assert answer["outcome"]["rollout"]["state"] == "completed"
    assert answer["skipped"] == []


def test_cameras_that_never_reported_are_offered_the_release_too(desk: Desk, rig: Rig) -> None:
    rig.enrol("cam-1")
    desk.make_key()
    result = desk.run("push-model", desk.bundle(), "--to", "all", "--yes", "--no-watch")
    assert result.exit_code == 0, result.output
    assert "Not known yet which board: 1 camera" in result.stderr
    assert json.loads(rig.ota.manifest("model-1")[76:])["boards"] == ["*"]


def test_a_rollout_is_paused_resumed_cancelled_and_retried(desk: Desk, rig: Rig, fleet: Fleet) -> None:
    desk.make_key()
    desk.ok("push-model", desk.bundle(), "--to", "all", "--yes", "--no-watch")
    assert "is paused" in desk.ok("rollouts", "pause", 1)
    assert "is running" in desk.ok("rollouts", "resume", 1)
    fleet.outcome, fleet.reason = "failed", "connection-lost"
    assert desk.run("rollouts", "watch", 1).exit_code == 3
    fleet.outcome = "confirmed"
    desk.ok("rollouts", "cancel", 1)
    assert "Rollout 2 tries again" in desk.ok("rollouts", "retry", 1)
    assert desk.run("rollouts", "watch", 2).exit_code == 0
    assert "cannot be paused" in desk.fails(1, "rollouts", "pause", 1)
    assert "There is no rollout" in desk.fails(1, "rollouts", "show", 99)


class Restarting(httpx.BaseTransport):
    """A fleetd that is away for some questions after a rollout has started."""

    def __init__(self, rig: Rig, away: int) -> None:
        self._rig = rig
        self._away = away

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/rollouts/1") and self._away:
            self._away -= 1
            raise httpx.ConnectError("Connection refused", request=request)
        return self._rig.transport.handle_request(request)


def test_watching_goes_on_after_fleetd_was_restarted(desk: Desk, rig: Rig, fleet: Fleet) -> None:
    desk.make_key()
    result = desk.run("push-model", desk.bundle(), "--to", "all", "--yes", transport=Restarting(rig, 5))
    assert result.exit_code == 0, result.output
    assert result.stderr.count("fleetd does not answer") == 1


def test_watching_gives_up_when_fleetd_stays_away(desk: Desk, rig: Rig, fleet: Fleet) -> None:
    desk.make_key()
    result = desk.run("push-model", desk.bundle(), "--to", "all", "--yes", transport=Restarting(rig, 1000))
    assert result.exit_code == 4
    assert desk.slept == watch.ATTEMPTS - 1


@pytest.mark.parametrize("wrong", [("--window", "25:00"), ("--ignore", "foo")])
def test_an_option_that_the_server_would_refuse_is_refused_before_anything_is_signed(
    desk: Desk, wrong: tuple[str, str]
) -> None:
    desk.make_key()
    Fleet(desk.rig, "cam-1")
    assert "Nothing was changed" in desk.fails(2, "push-model", desk.bundle(), "--to", "all", "--yes", *wrong)
    assert desk.json("releases", "list") == []


def test_somebody_elses_public_half_is_trusted_from_its_file(desk: Desk, tmp_path: Path) -> None:
    file = tmp_path / "bob.pub"
    file.write_text(OperatorKey.generate().public.hex() + "\n", encoding="ascii")
    assert "(bob)" in desk.ok("keys", "trust", file, "--name", "bob")
