"""On MicroPython: real updates over real files, in a camera-sized heap.

Arguments: the broker's folder, an empty folder for storage, and the digests of the contents of model-1 and model-2.
Releases there: model-1, model-2 (also as a patch), unsigned, truncated (its last block is short).
"""

import gc
import sys
import time

import update_desk
from camera_agent import crypto, regions

broker, storage = sys.argv[1], sys.argv[2]
one, two = ("model-1", sys.argv[3]), ("model-2", sys.argv[4])
gc.collect()
code = gc.mem_alloc()


def expect(what, is_true):
    if not is_true:
        print("FAILED:", what)
        print(camera.reports, camera.updater.status())
        sys.exit(1)


def reboot():
    camera.boot(files)


def timed(name, work):
    gc.collect()
    started = time.ticks_us()
    work()
    took[name] = time.ticks_diff(time.ticks_us(), started) // 1000


took = {}
files = regions.open_files(storage, 0, slot_bytes=12288 + 80 * 1024)
camera = update_desk.Camera(broker)
reboot()
expect("a fresh camera has no model", camera.model() is None)
gc.collect()
idle = gc.mem_alloc()

timed("full", lambda: camera.update("model-1", 1, True))
expect("the full encoding was installed", camera.model() == one and camera.reports[-1][0] == "confirmed")
reboot()
expect("it survives a reboot", camera.model() == one)

for name, end in (
    ("unsigned", ("rejected", "signature-invalid")),
    ("truncated", ("failed", "digest-mismatch")),
):
    camera.update(name, camera.updater.status()["generation"] + 1)
    expect(name + " is refused", camera.reports[-1][:2] == end and camera.model() == one)
    expect("nothing is left wanted", camera.port.wanted == [])

timed("patch", lambda: camera.update("model-2", 10, True))
expect("the patch was installed", camera.model() == two and camera.reports[-1][0] == "confirmed")
expect("no full encoding was needed", camera.port.taken < 6)
timed("boot", reboot)
expect("it survives a reboot", camera.model() == two)

# on trial: a failure at once, and a crash twice
generation = 20
camera.updater.on_desired(
    {"generation": generation, "release": "model-3", "digest": None, "config": {}, "deadline": None}
)
camera.run()
expect("model-3 is on trial", camera.updater.model_to_use().trial)
reboot()
expect("it is started again", camera.updater.model_to_use().trial)
reboot()
expect("and then reverted", camera.model() == two and camera.reports[-1][:2] == ("reverted", "trial-crashed"))
camera.update("model-3", generation + 1)
expect("for good", camera.reports[-1][:2] == ("rejected", "trial-crashed"))

print("code", code, "idle", idle - code, "peak", camera.peak - code, "ms", took)
if sys.argv[5] == "measure":  # a signature check by itself, in a heap of some MB
    blob = update_desk.read(broker + "/model-3.manifest")
    key = update_desk.read(broker + "/key")
    signed = crypto.sha256(blob[:12] + blob[76:])
    gc.collect()
    before = gc.mem_alloc()
    gc.disable()
    started = time.ticks_us()
    expect("the signature is genuine", crypto.verify(key, blob[12:76], signed))
    print("verify us", time.ticks_diff(time.ticks_us(), started), "leaves", gc.mem_alloc() - before)
    gc.enable()
print("done")
