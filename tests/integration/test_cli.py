"""fleetctl against the real API, services and database: what it prints, what it refuses, how it exits."""

import json
import re
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import structlog
from typer.main import get_command

from fleetd.bundles.signing import OperatorKey
from fleetd.cli import login as login_module
from fleetd.cli.main import app
from fleetd.domain.records import Role
from fleetd.store.landing import DeadLetter
from fleetd.web.server import serve
from tests.integration.api_rig import BASE, START, Rig, running_rig
from tests.integration.cli_desk import CLEAR_SCREEN, RT1062, Canned, Desk, Fleet, Refusing, Slow

ROOT: Final = Path(__file__).resolve().parents[2]


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
    text = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "docs").glob("*.md"))
    assert [command for command in commands() if f"fleetctl {command}" not in text] == []


def test_every_option_of_a_push_is_in_the_documents() -> None:
    text = (ROOT / "docs" / "updates.md").read_text(encoding="utf-8")
    push = get_command(app).commands["push-model"]  # type: ignore[attr-defined]  # the root is a group
    options = [option for parameter in push.params for option in parameter.opts if option.startswith("--")]
    assert [option for option in options if option not in text] == []
