"""What every test may use. Fixtures of one area live in that area's own conftest."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.brokers import AmqttProcess, BrokerProcess, Mosquitto

# How long an example takes says more about what else the machine does than about the code.
settings.register_profile("fleetd", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("fleetd")

# What is set in somebody's shell must not change what a test sees. Tools may be pointed at.
for _name in [name for name in os.environ if name.startswith("FLEETD_") and name != "FLEETD_TOOLS"]:
    del os.environ[_name]


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[Mosquitto]:
    """A running mosquitto with a distribution's persistence; construct `Mosquitto` for other settings."""
    with Mosquitto(tmp_path / "mosquitto") as broker:
        yield broker


@pytest.fixture
def amqtt_broker(tmp_path: Path) -> Iterator[AmqttProcess]:
    """A running amqtt."""
    with AmqttProcess(tmp_path / "amqtt") as broker:
        yield broker


@pytest.fixture(params=["mosquitto", "amqtt"])
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[BrokerProcess]:
    """Each broker that fleetd starts by itself, in turn."""
    chosen: BrokerProcess = Mosquitto(tmp_path) if request.param == "mosquitto" else AmqttProcess(tmp_path)
    with chosen:
        yield chosen
