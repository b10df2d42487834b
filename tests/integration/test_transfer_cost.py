"""benchmarks/transfer.py in small: fleetd sends one copy of a release, however many cameras take it."""

import asyncio
from pathlib import Path

from benchmarks.transfer import by_fleetd, by_request
from tests.brokers import Mosquitto


def test_fleetd_sends_one_copy_and_a_server_that_is_asked_sends_one_to_each(
    mosquitto: Mosquitto, tmp_path: Path
) -> None:
    size, cameras = 120 * 1024, 8
    found = asyncio.run(by_fleetd(mosquitto.port, cameras, size, tmp_path))
    assert found["copies"] <= 1.1
    assert found["control_bytes_out"] < 400 * cameras
    asked = asyncio.run(by_request(mosquitto.port, cameras, size))
    assert asked["copies"] > cameras
