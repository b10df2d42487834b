"""Would this board run this model? Facts in, findings out; nothing is read, sent or remembered here.

    findings = check(read_model(data), labels, boards.find(arch))

`refuse` means the camera would fail or, worse, answer wrongly; `warn` means look at it. Every finding says what is
wrong, with the numbers, and what to do. Codes are stable.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from fleetd.boards import BoardProfile, operators
from fleetd.bundles.tflite import Model, Tensor

SLOT_HEADER_BYTES: Final = 12288  # what lies in front of the content in a slot
_IMAGE_EXTRA_BYTES: Final = 512  # labels and directory, when the content's size is not given
_SCALE: Final = 1 / 255
_SCALE_TOLERANCE: Final = 1e-5
_TIGHT: Final = 0.9  # of the memory

Level = Literal["refuse", "warn"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that speaks against a model on a board."""

    level: Level
    code: str
    message: str
    remedy: str


def check(
    model: Model, labels: Sequence[str], board: BoardProfile, *, content_bytes: int | None = None
) -> list[Finding]:
    """Everything that speaks against it, refusals first. An empty list: it fits.

    `content_bytes` is the size of the release's content when it is known already.
    """
    content = content_bytes or model.size + sum(len(label) + 1 for label in labels) + _IMAGE_EXTRA_BYTES
    findings = [
        *_format(model, board),
        *_operators(model, board),
        *_input(model),
        *_output(model, labels),
        *_memory(model, content, board),
        *_storage(content, board),
    ]
    return sorted(findings, key=lambda finding: finding.level != "refuse")


def refusals(findings: Sequence[Finding]) -> list[Finding]:
    """Only those that forbid it."""
    return [finding for finding in findings if finding.level == "refuse"]


def _format(model: Model, board: BoardProfile) -> Iterator[Finding]:
    kind = "vela" if "custom:ethos-u" in model.ops else "tflite"
    if kind in board.model_formats:
        return
    if kind == "vela":
        yield Finding(
            "refuse",
            "model-format",
            f"The model is compiled for the Ethos-U55 (Vela); the {board.name} has none.",
            "Give the .tflite as it was before Vela.",
        )
    else:
        yield Finding(
            "refuse",
            "model-format",
            f"The {board.name} cannot load a plain .tflite: its firmware expects a network compiled by stedgeai.",
            "Leave this board out of the release, or update its model through the OpenMV IDE for now.",
        )


def _operators(model: Model, board: BoardProfile) -> Iterator[Finding]:
    known = operators()
    allowed = known.builtin | {f"custom:{name}" for name in known.custom} | {"custom:ethos-u"}
    missing = [op for op in model.ops if op not in allowed]
    if "custom:TFLite_Detection_PostProcess" in missing:
        yield Finding(
            "refuse",
            "detection-model",
            "This is an SSD object detection model: it needs TFLite_Detection_PostProcess, which OpenMV leaves out.",
            "Train an image classification model.",
        )
        missing.remove("custom:TFLite_Detection_PostProcess")
    if missing:
        names = ", ".join(op.removeprefix("custom:") for op in missing)
        yield Finding(
            "refuse",
            "unsupported-op",
            f"The firmware of the {board.name} has no operator {names}.",
            "Use layers that TensorFlow Lite Micro has, and convert with TFLITE_BUILTINS only.",
        )
    if model.hybrid_ops:
        names = ", ".join(model.hybrid_ops)
        yield Finding(
            "refuse",
            "hybrid-model",
            f"{names} mixes float values with integer weights (dynamic range quantisation); cameras cannot run it.",
            "Quantise the whole model to int8 with a representative data set.",
        )


def _input(model: Model) -> Iterator[Finding]:
    if len(model.inputs) != 1:
        yield Finding(
            "refuse",
            "input-count",
            f"The model has {len(model.inputs)} inputs; a camera gives it one picture.",
            "Give an image model with one input.",
        )
        return
    tensor = model.inputs[0]
    shape = "x".join(map(str, tensor.shape)) or "a single number"
    if len(tensor.shape) != 4 or tensor.shape[0] != 1 or tensor.shape[3] not in (1, 3) or 0 in tensor.shape:
        yield Finding(
            "refuse",
            "input-shape",
            f"The model's input is {shape}; a picture is 1 x height x width x 1 (grey) or 3 (colour).",
            "Give an image classification model, not one for audio or other sensors.",
        )
        return
    if tensor.shape[1] != tensor.shape[2]:
        yield Finding(
            "warn",
            "input-not-square",
            f"The model's input is {shape}; the agent takes square pictures and stretches them.",
            "Train with square pictures.",
        )
    yield from _quantisation(tensor)


def _quantisation(tensor: Tensor) -> Iterator[Finding]:
    if tensor.dtype == "float32":
        yield Finding(
            "warn",
            "float-model",
            "The model takes floats: the camera feeds 0 to 1, and it runs several times slower than int8.",
            "Export the quantised (int8) version, if there is one.",
        )
        return
    zero_point = {"int8": -128, "uint8": 0}.get(tensor.dtype)
    if zero_point is None:
        yield Finding(
            "refuse",
            "input-type",
            f"The model's input is {tensor.dtype}; the camera's image path gives int8, uint8 or float32.",
            "Export the model with int8 input.",
        )
    elif abs(tensor.scale - _SCALE) > _SCALE_TOLERANCE or tensor.zero_point != zero_point:
        yield Finding(
            "refuse",
            "input-quantisation",
            f"The model's input is quantised with scale {tensor.scale:.6g} and zero point {tensor.zero_point}. "
            f"The firmware ignores both and feeds pixels as if they were 1/255 and {zero_point}: "
            "every answer would be wrong.",
            "Train on pixels from 0 to 1, then quantise again; Edge Impulse does so.",
        )


