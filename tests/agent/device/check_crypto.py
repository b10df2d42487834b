"""On MicroPython: judge the signatures in a file (key, signature, digest in hex, 1 if genuine)."""

import gc
import sys
import time
from binascii import unhexlify

from camera_agent import crypto

judged = wrong = 0
spent = 0
with open(sys.argv[1]) as file:
    for line in file:
        key, signature, digest, genuine = line.split()
        started = time.ticks_us()
        said = crypto.verify(unhexlify(key), unhexlify(signature), unhexlify(digest))
        spent += time.ticks_diff(time.ticks_us(), started)
        judged += 1
        if said is not (genuine == "1"):
            wrong += 1
            print("wrong:", line)
gc.collect()
print("judged", judged, "wrong", wrong, "mean us", spent // judged, "heap in use", gc.mem_alloc())
sys.exit(1 if wrong else 0)
