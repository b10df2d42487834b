"""On MicroPython: what most cameras do, a new model in a file of its own and then rename(), on FAT in flash.

After each cut the volume is mounted as the firmware does at its start. Cannot it be mounted, the firmware formats it:
agent, settings and model are gone. Arguments: bytes of a sector, of an erase block, stride.
"""

import sys

import os
import vfs

from flash_sim import AFTER, HALF, TORN, Flash, PowerCut

sector, erase, stride = [int(word) for word in sys.argv[1:4]]
OLD = bytes([n * 7 & 255 for n in range(9000)])
NEW = bytes([n * 11 & 255 for n in range(9500)])
CONFIG = b"who I am" * 40
GUARD = 512


class Disk:
    """Sectors on flash: the erase block around a sector is read, erased and written again."""

    def __init__(self, flash, size):
        self.flash = flash
        self.size = size

    def readblocks(self, block, buf):
        at = block * sector
        buf[:] = self.flash.data[at : at + len(buf)]

    def writeblocks(self, block, buf):
        for done in range(0, len(buf), sector):
            at = block * sector + done
            first = at // erase * erase
            kept = bytearray(self.flash.data[first : first + erase])
            kept[at - first : at - first + sector] = memoryview(buf)[done : done + sector]
            self.flash.erase(first)
            self.flash.program(first, kept)

    def ioctl(self, op, _arg):
        return {4: self.size // sector, 5: sector}.get(op, 0)


def power_on():
    """Mount, or raise OSError."""
    try:
        vfs.umount("/cam")
    except OSError:
        pass
    vfs.mount(vfs.VfsFat(disk), "/cam")


def read(name):
    try:
        with open("/cam/" + name, "rb") as file:
            return file.read()
    except OSError:
        return None


def update():
    file = open("/cam/model.new", "wb")
    kept.append(file)
    for at in range(0, len(NEW), 4096):
        file.write(NEW[at : at + 4096])
    file.close()
    os.rename("/cam/model.new", "/cam/model.bin")


def model():
    """A complete model under either name."""
    for name in ("model.bin", "model.new"):
        data = read(name)
        if data in (OLD, NEW):
            return data
    return None


kept = []  # a power cut closes no files, and neither may the collector
size = 64 * 4096
flash = Flash(size + erase, erase, 0)
disk = Disk(flash, size)
vfs.VfsFat.mkfs(disk)
power_on()
for name, data in (("config", CONFIG), ("model.bin", OLD)):
    with open("/cam/" + name, "wb") as file:
        file.write(data)
before = bytes(flash.data)
flash.power_on()
update()
total = flash.operations
cuts = unmountable = none = config = stuck = 0
for cut in range(1, total + 1, stride):
    for how in (HALF, TORN, AFTER):
        cuts += 1
        flash.data[:] = before
        flash.power_on()
        power_on()
        flash.power_on(cut, how, cut)
        try:
            update()
        except PowerCut:
            pass
        flash.power_on()
        try:
            power_on()
        except OSError:
            unmountable += 1
            continue
        if read("config") != CONFIG:
            config += 1
        if model() is None:
            none += 1
        try:
            update()
            power_on()
            stuck += read("model.bin") != NEW
        except OSError:
            stuck += 1
print(
    "operations",
    total,
    "cuts",
    cuts,
    "unmountable",
    unmountable,
    "none",
    none,
    "config",
    config,
    "stuck",
    stuck,
)
