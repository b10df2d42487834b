"""An agent in a slot that is a file: its modules are imported from where they lie in it. Nothing is unpacked.

    vfs.mount(SlotFs(region, size), "/fleet_agent")

A read-only file system with one folder, the ROMFS image that begins at the slot's content. It works on firmware without
`VfsRom` too.

RAM BUDGET: 1 KB of code and about 70 bytes for each of the agent's modules.
"""

import io

from camera_agent.heap import const
from camera_agent.regions import CONTENT_OFFSET

_FOLDER = const(0x4000)
_FILE = const(0x8000)
_HEAD = const(80)  # bytes that hold everything of a record before its data
_MAGIC = b"\xd2\xcd\x31"


class _Stream(io.IOBase):
    def __init__(self, region, at, size):
        self._region = region
        self._at = at
        self._left = size

    def readinto(self, buf):
        """Fill `buf` as far as the file goes; answers the bytes."""
        view = memoryview(buf)[: min(len(buf), self._left)]
        if not len(view):
            return 0
        count = self._region.readinto(self._at, view)
        self._at += count
        self._left -= count
        return count

    def ioctl(self, _op, _arg):
        """Closing is all that is asked for."""
        return 0

    def close(self):
        """Nothing is open."""


def _number(data, at):
    value = 0
    while True:
        value = value << 7 | data[at] & 127
        at += 1
        if data[at - 1] < 128:
            return value, at


class SlotFs:
    """See the module's docstring. OSError for an image that cannot be read."""

    def __init__(self, region, size):
        self._region = region
        self._files = {}
        self._head = memoryview(bytearray(_HEAD))
        if bytes(self._read(0)[:3]) != _MAGIC:
            raise OSError(19)
        _length, at = _number(self._head, 3)
        kind, length, at = self._record(at)
        end = at + length
        if kind != 4 or end > size:
            raise OSError(19)
        head = self._read(at)
        count, start = _number(head, 0)
        self.folder = str(bytes(head[start : start + count]), "utf-8")
        at += start + count
        while at < end:
            kind, length, inside = self._record(at)
            if kind == 5:
                self._add(inside)
            at = inside + length

    def _read(self, at):
        self._region.readinto(CONTENT_OFFSET + at, self._head)
        return self._head

    def _record(self, at):
        head = self._read(at)
        kind, n = _number(head, 0)
        length, n = _number(head, n)
        return kind, length, at + n

    def _add(self, at):
        head = self._read(at)
        count, n = _number(head, 0)
        name = str(bytes(head[n : n + count]), "utf-8")
        n += count
        kind, n = _number(head, n)
        length, n = _number(head, n)
        if kind == 2:
            self._files[name] = (CONTENT_OFFSET + at + n, length)

    def _find(self, path):
        folder, _, name = path.lstrip("/").partition("/")
        if folder == self.folder and name in self._files:
            return self._files[name]
        raise OSError(2)

    def open(self, path, _mode):
        """A file as a stream."""
        at, size = self._find(path)
        return _Stream(self._region, at, size)

    def stat(self, path):
        """Folder or file, and its size."""
        if path.strip("/") in ("", self.folder):
            return (_FOLDER, 0, 0, 0, 0, 0, 0, 0, 0, 0)
        return (_FILE, 0, 0, 0, 0, 0, self._find(path)[1], 0, 0, 0)

    def mount(self, _readonly, _mkfs):
        """Nothing has to be done."""

    def umount(self):
        """Nothing has to be done."""
