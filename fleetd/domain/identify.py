"""The five colours by which a camera shows which one it is. The agent computes the same (camera_agent/identify.py)."""

from hashlib import sha256
from typing import Final

COLORS: Final = ("red", "green", "blue", "cyan", "magenta", "yellow")
LENGTH: Final = 5


def colour_code(camera: str) -> tuple[str, ...]:
    """Colour words for this name, never the same one twice in a row."""
    found: list[str] = []
    for byte in sha256(b"identify " + camera.encode()).digest()[:LENGTH]:
        left = [color for color in COLORS if not found or color != found[-1]]
        found.append(left[byte % len(left)])
    return tuple(found)
