"""How fleetd behaves as a service: systemd hears from it, probes tell the truth, the doctor says what to do."""

import contextlib
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleetd import sdnotify
from fleetd.doctor import Finding, examine, report
from fleetd.settings import Settings, load_settings
from tests.brokers import Mosquitto
from tests.faults.fleet import FleetProcess

WAIT_S = 60.0


@pytest.fixture
def systemd(monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """What systemd listens on."""
    ear = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    path = f"\0fleetd-test-{os.getpid()}-{time.monotonic_ns()}"
    ear.bind(path)
    ear.settimeout(WAIT_S)
    monkeypatch.setenv("NOTIFY_SOCKET", path.replace("\0", "@"))
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    with ear:
        yield ear


def get(url: str) -> tuple[int, dict[str, object]]:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=30) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


def test_systemd_hears_ready_signs_of_life_and_stopping_and_probes_tell_the_truth(
    mosquitto: Mosquitto, systemd: socket.socket, tmp_path: Path
) -> None:
    fleet = FleetProcess(
        tmp_path,
        FLEETD_BROKER__HOST="127.0.0.1",
        FLEETD_BROKER__PORT=str(mosquitto.port),
        NOTIFY_SOCKET=os.environ["NOTIFY_SOCKET"],
        WATCHDOG_USEC="1500000",
    )
    with fleet:
        assert systemd.recv(100) == b"READY=1"
        assert systemd.recv(100) == b"WATCHDOG=1"
        url = json.loads((tmp_path / "state" / "endpoint.json").read_text())["url"]
        assert get(f"{url}/healthz") == (200, {"ok": True})
        assert get(f"{url}/readyz") == (200, {"ok": True, "waiting_for": []})
        looked = subprocess.run(
            [sys.executable, "-m", "fleetd.cli.daemon", "doctor"],
            env={
                **os.environ,
                "FLEETD_STATE_DIR": str(tmp_path / "state"),
                "FLEETD_BROKER__HOST": "127.0.0.1",
                "FLEETD_BROKER__PORT": str(mosquitto.port),
            },
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert "ok  service   runs and is ready at" in looked.stdout, looked.stdout + looked.stderr
        systemd.setblocking(False)
        mosquitto.kill()
        deadline = time.monotonic() + WAIT_S
        while (answer := get(f"{url}/readyz"))[0] == 200:
            assert time.monotonic() < deadline
            time.sleep(0.1)
            with contextlib.suppress(BlockingIOError):
                systemd.recv(100)
        assert answer == (503, {"ok": False, "waiting_for": ["MQTT"]})
        with contextlib.suppress(BlockingIOError):
            while systemd.recv(100):
                pass
        systemd.settimeout(WAIT_S)
        assert get(f"{url}/healthz")[0] == 200, "starting it again would not help"
        assert fleet.stop() == 0
    said = b""
    while said != b"STOPPING=1":
        said = systemd.recv(100)


def test_a_hanging_fleetd_gives_no_sign_of_life(
    systemd: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "1")
    monkeypatch.setattr(sdnotify, "LEAST_SECONDS", 0.01)
    answers = iter([False, False, True])
    watchdog = sdnotify.Watchdog(lambda: next(answers, False))
    watchdog.start()
    assert systemd.recv(100) == b"WATCHDOG=1"
    watchdog.stop()
    assert next(answers, None) is None, "the first two answers kept it silent"


def test_without_systemd_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    monkeypatch.setenv("WATCHDOG_USEC", "1000000")
    monkeypatch.setenv("WATCHDOG_PID", "1")
    assert not sdnotify.notify("READY=1")
    assert sdnotify.watchdog_seconds() is None
    watchdog = sdnotify.Watchdog(lambda: True)
    watchdog.start()
    watchdog.stop()


def look(settings: Settings) -> dict[str, list[Finding]]:
    found: dict[str, list[Finding]] = {}
    for one in examine(settings):
        found.setdefault(one.about, []).append(one)
    return found


def test_the_doctor_names_what_is_wrong_and_what_to_do(tmp_path: Path) -> None:
    settings = load_settings(state_dir=tmp_path / "state", broker={"host": "127.0.0.1", "port": 1})
    found = look(settings)
    assert not (tmp_path / "state").exists(), "looking makes nothing"
    assert found["service"][0].do == "Start it: fleetd serve"
    assert found["broker"][0].level == "bad"
    (tmp_path / "state").mkdir(mode=0o755)
    (tmp_path / "state" / "endpoint.json").write_text('{"url": "http://127.0.0.1:1"}')
    found = look(settings)
    assert found["service"][0].level == "bad"
    assert "chmod" in found["files"][0].do
    lines: list[str] = []
    assert not report(examine(settings), lines.append)
    assert any(line.startswith(" bad  broker") for line in lines)
    assert len(lines) < 30, "one page"


def test_the_doctor_notices_a_damaged_database(tmp_path: Path, migrated: Path) -> None:
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    connection = sqlite3.connect(state / "fleet.db")
    sqlite3.connect(migrated).backup(connection)
    connection.execute("PRAGMA journal_mode=DELETE")
    connection.close()
    settings = load_settings(state_dir=state)
    assert {one.level for one in look(settings)["database"]} == {"ok"}
    content = bytearray((state / "fleet.db").read_bytes())
    content[8192:40960] = bytes(32768)
    (state / "fleet.db").write_bytes(content)
    bad = next(one for one in examine(settings) if one.about == "database" and one.level == "bad")
    assert "restore" in bad.do or "broker" in bad.do


def test_a_hangup_takes_over_the_log_level_and_ends_nothing(mosquitto: Mosquitto, tmp_path: Path) -> None:
    file = tmp_path / "fleetd.toml"
    file.write_text('[log]\nlevel = "info"\n')
    fleet = FleetProcess(
        tmp_path,
        FLEETD_CONFIG=str(file),
        FLEETD_BROKER__HOST="127.0.0.1",
        FLEETD_BROKER__PORT=str(mosquitto.port),
    )

    def wait_for(words: str) -> None:
        deadline = time.monotonic() + WAIT_S
        while words not in fleet.log_text():
            assert time.monotonic() < deadline, fleet.log_text()
            time.sleep(0.05)

    with fleet:
        wait_for("fleetd_started")
        file.write_text('[log]\nlevel = "nonsense"\n')
        fleet.send(signal.SIGHUP)
        wait_for("The settings in force stay.")
        file.write_text('[log]\nlevel = "error"\n')
        fleet.send(signal.SIGHUP)
        time.sleep(0.2)
        assert fleet.stop() == 0
    assert "fleetd_stopped" not in fleet.log_text(), "that is no error"
