"""Regions in flash without a file system: the unused tail of the ROMFS partition.

No FAT lies in the way, and a model is used where it lies. Imported only where the firmware has vfs.rom_ioctl.

    files = open_raw(vfs, uctypes, marker, slot_bytes)    # regions.Files, or None where files have to do

The partition, in erase blocks: the firmware's own content, which is never touched | room for it to grow | pointer 0 |
pointer 1 | slot a | slot b | head of the stage | stage | scratch (only if erase blocks are larger than 4 KB) | boot 0 |
boot 1 | agent a | agent b | mirror of the settings | layout. From boot 0 on everything is always in the same place (and
only there in partitions of 3 MB and more), so that the first thing at a start finds it without the layout record, and
whatever a firmware upgrade puts in front. The layout record is the last thing written. If an upgrade reaches into our
part or has wiped the record, everything is laid out anew and reported as `storage-reset`; `marker`, a file, is how a
camera knows that it is not its first start. Laying out erases nothing: pointers, slots and boot records say themselves
whether they are valid, so whatever survived in its place counts again.

How flash is written. mimxrt: the partition is a block device that can erase one block. STM32, Alif: rom_ioctl, and
only with a firmware that can erase a part (rom_ioctl(6) answers the erase size): the older call always erases from
the partition's start, where the firmware's own content lies. Every write has at least 32 bytes, begins at a multiple
of 32 and is compared afterwards; the partition's last 512 bytes are never touched (H7 Plus), nor read.

RAM BUDGET: about 1 KB of objects; reading makes objects of 16 to 32 bytes. 256 bytes where erase blocks are large.
"""

import os
import struct
from binascii import crc32

from camera_agent.heap import const
from camera_agent.regions import AGENT_BYTES, BLOCK, CONTENT_OFFSET, Files, StorageError

_GUARD = const(512)
_LEAST_SLOT = const(48 * 1024)
_ROOMY = const(3 * 1024 * 1024)  # partitions that have room for the agent's own slots
_MIRROR_BYTES = const(12288)
_PIECE = const(256)
_BLANK = b"\xff" * _PIECE
_LAYOUT = "<4sIII"
_MAGIC = b"FRL2"
_RECORD_BYTES = const(32)
_ROMFS = b"\xd2\xcd\x31"


