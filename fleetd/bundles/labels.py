"""labels.txt: one label per line, in the order of the model's outputs.

    labels, warnings = parse_labels(data)      # BundleError when it cannot be meant

Editors add byte order marks, carriage returns and blank lines; those are put right and reported. A blank line
between labels keeps its place, because positions are what connects a label with an output.
"""

import codecs
import unicodedata
from collections import Counter
from typing import Final

from fleetd.bundles.errors import BundleError
from fleetd.protocol import limits

FILE: Final = "labels.txt"
MAX_BYTES: Final = 64 * 1024
# Cc control, Cs surrogate, Co private, Cn unassigned, Zl and Zp line and paragraph separators. Of the format
# characters (Cf) only the joiners that scripts and emoji need: the others reorder or hide text.
_FORBIDDEN: Final = frozenset({"Cc", "Cs", "Co", "Cn", "Zl", "Zp", "Cf"})
_JOINERS: Final = frozenset("\u200c\u200d")


def parse_labels(data: bytes) -> tuple[tuple[str, ...], list[str]]:
    """The labels, and what was put right or looks odd. Raises BundleError."""
    warnings: list[str] = []
    if len(data) > MAX_BYTES:
        raise BundleError(
            f"{FILE} has {len(data)} bytes; at most {MAX_BYTES} are accepted. Is it another file?"
        )
    text = _decode(data, warnings)
    if "\r\n" in text:
        warnings.append(f"{FILE} has Windows line ends; they were removed.")
        text = text.replace("\r\n", "\n")
    labels = [line.strip(" \t") for line in text.split("\n")]
    if any(line != label for line, label in zip(text.split("\n"), labels, strict=True) if label):
        warnings.append(f"{FILE} has labels with blanks around them; the blanks were removed.")
    while labels and not labels[-1]:
        labels.pop()
    if not labels:
        raise BundleError(
            f"{FILE} is empty. It must have one label per line, in the order of the model's outputs."
        )
    if len(labels) > limits.LABELS:
        raise BundleError(f"{FILE} has {len(labels)} lines; at most {limits.LABELS} labels are possible.")
    for number, label in enumerate(labels, 1):
        _check(label, number)
        if not label:
            labels[number - 1] = f"class {number}"
            warnings.append(f"Line {number} of {FILE} is blank; that class is called 'class {number}'.")
        elif label.startswith("#"):
            warnings.append(f"Line {number} of {FILE} looks like a note: every line counts as a label.")
    repeated = [label for label, count in Counter(labels).items() if count > 1]
    if repeated:
        raise BundleError(
            f"{FILE} has {repeated[0]!r} more than once: results could not be told apart. Rename one.",
            repeated=repeated,
        )
    if labels not in (sorted(labels), sorted(labels, key=str.casefold)):
        warnings.append(
            f"{FILE} is not sorted, though training tools sort classes: is the order the model's?"
        )
    return tuple(labels), warnings


def format_labels(labels: tuple[str, ...]) -> bytes:
    """The file as it goes into a release: UTF-8, one label per line, a newline after each."""
    return "".join(f"{label}\n" for label in labels).encode()


def _decode(data: bytes, warnings: list[str]) -> str:
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\x00" in data:
        raise BundleError(f"{FILE} is not UTF-8 text (UTF-16?). Save it as UTF-8.")
    if data.startswith(codecs.BOM_UTF8):
        warnings.append(f"{FILE} starts with a byte order mark; it was removed.")
        data = data.removeprefix(codecs.BOM_UTF8)
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise BundleError(f"{FILE} is not UTF-8 text (byte {error.start}). Save it as UTF-8.") from None


def _check(label: str, line: int) -> None:
    for char in label:
        if unicodedata.category(char) in _FORBIDDEN and char not in _JOINERS:
            raise BundleError(
                f"Line {line} of {FILE} has a control or invisible character (U+{ord(char):04X}). Remove it.",
                line=line,
            )
    if len(label.encode()) > limits.LABEL_BYTES:
        raise BundleError(
            f"The label in line {line} of {FILE} is too long: at most {limits.LABEL_BYTES} bytes.", line=line
        )
