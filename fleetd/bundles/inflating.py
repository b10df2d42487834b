"""Raw deflate with a 4 KB window, as cameras unpack it: MicroPython's `deflate` in 5 KB of heap."""

import zlib
from typing import Final

WINDOW_BITS: Final = 12
_FEED: Final = 4096
_PIECE: Final = 256  # zlib checks distances against the window only between calls: short ones keep it honest


def deflate(content: bytes) -> bytes:
    """The content as one raw-deflate stream."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -WINDOW_BITS, 9)
    return packer.compress(content) + packer.flush()


def inflate(data: bytes, limit: int) -> bytes | None:
    """What was deflated; None when the data is damaged, goes on after its end, or unpacks to more than `limit`."""
    unpacker = zlib.decompressobj(-WINDOW_BITS)
    out = bytearray()
    fed = 0
    try:
        while not unpacker.eof:
            feed = unpacker.unconsumed_tail
            if not feed:
                feed = data[fed : fed + _FEED]
                fed += len(feed)
            piece = unpacker.decompress(feed, _PIECE)
            out += piece
            if len(out) > limit or not (piece or feed):
                return None
    except zlib.error:
        return None
    return None if unpacker.unused_data or fed < len(data) else bytes(out)
