"""`fleetctl simulate` against a running fleetd: everything said is stored, and nothing is left behind."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from tests.brokers import Mosquitto
from tests.faults.fleet import FleetProcess


def test_simulated_cameras_lose_nothing_in_a_storm_and_are_removed_afterwards(
    mosquitto: Mosquitto, tmp_path: Path
) -> None:
    fleet = FleetProcess(tmp_path, FLEETD_BROKER__HOST="127.0.0.1", FLEETD_BROKER__PORT=str(mosquitto.port))

    def fleetctl(*words: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "fleetd.cli", *words],
            env={
                **os.environ,
                "FLEETCTL_URL": json.loads((tmp_path / "state" / "endpoint.json").read_text())["url"],
                "FLEETCTL_TOKEN_FILE": str(tmp_path / "state" / "admin.token"),
            },
            capture_output=True,
            text=True,
            check=False,
            timeout=250,
        )

    with fleet:
        deadline = time.monotonic() + 60
        while "fleetd_started" not in fleet.log_text():
            assert time.monotonic() < deadline, fleet.log_text()
            time.sleep(0.1)
        ran = fleetctl(
            *(
                "simulate",
                "--cameras",
                "8",
                "--seconds",
                "4",
                "--results",
                "0.3",
                "--storm",
                "--bad",
                "0.1",
                "--json",
            )
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr
        found = json.loads(ran.stdout)
        assert found["without_receipt"] == 0
        assert found["stored"] == found["sent"] > 30
        assert found["connects"] >= 8
        assert json.loads(fleetctl("cameras", "list", "--json").stdout) == []
        wrong = fleetctl("simulate", "--broker", "nonsense")
        assert (wrong.returncode, "HOST:PORT" in wrong.stderr) == (2, True), wrong.stderr
        assert fleet.stop() == 0
