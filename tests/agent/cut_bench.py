"""Cameras whose supply fails: the same updates on raw flash and on padded files, a cut at any operation, a verdict.

bench = RawBench(folder, "block", 4096)          # or FilesBench()
case = bench.prepare(SCENARIOS["full"])          # installs what was there before and counts the operations
bench.judge(case, [Cut(17, HALF, seed)])         # Verdict.OK, or what is wrong
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from io import BytesIO
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

from camera_agent.rawflash import open_raw
from tests.agent import flash_sim, update_kit
from tests.agent.flash_sim import AFTER, BEFORE, HALF, TORN, Firmware, Flash
from tests.agent.update_kit import Camera, MemoryFiles, Release, Signer, make_release, retrained, weights

SIGNER: Final = Signer()
V1: Final = weights(9_000, seed=1)
ONE: Final = make_release(SIGNER, "model-1", V1, 1)
TWO: Final = make_release(SIGNER, "model-2", weights(9_500, seed=2), 2, notes="x" * 5000)
PATCHED: Final = make_release(SIGNER, "model-3", retrained(V1), 3, base=V1)
SLOT_BYTES: Final = 12288 + 3 * 4096

Model = tuple[str, bytes] | None


# --- what is done to a camera -----------------------------------------------------------------------------


def _update(camera: Camera, release: Release) -> None:
    camera.want(release, 2).run().classify().run()


def _fail(camera: Camera, release: Release) -> None:
    camera.want(release, 2).run()
    camera.updater.trial_failed("labels-mismatch", None)


def _crash(camera: Camera, release: Release) -> None:
    camera.want(release, 2).run()
    camera.boot().boot().boot()


def _cancel(camera: Camera, release: Release) -> None:
    camera.want(release, 2).run()
    camera.want(None, 3).run()


@dataclass(frozen=True)
class Scenario:
    """`before` is installed, then `act` is done with `new`; the supply fails meanwhile."""

    name: str
    act: Callable[[Camera, Release], None]
    new: Release
    before: tuple[Release, ...] = (ONE,)
    upgraded: bool = False  # a firmware upgrade has rewritten the partition before

    @property
    def old(self) -> Model:
        """What the camera has to go on with until the new model has proved itself."""
        return (self.before[-1].id, self.before[-1].content) if self.before and not self.upgraded else None


SCENARIOS: Final = {
    scenario.name: scenario
    for scenario in (
        Scenario("first install", _update, TWO, before=()),
        Scenario("full encoding", _update, TWO),
        Scenario("patch", _update, PATCHED),
        Scenario("trial fails", _fail, TWO),
        Scenario("trial crashes", _crash, TWO),
        Scenario("trial cancelled", _cancel, TWO),
        Scenario("after a firmware upgrade", _update, TWO, upgraded=True),
    )
}


class Cut(NamedTuple):
    """At the `at`th operation of a run, in one of the medium's ways."""

    at: int
    how: Any
    seed: int = 1


class Verdict(StrEnum):
    """What became of a camera."""

    OK = "ok"
    NO_MODEL = "no working model"
    STUCK = "the update does not finish"


@dataclass
class Case:
    """A scenario on a bench: the medium before it, and how many operations it takes uncut."""

    scenario: Scenario
    medium: Any
    operations: int


# --- media ------------------------------------------------------------------------------------------------


class Bench(Protocol):
    """A camera on a medium that can lose its supply."""

    name: str
    hows: Sequence[Any]  # ways in which an operation can be cut, all different from one another
    first_hows: Sequence[Any]  # further ones for the very first operation
    supports_upgrade: bool

    @property
    def camera(self) -> Camera: ...
    def supply(self, cut: Cut | None) -> None: ...
    def operations(self) -> int: ...
    def save(self) -> Any: ...
    def load(self, medium: Any) -> None: ...
    def fresh(self) -> None: ...
    def upgrade(self) -> None: ...


class RomReader:
    """Stands in for vfs.VfsRom: finds a file at the top of a ROMFS image. Follows the format's description."""

    def __init__(self, image: Any) -> None:
        self._image = memoryview(image)
        if bytes(self._image[:3]) != b"\xd2\xcd\x31":
            raise OSError(19, "no ROMFS")
        _, self._start, self._end = self._record(0)
        if self._end > len(self._image):
            raise OSError(19, "the image is cut off")

    def _number(self, at: int) -> tuple[int, int]:
        number = 0
        while True:
            number = number << 7 | self._image[at] & 127
            at += 1
            if self._image[at - 1] < 128:
                return number, at

    def _record(self, at: int) -> tuple[int, int, int]:
        kind, at = self._number(at)
        length, at = self._number(at)
        return kind, at, at + length

    def open(self, path: str, mode: str) -> BytesIO:
        assert mode == "rb"
        at = self._start
        while at < self._end:
            kind, start, at = self._record(at)
            if kind != 5:
                continue
            length, start = self._number(start)
            if bytes(self._image[start : start + length]).decode() != path.removeprefix("/"):
                continue
            kind, start, end = self._record(start + length)
            if kind == 2:
                return BytesIO(bytes(self._image[start:end]))
            size, start = self._number(start)
            offset, _ = self._number(start)
            assert kind == 3
            assert self._start + offset + size <= self._end
            return BytesIO(bytes(self._image[self._start + offset : self._start + offset + size]))
        raise OSError(2, path)


def stock_image(size: int) -> bytes:
    """The firmware's own ROMFS, `size` bytes in all."""
    if not size:
        return b""
    length = size - 7
    return (
        b"\xd2\xcd\x31"
        + bytes([128 | length >> n & 127 for n in (21, 14, 7)])
        + bytes([length & 127] + [0] * length)
    )


