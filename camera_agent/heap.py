"""What a heap of 128 KB asks for, on both Pythons.

    _NAME = const(...)      MicroPython's compiler puts the value where the name is used: neither takes memory
    collect()               make room now
    forget("settings")      a module of the agent that only the start needed gives back its memory

RAM BUDGET: under 1 KB.
"""

import gc
import sys

try:
    from micropython import const
except ImportError:  # CPython

    def const(value):
        """The value itself."""
        return value


IS_SMALL = hasattr(gc, "mem_free")  # MicroPython


def collect():
    """Make room on MicroPython's small heap; elsewhere it only costs time."""
    if IS_SMALL:
        gc.collect()


def forget(name):
    """Take a module of this package out of memory. Nothing that it made may still be in use, or it stays."""
    if IS_SMALL:
        package = sys.modules["camera_agent"]
        if sys.modules.pop("camera_agent." + name, None) and hasattr(package, name):
            delattr(package, name)
        gc.collect()
