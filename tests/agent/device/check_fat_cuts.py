"""On MicroPython: cut the power at every step of updates on a FAT volume in flash, then boot again.

The block device has erase blocks of 4 KB: writing a sector reads its block, erases it and programs it again, and
the power can go before, between and in the middle of that. Arguments: folder, sector size, stride, and pairs of a
release id and the digest of its content, which are installed one after the other.
"""

import os
import sys

import vfs

import update_desk
from camera_agent import crypto, manifest, regions

folder, sector, stride = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
releases = [(sys.argv[n], sys.argv[n + 1]) for n in range(4, len(sys.argv), 2)]
ERASE = 4096


class PowerCutError(Exception):
    pass


class Flash:
    def __init__(self, size):
        self.data = bytearray(size)
        self.cut_at = 0
        self.count = 0

    def readblocks(self, block, buf, offset=0):
        at = block * sector + offset
        buf[:] = self.data[at : at + len(buf)]

    def writeblocks(self, block, buf, offset=0):
        for at in range(0, len(buf), sector):
            self._write(block * sector + offset + at, memoryview(buf)[at : at + sector])

    def _write(self, at, buf):
        first = at // ERASE * ERASE
        self.count += 3
        step = self.cut_at - (self.count - 2)  # 0 before, 1 erased, 2 half programmed
        if 0 <= step <= 2:
            if step:
                kept = bytearray(self.data[first : first + ERASE])
                kept[at - first : at - first + len(buf)] = buf
                self.data[first : first + ERASE] = b"\xff" * ERASE
                if step == 2:
                    self.data[first : first + ERASE // 2] = kept[: ERASE // 2]
            raise PowerCutError
        self.data[at : at + len(buf)] = buf

    def ioctl(self, op, _arg):
        return {4: len(self.data) // sector, 5: sector}.get(op, 0)


class Os:
    """The firmware's os has sync(), this port's has not."""

    stat = os.stat
    mkdir = os.mkdir
    remove = os.remove

    @staticmethod
    def sync():
        pass


regions.os = Os
judged = {}
verify = crypto.verify


def remembered(key, signature, digest):
    if bytes(signature) not in judged:
        judged[bytes(signature)] = verify(key, signature, digest)
    return judged[bytes(signature)]


crypto.verify = manifest.crypto.verify = remembered  # each signature once: there are hundreds of boots


def power_on(cut_at=0):
    """Mount what is on the flash and boot."""
    try:
        vfs.umount("/cam")
    except OSError:
        pass
    flash.cut_at = 0
    flash.count = 0
    vfs.mount(vfs.VfsFat(flash), "/cam")
    files = regions.open_files("/cam", 0, slot_bytes=SLOT)
    kept.append(files)
    flash.count = 0
    flash.cut_at = cut_at
    camera.boot(files)


kept = []  # a power cut closes no files: closing would write, so none may ever be collected
SLOT = 12288 + 3 * 4096
flash = Flash(192 * 1024)
vfs.VfsFat.mkfs(flash)
camera = update_desk.Camera(folder)
power_on()
camera.update(releases[0][0], 1)
if camera.model() != releases[0]:
    raise SystemExit("the first install failed: %s" % camera.reports)
cuts = unmountable = none = stuck = 0
for n in range(1, len(releases)):
    old, new = releases[n - 1], releases[n]
    before = bytes(flash.data)
    power_on()
    camera.update(new[0], 2)
    total = flash.count
    if camera.model() != new:
        raise SystemExit("the update failed: %s" % camera.reports)
    after = bytes(flash.data)
    for cut in range(1, total + 1, stride):
        cuts += 1
        flash.data[:] = before
        try:
            power_on(cut)
            camera.update(new[0], 2)
        except PowerCutError:
            pass
        try:
            power_on()
        except OSError:
            unmountable += 1
            continue
        if camera.model() not in (old, new):
            none += 1
            continue
        camera.update(new[0], 3)
        power_on()
        if camera.model() != new:
            stuck += 1
    flash.data[:] = after
print("cuts", cuts, "unmountable", unmountable, "none", none, "stuck", stuck)
sys.exit(1 if unmountable or none or stuck else 0)
