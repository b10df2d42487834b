"""MicroPython's ROMFS: the image that lies in a camera's slot, flat for a model, with one folder for an agent.

    image = build([("labels.txt", data, 4), ("trained.tflite", data, 16)])
    image.data, image.files            # bytes; where each file is inside them

A camera mounts it (`vfs.VfsRom`) and uses the model in place, or reads the files by their offsets. The format:
every record is `kind | length | payload`, numbers in base 128, high digits first, with the top bit set on all but
the last. The image is one record whose kind is the bytes D2 CD 31; a file is a record (kind 5) of name length, name
and a data record (kind 2). Padding records (kind 1) in between put a file's data where it must be aligned.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from fleetd.bundles.errors import ReleaseError
from fleetd.protocol import limits
from fleetd.protocol.manifest import ContentFile

_MAGIC: Final = b"\xd2\xcd\x31"
_PADDING: Final = 1
_DATA: Final = 2
_FOLDER: Final = 4
_FILE: Final = 5
_NUMBER_BYTES: Final = 5  # 35 bits: more than any length here
_FILES: Final = 16
_RECORDS: Final = 64
_MODULES: Final = 128


@dataclass(frozen=True, slots=True)
class Image:
    """A ROMFS image and its files as a manifest lists them."""

    data: bytes
    files: tuple[ContentFile, ...]


class DamagedImageError(ReleaseError):
    """The content is not a ROMFS image as fleetd builds them."""

    code = "content_damaged"


def build(files: Sequence[tuple[str, bytes, int]]) -> Image:
    """An image of these files: (name, data, alignment of the data in bytes from the image's start)."""
    body = bytearray()
    places = []
    # The length of the header depends on the body's, whose padding depends on the header's: fix the header.
    header = len(_MAGIC) + _NUMBER_BYTES
    for name, data, alignment in files:
        head = _file_head(name, len(data))
        body += _pad(-(header + len(body) + len(head)) % alignment, alignment)
        places.append((name, header + len(body) + len(head), data))
        body += head + data
    image = _MAGIC + _number(len(body), width=_NUMBER_BYTES) + body
    if len(image) > limits.CONTENT_BYTES:
        raise ReleaseError(
            f"The content has {len(image)} bytes; at most {limits.CONTENT_BYTES} are possible."
        )
    return Image(
        data=bytes(image),
        files=tuple(
            ContentFile(path=name, offset=offset, size=len(data), sha256=hashlib.sha256(data).hexdigest())
            for name, offset, data in places
        ),
    )


def read(image: bytes) -> Image:
    """The image with the files that it really has. Raises DamagedImageError."""
    if not image.startswith(_MAGIC):
        raise DamagedImageError("The content is not a ROMFS image.")
    length, at = _take_number(image, len(_MAGIC), len(image))
    if at + length != len(image):
        raise DamagedImageError("The content's ROMFS image has another length than it says.")
    files: list[ContentFile] = []
    records = 0
    while at < len(image):
        records += 1
        kind, start, end = _take_record(image, at, len(image))
        if records > _RECORDS or kind not in (_PADDING, _FILE):
            raise DamagedImageError("The content's ROMFS image has records that do not belong there.")
        if kind == _FILE:
            files.append(_take_file(image, start, end))
        at = end
    paths = [file.path for file in files]
    if len(set(paths)) != len(paths) or not 0 < len(files) <= _FILES:
        raise DamagedImageError("The content's ROMFS image has no files, too many, or one of them twice.")
    return Image(image, tuple(files))


def build_folder(folder: str, files: Mapping[str, bytes]) -> bytes:
    """An image of one folder with these files, sorted by name."""
    inside = b"".join(_file_head(name, len(data)) + data for name, data in sorted(files.items()))
    named = _number(len(folder)) + folder.encode("ascii")
    body = _number(_FOLDER) + _number(len(named) + len(inside)) + named + inside
    return _MAGIC + _number(len(body)) + body


def read_folder(image: bytes) -> tuple[str, dict[str, bytes]]:
    """Name and files of an image that holds one folder and nothing else. Raises DamagedImageError."""
    if not image.startswith(_MAGIC):
        raise DamagedImageError("The content is not a ROMFS image.")
    _, at = _take_number(image, len(_MAGIC), len(image))
    kind, at, end = _take_record(image, at, len(image))
    size, start = _take_number(image, at, end)
    at = start + size
    if kind != _FOLDER or end != len(image) or at > end:
        raise DamagedImageError("The content's ROMFS image does not hold one folder.")
    folder = image[start:at]
    files: dict[str, bytes] = {}
    while at < end:
        kind, inner, at = _take_record(image, at, end)
        if kind != _FILE or len(files) >= _MODULES:
            raise DamagedImageError("The content's ROMFS image has records that do not belong there.")
        file = _take_file(image, inner, at)
        if file.path in files:
            raise DamagedImageError("The content's ROMFS image has a file twice.")
        files[file.path] = image[file.offset : file.offset + file.size]
    try:
        return folder.decode("ascii"), files
    except UnicodeDecodeError:
        raise DamagedImageError("The content's ROMFS image has an impossible name.") from None


def _take_file(image: bytes, start: int, end: int) -> ContentFile:
    length, at = _take_number(image, start, end)
    name = image[at : at + length]
    kind, data, data_end = _take_record(image, at + length, end)
    if kind != _DATA or data_end != end or len(name) != length:
        raise DamagedImageError("A file in the content's ROMFS image is damaged.")
    digest = hashlib.sha256(memoryview(image)[data:data_end]).hexdigest()
    try:
        return ContentFile(path=name.decode("ascii"), offset=data, size=data_end - data, sha256=digest)
    except ValueError:
        raise DamagedImageError("A file in the content's ROMFS image has an impossible name.") from None


def _file_head(name: str, size: int) -> bytes:
    """Everything of a file record that comes before the data. Its length does not depend on `size`."""
    inner = _number(len(name)) + name.encode("ascii") + _number(_DATA) + _number(size, width=_NUMBER_BYTES)
    return _number(_FILE) + _number(len(inner) + size, width=_NUMBER_BYTES) + inner


def _pad(gap: int, alignment: int) -> bytes:
    """A padding record of `gap` bytes, or of a whole alignment more when it cannot be that short."""
    if gap == 0:
        return b""
    if gap == 1:
        gap += alignment
    return _number(_PADDING) + _number(gap - 2) + bytes(gap - 2)


def _number(value: int, width: int = 1) -> bytes:
    """`value` in base 128, with at least `width` digits."""
    digits = [value & 0x7F]
    while (value := value >> 7) or len(digits) < width:
        digits.append(0x80 | (value & 0x7F))
    return bytes(reversed(digits))


def _take_number(image: bytes, at: int, end: int) -> tuple[int, int]:
    value = 0
    for n in range(_NUMBER_BYTES):
        if at + n >= end:
            break
        value = value << 7 | (image[at + n] & 0x7F)
        if image[at + n] < 0x80:
            return value, at + n + 1
    raise DamagedImageError("A length in the content's ROMFS image is damaged.")


def _take_record(image: bytes, at: int, end: int) -> tuple[int, int, int]:
    """Kind, start of the payload, end of the payload."""
    kind, at = _take_number(image, at, end)
    length, at = _take_number(image, at, end)
    if at + length > end:
        raise DamagedImageError("A record in the content's ROMFS image is longer than the image.")
    return kind, at, at + length
