"""Slots, pointer copies and the boot decision; files that are made once and never grow."""

import struct
from binascii import crc32
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from camera_agent import crypto, regions, volume
from camera_agent.decision import ATTEMPTS, FALLBACK_ATTEMPTS, decide
from camera_agent.pointer import (
    FALLBACK,
    NO_MARK,
    REASONS,
    Pointer,
    decode_pointer,
    encode_pointer,
    newest,
    release_mark,
)
from camera_agent.regions import AGENT_BYTES, StorageError
from camera_agent.slots import CONTENT_OFFSET, ContentCheck, Slots
from camera_agent.words import UPDATE_REASONS
from tests.agent.update_kit import BLOCK, MemoryFiles, Release, Signer, make_release, weights

SIGNER = Signer()
KEYS = crypto.keyring([SIGNER.public])
CONTENT = weights(10_000)
RELEASE = make_release(SIGNER, "model-1", CONTENT, 5)


class Facts(NamedTuple):
    epoch: int
    sequence: int
    mark: bytes


# --- pointer records --------------------------------------------------------------------------------------


def pointer(**fields: Any) -> Any:
    return Pointer().but(**fields)


POINTERS = st.builds(
    lambda slots, fields: pointer(confirmed=slots[0], trial=slots[1], **fields),
    st.sampled_from([(0, 0), (1, 0), (2, 0), (0, 1), (0, 2), (1, 2), (2, 1)]),
    st.fixed_dictionaries(
        {
            "counter": st.integers(1, 2**32 - 2),
            "attempts": st.integers(0, 9),
            "flags": st.sampled_from([0, FALLBACK]),
            "epoch": st.integers(0, 3),
            "sequence": st.integers(0, 2**32 - 1),
            "failed": st.sampled_from([NO_MARK, release_mark("model-1"), release_mark("model-2")]),
            "why": st.integers(0, len(REASONS) - 1),
            "generation": st.integers(0, 2**53 - 1),
        }
    ),
)


@given(POINTERS)
def test_a_pointer_record_reads_back_as_it_was_written(record: Any) -> None:
    raw = encode_pointer(record)
    assert len(raw) == 64
    assert decode_pointer(raw) == record
    assert decode_pointer(raw + bytes(BLOCK - 64)) == record, "the rest of its block does not matter"


def test_the_pointer_record_has_the_documented_bytes() -> None:
    record = pointer(
        counter=7,
        confirmed=1,
        trial=2,
        attempts=1,
        flags=1,
        epoch=3,
        sequence=9,
        failed=release_mark("x"),
        why=2,
        generation=2**40,
    )
    body = b"FPT1" + struct.pack("<IBBBBII", 7, 1, 2, 1, 1, 3, 9) + release_mark("x")
    body += bytes([2, 0, 0, 0]) + struct.pack("<Q", 2**40)
    body += bytes(60 - len(body))
    assert encode_pointer(record) == body + struct.pack("<I", crc32(body))


