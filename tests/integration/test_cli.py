"""fleetctl against the real API, services and database: what it prints, what it refuses, how it exits."""

import json
import re
import stat
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
import structlog
from typer.main import get_command
from typer.testing import CliRunner, Result

from fleetd.bundles.signing import OperatorKey
from fleetd.cli import login as login_module
from fleetd.cli.main import app
from fleetd.cli.session import Session
from fleetd.domain.records import Role
from fleetd.store.landing import DeadLetter
from fleetd.web.server import serve
from tests.integration.api_rig import BASE, START, Rig, running_rig
from tests.unit.bundles.models import LABELS, Plan, make

ROOT: Final = Path(__file__).resolve().parents[2]
RT1062: Final = "OMVRT1060 32768 SDRAM"
CLEAR_SCREEN: Final = "\x1b[2J"


class Refusing(httpx.BaseTransport):
    """A server that is not there."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("Connection refused", request=request)


class Slow(httpx.BaseTransport):
    """A server that does not answer."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        raise httpx.ReadTimeout("timed out", request=request)


class Canned(httpx.BaseTransport):
    """A server that is no fleetd."""

    def __init__(self, status: int, text: str, **headers: str) -> None:
        self._answer = status, text, headers
        self.asked: list[httpx.Request] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        status, text, headers = self._answer
        return httpx.Response(status, text=text, headers=headers)


