"""The flight recorder: why there was no connection, remembered while there is none and told once there is one again.

    flight = Flight(hal, put)
    flight.note("no-such-network", detail)     # the same word again only counts
    flight.step(now, is_connected)             # sends the event
    flight.is_stuck(now, has_network, reset_s) # whether only a restart is left
    flight.keep()                              # before such a restart: what is noted survives it

A camera without a link for `reset_s` restarts, then after twice that time and so on up to a day: a radio that does not
even answer to a new interface object is known to need it. With a link, but nobody answering at the broker's address,
it waits four times as long, because mostly that is the broker's fault. Whoever answers and refuses is no reason.

RAM BUDGET: 8 entries, about 1 KB.
"""

from camera_agent import protocol
from camera_agent.heap import const

_KEPT = const(8)
_TOLD_MS = const(60_000)  # between two events; until then the entries wait
_DETAIL_CHARS = const(60)
_NOTE = "flight"
_DOUBLINGS = const(5)
_DAY_MS = const(86_400_000)
_HINTS = {"no-such-network": "it is out of reach or 5 GHz only; cameras hear 2.4 GHz"}
_UNREACHED = ("connect-timeout", "connect-failed", "no-route", "name-not-found")


class Flight:
    """See the module's docstring."""

    def __init__(self, hal, put):
        """`put(channel, body)`: the outbox's."""
        self._hal = hal
        self._put = put
        self._entries = []  # [word, how often in a row, detail]
        self._more = 0  # entries that made room
        self._since = hal.ticks_ms()  # when the connection was lost, or the start; None: it is there
        self._linked_at = self._since  # when there was a link last
        self._was_connected = False
        self._away = 0  # seconds without a connection that were not told yet
        self._told_at = -_TOLD_MS
        self._before = None  # what was noted before the restart
        self.resets = 0  # restarts in a row that this is the reason for
        self.last = None
        self.unreached = 0  # how often in a row nobody answered at the broker's address
        self._read(hal.kept(_NOTE))

    def _read(self, kept):
        number, _, text = kept.partition(" ")
        if text and len(number) < 4 and number.isdigit():
            self.resets = int(number)
            self._before = text

    def note(self, word, detail=None):
        """There is no connection for this reason."""
        self.last = word
        self.unreached = self.unreached + 1 if word in _UNREACHED else 0
        if self._entries and self._entries[-1][0] == word:
            self._entries[-1][1] += 1
            return
        if len(self._entries) >= _KEPT:
            self._entries.pop(0)
            self._more += 1
        self._entries.append([word, 1, protocol.clip(detail, _DETAIL_CHARS) if detail else _HINTS.get(word)])

    def step(self, now, is_connected):
        """Notice that the connection went or came; tell what was noted meanwhile."""
        if not is_connected:
            if self._since is None:
                self._since = now
            return
        if self._since is not None:
            self._away += (now - self._since) // 1000
            self._since = None
            self.unreached = 0
            if self.resets:
                self.resets = 0
                self._write("")
        if not self._entries and not self._before:
            self._was_connected = True
            self._away = 0
        elif now - self._told_at >= _TOLD_MS:
            self._told_at = now
            self._tell()

    def _tell(self):
        text = "away for %d s: " if self._was_connected else "not connected for %d s after the start: "
        text = text % self._away + (self._text() or "nothing")
        if self._before:
            text += "; before the restart: " + self._before
        self._put("event", {"kind": "connection-lost", "text": protocol.clip(text)})
        self._entries = []
        self._more = self._away = 0
        self._before = None
        self._was_connected = True

    def _text(self):
        said = ["%d earlier ones" % self._more] if self._more else []
        for word, count, detail in self._entries:
            if detail:
                word += " (%s)" % detail
            said.append("%s x%d" % (word, count) if count > 1 else word)
        return ", ".join(said)

    def is_stuck(self, now, has_network, reset_s):
        """Whether a restart is due. `reset_s` 0: never."""
        if has_network:
            self._linked_at = now
        if not reset_s or self._since is None:
            return False
        patience = min(1000 * reset_s << min(self.resets, _DOUBLINGS), max(_DAY_MS, 1000 * reset_s))
        if not has_network:
            return now - max(self._since, self._linked_at) >= patience
        return self.last in _UNREACHED and now - self._since >= 4 * patience

    def keep(self):
        """Write down what is noted, for the next start. Never raises: the restart matters more."""
        self._write("%d %s" % (min(self.resets + 1, 999), self._text() or "nothing"))

    def _write(self, text):
        try:
            self._hal.keep(text, _NOTE)
        except OSError:
            pass  # broken storage is told by whoever needs it
