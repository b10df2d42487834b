"""Takes a few known files out of a zip that may be hostile. Nothing is ever written to disk.

Names in a zip never become paths: an entry is either one of the files looked for, or ignored. Traps are refused,
not worked around: a real export has none of them, and whoever made one should not be guessed about.
"""

import io
import stat
import struct
import unicodedata
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from fleetd.bundles.errors import BundleError

ZIP_BYTES: Final = 64 * 1024 * 1024
ENTRY_BYTES: Final = 32 * 1024 * 1024
TOTAL_BYTES: Final = 64 * 1024 * 1024  # of everything that is taken
ENTRIES: Final = 256
RATIO: Final = 200
_RATIO_FROM: Final = 64 * 1024  # smaller entries may compress as well as they like
_CENTRAL_ENTRY: Final = b"PK\x01\x02"
_PIECE: Final = 64 * 1024
_ENCRYPTED: Final = 0x1
_METHODS: Final = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ARCHIVES: Final = (".zip", ".gz", ".bz2", ".xz", ".7z", ".tar", ".tgz", ".rar")
# What zipfile and zlib raise for bytes that are no proper zip.
_BROKEN: Final = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
    ValueError,
    OSError,
)
_UNSEEN: Final = frozenset(
    {"Cc", "Cf", "Cs", "Zl", "Zp"}
)  # categories of characters that hide or reorder text


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of a zip, read into memory. `folder` and `name` are for people and for comparing only."""

    folder: str
    name: str
    data: bytes

    @property
    def path(self) -> str:
        """Where it was in the zip."""
        return f"{self.folder}/{self.name}" if self.folder else self.name


def read_zip(data: bytes, wanted: Callable[[str], bool]) -> tuple[list[Entry], list[str]]:
    """The entries whose basename is wanted, and the paths of the files that were ignored. Raises BundleError."""
    if len(data) > ZIP_BYTES:
        raise BundleError(f"The zip has {len(data)} bytes; at most {ZIP_BYTES} are accepted.")
    # Counted in the raw bytes, so that a directory of a million entries is never built.
    if data.count(_CENTRAL_ENTRY) > ENTRIES:
        raise BundleError(f"The zip has more than {ENTRIES} files. An Edge Impulse export has three.")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return _read(archive, wanted)
    except _BROKEN as error:
        raise BundleError(f"The zip is damaged or not a zip ({error}). Download it again.") from None


def _read(archive: zipfile.ZipFile, wanted: Callable[[str], bool]) -> tuple[list[Entry], list[str]]:
    entries: list[Entry] = []
    ignored: list[str] = []
    seen: set[str] = set()
    for info in archive.infolist():
        parts = _parts(info)
        if info.is_dir():
            continue
        path = "/".join(parts)
        if path.casefold() in seen:
            raise BundleError(f"The zip has {path!r} twice. Make it again with one of each file.", entry=path)
        seen.add(path.casefold())
        _check_traps(info, path)
        if "__MACOSX" in parts or parts[-1].startswith("._") or not wanted(parts[-1]):
            ignored.append(path)
        else:
            room = TOTAL_BYTES - sum(len(entry.data) for entry in entries)
            entries.append(Entry("/".join(parts[:-1]), parts[-1], _inflate(archive, info, path, room)))
    return entries, ignored


def _parts(info: zipfile.ZipInfo) -> list[str]:
    """The entry's path, taken apart at slashes of either kind."""
    name = info.orig_filename  # filename is cut at a NUL
    shown = name.encode("unicode_escape").decode()
    parts = name.replace("\\", "/").rstrip("/").split("/")
    hidden = any(unicodedata.category(char) in _UNSEEN for char in name)
    if hidden or ":" in name or any(part in ("", ".", "..") for part in parts):
        raise BundleError(
            f"The zip has an entry with a dangerous name ({shown}). It was not opened.", entry=shown
        )
    return parts


def _check_traps(info: zipfile.ZipInfo, path: str) -> None:
    if info.flag_bits & _ENCRYPTED:
        raise BundleError(f"{path!r} in the zip is encrypted. Make the zip without a password.", entry=path)
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind not in (0, stat.S_IFREG):
        raise BundleError(
            f"{path!r} in the zip is a link or device. Make the zip from plain files.", entry=path
        )
    if path.casefold().endswith(_ARCHIVES):
        raise BundleError(
            f"The zip has another archive in it ({path!r}). Unpack it and give the inner one.", entry=path
        )
    if info.file_size > ENTRY_BYTES:
        raise BundleError(
            f"{path!r} unpacks to {info.file_size} bytes; at most {ENTRY_BYTES} are read.", entry=path
        )
    if info.file_size > max(_RATIO_FROM, RATIO * info.compress_size):
        raise BundleError(f"{path!r} unpacks to more than {RATIO} times its size: a zip bomb?", entry=path)


def _inflate(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: str, room: int) -> bytes:
    """The entry's bytes. The caps count what really comes out, whatever the header says."""
    if info.compress_type not in _METHODS:
        raise BundleError(
            f"{path!r} is compressed in a way fleetd does not read. Use an ordinary zip.", entry=path
        )
    ceiling = min(room, ENTRY_BYTES, max(_RATIO_FROM, RATIO * info.compress_size))
    out = bytearray()
    with archive.open(info) as stream:
        while piece := stream.read(_PIECE):
            out += piece
            if len(out) > ceiling:
                raise BundleError(f"{path!r} unpacks to more than it may: a zip bomb?", entry=path)
    return bytes(out)
