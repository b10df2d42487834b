"""Names that travel in topics and URLs. One pattern at every entry: command line, HTTP, MQTT, files."""

import re

CAMERA_ID = r"[a-z0-9][a-z0-9-]{0,62}"
RELEASE_ID = r"[a-z0-9][a-z0-9.-]{0,63}"
DIGEST = r"[0-9a-f]{64}"
BOOT_ID = r"[0-9a-f]{16}"

_CAMERA = re.compile(CAMERA_ID)
_RELEASE = re.compile(RELEASE_ID)


def is_camera_id(text: str) -> bool:
    """Whether `text` may name a camera: lower case letters, digits and dashes, 1 to 63 characters."""
    return _CAMERA.fullmatch(text) is not None


def is_release_id(text: str) -> bool:
    """Whether `text` may name a release."""
    return _RELEASE.fullmatch(text) is not None
