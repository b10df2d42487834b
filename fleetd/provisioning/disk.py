"""A mounted camera drive, one step at a time. Every step that fails says which one it was and why.

Names are relative to the drive, with `/`. A file counts as written when it is on the medium and reads back equal.
"""

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from fleetd.provisioning.errors import (
    DriveError,
    DriveFullError,
    DriveGoneError,
    DriveReadOnlyError,
    DriveRefusedError,
)

CHUNK: Final = 4096
_CLUSTER: Final = 4096  # assumed where the system does not tell
_BINARY: Final = getattr(os, "O_BINARY", 0)
_KINDS: Final[dict[int, type[DriveError]]] = {
    errno.ENOSPC: DriveFullError,
    errno.EDQUOT: DriveFullError,
    errno.EROFS: DriveReadOnlyError,
    errno.EACCES: DriveRefusedError,
    errno.EPERM: DriveRefusedError,
    errno.EBUSY: DriveRefusedError,
    errno.ENODEV: DriveGoneError,
    errno.ENXIO: DriveGoneError,
}


@dataclass(frozen=True, slots=True)
class Room:
    """Bytes on the drive. A file takes whole clusters."""

    free: int
    total: int
    cluster: int

    def cost(self, *sizes: int) -> int:
        """What files of these sizes take."""
        return sum(-(-size // self.cluster) * self.cluster for size in sizes)


class Disk:
    """The folder a camera's drive is mounted at. Raises DriveError and its kinds."""

    def __init__(self, root: Path) -> None:
        self.root = root
        try:
            self._device = root.stat().st_dev
        except OSError as error:
            raise DriveGoneError(f"{root} is not there.") from error

    def kind(self, name: str) -> Literal["file", "folder"] | None:
        """What has this name."""
        with self._step("look at", name):
            path = self.root / name
            return "folder" if path.is_dir() else "file" if path.exists() else None

    def names(self, folder: str) -> list[str]:
        """What is in a folder; nothing when there is no such folder."""
        with self._step("list", folder):
            path = self.root / folder
            return sorted(entry.name for entry in path.iterdir()) if path.is_dir() else []

    def read(self, name: str, limit: int) -> bytes | None:
        """At most `limit` bytes of a file; None when there is no such file."""
        with self._step("read", name):
            path = self.root / name
            if not path.is_file():
                return None
            with path.open("rb") as file:
                return file.read(limit)

    def room(self) -> Room:
        """How much room there is."""
        with self._step("measure", "."):
            usage = shutil.disk_usage(self.root)
            cluster = os.statvfs(self.root).f_frsize if hasattr(os, "statvfs") else _CLUSTER
            return Room(usage.free, usage.total, max(cluster, 512))

    def make_folder(self, name: str) -> None:
        """Makes a folder, unless it is there."""
        with self._step("make", name):
            (self.root / name).mkdir(parents=True, exist_ok=True)

    def write(self, name: str, data: bytes, *, private: bool = False) -> None:
        """Writes a file, waits for the medium and reads it back. `private`: nobody else on this machine reads it."""
        mode = 0o600 if private else 0o666
        with self._step("write", name):
            path = self.root / name
            with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | _BINARY, mode), "wb") as file:
                if private and hasattr(os, "fchmod"):
                    with contextlib.suppress(OSError):  # FAT has no modes
                        os.fchmod(file.fileno(), mode)
                for at in range(0, len(data), CHUNK):
                    self._touch("write", name)
                    file.write(data[at : at + CHUNK])
                    file.flush()
                self._touch("sync", name)
                os.fsync(file.fileno())
                if hasattr(os, "posix_fadvise"):  # what is read back then comes from the medium
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        if self.read(name, len(data) + 1) != data:
            raise DriveError(f"{self.root / name} does not read back as it was written.")

    def rename(self, old: str, new: str) -> None:
        """Gives a file or folder its new name; a file that has it is replaced."""
        with self._step("rename", old):
            (self.root / old).replace(self.root / new)

    def remove(self, name: str) -> None:
        """Removes a file."""
        with self._step("remove", name):
            (self.root / name).unlink()

    def remove_folder(self, name: str) -> None:
        """Removes a folder that is empty."""
        with self._step("remove", name):
            (self.root / name).rmdir()

    def settle(self, *folders: str) -> None:
        """Returns when renaming and removing in these folders is on the medium, where a system can say so."""
        if os.name != "posix":
            return
        for folder in folders:
            with self._step("sync", folder):
                handle = os.open(self.root / folder, os.O_RDONLY)
                try:
                    os.fsync(handle)
                except OSError as error:
                    if error.errno not in {errno.EINVAL, errno.ENOTSUP, errno.EBADF}:
                        raise
                finally:
                    os.close(handle)

    def sync(self) -> None:
        """Writes out everything that is still in this machine's memory."""
        with self._step("sync", "."):
            if hasattr(os, "sync"):
                os.sync()

    def _touch(self, doing: str, name: str) -> None:
        """Comes before every single operation: is it still the same drive? OSError if not."""
        # A mount point that lost its drive is a folder of this machine's own disk.
        if self.root.stat().st_dev != self._device:
            raise OSError(errno.ENODEV, f"the drive has gone, could not {doing} {name}")

    @contextlib.contextmanager
    def _step(self, doing: str, name: str) -> Iterator[None]:
        try:
            self._touch(doing, name)
            yield
        except OSError as error:
            what = f"Could not {doing} {self.root / name}: {error.strerror or error}."
            if not self.root.is_dir():
                raise DriveGoneError(what) from error
            raise _KINDS.get(error.errno or 0, DriveError)(what) from error
