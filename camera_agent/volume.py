"""Makes and opens the camera's files, at the start. What they are is in camera_agent/regions.py.

RAM BUDGET: 2 KB of code, forgotten after the start; one buffer of 4 KB while a file is created.
"""

import os

from camera_agent.heap import const
from camera_agent.regions import (
    AGENT_BYTES,
    AGENT_NAMES,
    BLOCK,
    NAMES,
    FileRegion,
    Files,
    StorageError,
    storage_error,
)

_MARGIN = const(64 * 1024)  # left free for everything else on the volume
_LEAST_SLOT = const(48 * 1024)  # 12 KB of header and manifest + a model worth having
_DEFAULT_SLOT = const(4 * 1024 * 1024)  # filling more takes minutes on an SD card; slot_bytes asks for more
_SMALL = ("fence", "pointer_0", "pointer_1")
_AGENT_SPACE = 2 * (AGENT_BYTES + BLOCK) + 4 * BLOCK
_WORTH = const(256 * 1024)  # a slot that room for the agent's own slots must leave


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
            raise storage_error(error, "make " + path) from None
    return FileRegion(path)


def _remove(path):
    try:
        os.remove(path)
    except OSError:
        pass  # it was never made


def slot_size(free, existing):
    """How big each of slot a, slot b and stage becomes on a volume with `free` bytes besides the `existing` ones."""
    share = (free + existing - _MARGIN) // 3 // BLOCK * BLOCK
    if share < _LEAST_SLOT:
        raise StorageError(
            "not-enough-storage", "%d bytes free, %d needed" % (free, 3 * _LEAST_SLOT + _MARGIN)
        )
    return min(share, _DEFAULT_SLOT)


def open_files(directory, free, slot_bytes=None, feed=None):
    """See regions.open_files."""
    files = Files()
    base = directory + "/fleet"
    paths = {name: "%s/%s.bin" % (base, name) for name in NAMES}
    have = {name: _size(paths[name]) for name in NAMES}
    settled = have["pointer_0"] >= 2 * BLOCK or have["pointer_1"] >= 2 * BLOCK
    try:
        if _size(base) < 0:
            os.mkdir(base)
        if settled:
            size = max(have["slot_a"], have["slot_b"]) // BLOCK * BLOCK - BLOCK
        elif slot_bytes:
            size = -(-slot_bytes // BLOCK) * BLOCK
        else:
            existing = sum([max(0, have[name]) for name in NAMES])
            size = slot_size(free, existing)
            if size >= _WORTH + _AGENT_SPACE // 3:
                size = slot_size(free - _AGENT_SPACE, existing)
    except OSError as error:
        return _without(files, storage_error(error, "make " + base))
    except StorageError as error:
        return _without(files, error)
    for name in NAMES:
        wanted = BLOCK if name in _SMALL else size
        if settled and have[name] >= 2 * BLOCK:
            wanted = have[name] // BLOCK * BLOCK - BLOCK
        try:
            setattr(files, name, allocate(paths[name], wanted, feed))
        except StorageError as error:
            _without(files, error)
            if not settled:
                files.close()
                for made in NAMES:
                    if have[made] < 0:
                        _remove(paths[made])
                return _without(Files(), error)
    _open_agent_files(files, base, feed)
    return files


def _open_agent_files(files, base, feed):
    """The agent's own slots, where there is room for all of it; without them it is updated over USB only."""
    paths = ["%s/%s.bin" % (base, name) for name in AGENT_NAMES]
    are_new = [path for path in paths if _size(path) < 0]
    try:
        if are_new and _free(base) < _AGENT_SPACE + _MARGIN:
            return
        for n in range(len(paths)):
            size = BLOCK if n < 2 else AGENT_BYTES
            setattr(files, AGENT_NAMES[n], allocate(paths[n], size, feed))
    except StorageError:
        for name in AGENT_NAMES:
            if getattr(files, name) is not None:
                getattr(files, name).close()
                setattr(files, name, None)
        for path in are_new:
            _remove(path)


def _free(path):
    try:
        stat = os.statvfs(path)
    except OSError:
        return 0
    return stat[0] * stat[3]


def _without(files, error):
    files.problem = error.reason
    files.detail = error.detail
    return files
