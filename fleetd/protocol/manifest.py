"""A release's manifest: what a camera trusts.

On the wire and on the camera's storage it is

    4 bytes   b"FLM1"
    8 bytes   key id: the first 8 bytes of SHA-256 over the 64-byte public key (x || y)
    64 bytes  ES256 signature (raw r || s) over SHA-256(magic || key id || JSON bytes)
    n bytes   UTF-8 JSON, at most 8 KB with the header

The signature is checked over the stored bytes before anything is parsed.

A release's content (model, labels, golden frames) is one ROMFS image, so that model and labels can never
be mixed and one digest covers all. It is offered in encodings; each is cut into blocks of 4096 bytes. The
SHA-256 digests of the blocks are concatenated (32 bytes each) and cut into index blocks of 4096 bytes
(128 digests); the SHA-256 of each index block stands in the manifest. Index block k is published as
`_blob/<its sha256>/0`, block n of the encoding as `_blob/<the encoding's sha256>/<n>`. So every block
that a camera receives can be checked before it touches storage, with one 4 KB index block in memory.
"""

from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from fleetd.protocol import limits
from fleetd.protocol.messages import Digest, ReleaseId, Word

MAGIC: Final = b"FLM1"
KEY_ID_BYTES: Final = 8
SIGNATURE_BYTES: Final = 64
HEADER_BYTES: Final = len(MAGIC) + KEY_ID_BYTES + SIGNATURE_BYTES
DIGESTS_PER_INDEX_BLOCK: Final = limits.BLOCK_BYTES // 32
GOLDEN_FRAMES: Final = 8  # at most, in one release


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class ContentFile(_Strict):
    """One file inside the image: where its bytes are, so that a camera without ROMFS can read it too."""

    path: Annotated[str, StringConstraints(pattern=r"^[a-z0-9_.-]{1,48}$")]
    offset: int = Field(ge=0, le=limits.CONTENT_BYTES)
    size: int = Field(ge=0, le=limits.CONTENT_BYTES)
    sha256: Digest


class Content(_Strict):
    """The unpacked image as it lies in a slot."""

    size: int = Field(ge=1, le=limits.CONTENT_BYTES)
    sha256: Digest
    files: list[ContentFile] = Field(min_length=1, max_length=16)


class Encoding(_Strict):
    """One way to obtain the content. `deflate`: raw deflate, 4 KB window. `patch`: COPY/LITERAL on `base`."""

    kind: Literal["deflate", "patch"]
    base: Digest | None = None
    size: int = Field(ge=1, le=limits.CONTENT_BYTES + limits.CONTENT_BYTES // 8)
    sha256: Digest
    index: list[Digest] = Field(min_length=1, max_length=64)

    @property
    def blocks(self) -> int:
        """How many blocks of 4096 bytes the encoding has."""
        return -(-self.size // limits.BLOCK_BYTES)


class TensorFacts(_Strict):
    """Shape, type and quantisation of an input or output."""

    shape: list[int] = Field(max_length=8)
    dtype: Word
    scale: float = 0.0
    zero_point: int = 0


class ModelFacts(_Strict):
    """What preflight learned about the model."""

    input: TensorFacts
    output: TensorFacts
    labels: int = Field(ge=1, le=limits.LABELS)
    ops: list[Word] = Field(default_factory=list, max_length=128)
    arena_bytes: int | None = None


class GoldenFacts(_Strict):
    """That the content holds golden frames (`golden.bin`), and how far an output may be from its answer."""

    frames: int = Field(ge=1, le=GOLDEN_FRAMES)
    tolerance: float = Field(ge=0, le=1)


class Manifest(_Strict):
    """The signed part of a release."""

    format: Literal[1]
    release: ReleaseId
    kind: Literal["model", "config", "agent"]
    name: Annotated[str, StringConstraints(min_length=1, max_length=64)]
    version: Annotated[str, StringConstraints(min_length=1, max_length=32)]
    epoch: int = Field(ge=1, lt=2**31)
    sequence: int = Field(ge=1, lt=2**32)
    created: int = Field(ge=0)
    expires: int | None = None
    boards: list[Word] = Field(min_length=1, max_length=32)  # prefixes of omv.arch(), or "*"
    content: Content
    encodings: list[Encoding] = Field(min_length=1, max_length=16)
    model: ModelFacts | None = None
    threshold: float = Field(default=0.0, ge=0, le=1)
    golden: GoldenFacts | None = None
