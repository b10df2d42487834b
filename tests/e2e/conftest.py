"""What end-to-end tests may use."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.brokers import Mosquitto
from tests.e2e.site import PREFIX, Site, Subscriber


@pytest.fixture
def site(tmp_path: Path, mosquitto: Mosquitto) -> Iterator[Site]:
    site = Site(tmp_path, mosquitto)
    site.start()
    yield site
    site.stop()


@pytest.fixture
def subscriber(mosquitto: Mosquitto) -> Iterator[Callable[[str], Subscriber]]:
    made: list[Subscriber] = []

    def subscribe(topic: str) -> Subscriber:
        made.append(Subscriber(mosquitto.port, f"{PREFIX}/{topic}"))
        return made[-1]

    yield subscribe
    for one in made:
        one.close()
