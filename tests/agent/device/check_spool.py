"""The spool in a real file on MicroPython: prints "ok" and how many messages earlier runs have left."""

import sys

from camera_agent.spool import Spool
from camera_agent.volume import allocate

path, boot = sys.argv[1], int(sys.argv[2])
region = allocate(path, 65536, None)
region.unit = 512
spool = Spool(region, lambda: None)
left = 0
while not spool.is_empty:
    found = spool.take()
    if found:
        _at, name, seq, channel, payload = found
        assert name == "%016x" % (left // 20), (name, left)
        assert seq == left % 20 + 1, (seq, left)
        assert channel == "event"
        assert payload == b"x" * (40 * seq), (seq, len(payload))
        left += 1
for seq in range(1, 21):
    assert spool.put("%016x" % boot, seq, "event", b"x" * (40 * seq)) is not None
print("ok", left)