class Desk:
    """An operator's machine: a home folder, a working folder, and fleetctl."""

    def __init__(self, rig: Rig, folder: Path) -> None:
        self.rig = rig
        self.home, self.folder = folder / "home", folder / "work"
        self.folder.mkdir(parents=True)
        self.env = {
            "HOME": str(self.home),
            "FLEETCTL_URL": BASE,
            "FLEETCTL_TOKEN": rig.tokens[Role.ADMIN],
        }
        self.meanwhile: Callable[[], None] = lambda: None
        self.slept = 0

    def run(
        self,
        *args: object,
        typed: str | None = None,
        role: Role | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> Result:
        env = dict(self.env)
        if role is not None:
            env["FLEETCTL_TOKEN"] = self.rig.tokens[role]
        session = Session(
            env=env,
            folder=self.folder,
            transport=transport or self.rig.transport,
            now=lambda: self.rig.now,
            sleep=self._sleep,
        )
        result = CliRunner().invoke(app, [str(arg) for arg in args], input=typed, obj=session)
        assert "Traceback" not in result.output
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result

    def ok(self, *args: object, **options: Any) -> str:
        result = self.run(*args, **options)
        assert result.exit_code == 0, result.output
        return result.stdout

    def json(self, *args: object, **options: Any) -> Any:
        return json.loads(self.ok(*args, "--json", **options))

    def fails(self, code: int, *args: object, **options: Any) -> str:
        """What it complains about: one line what happened, and at most one what to do."""
        result = self.run(*args, **options)
        assert result.exit_code == code, result.output
        lines = result.stderr.rstrip("\n").split("\n")
        start = next(at for at, line in enumerate(lines) if line.startswith("fleetctl: "))
        assert len(lines) - start <= 2, lines
        return "\n".join(lines[start:])

    def make_key(self, *, trusted: bool = True) -> None:
        self.ok("keys", "init", "--no-password")
        if trusted:
            self.ok("keys", "trust", "--name", "ada")

    def bundle(self, plan: Plan | None = None, labels: tuple[str, ...] = LABELS) -> Path:
        path = self.folder / "bees.zip"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("trained.tflite", make(plan))
            archive.writestr("labels.txt", "".join(f"{label}\n" for label in labels))
        return path

    def _sleep(self, _seconds: float) -> None:
        self.slept += 1
        assert self.slept < 200, "waited for ever"
        self.rig.now += 1
        self.meanwhile()


class Fleet:
    """Cameras that take what they are offered, one step each time somebody looks."""

    STEPS: Final = ("transferring", "verifying", "trial", "confirmed")

    def __init__(self, rig: Rig, *names: str, board: str = RT1062) -> None:
        self._rig = rig
        self._seq = 0
        self.outcome = "confirmed"
        self.reason: str | None = None
        rig.enrol(*names)
        for name in names:
            self._land(name, "status", online=True, board=board, firmware="4.8.1")

    def step(self) -> None:
        """Each camera that takes part reports its next step; then fleetd draws its conclusions."""
        for rollout in self._rig.ota.rollouts():
            for one in self._rig.ota.rollout(rollout.id).assignments:
                if one.state.value in ("offered", "transferring", "verifying", "trial"):
                    self._report(one)
        while self._rig.ota.process():
            pass

    def _report(self, one: Any) -> None:
        steps = (*self.STEPS[:-1], self.outcome)
        state = steps[0] if one.state.value == "offered" else steps[steps.index(one.state.value) + 1]
        body: dict[str, Any] = {"generation": one.generation, "release": one.release_id, "state": state}
        if state == "transferring":
            body["blocks"] = {"done": 1, "total": 3}
        if state == "confirmed":
            body["digest"] = self._rig.ota.release(one.release_id).content_sha256
        elif state == self.outcome:
            body |= {"reason": self.reason, "detail": f"told by {one.camera} {CLEAR_SCREEN}"}
        self._land(one.camera, "update", **body)

    def _land(self, camera: str, channel: str, **body: Any) -> None:
        self._seq += 1
        self._rig.land(camera, channel, self._seq, **body)


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


# -- cameras, history, commands, tokens ----------------------------------------------------------------------


def test_a_camera_is_added_shown_tagged_listed_and_removed(desk: Desk, rig: Rig) -> None:
    shown = desk.run("cameras", "add", "cam-1", "--tag", "line-3", "--note", "by the door")
    assert shown.exit_code == 0
    assert re.search(r"^user\s+cam-1$", shown.stdout, re.MULTILINE)
    assert re.search(r"^password\s+\S{20,}$", shown.stdout, re.MULTILINE)
    assert "Shown this once" in shown.stderr
    assert "cam-1: a line-3" in desk.ok("cameras", "tag", "cam-1", "a")
    assert "cam-1: line-3" in desk.ok("cameras", "untag", "cam-1", "a")
    listed = desk.ok("cameras", "list").splitlines()
    assert listed[0].split()[:2] == ["CAMERA", "PRESENCE"]
    assert listed[1].split()[:2] == ["cam-1", "new"]
    assert "by the door" in desk.ok("cameras", "show", "cam-1")
    kept = desk.run("cameras", "remove", "cam-1", typed="n\n")
    assert kept.exit_code == 1
    assert desk.json("cameras", "list")[0]["name"] == "cam-1"
    desk.ok("cameras", "remove", "cam-1", "--yes")
    assert desk.json("cameras", "list") == []
    assert "No camera is enrolled" in desk.run("cameras", "list").stderr


def test_a_rotated_secret_is_another_one(desk: Desk) -> None:
    first = desk.json("cameras", "add", "cam-1")["secret"]
    assert desk.json("cameras", "rotate-secret", "cam-1")["secret"] != first


def test_a_camera_that_reported_is_shown_in_full(desk: Desk, rig: Rig, fleet: Fleet) -> None:
    rig.land(
        "cam-1",
        "status",
        50,
        online=True,
        board=RT1062,
        reset="watchdog",
        release={"id": "model-3", "digest": "ab" * 32, "sequence": 3},
        trial="model-4",
        storage={"backend": "sdcard", "free": 5 * 2**20},
        network={"kind": "wlan", "rssi": -71},
        problems=["no-sd"],
    )
    rig.land("cam-1", "led", 51, color="green", pattern="blink", reason="running")
    text = desk.ok("cameras", "show", "cam-1")
    for part in (
        "model-3 (trying model-4)",
        "watchdog",
        "5.0 MB free",
        "rssi=-71",
        "no-sd",
        "green blink (running)",
    ):
        assert part in text
    assert "model-3 (trying model-4)" in desk.ok("cameras", "list", "--to", "id=cam-1")
    assert "cam-2" not in desk.ok("cameras", "list", "--to", "id=cam-1")


READS: Final = {
    "status": "/status",
    "cameras list": "/cameras",
    "cameras show cam-1": "/cameras/cam-1",
    "cameras unknown": "/unknown-cameras",
    "results": "/results",
    "results --summary": "/results/summary",
    "telemetry": "/telemetry",
    "events": "/events",
    "leds": "/leds",
    "leds --camera cam-1": "/cameras/cam-1/leds",
    "dead-letters": "/dead-letters",
    "keys list": "/keys",
    "releases list": "/releases",
    "releases show model-1": "/releases/model-1",
    "rollouts list": "/rollouts",
    "rollouts show 1": "/rollouts/1",
    "tokens list": "/tokens",
    "audit": "/audit",
}


def fill(rig: Rig) -> None:
    """Something of everything, with hostile text wherever a camera or a person may put some."""
    rig.land("cam-1", "result", 10, results=[{"label": CLEAR_SCREEN, "score": 0.5, "inference_ms": 31.0}])
    rig.land("cam-1", "telemetry", 11, fps=9.5, heap_free=2**20, dropped={CLEAR_SCREEN: 3})
    rig.land("cam-1", "event", 12, kind=CLEAR_SCREEN, text=f"a\r\nb{CLEAR_SCREEN}")
    rig.land("cam-1", "led", 13, color="green", pattern="blink", reason=CLEAR_SCREEN)
    rig.land(
        "cam-1",
        "status",
        14,
        online=True,
        board=RT1062,
        problems=[CLEAR_SCREEN],
        network={"kind": CLEAR_SCREEN},
    )
    rig.land("stranger", "result", 1, results=[{"label": "x", "score": 1.0}])
    rig.landing.write(
        [], [DeadLetter(f"fleet/v1/{CLEAR_SCREEN}", CLEAR_SCREEN.encode(), "malformed", CLEAR_SCREEN, START)]
    )
    rig.status["broker"] = {"note": CLEAR_SCREEN}
    rig.status["problems"] = [CLEAR_SCREEN]
    key = OperatorKey.generate()
    rig.trust(key)
    rig.ota.start_rollout(rig.release(key), "id=cam-1", actor="rig")


@pytest.mark.parametrize("command", READS)
def test_every_read_command_has_json_that_is_the_servers_answer(
    desk: Desk, rig: Rig, fleet: Fleet, command: str
) -> None:
    fill(rig)
    assert desk.json(*command.split()) == rig.admin.get(READS[command]).json()


@pytest.mark.parametrize("command", READS)
def test_nothing_a_camera_or_a_person_wrote_moves_the_cursor(
    desk: Desk, rig: Rig, fleet: Fleet, command: str
) -> None:
    fill(rig)
    for options in ([], ["--json"]):
        result = desk.run(*command.split(), *options)
        assert result.exit_code == 0
        assert "\x1b" not in result.output
        assert "\r" not in result.output
        assert result.stdout, "there is something to print"


def test_history_can_be_narrowed(desk: Desk, rig: Rig, fleet: Fleet) -> None:
    for seq, label in enumerate(("a", "b"), 10):
        rig.now = START + 1000 * seq
        rig.land("cam-1", "result", seq, results=[{"label": label, "score": 0.5}], release="model-1")
    rig.now += 60
    assert [row["label"] for row in desk.json("results", "--since", "5m")] == ["b"]
    assert [row["label"] for row in desk.json("results", "--until", "5m")] == ["a"]
    assert [row["label"] for row in desk.json("results", "--label", "a", "--camera", "cam-1")] == ["a"]
    assert desk.json("results", "--limit", 1)[0]["label"] == "b"
    summary = desk.ok("results", "--summary", "--since", "1d").splitlines()
    assert summary[0].split() == ["CAMERA", "RELEASE", "LABEL", "COUNT", "MEAN", "SCORE"]
    assert {line.split()[2] for line in summary[1:]} == {"a", "b"}


def test_results_can_be_followed_and_each_is_printed_once(desk: Desk, rig: Rig, fleet: Fleet) -> None:
    seq = 100

    def land_more() -> None:
        nonlocal seq
        if seq == 103:
            raise KeyboardInterrupt
        seq += 1
        rig.land("cam-1", "result", seq, results=[{"label": f"n{seq}", "score": 0.5}])

    desk.meanwhile = land_more
    result = desk.run("results", "--follow", "--since", "1m", "--json")
    assert result.exit_code == 130
    assert [json.loads(line)["label"] for line in result.stdout.splitlines()] == ["n101", "n102", "n103"]


def test_an_led_sighting_is_reported(desk: Desk, fleet: Fleet) -> None:
    desk.ok("led", "report", "cam-1", "white", "--pattern", "blink-fast", "--reason", "after a fall")
    (row,) = desk.json("leds", "--camera", "cam-1")
    assert (row["color"], row["pattern"], row["source"], row["reason"]) == (
        "white",
        "blink-fast",
        "operator",
        "after a fall",
    )
    assert "color" in desk.fails(2, "led", "report", "cam-1", "ultraviolet")


def test_a_command_waits_for_the_cameras_answer(desk: Desk, rig: Rig, fleet: Fleet) -> None:
    def reply(**body: Any) -> Callable[[], None]:
        def answer() -> None:
            command = rig.access.audit(1)[0]["facts"]["command"]
            rig.land_reply("cam-1", "identify", rig.now.__hash__() % 10_000 + 100, id=command, **body)

        return answer

    desk.meanwhile = reply(ok=True, data={"blinked": 3})
    assert "cam-1 did it" in desk.ok("commands", "send", "cam-1", "identify")
    desk.meanwhile = reply(ok=False, reason="busy")
    assert "refused: busy" in desk.fails(1, "commands", "send", "cam-1", "identify")
    desk.meanwhile = lambda: None
    assert "did not answer within 5 s" in desk.fails(1, "commands", "send", "cam-1", "reboot", "--ttl", "5")
    assert "Queued" in desk.ok("commands", "send", "cam-1", "reboot", "--no-wait")
    assert desk.run("commands", "send", "cam-1", "explode").exit_code == 2


def test_a_token_is_made_used_listed_and_revoked(desk: Desk, rig: Rig) -> None:
    token = desk.ok("tokens", "create", "ada", "--role", "operator").strip()
    assert rig.with_token(token).get("/status").status_code == 200
    listing = desk.ok("tokens", "list")
    assert re.search(r"^ada\s+operator", listing, re.MULTILINE)
    assert token not in listing
    desk.ok("tokens", "revoke", "ada")
    assert rig.with_token(token).get("/status").status_code == 401
    assert "token.revoke" in desk.ok("audit")


# -- where fleetd is -----------------------------------------------------------------------------------------


def test_login_checks_the_token_and_remembers_it_privately(desk: Desk, rig: Rig) -> None:
    del desk.env["FLEETCTL_URL"], desk.env["FLEETCTL_TOKEN"]
    assert "not known where fleetd is" in desk.fails(2, "status")
    desk.fails(5, "login", BASE, typed="wrong\n")
    assert "not known where fleetd is" in desk.fails(2, "status")
    shown = desk.run("login", f"{BASE}/", typed=f"{rig.tokens[Role.VIEWER]}\n")
    assert shown.exit_code == 0
    assert rig.tokens[Role.VIEWER] not in shown.output
    saved = desk.home / ".config" / "fleetctl" / "config.json"
    assert stat.S_IMODE(saved.stat().st_mode) == 0o600
    assert desk.json("status")["ok"] is True


def test_login_takes_the_token_from_a_file(desk: Desk, rig: Rig) -> None:
    del desk.env["FLEETCTL_URL"], desk.env["FLEETCTL_TOKEN"]
    file = desk.folder / "token"
    file.write_text(rig.tokens[Role.VIEWER])
    file.chmod(0o600)
    desk.ok("--token-file", file, "login", BASE)
    assert desk.json("status")["ok"] is True


def test_login_over_an_open_network_is_pointed_out(
    desk: Desk, rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(login_module, "is_loopback", lambda _url: False)
    result = desk.run("login", BASE, typed=f"{rig.tokens[Role.VIEWER]}\n")
    assert "not encrypted" in result.stderr


def test_a_fleetd_started_here_is_found_without_any_setting(desk: Desk, rig: Rig) -> None:
    del desk.env["FLEETCTL_URL"], desk.env["FLEETCTL_TOKEN"]
    state = desk.folder / "fleetd-data"
    state.mkdir()
    (state / "endpoint.json").write_text(json.dumps({"url": BASE}))
    (state / "admin.token").write_text(rig.tokens[Role.ADMIN] + "\n")
    assert desk.json("cameras", "list") == []


# -- how it fails --------------------------------------------------------------------------------------------


def test_each_failure_has_its_exit_code_and_says_what_to_do(desk: Desk, rig: Rig) -> None:
    rig.enrol("cam-1")
    assert "Is it running?" in desk.fails(4, "status", transport=Refusing())
    assert "did not answer in time" in desk.fails(4, "status", transport=Slow())
    assert "role admin" in desk.fails(5, "cameras", "add", "cam-9", role=Role.VIEWER)
    assert "enrolled already" in desk.fails(1, "cameras", "add", "cam-1")
    assert "No camera named" in desk.fails(1, "cameras", "show", "cam-9")
    assert "expected form" in desk.fails(2, "cameras", "add", "CAM/../9")
    assert "cannot be read" in desk.fails(2, "cameras", "list", "--to", "colour=red")
    desk.env["FLEETCTL_TOKEN"] = "wrong"
    assert "fleetctl login" in desk.fails(5, "status")


@pytest.mark.parametrize(
    ("status", "text", "code"),
    [
        (200, "<html>a router's login page</html>", 1),
        (404, "not here", 1),
        (500, "", 1),
        (403, "{}", 5),
        (401, '{"error": "nope"}', 5),
        (
            503,
            '{"error": {"code": "unavailable", "message": "Later.\x1b[2J", "facts": {}}}'.replace(
                "\x1b", "\\u001b"
            ),
            1,
        ),
    ],
)
def test_a_server_that_is_no_fleetd_is_recognised(desk: Desk, status: int, text: str, code: int) -> None:
    said = desk.fails(code, "status", transport=Canned(status, text))
    assert "\x1b" not in said


def test_a_redirect_is_not_followed_so_the_token_stays_here(desk: Desk) -> None:
    elsewhere = Canned(302, "", location="http://evil.example/api/v1/status")
    desk.fails(1, "status", transport=elsewhere)
    assert [request.url.host for request in elsewhere.asked] == ["localhost"]


def test_a_name_with_a_slash_cannot_become_another_address(desk: Desk) -> None:
    server = Canned(404, "")
    desk.fails(1, "cameras", "show", "../tokens?x=#y", transport=server)
    assert server.asked[0].url.raw_path == b"/api/v1/cameras/..%2Ftokens%3Fx%3D%23y"


def test_usage_errors_exit_2_and_a_defect_exits_1_without_a_traceback(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert desk.run("cameras", "fly").exit_code == 2
    assert desk.run("cameras", "show").exit_code == 2
    assert desk.run("results", "--limit", "0").exit_code == 2

    def broken(*_: object) -> None:
        raise RuntimeError(f"boom{CLEAR_SCREEN}")

    monkeypatch.setattr("fleetd.cli.session.find_server", lambda **_: broken())
    said = desk.fails(1, "status")
    assert "RuntimeError: boom\\x1b[2J" in said
    assert "FLEETCTL_DEBUG" in said


def test_without_a_command_it_shows_help(desk: Desk) -> None:
    result = desk.run()
    assert "push-model" in result.output
    assert desk.run("--version").stdout.startswith("fleetctl ")


# -- keys ----------------------------------------------------------------------------------------------------


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


# -- the program itself --------------------------------------------------------------------------------------


def test_the_program_works_over_a_real_socket_and_its_help_is_quick(rig: Rig, tmp_path: Path) -> None:
    rig.enrol("cam-1")
    server = serve(rig.app, "127.0.0.1", 0)
    server.start()
    try:
        token = tmp_path / "token"
        token.write_text(rig.tokens[Role.VIEWER])
        token.chmod(0o600)
        environment = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "HTTP_PROXY": "http://127.0.0.1:9"}
        fleetctl = [sys.executable, "-c", "from fleetd.cli.main import main; main()"]

        def run(*args: str) -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                [*fleetctl, *args],
                capture_output=True,
                text=True,
                env=environment,
                cwd=ROOT,
                timeout=60,
                check=False,
            )

        found = run("--url", server.url, "--token-file", str(token), "cameras", "list", "--json")
        assert found.returncode == 0, found.stderr
        assert json.loads(found.stdout)[0]["name"] == "cam-1"
    finally:
        server.stop()
    gone = run("--url", server.url, "--token-file", str(token), "status")
    assert gone.returncode == 4
    assert "Traceback" not in gone.stderr


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; from typer.testing import CliRunner; from fleetd.cli.main import app; "
        "CliRunner().invoke(app, ['push-model', '--help']); "
        "print([name for name in ('httpx', 'cryptography', 'fastapi', 'sqlalchemy', 'paho', 'numpy') "
        "if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert found.stdout.strip() == "[]", found.stdout


def test_a_closed_pipe_is_no_error_message(rig: Rig, tmp_path: Path) -> None:
    started = time.monotonic()
    code = "from fleetd.cli.main import main; main()"
    found = subprocess.run(
        f"{sys.executable} -c '{code}' --help | head -1",
        shell=True,
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
    )
    assert "Traceback" not in found.stderr
    assert time.monotonic() - started < 30


def commands() -> list[str]:
    """Every command an operator can see."""

    def below(group: Any, above: str) -> Iterator[str]:
        for name, command in group.commands.items():
            if command.hidden:
                continue
            if hasattr(command, "commands"):
                yield from below(command, f"{above}{name} ")
            else:
                yield f"{above}{name}"

    return list(below(get_command(app), ""))


@pytest.mark.parametrize("command", commands())
def test_every_command_has_help(desk: Desk, command: str) -> None:
    assert "Usage:" in desk.run(*command.split(), "--help").output


def test_every_command_is_in_the_documents() -> None:
    text = "".join((ROOT / "docs" / name).read_text(encoding="utf-8") for name in ("api.md", "updates.md"))
    assert [command for command in commands() if f"fleetctl {command}" not in text] == []


def test_every_option_of_a_push_is_in_the_documents() -> None:
    text = (ROOT / "docs" / "updates.md").read_text(encoding="utf-8")
    push = get_command(app).commands["push-model"]  # type: ignore[attr-defined]  # the root is a group
    options = [option for parameter in push.params for option in parameter.opts if option.startswith("--")]
    assert [option for option in options if option not in text] == []