class Flash:
    """The partition: `size`, `erase_bytes`, `rom` (its VfsRom). OSError, TypeError where there is none to be used."""

    def __init__(self, vfs, uctypes):
        part = vfs.rom_ioctl(2, 0)
        self._ioctl = vfs.rom_ioctl
        self._view = uctypes.bytearray_at
        self._device = part if hasattr(part, "writeblocks") else None
        if self._device:
            self.erase_bytes = part.ioctl(5, 0)
            self.size = part.ioctl(4, 0) * self.erase_bytes
        else:
            self.size = len(part)
            self.erase_bytes = max(vfs.rom_ioctl(6, 0), 0)
            if 0 < self.erase_bytes < BLOCK:
                self.erase_bytes = BLOCK
        if not self.erase_bytes or self.erase_bytes % BLOCK:
            raise OSError("no part of it can be erased")
        self._base = uctypes.addressof(part)
        self.rom = vfs.VfsRom

    def view(self, at, size):
        """`size` bytes where they lie. Not a copy: they change with the flash."""
        return self._view(self._base + at, size)

    def is_blank(self, at, size):
        """Whether nothing was written there since it was erased."""
        for piece in range(at, at + size, _PIECE):
            if self.view(piece, _PIECE) != _BLANK:
                return False
        return True

    def erase(self, at):
        """Erase the erase block that begins at `at`."""
        if self._device:
            done = not self._device.ioctl(6, at // self.erase_bytes)
        else:
            done = self._ioctl(3, 0, at, self.erase_bytes) >= 0
        if not done:
            raise StorageError("storage-error", "flash at %d is not erased" % at)

    def program(self, at, buf):
        """Write to erased flash, and compare."""
        try:
            if self._device:
                self._device.writeblocks(at // self.erase_bytes, buf, at % self.erase_bytes)
            elif self._ioctl(4, 0, at, buf) < 0:
                raise StorageError("storage-error", "flash at %d refuses" % at)
        except OSError as error:
            raise StorageError("storage-error", "flash at %d: %s" % (at, error)) from None
        if self.view(at, len(buf)) != buf:
            raise StorageError("storage-error", "flash at %d does not read back" % at)

    def sync(self):
        """Some ports keep what does not fill a page until this."""
        if not self._device:
            self._ioctl(5, 0)


class RawRegion:
    """A region of flash from `start` on, as regions.FileRegion is one in a file.

    `scratch`: where large erase blocks are kept while one of their blocks is replaced. Without one, a block that is
    not blank costs all others in its erase block: slots are written from the content's start on, their header last.
    """

    def __init__(self, flash, start, size, scratch=None):
        self.size = size
        self._flash = flash
        self._start = start
        self._scratch = scratch

    def view(self, offset, size):
        """The bytes where they lie in flash."""
        return self._flash.view(self._start + offset, size)

    def readinto(self, offset, mv):
        """Fill `mv` from `offset`; answers the bytes read, less than asked only at the region's end."""
        count = min(len(mv), self.size - offset)
        if offset < 0 or count <= 0:
            return 0
        mv[:count] = self.view(offset, count)
        return count

    def write(self, offset, buf):
        """Overwrite whole blocks. Nothing is ever written past the region's end."""
        if offset % BLOCK or len(buf) % BLOCK:
            raise ValueError("only whole blocks are written")
        if offset < 0 or offset + len(buf) > self.size:
            raise StorageError("not-enough-storage", "the region has %d bytes" % self.size)
        blocks = memoryview(buf)
        for done in range(0, len(buf), BLOCK):
            self._write(offset + done, blocks[done : done + BLOCK])

    def _write(self, offset, block):
        flash = self._flash
        at = self._start + offset
        first = at - at % flash.erase_bytes
        if flash.erase_bytes == BLOCK:
            # Also if it seems blank: after a cut while it was erased that may not last.
            flash.erase(at)
        elif self._scratch is not None:
            if not flash.is_blank(at, BLOCK):
                self._clear(first, at)
        elif offset == CONTENT_OFFSET or (offset and at == first) or not flash.is_blank(at, BLOCK):
            flash.erase(first)
        flash.program(at, block)

    def _clear(self, first, at):
        """Make one block blank; those around it wait in the scratch block meanwhile."""
        flash = self._flash
        flash.erase(self._scratch)
        self._copy(first, self._scratch, at - first)
        flash.erase(first)
        self._copy(self._scratch, first, at - first)

    def _copy(self, source, target, without):
        flash = self._flash
        piece = bytearray(_PIECE)  # flash cannot be read while it is written
        for at in range(0, flash.erase_bytes, _PIECE):
            piece[:] = flash.view(source + at, _PIECE)
            if at // BLOCK * BLOCK != without and piece != _BLANK:
                flash.program(target + at, piece)

    def sync(self):
        """Return when everything written is on the medium."""
        self._flash.sync()

    def close(self):
        """Nothing is open."""


class Stage(RawRegion):
    """The stage, behind the erase block that makes it a file for VfsRom: a native stream is what DeflateIO needs."""

    def stream(self):
        """The region from its start as a native stream. Nothing is copied."""
        self.sync()
        ahead = self._flash.erase_bytes
        image = self._flash.view(self._start - ahead, ahead + self.size)
        try:
            return self._flash.rom(image).open("/s", "rb")
        except OSError as error:
            raise StorageError("storage-error", "read stage: %s" % error) from None


def _varuint(number):
    return bytes([128 | number >> shift & 127 for shift in (28, 21, 14, 7)]) + bytes([number & 127])


def stage_head(erase_bytes, size):
    """A ROMFS image with the one file `s`, whose `size` bytes begin `erase_bytes` after the image's start."""
    file = b"\x01s\x03\x0a" + _varuint(size) + _varuint(erase_bytes - 8)
    head = _ROMFS + _varuint(erase_bytes - 8 + size) + b"\x05" + bytes([len(file)]) + file
    head += b"\x01" + _varuint(
        erase_bytes - len(head) - 6 + size
    )  # the rest, so that every byte is accounted for
    return head + bytes(_RECORD_BYTES - len(head))


def stock_bytes(flash):
    """How much of the partition the firmware's own content takes. None: something unknown lies there."""
    head = bytes(flash.view(0, _RECORD_BYTES))
    if head == _BLANK[:_RECORD_BYTES]:
        return 0
    if head[:3] != _ROMFS:
        return None
    size = 0
    for at in range(3, 9):
        size = size << 7 | head[at] & 127
        if head[at] < 128:
            return at + 1 + size
    return None


def _up(number, unit):
    return -(-number // unit) * unit


class Tail:
    """What is always in the same place, at the partition's end. `start`: where it begins."""

    def __init__(self, flash):
        erase = flash.erase_bytes
        self.record = (flash.size - _GUARD) // erase * erase - erase
        self.start = self.record
        self.agent = _up(AGENT_BYTES, erase) if flash.size >= _ROOMY else 0
        if self.agent:
            self.mirror = self.record - _up(_MIRROR_BYTES, erase)
            self.start = self.mirror - 2 * self.agent - 2 * erase

    def open(self, flash, files):
        """Set the regions for boot records, agent slots and mirror, where there are any."""
        if self.agent:
            slots = self.start + 2 * flash.erase_bytes
            files.boot_0 = RawRegion(flash, self.start, BLOCK)
            files.boot_1 = RawRegion(flash, self.start + flash.erase_bytes, BLOCK)
            files.agent_a = RawRegion(flash, slots, AGENT_BYTES)
            files.agent_b = RawRegion(flash, slots + self.agent, AGENT_BYTES)
            files.mirror = RawRegion(flash, self.mirror, _MIRROR_BYTES)


class Layout:
    """Where everything lies. `slot`: bytes of slot a, slot b and stage each."""

    def __init__(self, flash, start, slot):
        erase = flash.erase_bytes
        self.start = start
        self.slot = slot
        self.slots = start + 2 * erase
        self.stage = self.slots + 2 * slot + erase
        self.scratch = self.stage + slot if erase > BLOCK else None
        self.end = self.stage + slot + (erase if erase > BLOCK else 0)
        self.tail = Tail(flash)
        self.record = self.tail.record

    def encoded(self, flash):
        """The layout record."""
        body = struct.pack(_LAYOUT, _MAGIC, self.start, self.slot, flash.erase_bytes)
        body += bytes(_RECORD_BYTES - 4 - len(body))
        return body + struct.pack("<I", crc32(body))

    def fits(self, flash, stock):
        """Whether it leaves alone what it does not own."""
        erase = flash.erase_bytes
        if self.start % erase or self.slot % erase or self.slot <= CONTENT_OFFSET:
            return False
        return self.start >= stock and self.end <= self.tail.start


def plan(flash, stock, slot_bytes):
    """The layout of a first start; None when there is too little room."""
    erase = flash.erase_bytes
    start = _up(stock + flash.size // 16, erase)
    empty = Layout(flash, start, 0)
    slot = _up(slot_bytes, erase) if slot_bytes else (empty.tail.start - empty.end) // 3 // erase * erase
    if slot < (slot_bytes or _LEAST_SLOT):
        return None
    layout = Layout(flash, start, slot)
    return layout if layout.fits(flash, stock) else None


def _found(flash, stock):
    """The layout that is on the flash, or None."""
    at = Layout(flash, 0, 0).record
    if at < stock:
        return None
    record = bytes(flash.view(at, _RECORD_BYTES))
    layout = Layout(flash, *struct.unpack_from(_LAYOUT, record, 0)[1:3])
    return layout if layout.encoded(flash) == record and layout.fits(flash, stock) else None


def _lay_out(flash, layout):
    head = layout.stage - flash.erase_bytes
    flash.erase(head)
    flash.program(head, stage_head(flash.erase_bytes, layout.slot))
    flash.erase(layout.record)
    flash.program(layout.record, layout.encoded(flash))
    flash.sync()


def _is_file(path):
    try:
        open(path, "rb").close()
    except OSError:
        return False
    return True


def _remember(path):
    try:
        os.mkdir(path.rsplit("/", 1)[0])
    except OSError:
        pass  # it is there, or open() will say so
    try:
        with open(path, "wb") as file:
            file.write(_MAGIC)
    except OSError:
        pass  # then the loss of the slots is told as `no-model` only


def open_raw(vfs, uctypes, marker, slot_bytes=None):
    """The camera's regions, laid out at the first start. None where this partition is not to be used; never raises
    for a bad medium. `marker`: path of a file that says that this camera has done so before."""
    try:
        flash = Flash(vfs, uctypes)
        stock = stock_bytes(flash)
        if stock is None or Layout(flash, 0, 0).record <= 0:
            return None
        files = Files()
        layout = _found(flash, stock)
        if layout is None:
            layout = plan(flash, stock, slot_bytes)
            if layout is None:
                return None
            if _is_file(marker):
                files.problem = "storage-reset"
            _lay_out(flash, layout)
    except (OSError, TypeError, AttributeError, StorageError):
        return None
    if not _is_file(marker):
        _remember(marker)
    start, slot, slots, erase = layout.start, layout.slot, layout.slots, flash.erase_bytes
    files.pointer_0 = RawRegion(flash, start, BLOCK)
    files.pointer_1 = RawRegion(flash, start + erase, BLOCK)
    files.slot_a = RawRegion(flash, slots, slot)
    files.slot_b = RawRegion(flash, slots + slot, slot)
    files.stage = Stage(flash, layout.stage, slot, layout.scratch)
    layout.tail.open(flash, files)
    return files


def open_tail(vfs, uctypes):
    """Files with boot records, agent slots and mirror only, without laying out anything; None where they cannot be."""
    try:
        flash = Flash(vfs, uctypes)
        stock, tail = stock_bytes(flash), Tail(flash)
        if stock is None or not tail.agent or tail.start < stock:
            return None
    except (OSError, TypeError, AttributeError, StorageError):
        return None
    files = Files()
    tail.open(flash, files)
    return files