@given(POINTERS, st.integers(0, 64 * 8 - 1))
def test_no_single_flipped_bit_leaves_a_valid_record(record: Any, bit: int) -> None:
    raw = bytearray(encode_pointer(record))
    raw[bit // 8] ^= 1 << bit % 8
    assert decode_pointer(raw) is None


@given(st.binary(max_size=80))
def test_arbitrary_bytes_are_no_pointer(raw: bytes) -> None:
    assert decode_pointer(raw) is None


def test_blank_flash_is_no_pointer() -> None:
    assert decode_pointer(bytes(BLOCK)) is None
    assert decode_pointer(b"\xff" * BLOCK) is None


def test_a_record_that_names_impossible_slots_is_no_pointer() -> None:
    for fields in ({"confirmed": 3}, {"trial": 3}, {"confirmed": 1, "trial": 1}):
        assert decode_pointer(encode_pointer(pointer(counter=1, **fields))) is None


@given(POINTERS, st.integers(0, 63), st.integers(1, 255), st.booleans())
def test_whichever_copy_is_damaged_the_other_one_counts(
    record: Any, at: int, change: int, first: bool
) -> None:
    older, newer = record, record.but(counter=record.counter + 1, attempts=3)
    copies = [bytearray(encode_pointer(older)), bytearray(encode_pointer(newer))]
    assert newest(*map(decode_pointer, copies)) == 1
    assert newest(*map(decode_pointer, reversed(copies))) == 0
    copies[0 if first else 1][at] ^= change
    assert newest(*map(decode_pointer, copies)) == (1 if first else 0)


def test_without_a_valid_copy_there_is_no_pointer() -> None:
    assert newest(None, None) is None


def test_words_for_a_reverted_trial_are_words_of_the_contract() -> None:
    assert set(REASONS) <= set(UPDATE_REASONS)
    assert REASONS[:4] == ("trial-crashed", "trial-hung", "model-load-failed", "labels-mismatch"), (
        "cameras in the field hold these positions"
    )


# --- the boot decision ------------------------------------------------------------------------------------

OLD = Facts(1, 4, release_mark("old"))
NEW = Facts(1, 5, release_mark("new"))


def look(a: Any, b: Any) -> Callable[[int], Any]:
    return {1: a, 2: b}.get


def decided(record: Any, a: Any, b: Any) -> Any:
    return decide(record, look(a, b))


def test_the_confirmed_slot_runs_and_nothing_is_written() -> None:
    decision = decided(pointer(confirmed=1, epoch=1, sequence=4), OLD, NEW)
    assert (decision.use, decision.trial, decision.pointer, decision.problem) == (1, False, None, None)


def test_the_floor_never_binds_the_confirmed_slot() -> None:
    assert decided(pointer(confirmed=1, epoch=9, sequence=9), OLD, None).use == 1


@pytest.mark.parametrize("attempts", [0, 1])
def test_a_trial_starts_with_its_attempt_counted_first(attempts: int) -> None:
    decision = decided(pointer(confirmed=1, trial=2, attempts=attempts), OLD, NEW)
    assert (decision.use, decision.trial) == (2, True)
    assert decision.pointer.attempts == attempts + 1


def test_a_trial_that_started_twice_is_reverted_and_remembered() -> None:
    decision = decide(pointer(confirmed=1, trial=2, attempts=ATTEMPTS), look(OLD, NEW), "trial-hung")
    assert (decision.use, decision.trial) == (1, False)
    assert decision.ended == (2, "reverted", "trial-hung")
    assert decision.wipe == 2
    assert (decision.pointer.trial, decision.pointer.failed) == (0, NEW.mark)
    assert REASONS[decision.pointer.why] == "trial-hung"


def test_a_damaged_trial_is_dropped_but_may_be_sent_again() -> None:
    decision = decided(pointer(confirmed=1, trial=2), OLD, None)
    assert (decision.use, decision.trial) == (1, False)
    assert decision.ended == (2, "failed", "digest-mismatch")
    assert decision.pointer.failed == NO_MARK


def test_a_trial_below_the_floor_does_not_run() -> None:
    decision = decided(pointer(confirmed=1, trial=2, epoch=1, sequence=6), OLD, NEW)
    assert (decision.use, decision.trial) == (1, False)
    assert decision.ended == (2, "failed", "sequence-too-old")


def test_a_damaged_confirmed_slot_is_stood_in_for_by_the_other_one() -> None:
    decision = decided(pointer(confirmed=2, epoch=1, sequence=5), OLD, None)
    assert (decision.use, decision.trial, decision.problem) == (1, True, "slot-damaged")
    assert decision.pointer.flags & FALLBACK
    assert decision.pointer.attempts == 1
    again = decided(decision.pointer, OLD, None)
    assert (again.use, again.trial) == (1, True), "the floor does not bind a fallback"


def test_a_fallback_survives_more_power_cuts_than_a_trial_but_not_endless_crashes() -> None:
    record = pointer(confirmed=2)
    boots = 0
    while (decision := decided(record, OLD, None)).use:
        record = decision.pointer
        boots += 1
        assert boots <= FALLBACK_ATTEMPTS
    assert boots == FALLBACK_ATTEMPTS
    assert decision.ended == (1, "reverted", "trial-crashed")


def test_a_confirmed_slot_that_reads_well_again_runs_again() -> None:
    decision = decided(pointer(confirmed=2, trial=1, attempts=1, flags=FALLBACK), OLD, NEW)
    assert (decision.use, decision.trial, decision.pointer.trial) == (2, False, 0)


def test_a_release_that_failed_its_trial_never_stands_in() -> None:
    decision = decided(pointer(confirmed=2, failed=OLD.mark), OLD, None)
    assert (decision.use, decision.problem) == (0, "slot-damaged")


def test_with_nothing_valid_the_camera_runs_without_a_model() -> None:
    assert decided(None, None, None).problem == "no-model"
    assert decided(None, None, None).use == 0
    assert decided(pointer(), None, None).use == 0
    decision = decided(pointer(confirmed=1), None, None)
    assert (decision.use, decision.problem) == (0, "slot-damaged")


def test_a_lost_pointer_leaves_the_older_slot_which_has_proven_itself() -> None:
    for a, b, use in ((OLD, NEW, 1), (NEW, OLD, 2), (OLD, OLD, 1)):
        decision = decided(None, a, b)
        assert (decision.use, decision.trial, decision.problem) == (use, False, "pointer-lost")
        assert (decision.pointer.confirmed, decision.pointer.sequence) == (use, 4)


def test_a_lost_pointer_and_a_single_slot_are_a_trial() -> None:
    decision = decided(None, None, NEW)
    assert (decision.use, decision.trial, decision.pointer.attempts) == (2, True, 1)


FACTS = st.none() | st.builds(
    Facts,
    st.integers(1, 2),
    st.integers(1, 6),
    st.sampled_from([release_mark("model-1"), release_mark("model-2"), release_mark("model-3")]),
)


@settings(max_examples=500)
@given(st.none() | POINTERS, FACTS, FACTS)
@example(pointer(confirmed=1, trial=2, attempts=2), OLD, None)
def test_every_decision_keeps_its_promises(record: Any, a: Any, b: Any) -> None:
    facts = {1: a, 2: b}
    decision = decide(record, facts.get)
    then = decision.pointer or record or Pointer()
    if decision.use:
        assert facts[decision.use] is not None, "only what is in order runs"
    if record and record.confirmed and facts[record.confirmed]:
        assert decision.use, "a good confirmed slot is never left without a model"
        assert decision.use in (record.confirmed, record.trial)
        assert then.confirmed == record.confirmed, "only confirm moves it"
    if decision.trial:
        assert decision.pointer is not None
        assert then.trial == decision.use
        assert 1 <= then.attempts <= FALLBACK_ATTEMPTS, "counted before it runs"
        if not then.flags & FALLBACK:
            assert facts[decision.use][:2] >= (then.epoch, then.sequence)
    else:
        assert then.trial == 0
    if record:
        assert (then.epoch, then.sequence) == (record.epoch, record.sequence), "only confirm raises the floor"
    assert not decision.wipe or decision.wipe not in (then.confirmed, then.trial)
    assert decode_pointer(encode_pointer(then)) == then


@settings(max_examples=300)
@given(st.none() | POINTERS, FACTS, FACTS)
def test_crashing_at_every_boot_always_ends_in_something_that_is_no_trial(
    record: Any, a: Any, b: Any
) -> None:
    facts = {1: a, 2: b}
    for _ in range(2 * FALLBACK_ATTEMPTS + ATTEMPTS + 2):
        decision = decide(record, facts.get)
        record = decision.pointer or record
        if decision.wipe:
            facts[decision.wipe] = None
        if not decision.trial:
            return
    raise AssertionError("a crash loop without end")


# --- slots on storage -------------------------------------------------------------------------------------


def slots_on(files: MemoryFiles) -> Any:
    made = Slots(files, KEYS, bytearray(BLOCK))
    made.read_pointer()
    return made


def write_slot(slots: Any, release: Release) -> int:
    """Puts a release into the spare slot the way an update does, and answers which one that was."""
    slots.wipe(slots.spare)
    for at in range(0, len(release.content), BLOCK):
        slots.write_content(at, release.content[at : at + BLOCK].ljust(BLOCK, b"\0"))
    slots.sync_content()
    slots.finish(release.blob)
    number: int = slots.spare
    return number


def test_a_written_slot_reads_back_as_the_release_it_holds() -> None:
    slots = slots_on(MemoryFiles())
    number = write_slot(slots, RELEASE)
    slot = slots.check_slot(number)
    assert (slot.release, slot.epoch, slot.sequence) == ("model-1", 1, 5)
    assert (slot.digest, slot.manifest_digest) == (RELEASE.digest, RELEASE.manifest_digest)
    data = bytearray(slot.content.size)
    assert slot.content.readinto(0, memoryview(data)) == len(CONTENT)
    assert bytes(data) == CONTENT


def test_a_slot_lies_where_the_description_says() -> None:
    files = MemoryFiles()
    write_slot(slots_on(files), RELEASE)
    assert files.slot_a
    raw = files.slot_a.settled
    head = struct.pack("<4sIII", b"FSL1", len(RELEASE.blob), crc32(RELEASE.blob), 0)
    assert raw[: 16 + len(RELEASE.blob)] == head + RELEASE.blob
    assert raw[CONTENT_OFFSET : CONTENT_OFFSET + len(CONTENT)] == CONTENT


@pytest.mark.parametrize("size", [4080, 4081, 5000, 8176, 8177, 8192])
def test_a_long_manifest_is_written_with_its_header_last(size: int) -> None:
    files = MemoryFiles()
    slots = slots_on(files)
    bare = len(make_release(SIGNER, "model-1", CONTENT, 5, mood="").blob)
    release = make_release(SIGNER, "model-1", CONTENT, 5, mood="x" * (size - bare))
    assert len(release.blob) == size
    number = write_slot(slots, release)
    assert files.slot_a
    assert files.slot_a.writes[-1] == (0, BLOCK)
    assert all(offset % BLOCK == 0 for offset, _ in files.slot_a.writes), "whole erase blocks"
    assert slots.check_slot(number).manifest_digest == release.manifest_digest


def test_content_is_read_within_its_bounds_only() -> None:
    slots = slots_on(MemoryFiles())
    content = slots.check_slot(write_slot(slots, RELEASE)).content
    view = memoryview(bytearray(100))
    assert content.readinto(len(CONTENT) - 10, view) == 10
    assert content.readinto(len(CONTENT), view) == 0
    assert content.readinto(-1, view) == 0


@pytest.mark.parametrize("at", [0, 3, 5, 9, 16, 20, 100, 700])
def test_a_damaged_header_or_manifest_makes_the_slot_invalid(at: int) -> None:
    files = MemoryFiles()
    slots = slots_on(files)
    number = write_slot(slots, RELEASE)
    assert files.slot_a
    files.slot_a.settled[at] ^= 0x10
    assert slots.read_slot(number) is None


def test_damaged_content_makes_the_slot_invalid_only_when_it_is_hashed() -> None:
    files = MemoryFiles()
    slots = slots_on(files)
    number = write_slot(slots, RELEASE)
    assert files.slot_a
    for at in (0, 4095, 4096, len(CONTENT) - 1):
        files.slot_a.settled[CONTENT_OFFSET + at] ^= 1
        assert slots.read_slot(number) is not None
        assert slots.check_slot(number) is None
        files.slot_a.settled[CONTENT_OFFSET + at] ^= 1
    assert slots.check_slot(number) is not None


def test_a_slot_signed_by_someone_else_is_invalid_whatever_its_crc_says() -> None:
    files = MemoryFiles()
    slots = slots_on(files)
    number = write_slot(slots, make_release(Signer(99), "model-1", CONTENT))
    assert slots.read_slot(number) is None


def test_a_slot_that_cannot_be_read_is_invalid() -> None:
    files = MemoryFiles()
    slots = slots_on(files)
    number = write_slot(slots, RELEASE)
    assert files.slot_a
    files.slot_a.broken = True
    assert slots.check_slot(number) is None


def test_the_spare_slot_is_never_the_confirmed_one() -> None:
    slots = slots_on(MemoryFiles())
    assert slots.spare == 1
    slots.write_pointer(pointer(confirmed=1))
    assert slots.spare == 2
    slots.write_pointer(pointer(confirmed=2))
    assert slots.spare == 1


@pytest.mark.parametrize("fields", [{"confirmed": 1}, {"confirmed": 2, "trial": 1}])
def test_what_the_pointer_names_cannot_be_wiped(fields: dict[str, int]) -> None:
    slots = slots_on(MemoryFiles())
    slots.write_pointer(pointer(**fields))
    with pytest.raises(StorageError):
        slots.wipe(1)


def test_wiping_a_slot_without_a_header_costs_no_erase() -> None:
    files = MemoryFiles()
    slots = slots_on(files)
    slots.wipe(1)
    assert files.slot_a
    assert files.slot_a.writes == []


def test_the_pointer_is_written_to_the_copy_that_does_not_count() -> None:
    files = MemoryFiles()
    slots = slots_on(files)
    for n in range(1, 6):
        slots.write_pointer(pointer(confirmed=1, sequence=n))
        assert files.pointer_0
        assert files.pointer_1
        copies = [decode_pointer(files.pointer_0.settled), decode_pointer(files.pointer_1.settled)]
        assert [copy.sequence for copy in copies if copy] == sorted(
            [copy.sequence for copy in copies if copy], reverse=n % 2 == 1
        )
        assert slots_on(files).pointer.sequence == n
        assert slots_on(files).pointer.counter == n


def test_the_life_of_a_trial_on_storage() -> None:
    files = MemoryFiles()
    slots = slots_on(files)
    number = write_slot(slots, RELEASE)
    slots.set_trial(3)
    slots.count_attempt()
    seen = slots_on(files).pointer
    assert (seen.confirmed, seen.trial, seen.attempts, seen.generation) == (0, number, 1, 3)
    slots.confirm(slots.read_slot(number))
    seen = slots_on(files).pointer
    assert (seen.confirmed, seen.trial, seen.attempts) == (number, 0, 0)
    assert (seen.epoch, seen.sequence) == (1, 5)


def test_the_floor_never_falls() -> None:
    slots = slots_on(MemoryFiles())
    slots.write_pointer(pointer(epoch=2, sequence=1))
    number = write_slot(slots, RELEASE)
    slots.set_trial(1)
    slots.confirm(slots.read_slot(number))
    assert (slots.pointer.epoch, slots.pointer.sequence) == (2, 1)


def test_a_reverted_release_is_remembered_with_its_reason_until_another_goes_on_trial() -> None:
    files = MemoryFiles()
    slots = slots_on(files)
    number = write_slot(slots, RELEASE)
    slots.set_trial(1)
    slots.revert(slots.read_slot(number), "labels-mismatch")
    again = slots_on(files)
    assert again.failed_before("model-1") == "labels-mismatch"
    assert again.failed_before("model-2") is None
    again.set_trial(2)
    assert again.failed_before("model-1") is None


def test_a_broken_pointer_copy_does_not_hide_the_other() -> None:
    files = MemoryFiles()
    slots = slots_on(files)
    slots.write_pointer(pointer(confirmed=1, sequence=1))
    slots.write_pointer(pointer(confirmed=1, sequence=2))
    assert files.pointer_1
    files.pointer_1.broken = True
    assert slots_on(files).pointer.sequence == 1
    files.pointer_0 = None
    assert slots_on(files).pointer is None


def test_missing_regions_leave_no_room_and_no_slots() -> None:
    files = MemoryFiles()
    slots = slots_on(files)
    assert slots.capacity == 65536
    files.slot_b = None
    slots = slots_on(files)
    assert slots.capacity == 0
    assert slots.read_slot(2) is None
    with pytest.raises(StorageError):
        slots.wipe(2)


def test_the_content_check_reads_one_buffer_a_step() -> None:
    slots = slots_on(MemoryFiles())
    slot = slots.read_slot(write_slot(slots, RELEASE))
    check = ContentCheck(slot.content, slot.digest, bytearray(BLOCK))
    assert [check.step() for _ in range(3)] == [True, True, False]
    assert check.ok is True


# --- files ------------------------------------------------------------------------------------------------


def test_files_are_made_once_padded_and_keep_their_size(tmp_path: Path) -> None:
    files = regions.open_files(str(tmp_path), 10**9, slot_bytes=100_000)
    assert files.problem is None
    sizes = {path.name: path.stat().st_size for path in (tmp_path / "fleet").iterdir()}
    assert sizes == {  # one block more than is used
        "fence.bin": 8192,
        "slot_a.bin": 106_496,
        "slot_b.bin": 106_496,
        "stage.bin": 106_496,
        "pointer_0.bin": 8192,
        "pointer_1.bin": 8192,
        "boot_0.bin": 8192,
        "boot_1.bin": 8192,
        "agent_a.bin": AGENT_BYTES + 4096,
        "agent_b.bin": AGENT_BYTES + 4096,
    }
    assert files.slot_a.size == 102_400
    assert files.pointer_0.size == 4096
    files.slot_a.write(4096, b"kept" * 1024)
    files.slot_a.sync()
    files.close()
    files = regions.open_files(str(tmp_path), 10**9, slot_bytes=200_000)
    assert files.slot_a.size == 102_400, "settled once"
    view = memoryview(bytearray(4))
    assert files.slot_a.readinto(4096, view) == 4
    assert bytes(view) == b"kept"
    files.close()


def test_the_room_is_shared_when_nobody_says_how_much(tmp_path: Path) -> None:
    files = regions.open_files(str(tmp_path), 4 * 1024 * 1024)
    assert files.slot_a.size == files.slot_b.size == files.stage.size
    assert 1_200_000 < files.slot_a.size < 1_400_000
    files.close()


@pytest.mark.parametrize("free", [0, 100_000, 128 * 1024])
def test_a_volume_that_is_too_small_is_said_so_and_left_alone(tmp_path: Path, free: int) -> None:
    files = regions.open_files(str(tmp_path), free)
    assert files.problem == "not-enough-storage"
    assert files.slot_a is None
    assert list((tmp_path / "fleet").iterdir()) == []


class FullVolume:
    """Replaces open(): files on a volume with room for `room` bytes."""

    def __init__(self, room: int) -> None:
        self.room = room

    def __call__(self, path: str, mode: str, buffering: int = -1) -> Any:
        file = Path(path).open(mode, buffering)  # noqa: SIM115 (handed on to the caller)
        return LimitedFile(file, self)


class LimitedFile:
    def __init__(self, file: Any, volume: FullVolume) -> None:
        self._file = file
        self._volume = volume

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> "LimitedFile":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, data: bytes) -> int:
        if self._file.tell() + len(data) > Path(self._file.name).stat().st_size:
            self._volume.room -= len(data)
            if self._volume.room < 0:
                raise OSError(28, "No space left on device")
        written: int = self._file.write(data)
        self._file.flush()
        return written


