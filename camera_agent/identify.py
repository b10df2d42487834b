"""How a camera shows which one it is: two short white flashes, then five colours that follow from its name.

    code(camera) -> five colour words
    Show(camera).at(ms) -> the colour at this time after the begin, "off" in between

The white flashes say where the sequence begins; it repeats until the time is up. Two given cameras have the same code
with a chance of 1 to 3,750. fleetd/domain/identify.py computes the same words, and fleetctl prints them.

RAM BUDGET: 1 KB of code, loaded when somebody asks.
"""

from hashlib import sha256

from camera_agent.heap import const

_COLORS = ("red", "green", "blue", "cyan", "magenta", "yellow")
_LENGTH = const(5)
_LEAD = (150, 150, 150, 650)  # ms: white, dark, white, dark
_LEAD_MS = const(1100)
_LIT_MS = const(650)
_DARK_MS = const(250)
_REST_MS = const(1200)


def code(camera):
    """Five colour words, never the same one twice in a row."""
    digest = sha256(b"identify " + camera.encode()).digest()
    found = []
    for byte in digest[:_LENGTH]:
        left = [color for color in _COLORS if not found or color != found[-1]]
        found.append(left[byte % len(left)])
    return found


class Show:
    """One camera's sequence in time."""

    def __init__(self, camera):
        self.code = code(camera)

    def at(self, ms):
        """The colour to show."""
        each = _LIT_MS + _DARK_MS
        ms %= _LEAD_MS + _LENGTH * each + _REST_MS
        for n in range(4):
            if ms < _LEAD[n]:
                return "off" if n % 2 else "white"
            ms -= _LEAD[n]
        if ms >= _LENGTH * each or ms % each >= _LIT_MS:
            return "off"
        return self.code[ms // each]
