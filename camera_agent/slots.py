"""Two slots for a release's content and the two-copy pointer that says which one counts.

Slot:    0: b"FSL1" | u32 manifest length | u32 crc32(manifest) | u32 0, 16: the signed manifest, 12288: content.
         The header's sector is the last thing written and the first thing wiped.
Pointer: 64 bytes, little endian: b"FPT1" | u32 counter | u8 confirmed (0 none, 1 a, 2 b) | u8 trial | u8 attempts |
         u8 flags (1: the trial is a fallback) | u32 floor epoch | u32 floor sequence | 16 bytes: mark of the release
         that failed its trial last (zero: none) | u8 why (index into REASONS) | 3 zero | u32 generation of the trial |
         zero | u32 crc32 of all before. Two copies, written in turn; the valid one with the higher counter wins.

Two decisions are pure: `newest` (which pointer copy counts) and `decide` (what to run at boot).

RAM BUDGET: the caller's 4 KB buffer for hashing; while a manifest is read from a slot its bytes (at most 8 KB) and
what json.loads makes of them, of which everything but the encodings stays with the Slot object.
"""

import hashlib
import struct
from binascii import crc32

from camera_agent import crypto, protocol
from camera_agent.manifest import HEADER_BYTES, ManifestError, digest_of, open_manifest
from camera_agent.regions import BLOCK, StorageError

CONTENT_OFFSET = 12288
ATTEMPTS = 2  # how often a trial may start before it is reverted
FALLBACK_ATTEMPTS = 8  # nothing stands behind a fallback: a few unlucky power cuts must not cost the last model
POINTER_BYTES = 64
FALLBACK = 1  # flag: the trial stands in for a damaged confirmed slot, so the floor does not bind it

# Why a trial was reverted; the position is what storage keeps, so words are only ever appended.
REASONS = (
    "trial-crashed",
    "trial-hung",
    "model-load-failed",
    "labels-mismatch",
    "golden-mismatch",
    "inference-too-slow",
    "out-of-memory",
    "unsupported-op",
    "boot-loop",
    "low-power",
)

_SLOT_MAGIC = b"FSL1"
_SLOT_HEADER = "<4sIII"
_SLOT_HEADER_BYTES = 16
_POINTER_MAGIC = b"FPT1"
_POINTER = "<4sIBBBBII16sBBBBI"
_POINTER_BODY = 60
_NO_MARK = bytes(16)


def release_mark(release):
    """The 16 bytes by which the pointer remembers a release id."""
    return crypto.sha256(release.encode())[:16]


# --- pointer ----------------------------------------------------------------------------------------------


class Pointer:
    """One pointer record. Treated as a value: `but()` makes a changed copy."""

    FIELDS = ("counter", "confirmed", "trial", "attempts", "flags", "epoch", "sequence", "failed", "why", "generation")

    def __init__(self):
        self.counter = self.confirmed = self.trial = self.attempts = self.flags = 0
        self.epoch = self.sequence = self.why = self.generation = 0
        self.failed = _NO_MARK

    def but(self, **changes):
        """A copy with these fields changed."""
        copy = Pointer()
        for name in self.FIELDS:
            setattr(copy, name, changes.get(name, getattr(self, name)))
        return copy

    def __eq__(self, other):
        return isinstance(other, Pointer) and encode_pointer(self) == encode_pointer(other)

    def __hash__(self):
        return hash(encode_pointer(self))


def encode_pointer(pointer):
    """The record's 64 bytes."""
    body = struct.pack(
        _POINTER,
        _POINTER_MAGIC,
        pointer.counter,
        pointer.confirmed,
        pointer.trial,
        pointer.attempts,
        pointer.flags,
        pointer.epoch,
        pointer.sequence,
        pointer.failed,
        pointer.why,
        0,
        0,
        0,
        pointer.generation,
    )
    body += bytes(_POINTER_BODY - len(body))
    return body + struct.pack("<I", crc32(body))


def decode_pointer(record):
    """The Pointer in these bytes, or None when they are not one."""
    if len(record) < POINTER_BYTES:
        return None
    record = bytes(record[:POINTER_BYTES])
    if crc32(record[:_POINTER_BODY]) != struct.unpack_from("<I", record, _POINTER_BODY)[0]:
        return None
    fields = struct.unpack_from(_POINTER, record, 0)
    if fields[0] != _POINTER_MAGIC or fields[2] > 2 or fields[3] > 2:
        return None
    if fields[3] and fields[3] == fields[2]:
        return None
    pointer = Pointer()
    (pointer.counter, pointer.confirmed, pointer.trial, pointer.attempts, pointer.flags) = fields[1:6]
    (pointer.epoch, pointer.sequence, pointer.failed, pointer.why) = fields[6:10]
    pointer.generation = fields[13]
    return pointer


