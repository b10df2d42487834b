"""On MicroPython: bad manifests, one after the other, against a camera that runs model-1.

Arguments: the broker's folder, an empty folder for storage, the digest of model-1's content. In the broker's folder:
model-1, model-honest, and `cases`: a line "name state reason" for each of `<name>.manifest`.
"""

import gc
import sys

import update_desk
from camera_agent import regions

broker, storage, digest = sys.argv[1:4]
files = regions.open_files(storage, 0, slot_bytes=12288 + 80 * 1024)
camera = update_desk.Camera(broker)
camera.boot(files)
camera.update("model-1", 1)


def expect(what, is_true):
    if not is_true:
        print("FAILED:", what, camera.reports[-3:], camera.model())
        sys.exit(1)


expect("model-1 runs", camera.model() == ("model-1", digest))
generation = 1
with open(broker + "/cases") as lines:
    for line in lines:
        name, state, reason = line.split()
        generation += 1
        with open(broker + "/model-2.manifest", "wb") as manifest:
            manifest.write(update_desk.read(broker + "/" + name + ".manifest"))
        camera.update("model-2", generation)
        expect(line, camera.reports[-1][:2] == (state, reason))
        expect("nothing is wanted after " + name, camera.port.wanted == [])
        expect("model-1 runs after " + name, camera.model() == ("model-1", digest))
        gc.collect()
camera.boot(files)
camera.update("model-honest", generation + 1)
expect("an honest release installs", camera.reports[-1][0] == "confirmed")
print(generation - 1, "repelled")
