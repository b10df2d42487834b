"""Exceptions become events: the traceback's text and a short hash that groups equal ones.

    trouble = Trouble(hal, put)
    trouble.report("vision", error)     # the same failure again within ten minutes is only counted

RAM BUDGET: at most 8 hashes; one traceback as text (at most 2,000 characters travel) while it is reported.
"""

import gc
import io
import sys
from binascii import hexlify
from hashlib import sha256

from camera_agent import protocol
from camera_agent.heap import const

_AGAIN_MS = const(600_000)
_KNOWN_MAX = const(8)


def traceback_text(error):
    """The traceback as both Pythons print it."""
    if hasattr(sys, "print_exception"):
        out = io.StringIO()
        sys.print_exception(error, out)
        return out.getvalue()
    import traceback

    return "".join(traceback.format_exception(error))


def short_hash(text):
    """Eight hex digits that are the same for the same place and kind of failure, whatever the message says."""
    places = []
    for line in text.split("\n"):
        line = line.strip()
        if line.startswith("File "):
            places.append(line.split("/")[-1])
    last = text.strip().split("\n")[-1].split(":")[0]
    return str(hexlify(sha256("|".join(places + [last]).encode()).digest()[:4]), "ascii")


class Trouble:
    """See the module's docstring."""

    def __init__(self, hal, put):
        """`put(channel, body)`: the outbox's."""
        self._hal = hal
        self._put = put
        self._known = {}  # hash -> [when it was told, how often it came since]
        self.count = 0
        self.last = None  # one line about the latest

    def report(self, where, error):
        """Tell it, unless the same was told a short while ago. Never raises."""
        self.count += 1
        try:
            self.last = "%s: %s: %s" % (where, type(error).__name__, error)
            self._hal.say(self.last)
            self._tell(where, traceback_text(error))
        except MemoryError:
            gc.collect()

    def _tell(self, where, text):
        mark = short_hash(text)
        now = self._hal.ticks_ms()
        known = self._known.get(mark)
        if known is not None and now - known[0] < _AGAIN_MS:
            known[1] += 1
            return
        head = where
        if known is not None and known[1]:
            head += " (and %d times since the last report)" % known[1]
        elif known is None and len(self._known) >= _KNOWN_MAX:
            self._known.clear()
        self._known[mark] = [now, 0]
        room = protocol.TEXT_CHARS - len(head) - 1
        self._put(
            "event", {"kind": "exception", "text": head + "\n" + protocol.clip(text[-room:]), "hash": mark}
        )
