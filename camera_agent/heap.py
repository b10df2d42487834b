"""What a heap of 128 KB asks for, on both Pythons.

    _NAME = const(...)          MicroPython's compiler puts the value where the name is used: neither takes memory
    collect()                   make room now
    load("unpack")              a module of the agent that is not needed all the time
    forget("unpack")            ... gives back its memory, where that is scarce
    keep_room(), give_room()    holds what inflating needs in one piece, and lets go of it

The garbage collector never moves anything, so a heap that is nearly full is soon in small pieces. Where memory is not
scarce nothing is kept free, and a module that was loaded once stays.

RAM BUDGET: 1 KB, and what is kept free.
"""

import gc
import sys

from camera_agent.errors import StorageError

try:
    from micropython import const
except ImportError:  # CPython

    def const(value):
        """The value itself."""
        return value


IS_MICROPYTHON = hasattr(gc, "mem_free")
_SMALL = const(600_000)  # bytes; more are not worth the time that tidying up takes
# Asked once: the answer takes a look at every block, on a heap of 8 MB tens of milliseconds.
_IS_SMALL = IS_MICROPYTHON and gc.mem_alloc() + gc.mem_free() < _SMALL
_PACKAGE = const("camera_agent.")
_ROOM = const(5632)  # bytes: DeflateIO's window of 4 KB and its tables
_room = [None]


def is_small():
    """Whether memory is scarce."""
    return _IS_SMALL


def collect():
    """Make room on MicroPython; elsewhere it only costs time."""
    if IS_MICROPYTHON:
        gc.collect()


def load(name):
    """A module of this package. Raises StorageError when it cannot be read."""
    try:
        __import__(_PACKAGE + name)
    except (ImportError, OSError, ValueError) as error:
        raise StorageError("storage-error", "load %s: %s" % (name, error)) from None
    return sys.modules[_PACKAGE + name]


def firmware(name):
    """A module of the firmware, or None where it is missing."""
    try:
        return __import__(name)
    except ImportError:
        return None


def forget(name):
    """Take a module out of memory; load() brings it back. What it made and what is still in use keeps it there."""
    if is_small() and sys.modules.pop(_PACKAGE + name, None):
        package = sys.modules["camera_agent"]
        if hasattr(package, name):
            delattr(package, name)
        gc.collect()


def keep_room():
    """Hold the room, unless it is held already or the heap is in too small pieces even now."""
    if _room[0] is None and is_small():
        gc.collect()
        try:
            _room[0] = bytearray(_ROOM)
        except MemoryError:
            pass  # without it an update may end with out-of-memory; the next call may have more luck


def give_room():
    """Let go of it for work that needs it, and make room."""
    _room[0] = None
    collect()
