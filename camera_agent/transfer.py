"""Pulls one encoding into the stage region, block by block, at the camera's own pace.

The encoding's index blocks (128 digests each, their own digests stand in the manifest) are fetched one at a time;
each block is compared with its digest before it touches storage. At most `WINDOW` block topics are wanted at once.
Blocks that lie in the stage already (from before a reboot or a lost link) are found by their digests and not
fetched again. Blocks may come in any order; what nobody asked for is ignored. A last block
that is shorter than the others is fetched when all others are there: to be padded for storage it takes the place of
the index, which nobody needs any more then.

RAM BUDGET: the caller's 4 KB buffer (one index block), 512 bytes for reading back, else under 300 bytes.
"""

import hashlib

from camera_agent import crypto
from camera_agent.errors import StorageError, TransferError
from camera_agent.heap import const, is_small
from camera_agent.protocol import BLOCK_BYTES, blocks_of

WINDOW = const(12)  # what fills a link of 5 Mbit/s with 60 ms there and back
_SMALL_WINDOW = const(4)  # where memory is scarce: topics that are wanted take 100 bytes each
BAD_BLOCKS = const(3)  # wrong copies of one block before the transfer is given up
_ASK_AGAIN_MS = const(60_000)  # of silence while connected
_GIVE_UP_MS = const(900_000)  # connected, and not one good block