def _output(model: Model, labels: Sequence[str]) -> Iterator[Finding]:
    if len(model.outputs) != 1:
        yield Finding(
            "refuse",
            "output-count",
            f"The model has {len(model.outputs)} outputs: object or anomaly detection. Only classification is run.",
            "Train an image classification model.",
        )
        return
    tensor = model.outputs[0]
    shape = "x".join(map(str, tensor.shape)) or "a single number"
    if any(dimension != 1 for dimension in tensor.shape[:-1]):
        if len(tensor.shape) != 4:
            what = "an object detection"
        elif tensor.shape[3] == len(labels):
            what = "a FOMO object detection"
        else:
            what = "an object detection or visual anomaly"
        yield Finding(
            "refuse",
            "detection-model",
            f"The model's output is {shape}, one answer per place: {what} model. Only classification is run.",
            "Train an image classification model.",
        )
        return
    classes = tensor.shape[-1] if tensor.shape else 1
    if tensor.dtype not in ("int8", "uint8", "float32"):
        yield Finding(
            "refuse",
            "output-type",
            f"The model's output is {tensor.dtype}; scores are int8, uint8 or float32.",
            "Export the model with int8 or float32 output.",
        )
    if classes < 2:
        yield Finding(
            "refuse",
            "output-shape",
            f"The model's output is {shape}: a regression, not a score per class.",
            "Train an image classification model with at least two classes.",
        )
    elif classes != len(labels):
        yield Finding(
            "refuse",
            "labels-mismatch",
            f"The model has {classes} classes and labels.txt names {len(labels)}.",
            "Take both files from the same export. labels.txt has one label per line and nothing else.",
        )
    yield from _scores(model, tensor)


def _scores(model: Model, tensor: Tensor) -> Iterator[Finding]:
    """Whether the output can be read as scores from 0 to 1."""
    last = model.last_ops[0]
    if tensor.dtype in ("int8", "uint8"):
        low, high = (-128, 127) if tensor.dtype == "int8" else (0, 255)
        least, most = ((edge - tensor.zero_point) * tensor.scale for edge in (low, high))
        if not math.isclose(least, 0, abs_tol=0.01) or not 0.9 <= most <= 1.01:
            yield Finding(
                "refuse",
                "output-range",
                f"The model's answers run from {least:.3g} to {most:.3g}, not from 0 to 1: they are no scores.",
                "End the model with a softmax layer and quantise again.",
            )
    elif last not in ("SOFTMAX", "LOGISTIC"):
        yield Finding(
            "warn",
            "output-range",
            f"The model ends with {last or 'its input'}, not with SOFTMAX: its answers may not be scores from 0 to 1.",
            "End the model with a softmax layer.",
        )


def _memory(model: Model, content: int, board: BoardProfile) -> Iterator[Finding]:
    memory = board.memory
    if memory is None:
        return
    arena, largest = model.arena_estimate, memory.largest_block
    total = sum(memory.heap_blocks)
    if arena > largest or (content > largest and content > memory.image_pool):
        need = f"about {_kb(arena)} of working memory and {_kb(content)} for itself"
        yield Finding(
            "refuse",
            "out-of-memory",
            f"The model needs {need}; the largest block of the {board.name}'s heap has {_kb(largest)}.",
            "Use a smaller input or a smaller network (in Edge Impulse: MobileNetV2 0.05 or 0.1, 96x96 or less).",
        )
    elif content + arena > total:
        yield Finding(
            "warn",
            "memory-tight",
            f"The model ({_kb(content)}) and its working memory (about {_kb(arena)}) do not fit together into the "
            f"heap of the {board.name} ({_kb(total)}): the model has to lie in the frame buffer's memory.",
            "Try it on one camera first, or use a smaller model.",
        )
    elif content + arena > _TIGHT * total:
        yield Finding(
            "warn",
            "memory-tight",
            f"The model and its working memory take about {_kb(content + arena)} of the {_kb(total)} heap.",
            "Try it on one camera first, or use a smaller model.",
        )


def _storage(content: int, board: BoardProfile) -> Iterator[Finding]:
    need = content + SLOT_HEADER_BYTES
    if not board.slots or any(slot.backend == "flash" and need <= slot.bytes for slot in board.slots):
        return
    if all(need > (slot.most or slot.bytes) for slot in board.slots):
        most = max(slot.most or slot.bytes for slot in board.slots)
        yield Finding(
            "refuse",
            "not-enough-storage",
            f"The release takes {_kb(need)} of storage; a slot on the {board.name} holds at most {_kb(most)}.",
            "Use a smaller model.",
        )
    elif all(need > slot.bytes for slot in board.slots):
        yield Finding(
            "warn",
            "slot-size",
            f"The release takes {_kb(need)}; the agent makes slots of {_kb(max(s.bytes for s in board.slots))}.",
            "Set slot_bytes on those cameras before their first start.",
        )
    else:
        yield Finding(
            "warn",
            "needs-sd-card",
            f"The release takes {_kb(need)} of storage, too much for /flash on the {board.name}.",
            "Use cameras with an SD card; one without a card will report not-enough-storage.",
        )


def _kb(size: int) -> str:
    return f"{size / 1024:.0f} KB"
