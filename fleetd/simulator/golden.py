"""Golden frames from pictures: what a camera's engine has to answer, computed here with the cameras' own arithmetic.

    golden, names = from_pictures(model, pictures)      # bundles.golden.Golden, and the pictures that were taken

LiteRT's reference kernels (OpResolverType.BUILTIN_REF) give the int8 outputs of the cameras' kernels to the last bit;
its fast ones do not.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from camera_agent.models import ModelError
from fleetd.bundles.errors import BundleError
from fleetd.bundles.golden import Golden
from fleetd.protocol.manifest import GOLDEN_FRAMES
from fleetd.simulator.errors import SimulatorUnavailableError
from fleetd.simulator.models import Engine

SUFFIXES: Final = frozenset({".png", ".jpg", ".jpeg", ".bmp"})
_FILES: Final = 10_000
_PIXELS: Final = 64_000_000  # a picture of more is a bomb, or for something else than a camera


def pictures_in(folder: Path) -> list[Path]:
    """The pictures in a folder by name, at most as many as a release may carry, spread evenly. BundleError."""
    if not folder.is_dir():
        raise BundleError(f"{folder} is no folder. Golden frames are pictures in a folder.")
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file())
    if not found or len(found) > _FILES:
        known = ", ".join(sorted(SUFFIXES))
        raise BundleError(f"{folder} has {'too many' if found else 'no'} pictures ({known}).")
    if len(found) <= GOLDEN_FRAMES:
        return found
    return [found[n * len(found) // GOLDEN_FRAMES] for n in range(GOLDEN_FRAMES)]


def from_pictures(model: bytes, pictures: Sequence[Path]) -> Golden:
    """Frames and answers of this model. BundleError for a picture or model that cannot be used."""
    try:
        engine = Engine(model)
    except ModelError as error:
        raise BundleError(
            f"The model cannot be run here, so it has no golden frames: {error.detail}."
        ) from error
    frames = tuple(engine.tensor(_pixels(path, engine.input_shape)) for path in pictures)
    return Golden(frames, tuple(tuple(engine.answer(frame)) for frame in frames))


def _pixels(path: Path, shape: tuple[int, int, int]) -> Any:
    """The middle of the picture as the model sees it: uint8, height x width x channels."""
    try:
        import numpy as np  # noqa: PLC0415  # an extra
        from PIL import Image, ImageOps  # noqa: PLC0415
    except ImportError as error:
        raise SimulatorUnavailableError from error
    height, width, channels = shape
    try:
        with Image.open(path) as picture:
            if picture.width * picture.height > _PIXELS:
                raise BundleError(f"{path.name} has {picture.width} x {picture.height} pixels: too many.")
            upright = ImageOps.exif_transpose(picture).convert("L" if channels == 1 else "RGB")
            fitted = ImageOps.fit(upright, (width, height))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise BundleError(f"{path.name} is no picture that can be read ({error}).") from None
    return np.asarray(fitted, "uint8").reshape(height, width, channels)
