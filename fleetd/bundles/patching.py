"""COPY/LITERAL patches: new content told as pieces of old content plus what is new.

    data = make_patch(base, content)          # verified: applying it gives the content
    content = apply_patch(base, data, limit)

One raw-deflate stream (4 KB window) of operations, each

    varint literal length | literal bytes | varint copy length | zigzag varint distance (only if copy length > 0)

A copy starts in the base at (end of the copy before) + (literal length) + distance; the first "end" is 0. So an
unchanged stretch costs three bytes, and a weight changed in place costs no distance.
"""

import zlib
from collections.abc import Iterator
from typing import Final

from fleetd.bundles.errors import ReleaseError
from fleetd.bundles.inflating import WINDOW_BITS, inflate

_GRAM: Final = 16  # bytes by which a place in the base is found
_STEP: Final = 8  # every how many bytes of the base such a place is kept ...
_PLACES: Final = 1 << 18  # ... but no more than this many in all
_NEAR: Final = 8  # shortest match where the last copy would have gone on
_FAR: Final = 24  # shortest match anywhere else: it costs a distance
_ENOUGH: Final = 64  # a match this long where it was expected is taken without looking elsewhere
_PATIENCE: Final = 16 * 1024  # bytes without a match
_STRIDE: Final = 7
_VARINT_BYTES: Final = 5
_STREAM_PER_BYTE: Final = 8  # the worst case: every byte copied alone, from somewhere else


class DamagedPatchError(ReleaseError):
    """The patch does not fit its base or is damaged."""

    code = "patch_damaged"


def make_patch(base: bytes, content: bytes, *, variant: int = 0) -> bytes:
    """A patch that turns `base` into `content`. It takes 0.1 s for a typical 600 KB model, a few for 10 MB.

    Bases that differ only where the content differs from all of them give the same bytes; where patches are told
    apart by their bytes, each takes another `variant`.
    """
    stream = bytearray()
    expected = 0
    for literal, start, length in _split(_operations(base, content), variant):
        stream += _varint(len(literal)) + literal + _varint(length)
        if length:
            distance = start - (expected + len(literal))
            stream += _varint(distance << 1 ^ distance >> 63)
            expected = start + length
    packer = zlib.compressobj(9, zlib.DEFLATED, -WINDOW_BITS, 9)
    patch = packer.compress(bytes(stream)) + packer.flush()
    if apply_patch(base, patch, len(content)) != content:
        raise DamagedPatchError("The patch that was made does not give the content. Please report this.")
    return patch


def apply_patch(base: bytes, patch: bytes, limit: int) -> bytes:
    """The content, of at most `limit` bytes. Raises DamagedPatchError for anything a camera would refuse."""
    stream = inflate(patch, limit * _STREAM_PER_BYTE + 16)
    if stream is None:
        raise DamagedPatchError("The patch is not one whole raw-deflate stream.")
    out = bytearray()
    at = source = 0
    while at < len(stream):
        literal, at = _take_varint(stream, at)
        out += stream[at : at + literal]
        at += literal
        length, at = _take_varint(stream, at)
        if at > len(stream) or not literal + length or len(out) + length > limit:
            raise DamagedPatchError("The patch makes more than it says, or has an operation without effect.")
        if length:
            folded, at = _take_varint(stream, at)
            source += literal + (folded >> 1 ^ -(folded & 1))
            if source < 0 or source + length > len(base):
                raise DamagedPatchError("The patch copies from outside its base.")
            out += base[source : source + length]
            source += length
    return bytes(out)


def _operations(base: bytes, content: bytes) -> Iterator[tuple[bytes, int, int]]:
    """(literal, where the copy after it starts in the base, its length); length 0 only at the very end."""
    step = _STEP
    while step * _PLACES < len(base):
        step *= 2
    # Backwards, so that of equal places the first one stays: it is the one a sorted file repeats from.
    places = {base[at : at + _GRAM]: at for at in range((len(base) - _GRAM) // step * step, -1, -step)}
    at = literal = expected = 0
    while at < len(content):
        start = expected + at - literal  # where the last copy would have gone on
        length = 0
        if content[at : at + _NEAR] == base[start : start + _NEAR]:
            length = _common(base, start, content, at)
        if length < _ENOUGH and (other := places.get(content[at : at + _GRAM])) is not None:
            found = _common(base, other, content, at)
            if found >= max(_FAR, length + _NEAR):
                start, length = other, found
        if length < _NEAR:
            # Nothing for a long while: look less closely. Odd strides meet every place kept at even ones.
            at += 1 + 2 * min((at - literal) // _PATIENCE, _STRIDE)
            continue
        while at > literal and start > 0 and base[start - 1] == content[at - 1]:
            at, start, length = at - 1, start - 1, length + 1
        yield content[literal:at], start, length
        at += length
        literal, expected = at, start + length
    if literal < len(content):
        yield content[literal:], 0, 0


def _split(operations: Iterator[tuple[bytes, int, int]], at: int) -> Iterator[tuple[bytes, int, int]]:
    """The same operations, but for the first copy of more than `at` bytes: it is done in two pieces."""
    for literal, start, length in operations:
        if 0 < at < length:
            yield literal, start, at
            yield b"", start + at, length - at
            at = 0
        else:
            yield literal, start, length


def _common(base: bytes, start: int, content: bytes, at: int) -> int:
    """How many bytes are equal from here on: in growing pieces, then by halving the piece that differs."""
    limit = min(len(base) - start, len(content) - at)
    done, size, growing = 0, _NEAR, True
    while done < limit and size:
        size = min(size, limit - done)
        if base[start + done : start + done + size] == content[at + done : at + done + size]:
            done += size
            size = size * 2 if growing else size // 2
        else:
            growing = False
            size //= 2
    return done


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def _take_varint(stream: bytes, at: int) -> tuple[int, int]:
    value = 0
    for n in range(_VARINT_BYTES):
        if at + n >= len(stream):
            break
        value |= (stream[at + n] & 127) << 7 * n
        if stream[at + n] < 128:
            return value, at + n + 1
    raise DamagedPatchError("A number in the patch is damaged.")
