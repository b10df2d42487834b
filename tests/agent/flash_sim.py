"""NOR flash that can lose its supply, behind the two interfaces that ports have for the ROMFS partition.

Erasing sets all bits of an erase block, programming only clears bits: what does not keep to that, and all else that
hardware does not forgive, raises MisuseError. Runs on CPython and on MicroPython.
"""

try:
    from collections.abc import Callable
    from typing import Any
except ImportError:  # MicroPython, which does not look at annotations
    pass

PAGE = 256  # bytes that are programmed in one go
BASE = 0x60800000  # where the partition seems to lie in memory
GUARD = 512  # bytes at the end that must not be touched
LEAST = 16  # bytes of a write

BEFORE, HALF, TORN, AFTER = range(
    4
)  # when the supply goes: before an operation, half-way, anywhere in it, after it


class PowerCut(BaseException):
    """The supply is gone. Not an Exception: nothing in the agent may catch it."""


class MisuseError(Exception):
    """Something that real flash does not do, or not twice."""


def _read_views(data: bytearray) -> "Callable[[int, int], Any]":
    """A function (offset, size) -> bytes of `data` in place."""
    try:
        import uctypes  # type: ignore[import-not-found] # MicroPython's
    except ImportError:
        view = memoryview(data)
        return lambda offset, size: view[offset : offset + size]
    start = uctypes.addressof(data)
    return lambda offset, size: uctypes.bytearray_at(start + offset, size)


class Flash:
    """`size` bytes of which the first `stock` are somebody else's. Counts `erases`, `programs` (pages) and `reads`."""

    def __init__(self, size: int, erase: int, stock: int) -> None:
        self.data = bytearray(b"\xff" * size)
        self.erase_bytes = erase
        self.stock = stock
        self.erases = self.programs = self.reads = 0
        self.operations = 0  # since power_on()
        self._cut_at = 0
        self._how = BEFORE
        self._random = 1
        self._blank = b"\xff" * PAGE
        self._see = _read_views(self.data)

    def power_on(self, cut_at: int = 0, how: int = AFTER, seed: int = 1) -> None:
        """Start counting operations; cut the supply at the `cut_at`th, or never."""
        self.operations = 0
        self._cut_at = cut_at
        self._how = how
        self._random = seed

    def _any(self, below: int) -> int:
        """A pseudo-random number; the same on both interpreters."""
        self._random = (self._random * 1103515245 + 12345) & 0x7FFFFFFF
        return (self._random >> 8) % below

    def read(self, offset: int, size: int) -> Any:
        """A view of bytes in place."""
        if offset < 0 or offset + size > len(self.data) - GUARD:
            raise MisuseError(f"read of {size} bytes at {offset}")
        self.reads += 1
        return self._see(offset, size)

    def _own(self, offset: int, size: int) -> None:
        if offset < self.stock or offset + size > len(self.data) - GUARD:
            raise MisuseError(f"{size} bytes at {offset} are not ours")

    def erase(self, offset: int) -> None:
        """Erase the block at `offset`."""
        size = self.erase_bytes
        if offset % size:
            raise MisuseError(f"erase at {offset}")
        self._own(offset, size)
        self.erases += 1
        self.operations += 1
        if self.operations != self._cut_at:
            self.data[offset : offset + size] = b"\xff" * size
            return
        if self._how == HALF:
            self.data[offset : offset + size // 2] = b"\xff" * (size // 2)
        elif self._how == TORN:  # some of it erased already, some of it nonsense
            start = self._any(size // 64) * 64
            end = start + self._any((size - start) // 64 + 1) * 64
            self.data[offset : offset + start] = b"\xff" * start
            noise = bytes([self._any(256) for _ in range(64)])
            for at in range(offset + start, offset + end, 64):
                self.data[at : at + 64] = noise
        elif self._how == AFTER:
            self.data[offset : offset + size] = b"\xff" * size
        raise PowerCut

    def program(self, offset: int, buf: bytes) -> None:
        """Write bytes, page by page."""
        size = len(buf)
        if size < LEAST or size % LEAST or offset % LEAST:
            raise MisuseError(f"write of {size} bytes at {offset}")
        self._own(offset, size)
        done = 0
        view = memoryview(buf)
        while done < size:
            at = offset + done
            page = view[done : done + min(PAGE - at % PAGE, size - done)]
            self._page(at, page)
            done += len(page)

    def _page(self, at: int, page: memoryview) -> None:
        size = len(page)
        before = self.data[at : at + size]
        if before != self._blank[:size]:
            old = int.from_bytes(before, "little")
            new = int.from_bytes(page, "little")
            if old & new != new:
                raise MisuseError(f"a bit at {at} would have to be set")
        self.programs += 1
        self.operations += 1
        if self.operations == self._cut_at:
            if self._how != BEFORE:
                part = size // 2 if self._how == HALF else self._any(size) if self._how == TORN else size
                self.data[at : at + part] = page[:part]
            raise PowerCut
        self.data[at : at + size] = page


class BlockDevice:
    """The partition as mimxrt hands it out."""

    def __init__(self, flash: Flash) -> None:
        self._flash = flash

    def readblocks(self, block: int, buf: bytearray, offset: int = 0) -> None:
        buf[:] = self._flash.read(block * self._flash.erase_bytes + offset, len(buf))

    def writeblocks(self, block: int, buf: bytes, offset: int = -1) -> None:
        """With three arguments it only programs."""
        at = block * self._flash.erase_bytes
        if offset < 0:
            self._flash.erase(at)
            offset = 0
        self._flash.program(at + offset, buf)

    def ioctl(self, op: int, arg: int) -> int:
        if op == 4:
            return len(self._flash.data) // self._flash.erase_bytes
        if op == 5:
            return self._flash.erase_bytes
        if op == 6:
            self._flash.erase(arg * self._flash.erase_bytes)
        return 0


class Firmware:
    """Stands in for the modules `vfs` and `uctypes`. `flavour`: "block" (mimxrt), "mapped" (STM32 and Alif that can
    erase a part), "old" (those that cannot), "none" (no partition)."""

    def __init__(self, flash: Flash, flavour: str, rom: object) -> None:
        self.flash = flash
        self.flavour = flavour
        self.VfsRom = rom
        self._part = BlockDevice(flash) if flavour == "block" else flash.data

    def rom_ioctl(self, op: int, *args: Any) -> Any:
        if self.flavour == "none":
            return -22
        if op == 1:
            return 1
        if op == 2:
            return self._part
        if self.flavour == "block":
            return -22
        if op == 3:
            if len(args) == 2:
                raise MisuseError("that erases the partition from its start")
            _, start, size = args
            for at in range(start, start + size, self.flash.erase_bytes):
                self.flash.erase(at)
            return 4
        if op == 4:
            self.flash.program(args[1], args[2])
            return 0
        if op == 6 and self.flavour == "mapped":
            return self.flash.erase_bytes
        return -22

    def addressof(self, part: object) -> int:
        if part is not self._part:
            raise TypeError("no buffer")
        return BASE

    def bytearray_at(self, address: int, size: int) -> Any:
        return self.flash.read(address - BASE, size)
