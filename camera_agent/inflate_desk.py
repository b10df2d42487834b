"""deflate.DeflateIO's reading half on top of zlib, for CPython. Cameras have the module `deflate` and never load this.

RAM BUDGET: nothing on a camera.
"""

import zlib

RAW = 3  # unused: there is only this format
BROKEN = (EOFError, zlib.error)


class DeflateIO:
    """Reads raw deflate from a stream."""

    def __init__(self, stream, _format, window_bits):
        self._stream = stream
        self._zlib = zlib.decompressobj(-window_bits)
        self._taken = 0

    def readinto(self, view):
        """Fill `view` as far as the stream goes; answers the bytes. Raises one of BROKEN."""
        done = 0
        while done < len(view) and not self._zlib.eof:
            feed = self._zlib.unconsumed_tail
            if not feed:
                feed = self._stream.read(256)
                self._taken += len(feed)
                if not feed:
                    # what zlib holds back may still come out without further input
                    rest = self._zlib.decompress(b"", len(view) - done)
                    if not rest:
                        raise EOFError
                    view[done : done + len(rest)] = rest
                    done += len(rest)
                    continue
            data = self._zlib.decompress(feed, len(view) - done)
            view[done : done + len(data)] = data
            done += len(data)
        return done

    @property
    def consumed(self):
        """How many bytes of the stream belong to what was read."""
        # at the end zlib repeats the unused input in unconsumed_tail
        left = self._zlib.unused_data if self._zlib.eof else self._zlib.unconsumed_tail
        return self._taken - len(left)
