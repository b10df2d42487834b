"""Credentials are where they have to be and nowhere else."""

import os
import subprocess
import sys
from pathlib import Path

import httpx

from fleetd.store.engine import SqlStore
from fleetd.worker import _group
from tests.attacks.brokers import until
from tests.brokers import mosquitto_binary
from tests.faults.fleet import FleetProcess


def command_lines() -> str:
    """How every process on this machine was started."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            found.append((folder / "cmdline").read_text(errors="replace"))
        except OSError:
            continue
    return "\n".join(found)


def test_no_credential_is_in_a_log_a_command_line_or_an_answer(tmp_path: Path) -> None:
    state = tmp_path / "state"
    fleet = FleetProcess(
        tmp_path,
        FLEETD_BROKER__PORT="0",
        FLEETD_BROKER__MOSQUITTO=mosquitto_binary(),
        FLEETD_LOG__LEVEL="debug",
    )
    with fleet:
        until(lambda: (state / "admin.token").exists() and "fleetd_started" in fleet.log_text(), "a start")
        environment = {**os.environ, "FLEETD_STATE_DIR": str(state), "NO_COLOR": "1"}

        def fleetctl(*words: str) -> str:
            done = subprocess.run(
                [sys.executable, "-m", "fleetd.cli", *words],
                env=environment,
                cwd=tmp_path,
                capture_output=True,
                text=True,
                check=True,
            )
            return done.stdout

        import json

        secrets = {
            "camera": json.loads(fleetctl("cameras", "add", "cam-1", "--json"))["secret"],
            "rotated": json.loads(fleetctl("cameras", "rotate-secret", "cam-1", "--json"))["secret"],
            "person": json.loads(fleetctl("mqtt-users", "add", "desk", "--json"))["password"],
            "token": (state / "admin.token").read_text().strip(),
            "own": (state / "broker" / "fleetd.password").read_text().strip(),
        }
        url = json.loads((state / "endpoint.json").read_text())["url"] + "/api/v1"
        seen = {"log": "", "command lines": command_lines(), "answers": ""}
        with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {secrets['token']}"}) as client:
            schema = client.get("/openapi.json").json()
            asked = [path.removeprefix("/api/v1") for path, how in schema["paths"].items() if "get" in how]
            assert len(asked) > 15
            for path in asked:
                answer = client.get(path.replace("{name}", "cam-1"))
                seen["answers"] += answer.text + str(answer.headers)
            seen["answers"] += client.get("/cameras", headers={"Authorization": "Bearer wrong"}).text
        fleet.stop()
    seen["log"] = fleet.log_text() + (state / "broker" / "mosquitto.log").read_text()
    for database in state.glob("fleet.db*"):
        seen[database.name] = database.read_bytes().decode("latin-1")
    for file in ("passwords", "acl", "mosquitto.conf"):
        seen[file] = (state / "broker" / file).read_text()
    assert "cam-1:$7$" in seen["passwords"], "the account is there"
    for what, secret in secrets.items():
        assert len(secret) >= 40
        for where, text in seen.items():
            assert secret not in text, f"the {what}'s secret is in {where}"
    for path in (state / "broker" / "passwords", state / "broker" / "fleetd.password", state / "admin.token"):
        assert path.stat().st_mode & 0o777 == 0o600


def test_the_group_of_a_shared_subscription_cannot_be_guessed(tmp_path: Path) -> None:
    """Whoever joins it on mosquitto swallows messages, also without the right to read them."""
    stores = [SqlStore(f"sqlite:///{tmp_path}/{name}.db") for name in ("a", "b")]
    from fleetd.store import migrate

    names = []
    for store in stores:
        migrate.upgrade(store)
        names.append(_group(store))
        assert _group(store) == names[-1], "every worker of one installation joins the same"
        store.close()
    assert names[0] != names[1]
    assert len(names[0]) >= 32
