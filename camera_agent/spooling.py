"""An outbox with a spool on the SD card behind it: for cameras that are without a network for hours.

    outbox = SpooledOutbox(hal, most_messages, most_bytes, open_spool(hal, bytes))
    outbox.tidy(now)       # now and then: writes down what waits for longer, brings back what there is room for
    outbox.flush()         # before a restart on purpose: everything is written down

A message is written down when it has waited for its receipt for ten seconds, or when the box overflows, in which case
only the spool has it from then on. So a camera that is connected hardly ever writes. Messages of an earlier boot keep
its id and their number. Telemetry, pictures and
statuses are never written down.

RAM BUDGET: 2 KB of code, and what camera_agent/spool.py says.
"""

from camera_agent.errors import StorageError
from camera_agent.heap import const
from camera_agent.outbox import Message, Outbox

_AGE_MS = const(10_000)
_WRITES = const(4)  # messages that one call writes
_READS = const(8)
_NEVER = ("telemetry", "status")


class SpooledMessage(Message):
    """One that knows which boot it is of, when it came and where in the spool it lies."""

    def __init__(self, seq, channel, payload, boot, made):
        super().__init__(seq, channel, payload)
        self.boot = boot
        self.made = made  # ms
        self.at = None


class SpooledOutbox(Outbox):
    """See the module's docstring."""

    def __init__(self, hal, most_messages, most_bytes, spool, boot=None):
        super().__init__(hal, most_messages, most_bytes, boot)
        self._spool = spool
        self._low = None  # no message of this boot below it is only in the spool
        self.problem = None
        self.spooled = 0

    @property
    def low(self):
        """As in Outbox, with what only the spool holds."""
        lowest = self._seq + 1
        for message in self._held:
            if message.boot == self.boot:
                lowest = min(lowest, message.seq)
        return lowest if self._low is None else min(lowest, self._low)

    def _new(self, seq, channel, payload):
        return SpooledMessage(seq, channel, payload, self.boot, self._hal.ticks_ms())

    def _is_of(self, message, boot):
        return message.boot == boot

    def _write(self, message):
        """Whether the spool has it."""
        if message.at is not None:
            return message.at >= self._spool_oldest()
        if self._spool is None or message.channel in _NEVER or message.channel.startswith("image/"):
            return False
        try:
            message.at = self._spool.put(message.boot, message.seq, message.channel, message.payload)
        except StorageError as error:
            self._fail(error)
            return False
        self.spooled += message.at is not None
        return message.at is not None

    def _spool_oldest(self):
        return 1 << 60 if self._spool is None else self._spool.oldest

    def _fail(self, error):
        """The card does not work: go on as an outbox in memory."""
        self._spool = None
        self._low = None
        self.problem = "spool-failed"
        self._hal.say("fleetd agent: spool: %s (%s)" % (error.reason, error.detail))

    def _give_up(self, message):
        if not self._write(message):
            super()._give_up(message)
            return
        self._spool.again(message.at)
        if message.boot == self.boot:
            self._low = message.seq if self._low is None else min(self._low, message.seq)

    def _received(self, message):
        if message.at is not None and self._spool is not None:
            try:
                self._spool.done(message.at)
            except StorageError as error:
                self._fail(error)

    def tidy(self, now):
        """Write down what has waited, bring back what was moved out."""
        written = 0
        for message in self._held:
            if written < _WRITES and message.at is None and now - message.made >= _AGE_MS:
                written += self._write(message)
        for _ in range(_READS):
            if self._spool is None or self._spool.is_empty or not self._has_room():
                break
            try:
                found = self._spool.take()
            except StorageError as error:
                self._fail(error)
                return
            if found is not None:
                self._bring_back(found)
        if self._spool is not None:
            if self._spool.is_empty:
                self._low = None
            for name in self._spool.lost:
                self.dropped[name] = self.dropped.get(name, 0) + self._spool.lost[name]
            self._spool.lost.clear()

    def _has_room(self):
        return 2 * len(self._held) < self._most_messages and 2 * self.bytes < self._most_bytes

    def _bring_back(self, found):
        at, boot, seq, channel, payload = found
        place = 0
        for message in self._held:
            if message.boot == boot and message.seq == seq:
                return  # it never left
            if message.boot != self.boot or (boot == self.boot and message.seq < seq):
                place += 1
        message = SpooledMessage(seq, channel, payload, boot, self._hal.ticks_ms())
        message.at = at
        self._held.insert(place, message)
        self._waiting += 1
        self.bytes += len(payload)

    def flush(self):
        """Write everything down."""
        for message in self._held:
            self._write(message)
