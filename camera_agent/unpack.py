"""Unpacks an encoding from the stage region into the spare slot, one output block per step.

`deflate`: raw deflate with a 4 KB window. `patch`: one raw-deflate stream of operations
    varint literal length | literal bytes | varint copy length | zigzag varint distance (only if copy length > 0)
where a copy starts in the base at (end of the copy before) + (literal length) + distance; the first "end" is 0.
Every operation yields at least one byte; lengths are bounded by the content's size from the manifest.

The stage region is padded, so the stream must end by itself: exactly the encoding's bytes must have been consumed
and exactly the content's bytes produced. Not one byte more is written than the manifest says, and no byte outside
the base is read.

RAM BUDGET: about 5.5 KB for DeflateIO (4 KB window), the caller's 4 KB output block, otherwise a few integers.
"""

from camera_agent.errors import StorageError, UnpackError
from camera_agent.heap import const
from camera_agent.regions import BLOCK

_WINDOW_BITS = const(12)
_VARINT_BYTES = const(5)
_OPERATIONS_PER_STEP = const(256)  # keeps a step short when operations are tiny
_EINVAL = const(22)  # DeflateIO's word for bytes that are no deflate stream

try:
    from deflate import RAW, DeflateIO

    _BROKEN = (EOFError,)
except ImportError:  # CPython
    from camera_agent.inflate_desk import BROKEN as _BROKEN
    from camera_agent.inflate_desk import RAW, DeflateIO


class Unpacker:
    """Unpacks one encoding. Call step() until it answers False; then all content has been written.

    `source`: region with .stream(); `encoding` and `size`: from the manifest; `write(offset, buf)`: where the
    content goes, in whole blocks of 4096, the last one filled with zeros; `base`: for a patch, with .size and
    .readinto(offset, mv); `buffer`: 4 KB. step() raises UnpackError, or StorageError from the regions.
    """

    def __init__(self, source, encoding, size, write, buffer, base=None):
        self._stream = source.stream()
        self._inflating = DeflateIO(self._stream, RAW, _WINDOW_BITS)
        self._encoded_bytes = encoding["size"]
        self._size = size
        self._write = write
        self._block = memoryview(buffer)[:BLOCK]
        self._filled = 0
        self.produced = 0  # bytes of content so far, those in the block included
        self._one = memoryview(bytearray(1))
        self._base = None
        if encoding["kind"] == "patch":
            if base is None:
                raise UnpackError("a patch without its base")
            self._base = base
        self._literal = 0  # bytes of the current literal still to come
        self._copy = 0  # bytes of the current copy still to come
        self._source = 0  # where in the base they come from
        self._literal_before = 0  # the current operation's literal length, until its copy is known

    def step(self):
        """Produce at most one block. True while there is more to do."""
        if self._base is None:
            self._take(min(BLOCK - self._filled, self._size - self.produced))
        else:
            operations = 0
            while self._filled < BLOCK and operations < _OPERATIONS_PER_STEP:
                if not self._literal and not self._copy:
                    if self.produced == self._size:
                        break
                    self._next_operation()
                    operations += 1
                self._run()
        at_end = self.produced == self._size and not self._literal and not self._copy
        if self._filled == BLOCK or at_end:
            for i in range(self._filled, BLOCK):
                self._block[i] = 0
            self._write(self.produced - self._filled, self._block)
            self._filled = 0
        if at_end:
            self._check_end()
        return not at_end

    def _inflate(self, view):
        """Fill `view` as far as the stream goes; answers the bytes."""
        done = 0
        try:
            while done < len(view):
                n = self._inflating.readinto(view[done:])
                if not n:
                    break
                done += n
        except _BROKEN as error:
            raise UnpackError("damaged deflate stream: %r" % error) from None
        except OSError as error:
            if error.errno == _EINVAL:
                raise UnpackError("damaged deflate stream") from None
            raise StorageError("storage-error", "read stage: %s" % error) from None
        return done

    def _take(self, count):
        """Move `count` bytes from the stream into the block."""
        if self._inflate(self._block[self._filled : self._filled + count]) != count:
            raise UnpackError("the stream ends early")
        self._filled += count
        self.produced += count

    def _varint(self):
        value = shift = 0
        for _ in range(_VARINT_BYTES):
            if not self._inflate(self._one):
                raise UnpackError("the patch ends early")
            value |= (self._one[0] & 127) << shift
            if self._one[0] < 128:
                return value
            shift += 7
        raise UnpackError("a number in the patch is too long")

    def _next_operation(self):
        self._literal = self._literal_before = self._varint()
        if self._literal > self._size - self.produced:
            raise UnpackError("the patch makes more than the manifest says")
        if not self._literal:
            self._next_copy()

    def _next_copy(self):
        """The copy that follows the literal just taken."""
        self._copy = self._varint()
        if self._copy > self._size - self.produced:
            raise UnpackError("the patch makes more than the manifest says")
        if not self._copy:
            if not self._literal_before:
                raise UnpackError("an operation without effect")
            return
        folded = self._varint()
        self._source += self._literal_before + ((folded >> 1) ^ -(folded & 1))
        if self._source < 0 or self._source + self._copy > self._base.size:
            raise UnpackError("a copy from outside the base")

    def _run(self):
        """Carry the current operation on until it or the block ends."""
        room = BLOCK - self._filled
        if self._literal:
            count = min(self._literal, room)
            self._take(count)
            self._literal -= count
            if not self._literal:
                self._next_copy()
            return
        count = min(self._copy, room)
        if self._base.readinto(self._source, self._block[self._filled : self._filled + count]) != count:
            raise StorageError("storage-error", "the base is shorter than it was")
        self._filled += count
        self.produced += count
        self._source += count
        self._copy -= count

    def _check_end(self):
        if self._inflate(self._one):
            raise UnpackError("the stream makes more than the manifest says")
        # DeflateIO takes single bytes from the stream; zlib reads ahead and says how far it came
        consumed = getattr(self._inflating, "consumed", None)
        if consumed is None:
            consumed = self._stream.tell()
        if consumed != self._encoded_bytes:
            raise UnpackError("%d of %d encoded bytes used" % (consumed, self._encoded_bytes))
