"""A release of the camera agent itself: its compiled modules in one ROMFS image, as a camera imports them.

    packed = pack_agent(files, "0.2.0", ["OMVRT1060"], bases=[image that cameras run now])
    draft_release(packed, release_id="agent-2", ...).sign(key)

The image holds one folder, `camera_agent`. Cameras run its modules where they lie in the slot, in place from flash
where that is possible. The manifest lists the folder as one file; its version is the agent's.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from fleetd import boards as board_profiles
from fleetd.bundles import romfs
from fleetd.bundles.encodings import cut
from fleetd.bundles.errors import ContentRejectedError, ReleaseError
from fleetd.bundles.inflating import deflate
from fleetd.bundles.packing import PATCH_WORTH, Packed, patches
from fleetd.bundles.romfs import DamagedImageError, Image
from fleetd.protocol.manifest import ContentFile

FOLDER: Final = "camera_agent"
MOST_BYTES: Final = 147_456  # what a camera's slot for an agent holds
_NEEDED: Final = ("__init__.mpy", "start.mpy", "agent.mpy", "boot.mpy")
_MODULE: Final = re.compile(r"[a-z0-9_]{1,40}\.mpy")
_HEADER: Final = b"M\x06\x00"  # compiled for MicroPython 1.19 and newer, without machine code


def build_image(files: Mapping[str, bytes]) -> Image:
    """The image of these compiled modules. Raises ReleaseError."""
    _check(files)
    data = romfs.build_folder(FOLDER, files)
    if len(data) > MOST_BYTES:
        raise ReleaseError(
            f"The agent has {len(data)} bytes; a camera has room for {MOST_BYTES}. Nothing was written."
        )
    return Image(data, (_entry(data),))


def pack_agent(
    files: Mapping[str, bytes], version: str, boards: Sequence[str], bases: Iterable[bytes] = ()
) -> Packed:
    """The agent's content and its encodings, for boards whose omv.arch() begins so ("*": any). `bases`: images that
    cameras run now, for patches. Raises ReleaseError.
    """
    if not boards:
        raise ReleaseError('Name the boards that the release is for, or "*" for any.')
    board_profiles.covered(boards)
    image = build_image(files)
    full = cut("deflate", deflate(image.data))
    return Packed(
        boards=tuple(boards),
        image=image,
        facts=None,
        encodings=(full, *patches(image.data, bases, below=PATCH_WORTH * full.size)),
        findings=(),
        kind="agent",
        version=version,
    )


def check_agent(content: bytes, listed: Sequence[ContentFile]) -> None:
    """ContentRejectedError unless the content is an agent that a camera could start."""
    try:
        folder, files = romfs.read_folder(content)
        _check(files)
    except (DamagedImageError, ReleaseError) as error:
        raise ContentRejectedError("manifest-invalid", str(error)) from None
    if folder != FOLDER or list(listed) != [_entry(content)] or len(content) > MOST_BYTES:
        raise ContentRejectedError("manifest-invalid", "The content is no agent as fleetd builds them.")


def _entry(data: bytes) -> ContentFile:
    return ContentFile(path=FOLDER, offset=0, size=len(data), sha256=hashlib.sha256(data).hexdigest())


def _check(files: Mapping[str, bytes]) -> None:
    missing = [name for name in _NEEDED if name not in files]
    if missing:
        raise ReleaseError(f"The agent lacks {', '.join(missing)}.")
    odd = [name for name in files if not _MODULE.fullmatch(name) or not files[name].startswith(_HEADER)]
    if odd:
        raise ReleaseError(f"These are no compiled modules of the agent: {', '.join(sorted(odd)[:5])}.")
