"""Slots in flash without files: what is refused, what is left alone, what survives a power cut."""

import itertools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from camera_agent import crypto, engine, hal
from camera_agent.rawflash import Flash as RawFlash
from camera_agent.rawflash import RawRegion, Stage, open_raw, plan, stage_head, stock_bytes
from camera_agent.regions import StorageError
from camera_agent.slots import Slots
from tests.agent.cut_bench import (
    ONE,
    PATCHED,
    SCENARIOS,
    SIGNER,
    TWO,
    RawBench,
    RawCamera,
    RomReader,
    Scenario,
    Verdict,
    judge,
    prepare,
    single_cuts,
    stock_image,
)
from tests.agent.flash_sim import BASE, Firmware, Flash, MisuseError
from tests.agent.micropython import Arch, run_device
from tests.agent.update_kit import lay_out, make_release, weights

KB = 1024
MB = 1024 * KB
DEVICE = Path(__file__).parent / "device"


@pytest.fixture(autouse=True)
def _every_signature_is_checked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    judged: dict[tuple[bytes, bytes], bool] = {}
    verify = crypto.verify

    def remembered(key: bytes, signature: memoryview, digest: bytes) -> bool:
        what = (bytes(signature), bytes(digest))
        if what not in judged:
            judged[what] = verify(key, signature, digest)
        return judged[what]

    monkeypatch.setattr(crypto, "verify", remembered)


