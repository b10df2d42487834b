"""Storage as a few fixed regions: `.size`, `.readinto(offset, mv)`, `.write(offset, buf)`, `.sync()`, `.stream()`.

This backend keeps each region in one file that is filled with zeros once and then overwritten in place
("r+b"), in whole blocks of 4096 bytes, never truncated: no cluster is ever taken or freed again, so an update
cannot run out of space half-way and a power cut cannot tear the allocation table.

Where sectors are smaller than erase blocks (512 bytes against 4 KB on some boards), a file may begin in the middle
of an erase block, and rewriting its first bytes then risks the last bytes of its neighbour. So the last block of
every file is never used, and a small file, the fence, lies between the directory and the first region. In a model
of such a flash that took the number of cuts after which no model was left from 4 in 240 to none.

Everything that goes wrong on the medium becomes StorageError with the reason words of `up/update`.

RAM BUDGET: one buffer of 4 KB while a file is created; otherwise file objects only. Callers bring buffers.
"""

import os

BLOCK = 4096
_MARGIN = 64 * 1024  # left free for everything else on the volume
_LEAST_SLOT = 48 * 1024  # 12 KB of header and manifest + a model worth having
_DEFAULT_SLOT = 4 * 1024 * 1024  # filling more takes minutes on an SD card; slot_bytes asks for more
_ENOSPC = 28


class StorageError(Exception):
    """The medium refused. `reason`: not-enough-storage or storage-error."""

    def __init__(self, reason, detail=None):
        super().__init__(reason)
        self.reason = reason
        self.detail = detail


def _storage_error(error, doing):
    """The StorageError for an OSError."""
    reason = "not-enough-storage" if error.errno == _ENOSPC else "storage-error"
    return StorageError(reason, "%s: %s" % (doing, error))


class FileRegion:
    """A region in an existing file: its whole blocks without the last one."""

    def __init__(self, path):
        self._path = path
        try:
            self.size = max(0, os.stat(path)[6] // BLOCK - 1) * BLOCK
            self._file = open(path, "r+b", 0)
        except OSError as error:
            raise _storage_error(error, "open " + path) from None

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
            raise _storage_error(error, "read " + self._path) from None
        return done

    def write(self, offset, buf):
        """Overwrite whole blocks in place. Nothing is ever written past the region's end."""
        if offset % BLOCK or len(buf) % BLOCK:
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
            raise _storage_error(error, "write " + self._path) from None

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
            raise _storage_error(error, "sync " + self._path) from None

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


def _size(path):
    try:
        return os.stat(path)[6]
    except OSError:
        return -1


def allocate(path, size, feed=None):
    """Open the file as a region of at least `size` bytes (a multiple of 4096), appending zeros where they lack.

    A file that had to be created and does not fit is removed again. What an older file holds is untouched.
    """
    have = _size(path)
    created = have < 0
    size += BLOCK
    if have < size:
        try:
            with open(path, "wb" if created else "r+b") as file:
                # back to a block boundary: what a cut left behind there was never used
                have = 0 if created else file.seek(have // BLOCK * BLOCK)
                zeros = bytes(BLOCK)
                while have < size:
                    if file.write(zeros) != BLOCK:
                        raise StorageError("not-enough-storage", "%s: the volume is full" % path)
                    have += BLOCK
                    if feed:
                        feed()
        except (OSError, StorageError) as error:
            if created:
                _remove(path)
            if isinstance(error, StorageError):
                raise
            raise _storage_error(error, "make " + path) from None
    return FileRegion(path)


def _remove(path):
    try:
        os.remove(path)
    except OSError:
        pass  # it was never made


class Files:
    """The regions of one camera; None where there is none. `problem` is a reason word or None."""

    def __init__(self):
        self.fence = self.slot_a = self.slot_b = self.stage = self.pointer_0 = self.pointer_1 = None
        self.problem = None
        self.detail = None

    def close(self):
        """Close every file."""
        for name in _NAMES:
            region = getattr(self, name)
            if region is not None:
                region.close()


_NAMES = (
    "fence",
    "slot_a",
    "slot_b",
    "stage",
    "pointer_0",
    "pointer_1",
)  # in the order in which they are made
_SMALL = ("fence", "pointer_0", "pointer_1")


def slot_size(free, existing):
    """How big each of slot a, slot b and stage becomes on a volume with `free` bytes besides the `existing` ones."""
    share = (free + existing - _MARGIN) // 3 // BLOCK * BLOCK
    if share < _LEAST_SLOT:
        raise StorageError(
            "not-enough-storage", "%d bytes free, %d needed" % (free, 3 * _LEAST_SLOT + _MARGIN)
        )
    return min(share, _DEFAULT_SLOT)


def open_files(directory, free, slot_bytes=None, feed=None):
    """The camera's regions under `directory`/fleet, made at the first start. Never raises for a bad medium.

    `slot_bytes` (a setting) is the size of each slot file; without it a third of what is free, at most 4 MB. Sizes
    are settled once the pointer files exist, which are made last; from then on only a missing file is made again.
    At the first start nothing is left behind if not everything fits.
    """
    files = Files()
    base = directory + "/fleet"
    paths = {name: "%s/%s.bin" % (base, name) for name in _NAMES}
    have = {name: _size(paths[name]) for name in _NAMES}
    settled = have["pointer_0"] >= 2 * BLOCK or have["pointer_1"] >= 2 * BLOCK
    try:
        if _size(base) < 0:
            os.mkdir(base)
        if settled:
            size = max(have["slot_a"], have["slot_b"]) // BLOCK * BLOCK - BLOCK
        elif slot_bytes:
            size = -(-slot_bytes // BLOCK) * BLOCK
        else:
            size = slot_size(free, sum([max(0, have[name]) for name in _NAMES]))
    except OSError as error:
        return _without(files, _storage_error(error, "make " + base))
    except StorageError as error:
        return _without(files, error)
    for name in _NAMES:
        wanted = BLOCK if name in _SMALL else size
        if settled and have[name] >= 2 * BLOCK:
            wanted = have[name] // BLOCK * BLOCK - BLOCK
        try:
            setattr(files, name, allocate(paths[name], wanted, feed))
        except StorageError as error:
            _without(files, error)
            if not settled:
                files.close()
                for made in _NAMES:
                    if have[made] < 0:
                        _remove(paths[made])
                return _without(Files(), error)
    return files


def _without(files, error):
    files.problem = error.reason
    files.detail = error.detail
    return files
