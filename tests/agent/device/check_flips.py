"""On MicroPython: open a signed manifest with each of its bits flipped, one at a time, and count what is accepted.

check_flips.py KEY MANIFEST FIRST_BIT STEP
"""

import sys

from camera_agent import crypto
from camera_agent.errors import ManifestError
from camera_agent.manifest import open_manifest

key, blob, first, step = sys.argv[1:]
with open(key, "rb") as file:
    keys = crypto.keyring([file.read()])
with open(blob, "rb") as file:
    data = bytearray(file.read())
assert open_manifest(data, keys)["format"] == 1
flips = accepted = 0
for bit in range(int(first), 8 * len(data), int(step)):
    data[bit // 8] ^= 1 << bit % 8
    try:
        open_manifest(data, keys)
        accepted += 1
        print("accepted with bit", bit)
    except ManifestError:
        pass
    data[bit // 8] ^= 1 << bit % 8
    flips += 1
print("flips", flips, "accepted", accepted)