def board(size: int, erase: int, stock: int, flavour: str = "block") -> Firmware:
    """A partition with the firmware's own content in it."""
    flash = Flash(size, erase, -(-stock // erase) * erase)
    flash.data[:stock] = stock_image(stock)
    return Firmware(flash, flavour, RomReader)


def opened(firmware: Firmware, folder: Path, slot_bytes: int | None = None) -> Any:
    return open_raw(firmware, firmware, str(folder / "raw.bin"), slot_bytes)


# --- which partitions are used ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "stock", "least"),
    [(8 * MB, 900 * KB, 2 * MB), (4 * MB, 900 * KB, 800 * KB), (24 * MB, 3 * MB, 6 * MB)],
    ids=["RT1062", "Arduino", "N6"],
)
def test_the_tail_of_a_large_partition_becomes_three_equal_parts(
    tmp_path: Path, size: int, stock: int, least: int
) -> None:
    files = opened(board(size, 4096, stock), tmp_path)
    assert files.problem is None
    assert files.slot_a.size == files.slot_b.size == files.stage.size >= least


@pytest.mark.parametrize(
    "firmware",
    [
        board(8 * MB, 4096, 900 * KB, "none"),
        board(8 * MB, 4096, 900 * KB, "old"),
        board(128 * KB, 128 * KB, 60 * KB, "mapped"),
        board(256 * KB, 4096, 100 * KB),
    ],
    ids=["no partition", "no partial erase", "one sector", "too small"],
)
def test_other_partitions_are_left_to_the_firmware(tmp_path: Path, firmware: Firmware) -> None:
    before = bytes(firmware.flash.data)
    assert opened(firmware, tmp_path) is None
    assert firmware.flash.data == before
    assert not (tmp_path / "raw.bin").exists()


def test_content_of_an_unknown_kind_is_left_alone(tmp_path: Path) -> None:
    firmware = board(8 * MB, 4096, 0)
    firmware.flash.data[:4] = b"\x7fELF"
    assert opened(firmware, tmp_path) is None
    firmware.flash.data[:4] = b"\xff\xff\xff\xff"
    assert opened(firmware, tmp_path) is not None, "nothing lies there"


def test_slots_have_the_size_that_the_settings_ask_for_or_there_are_none(tmp_path: Path) -> None:
    firmware = board(4 * MB, 4096, 900 * KB)
    assert opened(firmware, tmp_path, 2 * MB) is None
    assert opened(firmware, tmp_path, 100_000).slot_a.size == 25 * 4096
    assert opened(firmware, tmp_path, 2 * MB).slot_a.size == 25 * 4096, "settled at the first start"


@given(
    size=st.integers(1, 400).map(lambda n: n * 64 * KB),
    erase=st.sampled_from([4096, 64 * KB, 128 * KB]),
    stock=st.integers(0, 4 * MB),
    slot_bytes=st.none() | st.integers(1, 8 * MB),
)
def test_no_layout_reaches_into_what_is_not_ours(
    size: int, erase: int, stock: int, slot_bytes: int | None
) -> None:
    flash = RawFlash(firmware := Firmware(Flash(64 * KB, erase, 0), "mapped", RomReader), firmware)
    flash.size = size
    layout = plan(flash, stock, slot_bytes)
    if layout is None:
        return
    assert layout.start >= stock + size // 16
    assert layout.start % erase == layout.slot % erase == layout.stage % erase == layout.record % erase == 0
    assert layout.start + 2 * erase == layout.slots
    assert layout.slots + 2 * layout.slot + erase == layout.stage
    assert layout.stage + layout.slot <= (layout.scratch or layout.record) <= layout.record
    assert layout.end <= layout.record
    assert layout.record + erase <= size - 512
    assert layout.slot > 12288
    assert slot_bytes is None or layout.slot >= slot_bytes


@pytest.mark.parametrize("size", [7, 100, 16_383, 16_384, 900_000])
def test_the_size_of_the_firmwares_content_is_read_from_its_header(size: int) -> None:
    firmware = board(4 * MB, 4096, size)
    assert stock_bytes(RawFlash(firmware, firmware)) == size


# --- what a firmware upgrade does -------------------------------------------------------------------------


def test_slots_outlive_an_upgrade_that_leaves_them_room(tmp_path: Path) -> None:
    bench = RawBench(tmp_path, "block", 4096)
    bench.fresh()
    camera = bench.camera.boot().install(ONE)
    bench._stock(12_000)
    assert camera.boot().model() == (ONE.id, ONE.content)
    assert camera.updater.status()["problems"] == []


@pytest.mark.parametrize("erase", [4096, 128 * KB])
def test_an_upgrade_that_takes_the_slots_is_told_and_they_are_filled_again(
    tmp_path: Path, erase: int
) -> None:
    bench = RawBench(tmp_path, "mapped", erase)
    bench.fresh()
    camera = bench.camera.boot().install(ONE)
    bench.upgrade()
    camera.boot()
    assert camera.model() is None
    assert "storage-reset" in camera.updater.status()["problems"]
    assert camera.install(TWO, 2).boot().model() == (TWO.id, TWO.content)
    assert "storage-reset" not in camera.updater.status()["problems"]


def test_an_upgrade_that_erases_the_whole_partition_is_told_too(tmp_path: Path) -> None:
    firmware = board(MB, 4096, 9000)
    camera = RawCamera(firmware, tmp_path / "raw.bin")
    camera.boot().install(ONE)
    firmware.flash.data[9000:] = b"\xff" * (MB - 9000)
    assert "storage-reset" in camera.boot().updater.status()["problems"]


def test_a_lost_layout_record_alone_costs_nothing(tmp_path: Path) -> None:
    firmware = board(MB, 4096, 9000)
    camera = RawCamera(firmware, tmp_path / "raw.bin")
    camera.boot().install(ONE)
    at = firmware.flash.data.rindex(b"FRL2")
    firmware.flash.data[at + 9] ^= 4
    assert camera.boot().model() == (ONE.id, ONE.content)


def test_a_formatted_volume_does_not_touch_the_slots(tmp_path: Path) -> None:
    firmware = board(MB, 4096, 9000)
    camera = RawCamera(firmware, tmp_path / "raw.bin")
    camera.boot().install(ONE)
    (tmp_path / "raw.bin").unlink()
    assert camera.boot().model() == (ONE.id, ONE.content)
    assert (tmp_path / "raw.bin").exists()


# --- regions ----------------------------------------------------------------------------------------------


def region_of(erase: int, blocks: int) -> tuple[Flash, Any]:
    firmware = board((4 + -(-blocks * 4096 // erase)) * erase, erase, 7, "mapped")
    flash = RawFlash(firmware, firmware)
    size = -(-blocks * 4096 // erase) * erase
    scratch = 2 * erase + size if erase > 4096 else None
    flash.erase(erase)
    flash.program(erase, stage_head(erase, size))
    return firmware.flash, Stage(flash, 2 * erase, size, scratch)


@settings(max_examples=60, deadline=None)
@given(
    erase=st.sampled_from([4096, 16 * KB]),
    writes=st.lists(st.tuples(st.integers(0, 7), st.integers(1, 2), st.integers(0, 255)), max_size=25),
)
def test_a_stage_keeps_what_was_written_to_it_in_any_order(
    erase: int, writes: list[tuple[int, int, int]]
) -> None:
    _, stage = region_of(erase, 8)
    expected = bytearray(b"\xff" * stage.size)
    for block, count, fill in writes:
        if (block + count) * 4096 > stage.size:
            continue
        data = bytes([fill, 255 - fill]) * (count * 2048)
        stage.write(block * 4096, data)
        expected[block * 4096 : block * 4096 + len(data)] = data
    got = bytearray(stage.size)
    assert stage.readinto(0, memoryview(got)) == len(got)
    assert got == expected
    assert stage.stream().read() == bytes(expected)


def test_reading_stops_at_the_end_of_a_region() -> None:
    _, stage = region_of(4096, 2)
    assert stage.readinto(8192, memoryview(bytearray(10))) == 0
    assert stage.readinto(-1, memoryview(bytearray(10))) == 0
    assert stage.readinto(8190, memoryview(bytearray(10))) == 2


def test_only_whole_blocks_inside_the_region_are_written() -> None:
    flash, stage = region_of(4096, 2)
    with pytest.raises(ValueError, match="whole blocks"):
        stage.write(1, bytes(4096))
    with pytest.raises(ValueError, match="whole blocks"):
        stage.write(0, bytes(1))
    with pytest.raises(StorageError):
        stage.write(8192, bytes(4096))
    assert flash.erases == 1, "only the stage's head was written"


def test_flash_that_does_not_keep_what_is_written_is_a_storage_error(monkeypatch: pytest.MonkeyPatch) -> None:
    flash, stage = region_of(4096, 2)
    monkeypatch.setattr(flash, "_page", lambda at, page: None)
    with pytest.raises(StorageError, match="storage-error") as caught:
        stage.write(0, bytes(4096))
    assert "read back" in caught.value.detail


@pytest.mark.parametrize("flavour", ["block", "mapped"])
def test_flash_that_refuses_is_a_storage_error(flavour: str, monkeypatch: pytest.MonkeyPatch) -> None:
    firmware = board(MB, 4096, 7, flavour)
    region = RawRegion(RawFlash(firmware, firmware), 8192, 8192)

    def refuse(*_: object) -> int:
        if flavour == "block":
            raise OSError(5, "EIO")
        return -5

    if flavour == "block":
        monkeypatch.setattr(firmware.rom_ioctl(2, 0), "writeblocks", refuse)
    else:
        monkeypatch.setattr(region._flash, "_ioctl", refuse)
    with pytest.raises(StorageError, match="storage-error"):
        region.write(0, bytes(4096))


@settings(deadline=None)
@given(st.sampled_from([4096, 128 * KB]), st.integers(1, 600).map(lambda n: n * 4096))
def test_the_head_of_a_stage_is_a_complete_image(erase: int, size: int) -> None:
    head = stage_head(erase, size)
    assert len(head) == 32
    image = RomReader(bytearray(head) + bytearray(erase - 32 + size))
    assert image._end == erase + size
    kinds = []
    at = image._start
    while at < image._end:
        kind, _, at = image._record(at)
        kinds.append(kind)
    assert kinds == [5, 1]
    assert at == image._end
    assert len(image.open("/s", "rb").read()) == size


# --- the camera's side ------------------------------------------------------------------------------------


@pytest.mark.parametrize("flavour", ["block", "mapped"])
def test_the_model_is_used_where_it_lies(
    tmp_path: Path, flavour: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    firmware = board(MB, 4096, 9000, flavour)
    camera = RawCamera(firmware, tmp_path / "raw.bin").boot()
    camera.install(ONE)
    mounted: list[Any] = []
    fake = ModuleType("vfs")
    fake.VfsRom = lambda view: view  # type: ignore[attr-defined] # a module is what models.py imports
    fake.mount = lambda image, _path: mounted.append(image)  # type: ignore[attr-defined] # as above
    fake.umount = lambda _path: None  # type: ignore[attr-defined] # as above
    monkeypatch.setitem(sys.modules, "vfs", fake)
    monkeypatch.setitem(sys.modules, "uctypes", ModuleType("uctypes"))
    content = camera.updater.model_to_use().content
    assert engine._mount(fake, content, lambda: None) is mounted[0]
    assert bytes(mounted[0]) == ONE.content
    at = firmware.flash.data.find(ONE.content[:64])
    firmware.flash.data[at] ^= 255
    assert bytes(mounted[0]) != ONE.content, "it is a copy"


def test_a_camera_uses_flash_unless_it_has_its_slots_in_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    firmware = board(8 * MB, 4096, 900 * KB)
    monkeypatch.setattr(hal, "firmware", lambda name: firmware if name in ("vfs", "uctypes") else None)
    monkeypatch.setattr(hal.time, "ticks_ms", lambda: 0, raising=False)
    monkeypatch.setattr(hal.Hal, "_open_leds", lambda _self: [])
    monkeypatch.setattr(hal, "Eye", lambda _ticks: None)
    camera = hal.Hal(str(tmp_path))
    assert isinstance(camera.open_regions(None).slot_a, RawRegion)
    assert camera.storage_info()["backend"] == "raw"
    (tmp_path / "fleet" / "pointer_0.bin").write_bytes(bytes(8192))
    camera = hal.Hal(str(tmp_path))
    files = camera.open_regions(80 * KB)
    assert not isinstance(files.slot_a, RawRegion)
    assert camera.storage_info()["backend"] == "flash"
    files.close()


def test_an_update_wears_a_block_no_more_than_twice(tmp_path: Path) -> None:
    firmware = board(MB, 4096, 9000)
    camera = RawCamera(firmware, tmp_path / "raw.bin").boot()
    camera.install(ONE).install(TWO, 2)
    before = firmware.flash.erases
    camera.install(PATCHED, 3)
    stage = sum(len(encoding.blocks) for encoding in PATCHED.encodings if encoding.kind == "deflate")
    content = -(-len(PATCHED.content) // 4096)
    # wipe and header share a block, the pointer changes three times
    assert firmware.flash.erases - before <= stage + content + 2 + 3 + 1


# --- power cuts -------------------------------------------------------------------------------------------


def sample(bench: RawBench, scenario: Scenario, stride: int, depth: int = 1) -> Iterator[Verdict]:
    case = prepare(bench, scenario)
    every = single_cuts(bench, case, seed=case.operations)
    runs = itertools.product(*[every] * depth)
    for run in itertools.islice(runs, 0, None, stride):
        yield judge(bench, case, run)


@pytest.mark.parametrize("erase", [4096, 128 * KB])
@pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=lambda scenario: scenario.name)
def test_after_a_cut_there_is_the_old_or_the_new_model(
    tmp_path: Path, scenario: Scenario, erase: int
) -> None:
    """Every eleventh; tests/faults/power_cuts.py tries all."""
    bench = RawBench(tmp_path, "block" if erase == 4096 else "mapped", erase)
    verdicts = list(sample(bench, scenario, 11))
    assert set(verdicts) == {Verdict.OK}
    assert len(verdicts) > 30


@pytest.mark.parametrize("erase", [4096, 128 * KB])
def test_a_second_cut_costs_nothing_either(tmp_path: Path, erase: int) -> None:
    verdicts = sample(RawBench(tmp_path, "block", erase), SCENARIOS["patch"], 997, depth=2)
    assert set(verdicts) == {Verdict.OK}


def test_the_verdict_sees_a_pointer_without_a_second_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A judge that finds nothing wrong proves nothing. With the only pointer gone the slots still say what was
    confirmed, so both protections have to go before a model is lost."""
    write = Slots.write_pointer

    def always_the_same(self: Any, pointer: Any) -> None:
        self._next_copy = 0
        write(self, pointer)

    monkeypatch.setattr(Slots, "write_pointer", always_the_same)
    check = Slots.check_slot
    monkeypatch.setattr(Slots, "check_slot", lambda self, *args: check(self, *args) if self.pointer else None)
    assert Verdict.NO_MODEL in sample(RawBench(tmp_path, "block", 4096), SCENARIOS["full encoding"], 1)


def test_the_verdict_sees_slots_that_are_not_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing but the header's place in the order of writes, and then not even that."""

    def finish_first(self: Any, number: int) -> None:
        self._regions[number].write(0, bytes(4096))

    bench = RawBench(tmp_path, "block", 4096)
    monkeypatch.setattr(Slots, "spare", property(lambda self: 1))  # the confirmed one may be overwritten
    monkeypatch.setattr(Slots, "wipe", finish_first)
    assert Verdict.NO_MODEL in sample(bench, SCENARIOS["full encoding"], 7)


def test_the_flash_forgives_nothing() -> None:
    flash = Flash(64 * KB, 4096, 8192)
    flash.program(8192, bytes(16))
    misuses: list[Callable[[], object]] = [
        lambda: flash.program(8192, b"\x01" * 16),
        lambda: flash.program(12288, b"\0"),
        lambda: flash.program(12289, bytes(16)),
        lambda: flash.program(4096, bytes(16)),
        lambda: flash.erase(4096),
        lambda: flash.erase(8193),
        lambda: flash.erase(60 * KB),
        lambda: flash.read(64 * KB - 512, 1),
        lambda: Firmware(flash, "mapped", None).rom_ioctl(3, 0, 4096),
    ]
    for misuse in misuses:
        with pytest.raises(MisuseError):
            misuse()
    with pytest.raises(TypeError):
        Firmware(flash, "block", None).addressof(b"")
    assert Firmware(flash, "block", None).bytearray_at(BASE + 8192, 16) == bytes(16)


@pytest.mark.parametrize(
    ("arch", "flavour", "erase", "stride"),
    [("i386", "block", 4096, 7), ("amd64", "mapped", 128 * KB, 17)],
    ids=["4 KB", "128 KB"],
)
def test_on_micropython_a_cut_leaves_the_old_or_the_new_model(
    tmp_path: Path, arch: Arch, flavour: str, erase: int, stride: int
) -> None:
    """With the interpreter's own VfsRom and deflate, a full encoding and a patch."""
    base = weights(9_000, seed=1)
    releases = [ONE, make_release(SIGNER, "model-2", base[:-9] + b"all other", 2, base=base), TWO_LATER]
    lay_out(tmp_path, SIGNER, releases)
    named = [word for release in releases for word in (release.id, release.digest)]
    script = DEVICE / "check_raw_cuts.py"
    heap = "4m" if erase == 4096 else "16m"  # the flash is in it
    words = [str(tmp_path), flavour, str(erase), str(stride), *named]
    done = run_device(arch, script, *words, heapsize=heap, timeout=550, paths=[Path(__file__).parent])
    said = done.stdout.split()
    assert int(said[1]) > 60
    assert said[2:] == ["none", "0", "stuck", "0"]


TWO_LATER = make_release(SIGNER, "model-3", weights(3 * 4096, seed=3), 3)