class RawCamera(Camera):
    """A camera whose regions are in flash."""

    def __init__(self, firmware: Firmware, marker: Path, slot_bytes: int | None = SLOT_BYTES) -> None:
        super().__init__(SIGNER, object())
        self.firmware = firmware
        self._marker = marker
        self._slot_bytes = slot_bytes

    def boot(self) -> "RawCamera":
        self.files = open_raw(self.firmware, self.firmware, str(self._marker), self._slot_bytes)
        assert self.files is not None, "it does without the flash"
        super().boot()
        return self


class RawBench:
    """The tail of a ROMFS partition. `flavour`: "block" or "mapped" (see flash_sim.Firmware)."""

    hows: Sequence[Any] = (HALF, TORN, AFTER)
    first_hows: Sequence[Any] = (BEFORE,)
    supports_upgrade = True

    def __init__(self, folder: Path, flavour: str, erase: int) -> None:
        self.name = f"raw, erase blocks of {erase // 1024} KB"
        small = erase == 4096
        self._stocks = (5_000, 18_000 if small else 140_000)
        self._marker = folder / "raw.bin"
        self.flash = Flash(128 * 1024 if small else 12 * erase, erase, 0)
        self._camera = RawCamera(Firmware(self.flash, flavour, RomReader), self._marker)

    @property
    def camera(self) -> Camera:
        return self._camera

    def fresh(self) -> None:
        self.flash.data[:] = b"\xff" * len(self.flash.data)
        self._stock(self._stocks[0])
        self._marker.unlink(missing_ok=True)

    def _stock(self, size: int) -> None:
        self.flash.data[:size] = stock_image(size)
        self.flash.stock = -(-size // self.flash.erase_bytes) * self.flash.erase_bytes

    def upgrade(self) -> None:
        self._stock(self._stocks[1])

    def supply(self, cut: Cut | None) -> None:
        self.flash.power_on(*(cut or ()))

    def operations(self) -> int:
        return self.flash.operations

    def save(self) -> Any:
        return bytes(self.flash.data), self.flash.stock, self._marker.exists()

    def load(self, medium: Any) -> None:
        self.flash.data[:], self.flash.stock, marked = medium
        if marked:
            self._marker.touch()
        else:
            self._marker.unlink(missing_ok=True)


class FilesBench:
    """Padded files on a medium that holds writes back, tears them and changes their order."""

    name = "padded files"
    hows: Sequence[Any] = ("lost", "kept", "half", "swapped", "after")
    first_hows: Sequence[Any] = ()
    supports_upgrade = False

    def __init__(self) -> None:
        self._camera = Camera(SIGNER, MemoryFiles(SLOT_BYTES, 3 * 4096))

    @property
    def camera(self) -> Camera:
        return self._camera

    def fresh(self) -> None:
        for region in self._camera.files.medium.regions:
            region.settled[:] = bytes(region.size)

    def upgrade(self) -> None:
        raise NotImplementedError

    def supply(self, cut: Cut | None) -> None:
        if cut:
            self._camera.files.medium.power_on(cut.at, cut.how)
        else:
            self._camera.files.medium.power_on()

    def operations(self) -> int:
        done: int = self._camera.files.medium.operations
        return done

    def save(self) -> Any:
        return [bytes(region.settled) for region in self._camera.files.medium.regions]

    def load(self, medium: Any) -> None:
        for region, data in zip(self._camera.files.medium.regions, medium, strict=True):
            region.settled[:] = data


# --- the verdict ------------------------------------------------------------------------------------------


def prepare(bench: Bench, scenario: Scenario) -> Case:
    """Bring the camera to where the scenario begins, and run it once without a cut."""
    bench.fresh()
    bench.supply(None)
    camera = bench.camera
    camera.boot()
    for n, release in enumerate(scenario.before):
        camera.install(release, n)
    if not scenario.before:
        bench.fresh()  # so that laying it out is part of the scenario
    if scenario.upgraded:
        bench.upgrade()
    for release in (ONE, TWO, PATCHED):
        camera.broker.publish(release)
    medium = bench.save()
    bench.supply(None)
    camera.boot()
    scenario.act(camera, scenario.new)
    return Case(scenario, medium, bench.operations())


def judge(bench: Bench, case: Case, cuts: Sequence[Cut]) -> Verdict:
    """Run the scenario again and again, cut off each time, then say what the camera is worth."""
    scenario, camera = case.scenario, bench.camera
    bench.load(case.medium)
    for cut in cuts:
        bench.supply(cut)
        try:
            camera.boot()
            scenario.act(camera, scenario.new)
        except (flash_sim.PowerCut, update_kit.PowerCut):
            pass
    bench.supply(None)
    camera.boot()
    new: Model = (scenario.new.id, scenario.new.content)
    if camera.model() not in (scenario.old, new):
        return Verdict.NO_MODEL
    camera.reports.clear()
    camera.want(scenario.new, 9).run().classify().run()
    ended = camera.last()
    model = camera.boot().model()
    if ended == ("confirmed", None):
        return Verdict.OK if model == new else Verdict.STUCK
    # A trial that was started too often, or had failed before the cut, is refused for good.
    return Verdict.OK if ended[0] == "rejected" and model == scenario.old else Verdict.STUCK


def single_cuts(bench: Bench, case: Case, seed: int) -> list[Cut]:
    """Every operation in every way."""
    made = [Cut(1, how, seed) for how in bench.first_hows]
    made += [Cut(at, how, seed + at) for at in range(1, case.operations + 1) for how in bench.hows]
    return made
