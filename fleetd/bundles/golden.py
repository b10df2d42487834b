"""Golden frames: inputs whose answers are known, so that a camera finds out whether its kernels compute as they should.

    data = build(Golden((frame, frame), ((0.1, 0.9), (0.8, 0.2))))     # FILE in the content, before it is signed
    golden = read(data)

A frame is the model's input tensor as its engine takes it: the bytes of one picture in the tensor's own type
(`int8`: pixel minus 128), height x width x channels. Nothing scales or crops it on the camera, so that only the
engine is compared. An answer is what the model gives for it: one number per label, dequantised.

The file, little endian: b"FGF1" | u16 frames | u16 answers of each | u32 bytes of each frame | u32 zero |
answers as 32-bit floats, frame by frame | the frames. How far a camera may be off is in the manifest (`golden`).
"""

import math
import struct
from dataclasses import dataclass
from typing import Final

from fleetd.bundles.errors import ContentRejectedError, ReleaseError
from fleetd.bundles.tflite import Model
from fleetd.protocol import limits
from fleetd.protocol.manifest import GOLDEN_FRAMES, GoldenFacts

FILE: Final = "golden.bin"
ALIGNMENT: Final = 4
TOLERANCE: Final = 0.02  # usual: cameras compute int8 models to the last bit, but their floats are short
_MAGIC: Final = b"FGF1"
_HEAD: Final = struct.Struct("<4sHHII")


@dataclass(frozen=True, slots=True)
class Golden:
    """Frames and their answers, as many of the one as of the other, all of one size."""

    frames: tuple[bytes, ...]
    answers: tuple[tuple[float, ...], ...]


def build(golden: Golden) -> bytes:
    """The file. Raises ReleaseError for what no camera would take."""
    sizes = {len(frame) for frame in golden.frames}, {len(answer) for answer in golden.answers}
    if not 1 <= len(golden.frames) <= GOLDEN_FRAMES or len(golden.frames) != len(golden.answers):
        raise ReleaseError(f"Golden frames: 1 to {GOLDEN_FRAMES}, and an answer to each.")
    if any(len(each) != 1 or not max(each) for each in sizes):
        raise ReleaseError("Golden frames and their answers have to be of one size.")
    numbers = [number for answer in golden.answers for number in answer]
    if not all(map(math.isfinite, numbers)):
        raise ReleaseError("The answer to a golden frame is not a number.")
    head = _HEAD.pack(_MAGIC, len(golden.frames), max(sizes[1]), max(sizes[0]), 0)
    return head + struct.pack(f"<{len(numbers)}f", *numbers) + b"".join(golden.frames)


def read(data: bytes) -> Golden:
    """What is in the file. Raises ContentRejectedError."""
    if len(data) < _HEAD.size:
        raise _damaged()
    magic, count, outputs, size, _ = _HEAD.unpack_from(data)
    expected = _HEAD.size + count * (4 * outputs + size)
    if magic != _MAGIC or not 1 <= count <= GOLDEN_FRAMES or not 1 <= outputs <= limits.LABELS:
        raise _damaged()
    if not size or len(data) != expected:
        raise _damaged()
    numbers = struct.unpack_from(f"<{count * outputs}f", data, _HEAD.size)
    if not all(map(math.isfinite, numbers)):
        raise _damaged()
    first = _HEAD.size + 4 * count * outputs
    return Golden(
        tuple(data[first + n * size : first + (n + 1) * size] for n in range(count)),
        tuple(numbers[n * outputs : (n + 1) * outputs] for n in range(count)),
    )


def check(data: bytes | None, facts: GoldenFacts | None, model: Model, labels: int) -> None:
    """ContentRejectedError unless file (None: there is none), manifest and model fit each other."""
    if data is None and facts is None:
        return
    if data is None or facts is None:
        raise ContentRejectedError(
            "manifest-invalid", f"{FILE} and the manifest's `golden` go together; one of them is missing."
        )
    golden = read(data)
    if len(golden.frames) != facts.frames:
        raise ContentRejectedError(
            "manifest-invalid", "The manifest names another number of golden frames than there are."
        )
    if len(golden.answers[0]) != labels or len(golden.frames[0]) != model.inputs[0].size:
        raise ContentRejectedError("golden-mismatch", "The golden frames were made for another model.")


def _damaged() -> ContentRejectedError:
    return ContentRejectedError("manifest-invalid", f"{FILE} in the content is damaged.")