_PER_INDEX = const(4096 // 32)
_PIECE_BYTES = const(512)


class Transfer:
    """One encoding on its way. `finished` is True when every block lies in the stage and matches.

    `port`: see camera_agent/updater.py; `stage`: region; `encoding`: from the manifest; `buffer`: 4 KB.
    """

    def __init__(self, port, stage, encoding, buffer):
        self._port = port
        self._stage = stage
        self._encoding = encoding
        self._index = memoryview(buffer)
        self.total = blocks_of(encoding["size"])
        self.done = 0  # blocks in the stage, those from before included
        self.bytes = 0  # received
        self.finished = False
        self._part = -1  # which index block is in memory
        self._scanned = 0  # blocks of this part looked up in the stage
        self._have = bytearray(_PER_INDEX // 8)
        self._piece = memoryview(bytearray(_PIECE_BYTES))
        self._window = _SMALL_WINDOW if is_small() else WINDOW
        self._wanted = []  # block numbers asked for, at most WINDOW; of index topics the part's number
        self._bad = {}  # wrong copies by block number, for the wanted ones only
        self._asking_index = False
        self._failed = None  # what on_block may not raise into the link
        self._last_ms = None
        self._silent_ms = 0
        self._stalled_ms = 0

    # the agent's loop

    def step(self, now_ms):
        """A bounded piece of work. True while there is more to do at once. Raises TransferError, StorageError."""
        if self._failed:
            raise self._failed
        self._watch(now_ms)
        if self.finished or self._asking_index:
            return False
        if self._part < 0:
            return self._next_part()
        if self._scanned < self._part_blocks():
            self._scan_one()
            return True
        if not self._wanted and self._next_missing() is None:
            return self._next_part()
        asked = False
        while len(self._wanted) < self._window:
            block = self._next_missing()
            if block is None:
                break
            self._wanted.append(block)
            self._want(block)
            asked = True
        return asked

    def on_block(self, digest, number, payload):
        """A block has come. Anything that was not asked for is ignored."""
        if self._failed or self.finished:
            return
        try:
            if self._asking_index:
                if digest == self._encoding["index"][self._part] and number == 0:
                    self._take_index(payload)
            elif digest == self._encoding["sha256"] and number in self._wanted:
                self._take_block(number, payload)
        except (TransferError, StorageError) as error:
            self._failed = error

    def close(self):
        """Stop listening. What lies in the stage stays."""
        for number in self._wanted:
            self._port.unwant(self._topic(number))
        self._wanted = []
        self._asking_index = False

    # index blocks

    def _part_blocks(self):
        return min(_PER_INDEX, self.total - self._part * _PER_INDEX)

    def _next_part(self):
        """Ask for the index block of the next 128 blocks, or finish. True unless it now has to wait."""
        if (self._part + 1) * _PER_INDEX >= self.total:
            self.finished = True
            return True
        self._part += 1
        self._asking_index = True
        self._wanted = [self._part]
        self._want(self._part)
        return False

    def _take_index(self, payload):
        count = 32 * self._part_blocks()
        if (
            len(payload) != count
            or crypto.hexed(crypto.sha256(payload)) != self._encoding["index"][self._part]
        ):
            return self._wrong(self._part, len(payload))
        self._index[:count] = payload
        self._received(self._part, count)
        self._asking_index = False
        self._scanned = 0
        for i in range(len(self._have)):
            self._have[i] = 0
        return None

    # blocks

    def _block_bytes(self, number):
        return min(BLOCK_BYTES, self._encoding["size"] - number * BLOCK_BYTES)

    def _matches(self, number, digest):
        at = number % _PER_INDEX * 32
        return digest == self._index[at : at + 32]

    def _scan_one(self):
        """Look up one block in the stage."""
        number = self._part * _PER_INDEX + self._scanned
        at = number * BLOCK_BYTES
        end = at + self._block_bytes(number)
        digest = hashlib.sha256()
        while at < end:
            view = self._piece[: min(_PIECE_BYTES, end - at)]
            if self._stage.readinto(at, view) != len(view):
                break
            digest.update(view)
            at += len(view)
        if at == end and self._matches(number, digest.digest()):
            self._mark(number)
        self._scanned += 1

    def _mark(self, number):
        at = number % _PER_INDEX
        self._have[at // 8] |= 1 << at % 8
        self.done += 1

    def _next_missing(self):
        """The first block of this part that is neither there nor asked for, a short one last; None when there is
        none."""
        first = self._part * _PER_INDEX
        for at in range(self._part_blocks()):
            if not self._have[at // 8] >> at % 8 & 1 and first + at not in self._wanted:
                is_short = self._block_bytes(first + at) < BLOCK_BYTES
                return None if is_short and self._wanted else first + at
        return None

    def _take_block(self, number, payload):
        size = len(payload)
        if size != self._block_bytes(number) or not self._matches(number, crypto.sha256(payload)):
            return self._wrong(number, size)
        if size < BLOCK_BYTES:  # the last one of all: storage takes whole blocks
            self._index[:size] = payload
            payload = self._index
        self._stage.write(number * BLOCK_BYTES, payload)
        self._mark(number)
        self._received(number, size)
        return None

    # asking

    def _topic(self, number):
        if self._asking_index:
            return self._port.topics.blob(self._encoding["index"][self._part], 0)
        return self._port.topics.blob(self._encoding["sha256"], number)

    def _want(self, number):
        self._silent_ms = 0
        self._port.want(self._topic(number))

    def _received(self, number, size):
        self._port.unwant(self._topic(number))
        self._wanted.remove(number)
        self._bad.pop(number, None)
        self.bytes += size
        self._silent_ms = 0
        self._stalled_ms = 0

    def _wrong(self, number, size):
        bad = self._bad.get(number, 0) + 1
        self._bad[number] = bad
        if bad >= BAD_BLOCKS:
            what = "index block" if self._asking_index else "block"
            raise TransferError(
                "digest-mismatch", "%s %d (%d bytes) was wrong %d times" % (what, number, size, bad)
            )
        self._want(number)

    def _watch(self, now_ms):
        """Count silence while connected: ask again, in the end give up."""
        passed = 0 if self._last_ms is None else now_ms - self._last_ms
        self._last_ms = now_ms
        if not self._port.connected or not self._wanted:
            return
        self._silent_ms += passed
        self._stalled_ms += passed
        if self._stalled_ms >= _GIVE_UP_MS:
            raise TransferError("connection-lost", "no good block for %d s" % (self._stalled_ms // 1000))
        if self._silent_ms >= _ASK_AGAIN_MS:
            for number in self._wanted:
                self._want(number)