def newest(first, second):
    """Which of the two copies (Pointer or None) counts: 0 or 1; None when neither is valid."""
    if first is None and second is None:
        return None
    if second is None:
        return 0
    return 1 if first is None or second.counter > first.counter else 0


# --- what to run ------------------------------------------------------------------------------------------


class Decision:
    """What to do at boot. `use`: slot to run (0: none). `trial`: whether it is one. `pointer`: what has to be on
    storage before that, or None when nothing changes. `ended`: (slot, state, reason) of a trial that is over, or
    None. `wipe`: the slot whose header is to be wiped afterwards (0: none). `problem`: a word for the status."""

    def __init__(self, use, trial, pointer, ended, wipe, problem):
        self.use = use
        self.trial = trial
        self.pointer = pointer
        self.ended = ended
        self.wipe = wipe
        self.problem = problem


def decide(pointer, look, crash_reason="trial-crashed"):
    """Which slot to run and what to write first. Pure, given `look`.

    `look(slot)` answers the slot's facts (.epoch, .sequence, .mark), or None when header, signature or content are
    not in order; it is expensive and only asked where the answer matters. Rules:
    - a trial that has started twice (a fallback: eight times) is over: reverted, remembered by its mark, wiped;
    - a trial below the floor or damaged is dropped, without a mark: the release may be sent again;
    - the confirmed slot runs, whatever the floor says;
    - if it is damaged, the other slot stands in, on trial, unless that release has failed its trial;
    - without any pointer the older of two valid slots is the one that has proven itself (a newer one may never
      have run); a single valid slot runs on trial.
    """
    if pointer is None:
        return _decide_without_pointer(look)
    now, ended, wipe = pointer, None, 0
    if pointer.trial:
        facts = look(pointer.trial)
        floor = (pointer.epoch, pointer.sequence)
        fallback = pointer.flags & FALLBACK
        if pointer.attempts >= (FALLBACK_ATTEMPTS if fallback else ATTEMPTS):
            ended = (pointer.trial, "reverted", crash_reason)
            mark = facts.mark if facts else pointer.failed
            why = _why(crash_reason) if facts else pointer.why
            now = pointer.but(trial=0, attempts=0, flags=0, failed=mark, why=why)
            wipe = pointer.trial
        elif facts is None or ((facts.epoch, facts.sequence) < floor and not fallback):
            ended = (pointer.trial, "failed", "digest-mismatch" if facts is None else "sequence-too-old")
            now = pointer.but(trial=0, attempts=0, flags=0)
            wipe = pointer.trial
        else:
            return Decision(pointer.trial, True, pointer.but(attempts=pointer.attempts + 1), None, 0, None)
    changed = None if now is pointer else now
    if now.confirmed and look(now.confirmed):
        return Decision(now.confirmed, False, changed, ended, wipe, None)
    problem = "slot-damaged" if now.confirmed else None
    for slot in (1, 2):
        if slot in (now.confirmed, wipe):
            continue
        facts = look(slot)
        if facts and facts.mark != now.failed:
            standing_in = now.but(trial=slot, attempts=1, flags=FALLBACK, generation=0)
            return Decision(slot, True, standing_in, ended, wipe, problem)
    return Decision(0, False, changed, ended, wipe, problem or "no-model")


def _decide_without_pointer(look):
    fresh = Pointer()
    a, b = look(1), look(2)
    if a and b:
        older = 1 if (a.epoch, a.sequence) <= (b.epoch, b.sequence) else 2
        facts = a if older == 1 else b
        pointer = fresh.but(confirmed=older, epoch=facts.epoch, sequence=facts.sequence)
        return Decision(older, False, pointer, None, 0, "pointer-lost")
    if a or b:
        slot = 1 if a else 2
        return Decision(slot, True, fresh.but(trial=slot, attempts=1, flags=FALLBACK), None, 0, "pointer-lost")
    return Decision(0, False, None, None, 0, "no-model")


def _why(reason):
    return REASONS.index(reason) if reason in REASONS else 0


