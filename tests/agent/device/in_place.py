"""On MicroPython: code that runs where it lies, as on a board whose ROMFS partition is part of its memory map.

    in_place.mount("/path/agent.romfs", "/agent")    # and first in sys.path; a folder inside: "/agent/lib"

The image is mapped into memory by the system, outside of MicroPython's heap.
"""

import os
import sys

import ffi
import uctypes
import vfs

_PROT_READ = 1
_MAP_PRIVATE = 2


def mount(path, point):
    size = os.stat(path)[6]
    mmap = ffi.open("libc.so.6").func("p", "mmap", "pLiiil")
    with open(path, "rb") as file:
        at = mmap(None, size, _PROT_READ, _MAP_PRIVATE, file.fileno(), 0)
    if at in (0, -1):
        raise OSError("cannot map " + path)
    vfs.mount(vfs.VfsRom(uctypes.bytearray_at(at, size)), "/" + point.split("/")[1])
    sys.path.insert(0, point)
