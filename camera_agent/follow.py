"""Follows fleetd's key records: asks for the next one, hands it to camera_agent/keyring.py, says what came of it.

    keys = Follow(ring, slots, port)
    keys.boot()                     # after the pointer was read: what storage says of the ring
    keys.newest = 3                 # fleetd has key records up to this one
    keys.step(now) -> bool          # True: the ring has changed
    keys.on_release(id, payload) -> bool    # whether it was the record that was asked for
    keys.holds(now) -> bool         # an update should wait: with the next keys it may be judged otherwise
    keys.refused                    # a word for the status, or None

RAM BUDGET: 1 KB of code, a record of at most 2 KB until the next step.
"""

from camera_agent.errors import AgentError
from camera_agent.heap import collect, const, forget, load

_NAME = "keys-%d"  # a record is retained like the manifest of a release of this name
_RECORD_BYTES = const(2048)
_HOLD_MS = const(30_000)
_AGAIN_MS = const(600_000)


class Follow:
    """See the module's docstring."""

    def __init__(self, ring, slots, port):
        self.newest = 0
        self.refused = None
        self._ring = ring
        self._slots = slots
        self._port = port
        self._mark = None  # of the keys in config.json
        self._wanted = None  # the name of the record that is asked for
        self._record = None
        self._asked_ms = None

    def boot(self):
        """What storage says of the ring."""
        try:
            self._mark = load("keyring").settle(self._ring, self._slots)
        except (AgentError, MemoryError):
            self.refused = "keys-refused:storage-error"  # config.json's keys hold meanwhile
        finally:
            forget("keyring")

    def holds(self, now):
        """Whether a record is on its way."""
        return self._wanted is not None and now < self._asked_ms + _HOLD_MS

    def on_release(self, release_id, payload):
        """A key record, if it is the one that was asked for."""
        if release_id != self._wanted:
            return False
        self._record = bytes(
            (payload or b"")[:_RECORD_BYTES]
        )  # None: one that takes too much memory is no record
        return True

    def step(self, now):
        """Ask for the next record, or take it over. True when the ring has changed."""
        if self._record is not None:
            return self._take()
        if self.newest <= self._ring.serial or not self._port.connected or self._mark is None:
            return False
        if self._asked_ms is None or now >= self._asked_ms + _AGAIN_MS:
            self._asked_ms = now
            self._wanted = _NAME % (self._ring.serial + 1)
            self._port.want(self._port.topics.release(self._wanted))
        return False

    def _take(self):
        record = self._record
        self._record = None
        self._port.unwant(self._port.topics.release(self._wanted))
        self._wanted = None
        try:
            load("keyring").adopt(record, self._ring, self._slots, self._mark)
        except (AgentError, MemoryError) as error:
            reason = error.reason if isinstance(error, AgentError) else "out-of-memory"
            self.refused = "keys-refused:" + reason  # and asked for again in ten minutes
            collect()
            return False
        finally:
            forget("keyring")
        self.refused = None
        self._asked_ms = None
        return True
