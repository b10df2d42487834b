"""On MicroPython: a FAT volume in a file, as the camera's /flash. The first time it is formatted and gets what lies in
a folder of the host, as a host writes it through USB; then the firmware's part: mount it, and start its main.py.

Arguments: image, bytes, folder to copy from.
"""

import os
import sys

import vfs

SECTOR = 512
image, size, source = sys.argv[1], int(sys.argv[2]), sys.argv[3]


class Disk:
    def __init__(self, path):
        self._file = open(path, "r+b")

    def readblocks(self, block, buf, offset=0):
        self._file.seek(block * SECTOR + offset)
        self._file.readinto(buf)

    def writeblocks(self, block, buf, offset=0):
        self._file.seek(block * SECTOR + offset)
        self._file.write(buf)
        self._file.flush()

    def ioctl(self, op, _arg):
        return {4: size // SECTOR, 5: SECTOR}.get(op, 0)


def copy(folder, target):
    for name, kind, *_ in os.ilistdir(folder):
        if kind == 0x4000:
            os.mkdir(target + "/" + name)
            copy(folder + "/" + name, target + "/" + name)
            continue
        with open(folder + "/" + name, "rb") as old, open(target + "/" + name, "wb") as new:
            while True:
                piece = old.read(4096)
                if not piece:
                    break
                new.write(piece)


try:
    os.stat(image)
    is_new = False
except OSError:
    is_new = True
    with open(image, "wb") as file:
        for _ in range(size // 4096):
            file.write(b"\xff" * 4096)
disk = Disk(image)
if is_new:
    vfs.VfsFat.mkfs(disk)
vfs.mount(vfs.VfsFat(disk), "/flash")
if is_new:
    copy(source, "/flash")
    vfs.umount("/flash")
    vfs.mount(vfs.VfsFat(disk), "/flash")
    print("fat: written")
os.chdir("/flash")
sys.path[:] = ["", "/flash", "/flash/lib"] + [
    path for path in sys.path if path and not path.startswith("/flash")
]
with open("/flash/main.py") as file:
    program = file.read()
exec(program, {"__name__": "__main__"})
