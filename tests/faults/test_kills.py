"""kill -9 of fleetd, of the broker and of both, while cameras publish numbered results.

After every restart each number must be in the database exactly once. The cameras are the agent's own link and
outbox on real MicroPython. mosquitto runs with a distribution's persistence: written every half hour only.
"""

import random
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.agent.micropython import binary
from tests.brokers import ROOT, AmqttProcess, BrokerProcess, Mosquitto, free_port
from tests.faults.fleet import PASSWORD, Database, FleetProcess

KILLS = 20
CAMERAS = ("cam-1", "cam-2", "cam-3")
SCRIPT = Path(__file__).parent / "device" / "numbers.py"


@contextmanager
def publishing(folder: Path, port: int) -> Iterator[Callable[[], dict[str, int]]]:
    """Cameras that publish until the given function is called, which answers how many numbers each sent."""
    stop_file = folder / "stop"
    cameras = {}
    for name in CAMERAS:
        with (folder / f"{name}.log").open("wb") as log:
            cameras[name] = subprocess.Popen(
                [
                    binary("amd64"),
                    "-X",
                    "heapsize=64m",
                    str(SCRIPT),
                    name,
                    PASSWORD,
                    str(port),
                    str(stop_file),
                ],
                env={"MICROPYPATH": str(ROOT), "PATH": ""},
                cwd=folder,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def finish() -> dict[str, int]:
        stop_file.touch()
        sent = {}
        for name, process in cameras.items():
            output = (folder / f"{name}.log").read_text
            assert process.wait(200) == 0, output()
            words = output().split()
            assert words[:1] == ["sent"], output()
            assert int(words[3]) == 0, f"{name} had to drop messages: {output()}"
            sent[name] = int(words[1])
        return sent

    try:
        yield finish
    finally:
        for process in cameras.values():
            with process:
                process.kill()


def wait_for_progress(database: Database, seconds: float = 150) -> None:
    """Until some more results are stored, so that every kill hits a fleet at work."""
    began, before = time.monotonic(), database.count()
    while database.count() < before + 20:
        assert time.monotonic() - began < seconds, "nothing is being stored any more"
        time.sleep(0.05)


def check(database: Database, sent: dict[str, int]) -> None:
    for name, count in sent.items():
        stored = sorted(database.numbers(name))
        missing = sorted(set(range(1, count + 1)) - set(stored))
        assert not missing, f"{name}: {len(missing)} of {count} are missing, e.g. {missing[:5]}"
        assert len(stored) == count, f"{name}: {len(stored) - count} are stored twice"
    assert database.integrity() == "ok"
    assert sum(sent.values()) > KILLS * 20


def run(tmp_path: Path, port: int, fleet: FleetProcess, kill: Callable[[], None]) -> None:
    database = Database(tmp_path)
    database.enrol(*CAMERAS)
    chance = random.Random()
    with fleet, publishing(tmp_path, port) as finish:
        for _ in range(KILLS):
            wait_for_progress(database)
            time.sleep(chance.uniform(0, 0.4))
            kill()
        sent = finish()
    check(database, sent)
    database.close()
    print(f"{KILLS} kills, {sum(sent.values())} results, each stored once")


@contextmanager
def broker_of(kind: str, tmp_path: Path) -> Iterator[BrokerProcess]:
    chosen = Mosquitto(tmp_path / "broker") if kind == "mosquitto" else AmqttProcess(tmp_path / "broker")
    with chosen as broker:
        yield broker


@pytest.mark.slow
@pytest.mark.timeout(1200)  # a busy machine needs long for twenty restarts
@pytest.mark.parametrize(
    ("kind", "victim"),
    [("mosquitto", "fleetd"), ("mosquitto", "broker"), ("mosquitto", "both"), ("amqtt", "broker")],
)
def test_every_result_is_stored_exactly_once_whatever_is_killed(
    tmp_path: Path, kind: str, victim: str
) -> None:
    with broker_of(kind, tmp_path) as broker:
        fleet = FleetProcess(tmp_path, FLEETD_BROKER__HOST=broker.host, FLEETD_BROKER__PORT=str(broker.port))

        def kill() -> None:
            if victim in ("broker", "both"):
                broker.kill()
            if victim in ("fleetd", "both"):
                fleet.kill()
                fleet.start()
            if victim in ("broker", "both"):
                broker.start()

        run(tmp_path, broker.port, fleet, kill)


@pytest.mark.slow
@pytest.mark.timeout(1200)  # a busy machine needs long for twenty restarts
@pytest.mark.parametrize("mode", ["mosquitto", "amqtt"])  # amqtt dies with fleetd: both are killed at once
def test_fleetd_with_its_own_broker_loses_nothing_when_it_is_killed(tmp_path: Path, mode: str) -> None:
    port = free_port()
    fleet = FleetProcess(tmp_path, FLEETD_BROKER__MODE=mode, FLEETD_BROKER__PORT=str(port))

    def kill() -> None:
        fleet.kill()
        fleet.start()

    run(tmp_path, port, fleet, kill)


def test_a_stop_by_signal_is_clean_and_quick(tmp_path: Path, mosquitto: Mosquitto) -> None:
    database = Database(tmp_path)
    database.enrol(*CAMERAS)
    fleet = FleetProcess(tmp_path, FLEETD_BROKER__HOST="127.0.0.1", FLEETD_BROKER__PORT=str(mosquitto.port))
    with fleet, publishing(tmp_path, mosquitto.port) as finish:
        for _ in range(3):
            wait_for_progress(database)
            began = time.monotonic()
            assert fleet.stop() == 0, fleet.log_text()
            assert time.monotonic() - began < 8
            fleet.start()
        sent = finish()
        assert fleet.stop() == 0
    for name, count in sent.items():
        assert sorted(database.numbers(name)) == list(range(1, count + 1))
    assert "Traceback" not in fleet.log_text()
    database.close()
