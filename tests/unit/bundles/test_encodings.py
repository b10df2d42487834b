import hashlib
import io
import random
import time
import tracemalloc
import zlib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from camera_agent.unpack import Unpacker
from fleetd.bundles.encodings import Encoded, cut
from fleetd.bundles.errors import ReleaseError
from fleetd.bundles.inflating import deflate, inflate
from fleetd.bundles.patching import apply_patch, make_patch
from tests.unit.bundles.models import real

BLOCK = 4096


def content(size: int, seed: int = 1) -> bytes:
    """Bytes that compress about as well as quantised weights."""
    return bytes(random.Random(seed).choices(range(64), k=size))


def retrained(base: bytes, seed: int = 2) -> bytes:
    """`base` with a new head, something inserted and a few changed bytes."""
    made = bytearray(base)
    made[100:100] = b"a little longer"
    made[-len(base) // 10 :] = content(len(base) // 10, seed)
    for at in range(500, len(made) // 2, 997):
        made[at] ^= 0x15
    return bytes(made)


def checked_by_blocks(encoded: Encoded) -> bytes:
    """The encoding put together the way a camera does: index blocks first, then every block against them."""
    entry = encoded.entry()
    assert [hashlib.sha256(block).hexdigest() for block in encoded.index_blocks] == entry.index
    assert all(len(block) == BLOCK for block in encoded.index_blocks[:-1])
    digests = b"".join(encoded.index_blocks)
    assert len(digests) == 32 * entry.blocks == 32 * len(encoded.blocks)
    for n, block in enumerate(encoded.blocks):
        assert hashlib.sha256(block).digest() == digests[32 * n : 32 * n + 32]
        assert len(block) == BLOCK or n == entry.blocks - 1
    whole = b"".join(encoded.blocks)
    assert (len(whole), hashlib.sha256(whole).hexdigest()) == (entry.size, entry.sha256)
    return whole


# --- deflate and blocks -----------------------------------------------------------------------------------


@given(st.binary(max_size=20_000))
def test_deflate_is_undone_by_inflate(data: bytes) -> None:
    assert inflate(deflate(data), len(data)) == data


@pytest.mark.parametrize("size", [1, 4095, 4096, 4097, 128 * 4096, 128 * 4096 + 1, 1_300_000])
def test_blocks_and_index_lead_from_the_manifest_to_the_content(size: int) -> None:
    data = content(size)
    encoded = cut("deflate", data)  # any bytes can be cut
    assert checked_by_blocks(encoded) == data
    assert len(encoded.index_blocks) == -(-size // (128 * BLOCK))


def test_an_encoding_gives_its_content_back() -> None:
    data = content(100_000)
    assert cut("deflate", deflate(data)).decode(len(data)) == data


def test_a_content_larger_than_promised_stops_early() -> None:
    bomb = deflate(bytes(50_000_000))
    tracemalloc.start()
    assert inflate(bomb, 1000) is None
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100_000
    with pytest.raises(ReleaseError, match="more than the manifest says"):
        cut("deflate", bomb).decode(1000)


def test_damaged_streams_are_noticed() -> None:
    data = content(20_000)
    whole = deflate(data)
    assert inflate(whole[:-1], len(data)) is None
    assert inflate(whole + b"\0", len(data)) is None
    assert inflate(b"", 10) is None
    assert inflate(b"\xff" * 10, 10) is None
    assert inflate(zlib.compress(data), len(data)) is None  # not raw


def test_a_stream_that_needs_a_larger_window_than_a_camera_has_is_noticed() -> None:
    noise = random.Random(3).randbytes(6000)
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    wide = packer.compress(noise * 4) + packer.flush()
    assert zlib.decompress(wide, -15) == noise * 4
    assert inflate(wide, 100_000) is None


def test_an_empty_encoding_is_refused() -> None:
    with pytest.raises(ReleaseError):
        cut("deflate", b"")


# --- patches ----------------------------------------------------------------------------------------------


@given(st.binary(max_size=400), st.binary(max_size=400), st.integers(0, 400), st.integers(0, 60))
@example(b"", b"", 0, 0)
@example(b"a" * 300, b"a" * 300, 0, 0)
def test_a_patch_turns_any_base_into_any_content(base: bytes, new: bytes, at: int, gap: int) -> None:
    mixed = base[at:] + new + base[: at + gap]
    assert apply_patch(base, make_patch(base, mixed), len(mixed)) == mixed
    assert apply_patch(base, make_patch(base, new), len(new)) == new
    assert apply_patch(base, make_patch(base, mixed, variant=gap), len(mixed)) == mixed


@pytest.mark.parametrize("size", [1, 1000, 200_000])
def test_a_patch_on_a_retrained_model_is_small_and_unpacks_on_a_camera(size: int) -> None:
    base = content(size)
    new = retrained(base)
    encoded = cut("patch", make_patch(base, new), hashlib.sha256(base).hexdigest())
    assert encoded.decode(len(new), base) == new
    assert unpacked_by_the_agent(encoded, new, base) == new
    if size > 10_000:
        assert encoded.size < 0.2 * len(deflate(new))


class _Stage:
    """What the agent's unpacker wants of a region, in memory."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.size = len(data)

    def stream(self) -> io.BytesIO:
        return io.BytesIO(self._data + bytes(-len(self._data) % BLOCK))  # regions are padded

    def readinto(self, offset: int, view: memoryview) -> int:
        piece = self._data[offset : offset + len(view)]
        view[: len(piece)] = piece
        return len(piece)


def unpacked_by_the_agent(encoded: Encoded, new: bytes, base: bytes) -> bytes:
    out = bytearray()

    def write(offset: int, data: memoryview) -> None:
        out[offset : offset + len(data)] = data

    entry = {"kind": encoded.kind, "size": encoded.size}
    unpacker = Unpacker(_Stage(encoded.data), entry, len(new), write, bytearray(BLOCK), _Stage(base))
    while unpacker.step():
        pass
    return bytes(out[: len(new)])  # the last block may come filled up with zeros


def test_a_model_that_has_nothing_in_common_costs_no_time() -> None:
    base, new = random.Random(1).randbytes(4_000_000), random.Random(2).randbytes(4_000_000)
    start = time.perf_counter()
    patch = make_patch(base, new)
    assert time.perf_counter() - start < 20  # 0.3 s on an idle machine
    assert len(patch) < 1.01 * len(new)


@pytest.mark.parametrize(
    ("old", "new", "share"),
    [
        ("models/nutriscan/v1", "models/nutriscan/v2", 0.11),
        ("models/singtown-mask/v1", "models/nutriscan/v1", 0.13),
        ("models/blimp-fomo/v1", "models/blimp-fomo/v3", 0.90),
    ],
)
def test_patches_between_real_models_are_as_small_as_measured(old: str, new: str, share: float) -> None:
    base, data = (real(f"{path}/trained.tflite").read_bytes() for path in (old, new))
    assert len(make_patch(base, data)) < share * len(deflate(data))


@pytest.mark.parametrize(
    "stream",
    [
        b"\x05abc",  # the literal ends early
        b"\x00\x00",  # an operation without effect
        b"\x00\x05",  # a copy without its distance
        b"\x00\x0b\x00",  # a copy past the end of the base
        b"\x00\x01\x01",  # a copy from before its start
        b"\x64" + bytes(100) + b"\x00",  # more than the limit
        b"\x00\x80\x80\x80\x80\x80\x01\x00",  # a number that does not end
    ],
)
def test_a_patch_that_a_camera_would_refuse_is_refused(stream: bytes) -> None:
    with pytest.raises(ReleaseError):
        apply_patch(b"0123456789", deflate(stream), 50)


def test_a_patch_needs_the_content_it_was_made_from() -> None:
    base, new = content(5000), retrained(content(5000))
    encoded = cut("patch", make_patch(base, new), hashlib.sha256(base).hexdigest())
    for wrong in (None, base + b"x"):
        with pytest.raises(ReleaseError, match="made from"):
            encoded.decode(len(new), wrong)
