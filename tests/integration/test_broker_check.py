"""`fleetd broker check`: good brokers pass, and each flaw is found by using the broker."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fleetd import brokercheck
from fleetd.brokercheck import Account, Broker, check
from fleetd.cli.daemon import app
from tests.attacks.brokers import fleet
from tests.brokers import Mosquitto

ONE, OTHER, READER = Account("one", "x"), Account("other", "x"), Account("reader", "x")


def verdicts(port: int) -> Mapping[str, str]:
    return {one.what: one.verdict for one in check(Broker("127.0.0.1", port, "fleet/v1"), ONE, OTHER, READER)}


def test_fleetds_own_broker_passes_with_accounts_that_come_and_go(tmp_path: Path) -> None:
    with fleet(tmp_path, "mosquitto") as daemon:
        address = f"127.0.0.1:{daemon.host.port}"
        done = subprocess.run(
            [sys.executable, "-m", "fleetd.cli.daemon", "broker", "check", address, "--json"],
            env={**os.environ, "FLEETD_STATE_DIR": str(tmp_path / "state")},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        found = {one["what"]: one for one in json.loads(done.stdout)}
        assert [one for one in found.values() if one["verdict"] != "ok"] == []
        assert done.returncode == 0, done.stderr
        assert "mosquitto" in found["version"]["detail"]
        assert {"strangers", "writing elsewhere", "reading elsewhere", "queue", "packet size"} <= set(found)
        assert daemon.registry.cameras() == []
        assert daemon.accounts.users() == []


def test_a_broker_without_accounts_is_found_out(mosquitto: Mosquitto) -> None:
    found = verdicts(mosquitto.port)
    for what in ("strangers", "writing elsewhere", "reading elsewhere"):
        assert found[what] == "bad"
    for what in ("reachable", "MQTT 5", "packet size", "retaining", "queue"):
        assert found[what] == "ok"


def test_tight_limits_are_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(brokercheck, "SECONDS", 2.0)
    tight = ("max_queued_messages 1000", "max_packet_size 4096", "retain_available false")
    with Mosquitto(tmp_path, *tight) as broker:
        found = verdicts(broker.port)
    assert found["packet size"] == "bad"
    assert found["retained messages"] == "bad"
    assert found["queue"] == "bad"


def test_a_broker_that_is_not_there_is_one_finding() -> None:
    (only,) = check(Broker("127.0.0.1", 1, "fleet/v1"), ONE, OTHER, READER)
    assert (only.what, only.verdict) == ("reachable", "bad")
    assert only.remedy


def test_wrong_words_are_told_what_is_wanted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLEETD_STATE_DIR", str(tmp_path / "state"))
    short = tmp_path / "accounts"
    short.write_text("one x\n")
    for words, complaint in (
        (["nonsense"], "HOST:PORT"),
        (["127.0.0.1:1", "--accounts", str(short)], "three lines"),
        (["127.0.0.1:1", "--accounts", str(tmp_path / "none")], "cannot be read"),
    ):
        done = CliRunner().invoke(app, ["broker", "check", *words])
        assert complaint in str(done.exception)
    monkeypatch.setenv("FLEETD_BROKER__HOST", "10.0.0.1")
    assert "--accounts" in str(CliRunner().invoke(app, ["broker", "check"]).exception)
