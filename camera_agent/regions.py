"""Storage as a few fixed regions: `.size`, `.readinto(offset, mv)`, `.write(offset, buf)`, `.sync()`, `.stream()`.

This backend keeps each region in one file that is filled with zeros once and then overwritten in place
("r+b"), in whole blocks of 4096 bytes, never truncated: no cluster is ever taken or freed again, so an update
cannot run out of space half-way and a power cut cannot tear the allocation table.

Where sectors are smaller than erase blocks (512 bytes against 4 KB on some boards), a file may begin in the middle
of an erase block, and rewriting its first bytes then risks the last bytes of its neighbour. So the last block of
every file is never used, and a small file, the fence, lies between the directory and the first region. In a model
of such a flash that took the number of cuts after which no model was left from 4 in 240 to none.

Everything that goes wrong on the medium becomes StorageError with the reason words of `up/update`.

RAM BUDGET: file objects only; callers bring buffers. Making the files is camera_agent/volume.py, forgotten afterwards.
"""

import os

from camera_agent.errors import StorageError
from camera_agent.heap import const, forget, load

BLOCK = const(4096)
CONTENT_OFFSET = 12288  # of a slot's content; before it lie header and manifest
AGENT_BYTES = CONTENT_OFFSET + 147_456  # a slot for the agent itself
NAMES = (
    "fence",
    "slot_a",
    "slot_b",
    "stage",
    "pointer_0",
    "pointer_1",
)  # in the order in which they are made
AGENT_NAMES = ("boot_0", "boot_1", "agent_a", "agent_b")  # made after these, where there is room
_ENOSPC = const(28)


def storage_error(error, doing):
    """The StorageError for an OSError."""
    reason = "not-enough-storage" if error.errno == _ENOSPC else "storage-error"
    return StorageError(reason, "%s: %s" % (doing, error))


def exists(path):
    """Whether there is something at this path."""
    try:
        os.stat(path)
    except OSError:
        return False
    return True


class FileRegion:
    """A region in an existing file: its whole blocks without the last one."""

    unit = BLOCK  # what is written at once

    def __init__(self, path):
        self._path = path
        try:
            self.size = max(0, os.stat(path)[6] // BLOCK - 1) * BLOCK
            self._file = open(path, "r+b", 0)
        except OSError as error:
            raise storage_error(error, "open " + path) from None

    def readinto(self, offset, mv):
        """Fill `mv` from `offset`; answers the bytes read, less than asked only at the region's end."""
        count = min(len(mv), self.size - offset)
        if offset < 0 or count <= 0:
            return 0
        done = 0
        try:
            self._file.seek(offset)
            while done < count:
                n = self._file.readinto(mv[done:count])
                if not n:
                    raise StorageError("storage-error", "%s is shorter than it was" % self._path)
                done += n
        except OSError as error:
            raise storage_error(error, "read " + self._path) from None
        return done

    def write(self, offset, buf):
        """Overwrite whole blocks in place. Nothing is ever written past the region's end."""
        if offset % self.unit or len(buf) % self.unit:
            raise ValueError("only whole blocks are written")
        if offset < 0 or offset + len(buf) > self.size:
            raise StorageError("not-enough-storage", "%s has %d bytes" % (self._path, self.size))
        view = memoryview(buf)
        try:
            self._file.seek(offset)
            while len(view) > 0:
                n = self._file.write(view)
                if not n:
                    raise StorageError("storage-error", "%s takes no bytes" % self._path)
                view = view[n:]
        except OSError as error:
            raise storage_error(error, "write " + self._path) from None

    def sync(self):
        """Return when everything written is on the medium."""
        try:
            if hasattr(os, "fsync"):  # CPython
                os.fsync(self._file.fileno())
            elif hasattr(os, "sync"):
                # Whole sectors have gone to the block device already; this empties its cache. flush() would do that
                # too, but FatFs then also rewrites the directory entry: a block whose loss costs every file in it.
                os.sync()
            else:
                self._file.flush()
        except OSError as error:
            raise storage_error(error, "sync " + self._path) from None

    def stream(self):
        """The region from its start as a native stream with .read, .readinto and .tell, as DeflateIO needs one.

        It shares the file position: no other call to this region until the stream is done with.
        """
        self.sync()
        self._file.seek(0)
        return self._file

    def close(self):
        """Close the file."""
        self._file.close()


class Files:
    """The regions of one camera; None where there is none. `problem` is a reason word or None."""

    def __init__(self):
        self.fence = self.slot_a = self.slot_b = self.stage = self.pointer_0 = self.pointer_1 = None
        self.boot_0 = self.boot_1 = self.agent_a = self.agent_b = self.mirror = None
        self.problem = None
        self.detail = None

    def close(self):
        """Close every file."""
        for name in NAMES + AGENT_NAMES:
            region = getattr(self, name)
            if region is not None:
                region.close()


def open_files(directory, free, slot_bytes=None, feed=None):
    """The camera's regions under `directory`/fleet, made at the first start. Never raises for a bad medium.

    `slot_bytes` (a setting) is the size of each slot file; without it a third of what is free, at most 4 MB. Sizes
    are settled once the pointer files exist, which are made last; from then on only a missing file is made again.
    At the first start nothing is left behind if not everything fits.
    """
    try:
        return load("volume").open_files(directory, free, slot_bytes, feed)
    finally:
        forget("volume")
