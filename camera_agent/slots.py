"""Two slots for a release's content, and the pointer copies on storage.

A slot: 0: b"FSL1" | u32 manifest length | u32 crc32(manifest) | u32 0, 16: the signed manifest, 12288: the content.
The header's sector is the last thing written and the first thing wiped. A slot counts only if header and CRC hold, the
signature verifies and the content's SHA-256 is the manifest's. What the pointer says is camera_agent/pointer.py; each
copy of it also holds the key ring, so that both change in one write that a power cut cannot tear.

RAM BUDGET: the caller's 4 KB buffer for hashing; while a manifest is read from a slot its bytes (at most 8 KB) and
what json.loads makes of them, of which a Slot object keeps about 2 KB.
"""

import hashlib
import struct
from binascii import crc32

from camera_agent import crypto, protocol
from camera_agent.errors import ManifestError, StorageError
from camera_agent.heap import const, forget, load
from camera_agent.pointer import (
    NO_MARK,
    POINTER_BYTES,
    REASONS,
    Pointer,
    decode_pointer,
    encode_pointer,
    newest,
    release_mark,
    why_code,
)
from camera_agent.regions import BLOCK, CONTENT_OFFSET

RING_OFFSET = const(512)  # in a pointer's block
RING_BYTES = const(1088)
_SLOT_MAGIC = const(b"FSL1")
_SLOT_HEADER = const("<4sIII")
_SLOT_HEADER_BYTES = const(16)


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

    def view(self):
        """The content where it lies in flash, or None where it has to be read."""
        view = getattr(self._region, "view", None)
        return view and view(CONTENT_OFFSET, self.size)


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


def _running_part(manifest):
    """What is needed of a manifest once it is installed: it stays in memory, so not its bulk."""
    kept = {}
    for name in ("release", "name", "version", "epoch", "sequence", "content", "threshold", "golden"):
        kept[name] = manifest.get(name)
    return kept


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
            self.ok = crypto.hexed(self._hash.digest()) == self._digest
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
        self.ring = b""  # the key ring as camera_agent/keyring.py packs it, kept beside the pointer

    # pointer

    def read_pointer(self):
        """Read both copies; answers the one that counts, or None."""
        read = [self._read_copy(region) for region in self._copies]
        which = newest(read[0], read[1])
        self.pointer = None if which is None else read[which]
        self._next_copy = 0 if which is None else 1 - which
        return self.pointer

    def read_ring(self, unpack):
        """The key ring beside the pointer: `unpack` of the copy that counts, else of the other one, else None."""
        for region in (self._copies[1 - self._next_copy], self._copies[self._next_copy]):
            try:
                if region is not None and region.readinto(RING_OFFSET, memoryview(self._buffer)[:RING_BYTES]):
                    ring = unpack(self._buffer)
                    if ring:
                        return ring
            except StorageError:
                pass  # the other copy may do
        return None

    def signers(self):
        """The key ids in the headers of slot a and b. Raises StorageError."""
        ids = []
        for region in self._regions[1:]:
            key_id = bytearray(8)
            if region is not None:
                region.readinto(_SLOT_HEADER_BYTES + 4, memoryview(key_id))
            ids.append(bytes(key_id))
        return ids

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
        record[RING_OFFSET : RING_OFFSET + len(self.ring)] = self.ring
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
            if magic != _SLOT_MAGIC or not 0 < length <= protocol.MANIFEST_BYTES:
                return None
            blob = bytearray(length)
            if region.readinto(_SLOT_HEADER_BYTES, memoryview(blob)) != length or crc32(blob) != crc:
                return None
            manifest = load("manifest").open_manifest(blob, self._keys)
        except (StorageError, ManifestError):
            return None
        finally:
            forget("manifest")
        return Slot(number, region, _running_part(manifest), crypto.digest_of(blob))

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
        """Make the spare slot valid, after sync_content(): the manifest's tail, then the block with the header."""
        region = self._region(self.spare)
        head = struct.pack(_SLOT_HEADER, _SLOT_MAGIC, len(blob), crc32(blob), 0)
        first = BLOCK - len(head)
        view = memoryview(blob)
        block = memoryview(self._buffer)[:BLOCK]
        for start in range(first, len(blob), BLOCK):
            _fill(block, view[start : start + BLOCK])
            region.write(len(head) + start, block)
        _fill(block, head)
        block[len(head) : len(head) + min(first, len(blob))] = view[:first]
        region.write(0, block)
        region.sync()

    def set_trial(self, generation):
        """Flip the pointer: the spare slot is on trial, not yet attempted. Forgets which release failed before."""
        pointer = self.pointer or Pointer()
        self.write_pointer(
            pointer.but(trial=self.spare, attempts=0, flags=0, failed=NO_MARK, why=0, generation=generation)
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
        """Back to the confirmed slot. With `failed_slot` its release is remembered as failed, and why. If storage
        refuses, this boot goes on without the trial all the same, and the attempts end it at a later one."""
        self.cancel_trial()
        if failed_slot:
            self.pointer = self.pointer.but(failed=failed_slot.mark, why=why_code(reason))
        self.write_pointer(self.pointer)

    def cancel_trial(self):
        """Forget the trial in memory only."""
        self.pointer = (self.pointer or Pointer()).but(trial=0, attempts=0, flags=0)

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
