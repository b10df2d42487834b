"""Our own demo models as bundles: a weak first one, a good second one, and one that always says the same."""

import zipfile
from pathlib import Path
from typing import Final

MODELS: Final = ("demo-v1", "demo-v2", "collapsed")
FILES: Final = ("trained.tflite", "labels.txt")


def bundle_folder(name: str) -> Path:
    """The folder of one of `MODELS`, as `push-model` takes it."""
    if name not in MODELS:
        raise ValueError(f"there is no model {name}; known: {', '.join(MODELS)}")
    return Path(__file__).parent / name


def make_zip(name: str, path: Path) -> Path:
    """Writes one of `MODELS` as a zip in the form of Edge Impulse's "OpenMV Library" export."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in FILES:
            archive.write(bundle_folder(name) / file, file)
    return path
