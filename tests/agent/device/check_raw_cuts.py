"""On MicroPython: cut the power during updates on raw flash, then boot again. The model is looked at where it lies.

Arguments: folder, flavour, bytes of an erase block, stride, and pairs of a release id and the digest of its content,
which are installed one after the other.
"""

import sys

import vfs

import update_desk
from camera_agent import crypto, manifest, rawflash
from flash_sim import AFTER, HALF, TORN, Firmware, Flash, PowerCut

folder, flavour, erase, stride = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
releases = [(sys.argv[n], sys.argv[n + 1]) for n in range(5, len(sys.argv), 2)]
SLOT = 12288 + 3 * 4096
STOCK = 5000
judged = {}
verify = crypto.verify


def remembered(key, signature, digest):
    if bytes(signature) not in judged:
        judged[bytes(signature)] = verify(key, signature, digest)
    return judged[bytes(signature)]


crypto.verify = manifest.crypto.verify = remembered  # each signature once: there are hundreds of boots


def power_on(cut_at=0, how=AFTER):
    flash.power_on(cut_at, how, cut_at)
    files = rawflash.open_raw(firmware, firmware, folder + "/raw.bin", SLOT)
    camera.boot(files)


def model():
    """Release and digest of the model, read in place."""
    choice = camera.updater.model_to_use()
    if choice is None:
        return None
    content = choice.content
    seen = crypto.sha256(content._region.view(12288, content.size))
    if (choice.release, crypto.hexed(seen)) != camera.model():
        raise SystemExit("in place it is another model")
    return camera.model()


flash = Flash(32 * 4096 if erase == 4096 else 12 * erase, erase, 0)
stock = b"\xd2\xcd\x31" + bytes([128 | (STOCK - 5) >> 7, (STOCK - 5) & 127]) + bytes(STOCK - 5)
flash.data[: len(stock)] = stock
flash.stock = -(-STOCK // erase) * erase
firmware = Firmware(flash, flavour, vfs.VfsRom)
camera = update_desk.Camera(folder)
power_on()
camera.update(releases[0][0], 1)
if model() != releases[0]:
    raise SystemExit("the first install failed: %s" % camera.reports)
cuts = none = stuck = 0
for n in range(1, len(releases)):
    old, new = releases[n - 1], releases[n]
    before = bytes(flash.data)
    power_on()
    camera.update(new[0], 2)
    total = flash.operations
    if model() != new:
        raise SystemExit("the update failed: %s" % camera.reports)
    after = bytes(flash.data)
    for cut in range(1, total + 1, stride):
        for how in (HALF, TORN, AFTER):
            cuts += 1
            flash.data[:] = before
            try:
                power_on(cut, how)
                camera.update(new[0], 2)
            except PowerCut:
                pass
            power_on()
            if model() not in (old, new):
                none += 1
                continue
            camera.update(new[0], 3)
            power_on()
            if model() != new:
                stuck += 1
    flash.data[:] = after
if bytes(flash.data[: len(stock)]) != stock:
    raise SystemExit("the firmware's own content was touched")
print("cuts", cuts, "none", none, "stuck", stuck)
sys.exit(1 if none or stuck else 0)
