"""Golden frames: before a model on trial sees live pictures it has to give the answers that it gave where it was made.

    check(model, content, files, facts, feed)    # ModelError golden-mismatch; facts: the manifest's `golden`

The frames and their answers lie in the content as `golden.bin` (fleetd/bundles/golden.py describes the bytes). A frame
goes into the input tensor as it is, so that nothing but the firmware's kernels is compared.

RAM BUDGET: 2 KB of code, loaded for a trial; one frame's answers (at most 1 KB). Frames are read into the tensor.
"""

import struct

from camera_agent import protocol
from camera_agent.models import ModelError

FILE = "golden.bin"
_MAGIC = b"FGF1"
_HEAD = "<4sHHII"
_HEAD_BYTES = 16
_FRAMES = 8


def check(model, content, files, facts, feed):
    """Run every golden frame. ModelError: golden-mismatch when an answer is off by more than the tolerance."""
    offset = None
    for entry in files:
        if entry["path"] == FILE:
            offset = entry["offset"]
    if offset is None:
        raise ModelError("golden-mismatch", "the release holds no golden.bin")
    head = bytearray(_HEAD_BYTES)
    _read(content, offset, memoryview(head))
    magic, frames, outputs, size, _zero = struct.unpack(_HEAD, head)
    if magic != _MAGIC or not 0 < frames <= _FRAMES or frames != facts["frames"]:
        raise ModelError("golden-mismatch", "golden.bin is damaged")
    if outputs != model.output_len or outputs > protocol.LABELS:
        raise ModelError("golden-mismatch", "%d answers, %d outputs" % (outputs, model.output_len))
    expected = memoryview(bytearray(4 * outputs))
    first = offset + _HEAD_BYTES + 4 * frames * outputs
    for number in range(frames):
        feed()
        _read(content, offset + _HEAD_BYTES + 4 * number * outputs, expected)
        found = model.answer(_filler(content, first + number * size, size))
        _compare(number, found, expected, facts["tolerance"])


def _filler(content, at, size):
    def fill(view):
        if len(view) != size:
            raise ModelError("golden-mismatch", "frames of %d bytes, input of %d" % (size, len(view)))
        _read(content, at, view)

    return fill


def _compare(number, found, expected, tolerance):
    for n in range(len(found)):
        wanted = struct.unpack_from("<f", expected, 4 * n)[0]
        # written so that not-a-number is off, too
        if not abs(found[n] - wanted) <= tolerance:
            raise ModelError(
                "golden-mismatch", "frame %d, output %d: %.4f, not %.4f" % (number, n, found[n], wanted)
            )


def _read(content, offset, view):
    if content.readinto(offset, view) != len(view):
        raise ModelError("storage-error", "golden.bin is cut short")
