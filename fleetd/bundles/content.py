"""What lies in a camera's slot: one ROMFS image with the model, its labels and, if there are any, golden frames."""

from collections.abc import Sequence
from typing import Final

from fleetd.bundles import golden, romfs
from fleetd.bundles.errors import ContentRejectedError
from fleetd.bundles.labels import FILE as LABELS_FILE
from fleetd.bundles.labels import format_labels, parse_labels
from fleetd.bundles.romfs import Image
from fleetd.bundles.tflite import Model, Tensor
from fleetd.protocol.manifest import ModelFacts, TensorFacts

MODEL_FILE: Final = "trained.tflite"
MODEL_ALIGNMENT: Final = (
    32  # bytes; N6 asks for 32, every other board for 16. One for all: equal bytes, equal digest
)


def build_content(model: bytes, labels: Sequence[str], golden_frames: bytes | None = None) -> Image:
    """The image for this model. `golden_frames`: what golden.build() made."""
    files = [(LABELS_FILE, format_labels(tuple(labels)), 4), (MODEL_FILE, model, MODEL_ALIGNMENT)]
    if golden_frames is not None:
        files.append(
            (golden.FILE, golden_frames, golden.ALIGNMENT)
        )  # behind the model, which stays in its place
    return romfs.build(files)


def read_content(image: Image) -> tuple[bytes, tuple[str, ...]]:
    """The model's bytes and the labels. Raises ContentRejectedError, or BundleError for impossible labels."""
    places = {file.path: file for file in image.files}
    if not {MODEL_FILE, LABELS_FILE} <= places.keys():
        raise ContentRejectedError("manifest-invalid", f"The content lacks {MODEL_FILE} or {LABELS_FILE}.")
    model, text = (
        image.data[places[name].offset : places[name].offset + places[name].size]
        for name in (MODEL_FILE, LABELS_FILE)
    )
    if places[MODEL_FILE].offset % MODEL_ALIGNMENT:
        raise ContentRejectedError(
            "manifest-invalid",
            f"The model in the content is not aligned to {MODEL_ALIGNMENT} bytes, as cameras need it.",
        )
    labels, _ = parse_labels(text)
    if format_labels(labels) != text:
        raise ContentRejectedError(
            "labels-mismatch", f"{LABELS_FILE} in the content is not in the plain form."
        )
    return model, labels


def read_golden(image: Image) -> bytes | None:
    """The bytes of golden.FILE, or None."""
    for file in image.files:
        if file.path == golden.FILE:
            return image.data[file.offset : file.offset + file.size]
    return None


def facts_of(model: Model, labels: Sequence[str]) -> ModelFacts:
    """The model facts of a manifest."""
    return ModelFacts(
        input=_tensor_facts(model.inputs[0]),
        output=_tensor_facts(model.outputs[0]),
        labels=len(labels),
        ops=list(model.ops),
        arena_bytes=model.arena_estimate,
    )


def _tensor_facts(tensor: Tensor) -> TensorFacts:
    # Nine digits tell any two 32-bit floats apart; more would only lengthen the manifest.
    return TensorFacts(
        shape=list(tensor.shape),
        dtype=tensor.dtype,
        scale=float(f"{tensor.scale:.9g}"),
        zero_point=tensor.zero_point,
    )
