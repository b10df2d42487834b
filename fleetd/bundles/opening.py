"""Opens a bundle: an Edge Impulse "OpenMV Library" zip, its unpacked folder, or a .tflite with its labels.

    bundle = open_bundle("bees-openmv-v3.zip")
    bundle = open_bundle("trained.tflite", labels="labels.txt")

Only the model and labels.txt are taken; scripts in the export are left alone. The two must lie in the same
folder, so that a model never gets the labels of another one. Whether the model is sound is `tflite`'s question.
"""

import stat
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final, Literal

from fleetd.bundles import archive
from fleetd.bundles.archive import Entry, read_zip
from fleetd.bundles.errors import BundleError
from fleetd.bundles.labels import FILE as LABELS_FILE
from fleetd.bundles.labels import MAX_BYTES as LABELS_BYTES
from fleetd.bundles.labels import parse_labels
from fleetd.protocol import limits

_PREFERRED: Final = "trained.tflite"  # Edge Impulse's name
_NAME_CHARS: Final = 64
_FOLDER_ENTRIES: Final = 10_000
_FOLDER_MODELS: Final = 32
_ZIP_MARKS: Final = (b"PK\x03\x04", b"PK\x05\x06")


@dataclass(frozen=True, slots=True)
class Bundle:
    """A model with its labels, as found. `name` is a suggestion for the release's name."""

    model: bytes
    labels: tuple[str, ...]
    name: str
    warnings: tuple[str, ...]
    source: Literal["zip", "folder", "file"]
    model_path: str  # inside the zip or folder
    ignored: tuple[str, ...]


def open_bundle(source: str | Path | bytes, labels: str | Path | bytes | None = None) -> Bundle:
    """The bundle in this file, folder or bytes; `labels` (a path or bytes) replaces its labels.txt.

    Raises BundleError with what to do about it.
    """
    if isinstance(source, bytes):
        return _from_bytes(source, "model", None, labels)
    path = Path(source)
    if path.is_dir():
        return _from_folder(path, labels)
    return _from_bytes(_read(path, archive.ZIP_BYTES), path.stem, path.parent / LABELS_FILE, labels)


def _from_bytes(data: bytes, stem: str, beside: Path | None, labels: str | Path | bytes | None) -> Bundle:
    if data.startswith(_ZIP_MARKS):
        entries, ignored = read_zip(data, _wanted)
        return _choose(entries, ignored, "zip", stem, labels)
    if data and data[4:8] != b"TFL3":
        raise BundleError(
            f"{stem} is neither a zip nor a TensorFlow Lite model. "
            'Give an Edge Impulse "OpenMV Library" zip, its unpacked folder, or a .tflite.'
        )
    if labels is None:
        if beside is None or not beside.exists():
            raise BundleError(
                f"There is no {LABELS_FILE} beside the model. Put it there or name it with --labels."
            )
        labels = beside
    return _bundle(
        Entry("", f"{stem}.tflite", data), labels, [], "file", stem, [], follow=labels is not beside
    )


def _from_folder(folder: Path, labels: str | Path | bytes | None) -> Bundle:
    try:
        names = [path.name for path in islice(folder.iterdir(), _FOLDER_ENTRIES + 1)]
    except OSError as error:
        raise BundleError(f"{folder} cannot be read: {error.strerror or error}.", path=str(folder)) from None
    if len(names) > _FOLDER_ENTRIES:
        raise BundleError(f"{folder} has more than {_FOLDER_ENTRIES} files. Name the .tflite itself.")
    taken = [name for name in sorted(names) if _wanted(name) and not (folder / name).is_dir()]
    if len(taken) > _FOLDER_MODELS:
        raise BundleError(f"{folder} has {len(taken)} models. Name the .tflite to use.")
    most = {name: LABELS_BYTES if _is_labels(name) else limits.CONTENT_BYTES for name in taken}
    entries = [Entry("", name, _read(folder / name, most[name], follow=False)) for name in taken]
    ignored = [name for name in sorted(names) if name not in taken]
    return _choose(entries, ignored, "folder", folder.resolve().name, labels)


def _choose(
    entries: Sequence[Entry],
    ignored: Sequence[str],
    source: Literal["zip", "folder"],
    stem: str,
    labels: str | Path | bytes | None,
) -> Bundle:
    """The one model among the entries, and the labels.txt beside it."""
    models = [entry for entry in entries if not _is_labels(entry.name)]
    warnings = []
    if not models:
        raise BundleError(
            f'There is no .tflite in the {source}. In Edge Impulse, deploy as "OpenMV Library".'
        )
    chosen = models
    if len(models) > 1:
        chosen = [entry for entry in models if entry.name.casefold() == _PREFERRED]
        others = ", ".join(entry.path for entry in models if entry not in chosen)
        warnings.append(f"The {source} has several models; {_PREFERRED} was taken, not {others}.")
    if len(chosen) != 1:
        found = ", ".join(entry.path for entry in models)
        raise BundleError(f"The {source} has several models ({found}). Name the one to use.")
    model = chosen[0]
    if labels is None:
        beside = [e for e in entries if _is_labels(e.name) and e.folder.casefold() == model.folder.casefold()]
        if not beside:
            raise BundleError(
                f"There is no {LABELS_FILE} beside {model.path}. Put it there or name it with --labels."
            )
        labels = beside[0].data
    return _bundle(model, labels, warnings, source, stem, ignored)


def _bundle(
    model: Entry,
    labels: str | Path | bytes,
    warnings: Sequence[str],
    source: Literal["zip", "folder", "file"],
    stem: str,
    ignored: Sequence[str],
    *,
    follow: bool = True,
) -> Bundle:
    if not model.data:
        raise BundleError(f"{model.path} is empty (0 bytes). Export it again.")
    if len(model.data) > limits.CONTENT_BYTES:
        raise BundleError(
            f"The model has {len(model.data)} bytes; at most {limits.CONTENT_BYTES} are accepted."
        )
    data = labels if isinstance(labels, bytes) else _read(Path(labels), LABELS_BYTES, follow=follow)
    names, remarks = parse_labels(data)
    return Bundle(
        model=model.data,
        labels=names,
        name=_suggest(stem),
        warnings=(*warnings, *remarks),
        source=source,
        model_path=model.path,
        ignored=tuple(ignored),
    )


def _read(path: Path, most: int, *, follow: bool = True) -> bytes:
    """The file's bytes. `follow`: it was named by a person, who may name a link; a file found may not be one."""
    if not follow and path.is_symlink():
        raise BundleError(
            f"{path.name} is a link. Put the file itself there, or name it on the command line."
        )
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise BundleError(f"{path} is not a plain file.")
        with path.open("rb") as file:
            data = file.read(most + 1)
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror or error}.", path=str(path)) from None
    except ValueError:
        raise BundleError("That is no path: it has a NUL in it.") from None
    if len(data) > most:
        raise BundleError(f"{path} has more than {most} bytes; that is more than is accepted.")
    return data


def _wanted(name: str) -> bool:
    return name.casefold().endswith(".tflite") or _is_labels(name)


def _is_labels(name: str) -> bool:
    return name.casefold() == LABELS_FILE


def _suggest(stem: str) -> str:
    """A release name from a file name: printable, not empty, at most 64 characters."""
    kept = "".join(char for char in stem if char.isprintable()).strip()
    return kept[:_NAME_CHARS] or "model"