# --- slots ------------------------------------------------------------------------------------------------


class Content:
    """A slot's content for reading: `.size` and `.readinto(offset, mv)`, which stays inside it."""

    def __init__(self, region, size):
        self._region = region
        self.size = size

    def readinto(self, offset, mv):
        """Fill `mv` from `offset`; answers how many bytes, fewer only at the end."""
        count = min(len(mv), self.size - offset)
        if offset < 0 or count <= 0:
            return 0
        return self._region.readinto(CONTENT_OFFSET + offset, mv[:count])


class Slot:
    """A slot whose manifest is genuine. Whether its content matches is `ContentCheck`'s answer."""

    def __init__(self, number, region, manifest, manifest_digest):
        self.number = number
        self.name = "ab"[number - 1]
        self.manifest = manifest
        self.manifest_digest = manifest_digest
        self.release = manifest["release"]
        self.epoch = manifest["epoch"]
        self.sequence = manifest["sequence"]
        self.mark = release_mark(self.release)
        self.digest = manifest["content"]["sha256"]
        self.content = Content(region, manifest["content"]["size"])


class ContentCheck:
    """Reads content again and compares its SHA-256, one buffer at a time. `ok` is None until it is done."""

    def __init__(self, content, digest_hex, buffer):
        self._content = content
        self._digest = digest_hex
        self._view = memoryview(buffer)
        self._hash = hashlib.sha256()
        self._at = 0
        self.ok = None

    def step(self):
        """Hash one more buffer. True while there is more to do."""
        n = self._content.readinto(self._at, self._view)
        if n:
            self._hash.update(self._view[:n])
            self._at += n
        if not n or self._at == self._content.size:
            self.ok = self._at == self._content.size and crypto.hexed(self._hash.digest()) == self._digest
        return self.ok is None


