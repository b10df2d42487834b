"""Cameras whose supply fails while their agent is updated: on raw flash of both kinds, and in padded files.

bench = AgentBench("raw 4 KB", folder)
case = bench.prepare("update")                  # brings it to where that begins, and counts the operations
bench.judge(case, [Cut(17, HALF, seed)])        # Verdict.OK, or what is wrong
"""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from camera_agent import boot
from camera_agent.rawflash import open_raw, open_tail
from tests.agent import flash_sim, update_kit
from tests.agent.agent_kit import AgentCamera, agent_release
from tests.agent.cut_bench import SIGNER, SLOT_BYTES, Cut, RomReader, Verdict, stock_image
from tests.agent.flash_sim import AFTER, HALF, TORN, Firmware, Flash
from tests.agent.update_kit import MemoryFiles

ONE: Final = agent_release(SIGNER, "agent-1", 1, 6_000)
TWO: Final = agent_release(SIGNER, "agent-2", 2, 6_500)
BENCHES: Final = ("agent, raw 4 KB", "agent, raw 128 KB", "agent, padded files")
SCENARIOS: Final = ("first agent", "update", "hangs", "crashes at every start")
STARTS: Final = 8  # of the last scenario
PARTITION: Final = 4 * 1024 * 1024
STOCK: Final = 5_000


class Case(NamedTuple):
    """A scenario, the medium before it, and how many operations it takes uncut."""

    scenario: str
    medium: Any
    operations: int


class RawAgentCamera(AgentCamera):
    """Its boot records and slots are in flash."""

    def __init__(self, firmware: Firmware, marker: Path) -> None:
        super().__init__(SIGNER, object())
        self.firmware = firmware
        self._marker = marker

    def choose(self) -> None:
        tail = open_tail(self.firmware, self.firmware)
        assert tail is not None
        boot.choose_from(tail, self.facts, self.hal.cause, lambda *_: True)
        self.files = open_raw(self.firmware, self.firmware, str(self._marker), SLOT_BYTES)
        assert self.files is not None


class AgentBench:
    """One backend."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self._marker = folder / "agent-raw.bin"
        self.flash: Flash | None = None
        self.hows: Sequence[Any] = ("lost", "kept", "half", "swapped", "after")
        if name == BENCHES[2]:
            self.camera = AgentCamera(SIGNER, MemoryFiles(SLOT_BYTES, 3 * 4096).agent_slots(12288 + 8192))
            return
        self.hows = (HALF, TORN, AFTER)
        erase = 4096 if name == BENCHES[0] else 128 * 1024
        self.flash = Flash(PARTITION, erase, -(-STOCK // erase) * erase)
        self.camera = RawAgentCamera(Firmware(self.flash, "block", RomReader), self._marker)

    def _fresh(self) -> None:
        if self.flash is None:
            for region in self.camera.files.medium.regions:
                region.settled[:] = bytes(region.size)
        else:
            self.flash.data[:] = b"\xff" * PARTITION
            self.flash.data[:STOCK] = stock_image(STOCK)
            self._marker.unlink(missing_ok=True)

    def supply(self, cut: Cut | None) -> None:
        medium: Any = self.flash or self.camera.files.medium
        medium.power_on(*(cut or ())[: 3 if self.flash else 2])

    def operations(self) -> int:
        done: int = (self.flash or self.camera.files.medium).operations
        return done

    def _save(self) -> Any:
        if self.flash is not None:
            return bytes(self.flash.data)
        return [bytes(region.settled) for region in self.camera.files.medium.regions]

    def _load(self, medium: Any) -> None:
        if self.flash is not None:
            self.flash.data[:] = medium
            return
        for region, data in zip(self.camera.files.medium.regions, medium, strict=True):
            region.settled[:] = data

    def _act(self, scenario: str) -> None:
        camera = self.camera
        if scenario == "crashes at every start":
            for _ in range(STARTS):
                camera.again("watchdog")
            return
        camera.again("power-on").prove()
        if scenario != "hangs":
            camera.change_agent(TWO)
            return
        camera.broker.publish(TWO)
        camera.want(TWO, 2).run()
        for _ in range(3):
            camera.again("watchdog")
        camera.prove()

    def prepare(self, scenario: str) -> Case:
        """Bring the camera to where the scenario begins, and run it once without a cut."""
        self._fresh()
        self.supply(None)
        camera = self.camera
        camera.again("power-on").prove()
        if scenario != "first agent":
            camera.change_agent(ONE, 1)
            assert camera.again().prove().running == ONE.id
        medium = self._save()
        self.supply(None)
        self._act(scenario)
        return Case(scenario, medium, self.operations())

    def cuts(self, case: Case, seed: int) -> list[Cut]:
        """Every operation in every way."""
        return [Cut(at, how, seed + at) for at in range(1, case.operations + 1) for how in self.hows]

    def judge(self, case: Case, cuts: Sequence[Cut]) -> Verdict:
        """Run the scenario again and again, cut off each time, then say what the camera is worth."""
        self._load(case.medium)
        camera = self.camera
        for cut in cuts:
            self.supply(cut)
            with contextlib.suppress(flash_sim.PowerCut, update_kit.PowerCut):
                self._act(case.scenario)
        self.supply(None)
        camera.again("power-on")
        old = None if case.scenario == "first agent" else ONE.id
        desperate = case.scenario == "crashes at every start" and camera.facts["safe"]
        if camera.running not in (old, TWO.id) and not desperate:
            return Verdict.NO_MODEL
        camera.prove().reports.clear()
        for _ in range(3):  # from safe mode, too
            camera.change_agent(TWO, 9)
            if camera.reports and camera.last()[0] in ("confirmed", "rejected"):
                break
        ended = camera.last()
        running = camera.again("power-on").running
        if ended == ("confirmed", None):
            return Verdict.OK if running == TWO.id else Verdict.STUCK
        # A trial that started too often before the cut is refused for good.
        return Verdict.OK if ended[0] == "rejected" and running == old else Verdict.STUCK
