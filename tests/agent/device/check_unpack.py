"""On MicroPython: unpack the encodings in a folder with the firmware's own deflate."""

import gc
import hashlib
import json
import sys

from camera_agent import crypto
from camera_agent.regions import FileRegion
from camera_agent.unpack import Unpacker, UnpackError

folder = sys.argv[1]


class Base:
    def __init__(self, path):
        self._file = open(path, "rb")
        self.size = self._file.seek(0, 2)

    def readinto(self, offset, view):
        if offset < 0 or offset + len(view) > self.size:
            raise AssertionError("outside the base")
        self._file.seek(offset)
        return self._file.readinto(view)


class Sink:
    def __init__(self, size):
        self.size = size
        self.taken = 0
        self.hash = hashlib.sha256()

    def write(self, offset, view):
        if offset != self.taken or offset >= self.size or len(view) != 4096:
            raise AssertionError("a write where none belongs")
        count = min(4096, self.size - offset)
        self.hash.update(view[:count])
        self.taken += count


buffer = bytearray(4096)
base = Base(folder + "/base")
with open(folder + "/cases") as file:
    cases = json.load(file)
for n in range(len(cases)):
    kind, encoded, size, verdict, expected = cases[n]
    sink = Sink(size)
    region = FileRegion("%s/case%d" % (folder, n))
    gc.collect()
    try:
        unpacker = Unpacker(region, {"kind": kind, "size": encoded}, size, sink.write, buffer, base)
        while unpacker.step():
            pass
        said = "ok"
    except UnpackError:
        said = "bad"
    region.close()
    if said != verdict or (said == "ok" and crypto.hexed(sink.hash.digest()) != expected):
        print("case", n, kind, "was", said, "instead of", verdict)
        sys.exit(1)
print("unpacked", len(cases))