class Slots:
    """The two slots and their pointer on the camera's storage."""

    def __init__(self, files, keys, buffer):
        """`files`: regions.Files; `keys`: crypto.keyring(); `buffer`: 4 KB that nobody else uses during a call."""
        self._regions = (None, files.slot_a, files.slot_b)
        self._copies = (files.pointer_0, files.pointer_1)
        self._keys = keys
        self._buffer = buffer
        self._next_copy = 0
        self.pointer = None

    # pointer

    def read_pointer(self):
        """Read both copies; answers the one that counts, or None."""
        read = [self._read_copy(region) for region in self._copies]
        which = newest(read[0], read[1])
        self.pointer = None if which is None else read[which]
        self._next_copy = 0 if which is None else 1 - which
        return self.pointer

    def _read_copy(self, region):
        if region is None:
            return None
        record = bytearray(POINTER_BYTES)
        try:
            region.readinto(0, memoryview(record))
        except StorageError:
            return None  # an unreadable copy is a lost copy: the other one counts
        return decode_pointer(record)

    def write_pointer(self, pointer):
        """Make `pointer` the one that counts. The copy that counts now is not touched. Raises StorageError."""
        region = self._copies[self._next_copy]
        if region is None:
            raise StorageError("storage-error", "no pointer file")
        counter = self.pointer.counter + 1 if self.pointer else 1
        pointer = pointer.but(counter=counter)
        record = memoryview(self._buffer)[:BLOCK]
        _fill(record, encode_pointer(pointer))
        region.write(0, record)
        region.sync()
        self.pointer = pointer
        self._next_copy = 1 - self._next_copy

    # reading

    @property
    def capacity(self):
        """Bytes of content that fit into either slot; 0 when a slot is missing."""
        if self._regions[1] is None or self._regions[2] is None:
            return 0
        return max(0, min(self._regions[1].size, self._regions[2].size) - CONTENT_OFFSET)

    def read_slot(self, number):
        """The Slot if header, CRC and signature are in order (its content is not read), else None."""
        region = self._regions[number]
        if region is None:
            return None
        try:
            head = bytearray(_SLOT_HEADER_BYTES)
            if region.readinto(0, memoryview(head)) != len(head):
                return None
            magic, length, crc, _zero = struct.unpack(_SLOT_HEADER, head)
            if magic != _SLOT_MAGIC or not HEADER_BYTES < length <= protocol.MANIFEST_BYTES:
                return None
            blob = bytearray(length)
            if region.readinto(_SLOT_HEADER_BYTES, memoryview(blob)) != length or crc32(blob) != crc:
                return None
            manifest = open_manifest(blob, self._keys)
        except (StorageError, ManifestError):
            return None
        manifest["encodings"] = None  # only the transfer needs them, and they are the bulk of it
        return Slot(number, region, manifest, digest_of(blob))

    def check_slot(self, number, feed=None):
        """The Slot if everything including the content's digest is in order, else None. Blocks for the whole of it:
        about 0.25 s plus 0.25 s a megabyte; `feed` is called every 4 KB."""
        slot = self.read_slot(number)
        if slot is None:
            return None
        check = ContentCheck(slot.content, slot.digest, self._buffer)
        try:
            while check.step():
                if feed:
                    feed()
        except StorageError:
            return None
        return slot if check.ok else None

    # writing, in the order of use

    @property
    def spare(self):
        """The slot that may be overwritten: never the confirmed one."""
        return 2 if self.pointer and self.pointer.confirmed == 1 else 1

    def wipe(self, number):
        """Make the slot invalid (its header's sector becomes zero). Refuses what the pointer names."""
        pointer = self.pointer
        if pointer and number in (pointer.confirmed, pointer.trial):
            raise StorageError("storage-error", "slot %d is in use" % number)
        region = self._region(number)
        magic = bytearray(4)
        region.readinto(0, memoryview(magic))
        if magic != _SLOT_MAGIC:
            return  # nothing to wipe, and one erase less
        block = memoryview(self._buffer)[:BLOCK]
        _fill(block, b"")
        region.write(0, block)
        region.sync()

    def write_content(self, offset, buf):
        """Put content bytes into the spare slot."""
        self._region(self.spare).write(CONTENT_OFFSET + offset, buf)

    def sync_content(self):
        """All content is on the medium when this returns."""
        self._region(self.spare).sync()

    def spare_content(self, size):
        """What was written to the spare slot, to be read again before finish()."""
        return Content(self._region(self.spare), size)

    def finish(self, blob):
        """Make the spare slot valid: the manifest's tail first, the sector with the header last."""
        region = self._region(self.spare)
        head = struct.pack(_SLOT_HEADER, _SLOT_MAGIC, len(blob), crc32(blob), 0)
        first = BLOCK - len(head)
        view = memoryview(blob)
        block = memoryview(self._buffer)[:BLOCK]
        for start in range(first, len(blob), BLOCK):
            _fill(block, view[start : start + BLOCK])
            region.write(len(head) + start, block)
        region.sync()
        _fill(block, head)
        block[len(head) : len(head) + min(first, len(blob))] = view[:first]
        region.write(0, block)
        region.sync()

    def set_trial(self, generation):
        """Flip the pointer: the spare slot is on trial, not yet attempted. Forgets which release failed before."""
        pointer = self.pointer or Pointer()
        self.write_pointer(
            pointer.but(trial=self.spare, attempts=0, flags=0, failed=_NO_MARK, why=0, generation=generation)
        )

    def count_attempt(self):
        """Before the trial is used."""
        self.write_pointer(self.pointer.but(attempts=self.pointer.attempts + 1))

    def confirm(self, slot):
        """The trial has proven itself; the floor rises to it and never falls."""
        floor = max((self.pointer.epoch, self.pointer.sequence), (slot.epoch, slot.sequence))
        self.write_pointer(
            self.pointer.but(
                confirmed=slot.number, trial=0, attempts=0, flags=0, epoch=floor[0], sequence=floor[1]
            )
        )

    def revert(self, failed_slot=None, reason=None):
        """Back to the confirmed slot. With `failed_slot` its release is remembered as failed, and why."""
        changes = {"trial": 0, "attempts": 0, "flags": 0}
        if failed_slot:
            changes["failed"] = failed_slot.mark
            changes["why"] = _why(reason)
        self.write_pointer(self.pointer.but(**changes))

    def failed_before(self, release):
        """Why `release` was reverted, as a reason word, or None when it is not the one that failed last."""
        if self.pointer is None or self.pointer.failed != release_mark(release):
            return None
        why = self.pointer.why
        return REASONS[why] if why < len(REASONS) else REASONS[0]

    def _region(self, number):
        region = self._regions[number]
        if region is None:
            raise StorageError("storage-error", "slot %d is not there" % number)
        return region


def _fill(block, data):
    """`data` at the start of `block`, zeros behind it."""
    block[: len(data)] = data
    for i in range(len(data), len(block)):
        block[i] = 0
