"""A queue of messages in one file of fixed size on the SD card: what waits for its receipt outlives a power cut.

    spool = Spool(medium, feed)                       # finds what earlier boots have left; StorageError
    at = spool.put(boot, seq, channel, payload)       # where it lies; None when it is larger than the spool takes
    spool.take() -> (at, boot, seq, channel, payload) # the oldest that was not taken yet, or None
    spool.again(at)                                   # the taker has lost it again
    spool.done(at)                                    # it has its receipt
    spool.is_empty                                    # nothing is left to take
    spool.lost                                        # class -> how many had to make room, not taken yet

A ring of blocks of 512 bytes, overwritten in place: no file grows, so a power cut cannot tear the card's file system.
A record begins on a block: a head with two CRCs and a number that only grows, then channel and payload. Its first block
is written last. What a cut leaves half-written has a wrong CRC and is no record; at worst a record from an earlier lap
shows up again, and fleetd knows such repeats by boot and seq. `medium`: .size, .readinto(offset, mv), .write(offset,
buf) in whole blocks, .sync().

RAM BUDGET: 3 KB of code, loaded when the settings ask for a spool; one block; a message while it is taken (its size was
checked against what the outbox takes when it was put in).
"""

import struct
from binascii import crc32, hexlify, unhexlify

from camera_agent import protocol
from camera_agent.errors import StorageError
from camera_agent.heap import const

BLOCK = const(512)
_MAGIC = b"FSP1"
_HEAD = "<4sI8sIHBBI"  # magic, number, boot, seq, payload bytes, channel bytes, CRC of channel and payload
_HEAD_BYTES = const(32)  # with its own CRC
_LOOKS = const(32)  # heads that one call looks at


class Spool:
    """See the module's docstring. Places are counted on and on; the block is the remainder by the ring's size."""

    def __init__(self, medium, feed):
        self._medium = medium
        self._blocks = medium.size // BLOCK
        self._block = bytearray(BLOCK)
        self._view = memoryview(self._block)
        self.lost = {}
        self._number = 0
        self._oldest = self._next = self._end = self._blocks
        self._find(feed)

    def _find(self, feed):
        """Looks at every head: behind the record with the largest number is the ring's end. What lies before it in the
        ring may be a record or not; that is found out when it is taken."""
        at = 0
        found = False
        while at < self._blocks:
            head = self._head(at)
            if head and head[0] >= self._number:
                found = True
                self._number = head[0]
                self._end = self._blocks + at + head[5]
            at += head[5] if head else 1
            feed()
        if found:
            self._oldest = self._next = self._end - self._blocks

    @property
    def is_empty(self):
        """Whether everything was taken."""
        return self._next >= self._end

    @property
    def oldest(self):
        """The place before which everything was overwritten."""
        return self._oldest

    def _head(self, at):
        """(number, boot, seq, payload bytes, channel bytes, blocks, CRC) of the record that begins there, or None."""
        view = self._view[:_HEAD_BYTES]
        block = at % self._blocks
        if self._medium.readinto(block * BLOCK, view) != _HEAD_BYTES:
            return None
        magic, number, boot, seq, size, channel, _, crc = struct.unpack_from(_HEAD, self._block)
        if magic != _MAGIC or crc32(view[:28]) & 0xFFFFFFFF != struct.unpack_from("<I", self._block, 28)[0]:
            return None
        blocks = _blocks(size + channel)
        if block + blocks > self._blocks or size > protocol.UP_BYTES:
            return None
        return number, boot, seq, size, channel, blocks, crc

    def put(self, boot, seq, channel, payload):
        """Write a message down. StorageError."""
        name = channel.encode()
        blocks = _blocks(len(payload) + len(name))
        if 2 * blocks > self._blocks:
            return None
        at = self._end
        if at % self._blocks + blocks > self._blocks:
            at += self._blocks - at % self._blocks  # a record lies in one piece
        self._make_room(at + blocks)
        crc = crc32(payload, crc32(name)) & 0xFFFFFFFF
        number = self._number + 1
        head = struct.pack(_HEAD, _MAGIC, number, unhexlify(boot), seq, len(payload), len(name), 0, crc)
        head += struct.pack("<I", crc32(head) & 0xFFFFFFFF) + name
        rest = memoryview(payload)
        room = BLOCK - len(head)
        offset = at % self._blocks * BLOCK
        done = room
        while done < len(rest):
            self._fill(b"", rest[done : done + BLOCK])
            offset += BLOCK
            self._medium.write(offset, self._block)
            done += BLOCK
        self._fill(head, rest[:room])
        self._medium.write(at % self._blocks * BLOCK, self._block)
        self._medium.sync()
        self._number = number
        if self._next >= self._end:
            self._next = at
        self._end = at + blocks
        return at

    def _fill(self, head, data):
        end = len(head) + len(data)
        self._view[: len(head)] = head
        self._view[len(head) : end] = data
        for n in range(end, BLOCK):
            self._block[n] = 0

    def _make_room(self, end):
        """Give up the oldest so that the ring may end at this place."""
        while self._oldest < end - self._blocks:
            head = self._head(self._oldest) if self._oldest < self._end else None
            if head and self._oldest >= self._next:
                name = self._channel(self._oldest, head[4])
                self.lost[name] = self.lost.get(name, 0) + 1
            self._oldest += head[5] if head else 1
        self._next = max(self._next, self._oldest)

    def _channel(self, at, size):
        name = bytearray(size)
        self._medium.readinto(at % self._blocks * BLOCK + _HEAD_BYTES, memoryview(name))
        return str(name, "utf-8").split("/")[0]

    def take(self):
        """The oldest message that was not taken yet; None also when it takes more than this call to find it."""
        for _ in range(_LOOKS):
            if self._next >= self._end:
                return None
            at = self._next
            head = self._head(at)
            self._next += head[5] if head else 1
            if head is None:
                continue
            _, boot, seq, size, channel, _, crc = head
            data = bytearray(channel + size)
            self._medium.readinto(at % self._blocks * BLOCK + _HEAD_BYTES, memoryview(data))
            if crc32(data) & 0xFFFFFFFF == crc:
                name = str(data[:channel], "utf-8")
                return at, str(hexlify(boot), "ascii"), seq, name, bytes(memoryview(data)[channel:])
        return None

    def again(self, at):
        """This message, taken or not, is to be taken once more."""
        if self._oldest <= at < self._next:
            self._next = at

    def done(self, at):
        """Forget a message. What was overwritten meanwhile is left alone. StorageError."""
        if at < self._oldest or not self._head(at):
            return
        self._fill(b"", b"")
        self._medium.write(at % self._blocks * BLOCK, self._block)
        for _ in range(_LOOKS):
            if self._oldest >= self._next or self._head(self._oldest):
                break
            self._oldest += 1


def _blocks(size):
    return -(-(_HEAD_BYTES + size) // BLOCK)


def open_spool(hal, size):
    """The spool in the file of this size, made at the first start. StorageError."""
    medium = hal.open_spool(-(-size // BLOCK) * BLOCK)
    if medium is None:
        raise StorageError("spool-needs-card")
    return Spool(medium, hal.feed)
