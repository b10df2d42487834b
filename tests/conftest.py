"""What every test may use. Fixtures of one area live in that area's own conftest."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from fleetd.store import migrate
from fleetd.store.engine import SqlStore
from tests.brokers import AmqttProcess, BrokerProcess, Mosquitto
from tests.postgres import Postgres

# How long an example takes says more about what else the machine does than about the code.
settings.register_profile("fleetd", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("fleetd")

# What is set in somebody's shell must not change what a test sees. Tools may be pointed at.
for _name in [name for name in os.environ if name.startswith("FLEETD_") and name != "FLEETD_TOOLS"]:
    del os.environ[_name]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Spreads the slow tests, which mostly wait, evenly: at the end nobody waits for several in a row."""
    slow = [item for item in items if item.get_closest_marker("slow")]
    rest = [item for item in items if not item.get_closest_marker("slow")]
    share = len(rest) / max(1, len(slow))
    spread: list[pytest.Item] = []
    for place, one in enumerate(slow):
        spread += [one, *rest[int(place * share) : int((place + 1) * share)]]
    items[:] = spread if slow else rest


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


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """One PostgreSQL for all tests that only want a database in it; those that break it make their own."""
    with Postgres() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database of each kind that fleetd supports, in turn."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/fleet.db"
    return str(request.getfixturevalue("postgres").new_database())


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite database with the newest schema, to be copied."""
    file = tmp_path_factory.mktemp("migrated") / "fleet.db"
    store = SqlStore(f"sqlite:///{file}")
    migrate.upgrade(store)
    store.close()
    return file


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database of each kind with the newest schema and nothing in it, in turn."""
    if request.param == "sqlite":
        shutil.copy(request.getfixturevalue("migrated"), tmp_path / "fleet.db")
        return f"sqlite:///{tmp_path}/fleet.db"
    return str(request.getfixturevalue("postgres").migrated_database())