@pytest.mark.parametrize("room", [0, 50_000, 130_000, 300_000])
def test_a_disk_that_runs_full_while_files_are_made_keeps_nothing_of_them(
    tmp_path: Path, room: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(volume, "open", FullVolume(room), raising=False)
    files = regions.open_files(str(tmp_path), 10**9, slot_bytes=100_000)
    assert files.problem == "not-enough-storage"
    assert (files.slot_a, files.stage, files.pointer_0) == (None, None, None)
    assert list((tmp_path / "fleet").iterdir()) == []


def test_a_lost_file_on_a_full_disk_leaves_the_others_in_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    regions.open_files(str(tmp_path), 10**9, slot_bytes=100_000).close()
    (tmp_path / "fleet" / "stage.bin").unlink()
    monkeypatch.setattr(volume, "open", FullVolume(0), raising=False)
    files = regions.open_files(str(tmp_path), 0)
    assert files.problem == "not-enough-storage"
    assert files.stage is None
    assert not (tmp_path / "fleet" / "stage.bin").exists()
    assert files.slot_a.size == files.slot_b.size == 102_400
    files.close()
    monkeypatch.undo()
    files = regions.open_files(str(tmp_path), 0)
    assert (files.problem, files.stage.size) == (None, 102_400)
    files.close()


def test_files_that_were_cut_while_being_made_are_completed(tmp_path: Path) -> None:
    (tmp_path / "fleet").mkdir()
    (tmp_path / "fleet" / "slot_a.bin").write_bytes(bytes(5000))
    files = regions.open_files(str(tmp_path), 10**9, slot_bytes=100_000)
    assert files.problem is None
    assert files.slot_a.size == 102_400
    files.close()


def test_the_watchdog_is_fed_while_files_are_made(tmp_path: Path) -> None:
    fed = []
    regions.open_files(str(tmp_path), 10**9, slot_bytes=100_000, feed=lambda: fed.append(1)).close()
    assert len(fed) == 3 * 26 + 3 * 2 + 2 * 2 + 2 * (AGENT_BYTES // 4096 + 1)


def test_a_region_refuses_to_write_past_its_end(tmp_path: Path) -> None:
    region = volume.allocate(str(tmp_path / "x"), 8192)
    region.write(4096, bytes(4096))
    for offset, size in ((4096, 8192), (8192, 4096), (-4096, 4096)):
        with pytest.raises(StorageError) as caught:
            region.write(offset, bytes(size))
        assert caught.value.reason == "not-enough-storage"
    for offset, size in ((0, 100), (100, 4096)):
        with pytest.raises(ValueError, match="whole blocks"):
            region.write(offset, bytes(size))
    assert (tmp_path / "x").stat().st_size == 12288
    region.close()


def test_a_file_that_shrank_behind_our_back_is_a_storage_error(tmp_path: Path) -> None:
    region = volume.allocate(str(tmp_path / "x"), 8192)
    (tmp_path / "x").write_bytes(b"")
    with pytest.raises(StorageError):
        region.readinto(0, memoryview(bytearray(10)))
    region.close()


def test_a_folder_that_is_not_there_is_a_problem_not_an_accident(tmp_path: Path) -> None:
    files = regions.open_files(str(tmp_path / "nowhere"), 10**9)
    assert files.problem == "storage-error"
    assert files.slot_a is None
