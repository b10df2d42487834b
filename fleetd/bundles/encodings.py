"""Encodings: the forms in which a release's content travels, cut into blocks that a camera checks one by one.

encoded = cut("deflate", deflate(content))
encoded.blocks[n]           published as `_blob/<encoded.sha256>/<n>`
encoded.index_blocks[k]     published as `_blob/<its sha256>/0`; the digests of blocks 128 k to 128 k + 127
encoded.entry()             what the manifest says about it
"""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from fleetd.bundles.errors import ReleaseError
from fleetd.bundles.inflating import inflate
from fleetd.bundles.patching import apply_patch
from fleetd.protocol import limits
from fleetd.protocol.manifest import Encoding


class DamagedEncodingError(ReleaseError):
    """The encoding does not unpack to the content."""

    code = "encoding_damaged"


@dataclass(frozen=True)
class Encoded:
    """One encoding with its bytes. `base` is the SHA-256 of the content that a patch starts from."""

    kind: Literal["deflate", "patch"]
    base: str | None
    data: bytes

    @property
    def size(self) -> int:
        """Bytes on the wire."""
        return len(self.data)

    @cached_property
    def sha256(self) -> str:
        """The digest of its bytes, in hex; it names the encoding."""
        return hashlib.sha256(self.data).hexdigest()

    @cached_property
    def blocks(self) -> tuple[bytes, ...]:
        """Its bytes in blocks of 4096; the last may be shorter."""
        return _pieces(self.data)

    @cached_property
    def index_blocks(self) -> tuple[bytes, ...]:
        """The SHA-256 digests of the blocks, one after the other, in blocks of 4096."""
        return _pieces(b"".join(hashlib.sha256(block).digest() for block in self.blocks))

    def entry(self) -> Encoding:
        """The manifest's entry for it."""
        return Encoding(
            kind=self.kind,
            base=self.base,
            size=self.size,
            sha256=self.sha256,
            index=[hashlib.sha256(block).hexdigest() for block in self.index_blocks],
        )

    def decode(self, limit: int, base: bytes | None = None) -> bytes:
        """The content, of at most `limit` bytes; a patch needs its base. Raises ReleaseError."""
        if self.kind == "patch":
            if base is None or hashlib.sha256(base).hexdigest() != self.base:
                raise DamagedEncodingError("A patch can only be unpacked with the content it was made from.")
            return apply_patch(base, self.data, limit)
        content = inflate(self.data, limit)
        if content is None:
            raise DamagedEncodingError("The encoding is damaged, or unpacks to more than the manifest says.")
        return content


def cut(kind: Literal["deflate", "patch"], data: bytes, base: str | None = None) -> Encoded:
    """An encoding of these bytes."""
    if not data:
        raise DamagedEncodingError("The encoding is empty.")
    return Encoded(kind, base, data)


def _pieces(data: bytes) -> tuple[bytes, ...]:
    return tuple(data[at : at + limits.BLOCK_BYTES] for at in range(0, len(data), limits.BLOCK_BYTES))
