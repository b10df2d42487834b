"""`fleetd broker init`: a mosquitto beside fleetd, whose accounts fleetd keeps in step."""

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fleetd.accountfiles import reload_site
from fleetd.app import Daemon
from fleetd.certificates import Authority
from fleetd.cli.daemon import app
from fleetd.embedded import answers
from fleetd.settings import load_settings
from tests.attacks.brokers import Client, until
from tests.brokers import free_port, mosquitto_binary


def init(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *more: str) -> tuple[int, str]:
    monkeypatch.setenv("FLEETD_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("FLEETD_BROKER__MOSQUITTO", mosquitto_binary())
    done = CliRunner().invoke(app, ["broker", "init", str(tmp_path / "site"), *more])
    return done.exit_code, done.output + str(done.exception or "")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The plain port of a running mosquitto that was set up by the command."""
    Authority(tmp_path / "state" / "ca").make(["localhost"], time.time())
    port = free_port()
    code, said = init(
        tmp_path, monkeypatch, "--port", str(port), "--tls-port", str(free_port()), "--listen", "127.0.0.1"
    )
    assert code == 0, said
    assert f"port = {port}" in said
    configuration = tmp_path / "site" / "mosquitto.conf"
    import os

    if os.geteuid() == 0:  # it would become another user, who cannot read these files
        configuration.write_text("user root\n" + configuration.read_text())
    with subprocess.Popen(
        [mosquitto_binary(), "-c", str(configuration)], stderr=subprocess.DEVNULL
    ) as process:
        try:
            until(lambda: answers("127.0.0.1", port), "a start")
            yield port
        finally:
            process.terminate()


def test_accounts_of_a_site_mosquitto_follow_the_registry(site: int, tmp_path: Path) -> None:
    settings = load_settings(
        state_dir=tmp_path / "state",
        broker={"host": "127.0.0.1", "port": site, "site": tmp_path / "site"},
        http={"port": 0},
    )
    with Daemon(settings) as daemon:
        assert daemon.link.ready, daemon.link.last_error
        _, secret = daemon.registry.enrol("cam-1", actor="test")
        until(lambda: (tmp_path / "site" / "passwords").read_text().count("cam-1:") == 1)

        def inside() -> bool:
            with Client(daemon, "cam-1", secret) as camera:
                return camera.inside

        until(inside, "the new account")
        with Client(daemon, "cam-1", secret) as camera:
            daemon.registry.revoke("cam-1", actor="test")
            assert camera.closed.wait(60), "it was not cut off"
        assert not inside()


def test_the_configuration_has_every_limit_in_numbers(site: int, tmp_path: Path) -> None:
    lines = (tmp_path / "site" / "mosquitto.conf").read_text().splitlines()
    for expected in (
        *("allow_anonymous false", "persistence true", "autosave_on_changes true", "max_packet_size 131072"),
        *("max_queued_messages 1000000", "max_inflight_messages 1000", "tls_version tlsv1.2"),
        f"acl_file {tmp_path}/site/acl",
    ):
        assert expected in lines
    assert lines.count("use_username_as_clientid true") == 2, "for each listener"
    unit = (tmp_path / "site" / "fleet-mosquitto.service").read_text()
    assert f"-c {tmp_path}/site/mosquitto.conf" in unit
    assert "ExecReload=/bin/kill -HUP $MAINPID" in unit


def test_nothing_is_overwritten_and_tls_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, said = init(tmp_path, monkeypatch)
    assert code != 0
    assert "fleetd ca init" in said
    assert not (tmp_path / "site").exists()
    code, said = init(tmp_path, monkeypatch, "--plain")
    assert code == 0
    assert "listener 1883 0.0.0.0" in (tmp_path / "site" / "mosquitto.conf").read_text()
    code, said = init(tmp_path, monkeypatch, "--plain")
    assert code != 0
    assert "exists already" in said


def test_a_signal_goes_to_that_mosquitto_or_to_nobody(tmp_path: Path) -> None:
    reload_site(tmp_path)  # it does not run
    import os

    (tmp_path / "mosquitto.pid").write_text(str(os.getpid()))
    reload_site(tmp_path)  # another program has that number: we would not be here any more
    (tmp_path / "mosquitto.pid").write_text("nonsense")
    reload_site(tmp_path)
