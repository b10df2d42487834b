"""Blocks, indexes and encodings that are not what was signed: endless data, mix-and-match, hostile streams."""

import hashlib
from collections.abc import Callable

import pytest

from tests.agent.update_kit import (
    BLOCK,
    Encoding,
    Release,
    full,
    hand_over,
    make_release,
    patch,
    raw_deflate,
    varint,
    weights,
    zigzag,
)
from tests.attacks.kit import NAME, OPERATOR, RUNNING, TARGET, Victim, plan, signed

LARGE = weights(30_000, 8)
OTHER = make_release(OPERATOR, "model-7", weights(30_000, 9), 7)


def target(content: bytes = LARGE) -> Release:
    return make_release(OPERATOR, NAME, content, 2)


def blob_of(release: Release) -> str:
    return f"_blob/{hashlib.sha256(release.encodings[0].data).hexdigest()}/"


def index_of(release: Release) -> str:
    return f"_blob/{hashlib.sha256(release.encodings[0].index[0]).hexdigest()}/"


Alter = Callable[[str, bytes], list[bytes]]
GOOD = target()
BLOB, INDEX = blob_of(GOOD), index_of(GOOD)


def on_blocks(change: Callable[[bytes], list[bytes]]) -> Alter:
    return lambda topic, payload: change(payload) if topic.startswith(BLOB) else [payload]


def on_index(change: Callable[[bytes], list[bytes]]) -> Alter:
    return lambda topic, payload: change(payload) if topic.startswith(INDEX) else [payload]


def flip(payload: bytes, at: int = 7) -> bytes:
    return payload[:at] + bytes([payload[at] ^ 1]) + payload[at + 1 :]


# Delivered instead of blocks; the transfer is given up after three bad copies of one, and nothing was erased.
DELIVERIES: dict[str, Alter] = {
    "endless-data/a-byte-too-much": on_blocks(lambda block: [block + b"\x00"]),
    "endless-data/two-blocks-in-one": on_blocks(lambda block: [block * 2]),
    "endless-data/64-kb-in-one": on_blocks(lambda block: [block * 16]),
    "endless-data/a-byte-too-little": on_blocks(lambda block: [block[:-1]]),
    "endless-data/one-byte": on_blocks(lambda _block: [b"x"]),
    "endless-data/every-bad-block-a-hundred-times": on_blocks(lambda block: [flip(block)] * 100),
    "arbitrary-software/a-bit-in-every-block": on_blocks(lambda block: [flip(block)]),
    "arbitrary-software/the-last-bit-of-every-block": on_blocks(lambda block: [flip(block, len(block) - 1)]),
    "arbitrary-software/zeros": on_blocks(lambda block: [bytes(len(block))]),
    "mix-and-match/blocks-of-another-release": on_blocks(
        lambda block: [OTHER.encodings[0].data[: len(block)]]
    ),
    "mix-and-match/the-first-block-for-all": on_blocks(
        lambda block: (
            [GOOD.encodings[0].blocks[0] if len(block) == BLOCK else flip(block)]
            if block != GOOD.encodings[0].blocks[0]
            else [GOOD.encodings[0].blocks[1]]
        )
    ),
    "mix-and-match/the-index-of-another-release": on_index(lambda _index: [OTHER.encodings[0].index[0]]),
    "mix-and-match/the-index-reordered": on_index(lambda index: [index[32:] + index[:32]]),
    "arbitrary-software/a-bit-in-the-index": on_index(lambda index: [flip(index)]),
    "endless-data/an-index-too-long": on_index(lambda index: [index + bytes(32)]),
    "endless-data/an-index-of-64-kb": on_index(lambda _index: [bytes(65536)]),
    "endless-data/an-index-too-short": on_index(lambda index: [index[:-32]]),
}


@pytest.mark.parametrize("attack", DELIVERIES)
def test_blocks_that_are_not_signed_never_reach_a_slot(attack: str) -> None:
    victim = Victim().offered(GOOD, DELIVERIES[attack])
    victim.run()
    victim.repelled("failed", "digest-mismatch")


HARMLESS: dict[str, Alter] = {
    "good-block-after-bad": on_blocks(lambda block: [flip(block), block]),
    "good-block-a-thousand-times": on_blocks(lambda block: [block] * 1000),
    "empty-payloads-in-between": on_blocks(lambda block: [b"", block, b""]),
    "index-a-thousand-times": on_index(lambda index: [index] * 1000),
}


@pytest.mark.parametrize("attack", HARMLESS)
def test_noise_beside_the_right_blocks_does_no_harm(attack: str) -> None:
    victim = Victim().offered(GOOD, HARMLESS[attack])
    victim.run().classify().run()
    assert victim.last() == ("confirmed", None)
    assert victim.model() == (NAME, LARGE)


def test_blocks_that_nobody_asked_for_are_ignored() -> None:
    victim = Victim()
    digest = hashlib.sha256(GOOD.encodings[0].data).hexdigest()
    for number in (0, 1, 5, 4095, 999_999):
        hand_over(victim.updater, f"_blob/{digest}/{number}", b"x" * 4096)
        hand_over(victim.updater, f"_blob/{'ab' * 32}/{number}", b"x" * 4096)
    hand_over(victim.updater, f"_release/{NAME}", GOOD.blob)
    victim.run()
    assert victim.reports == []
    victim.is_healthy()


# --- streams that are signed and yet hostile: whoever builds releases was taken over, or made a mistake -----------


def stream(*operations: bytes) -> bytes:
    return raw_deflate(b"".join(operations))


BASE = hashlib.sha256(RUNNING).hexdigest()
# literal length | literal | copy length | distance
PATCHES: dict[str, bytes] = {
    "copy-from-before-the-base": stream(varint(0), varint(100), zigzag(-50)),
    "copy-from-behind-the-base": stream(varint(0), varint(100), zigzag(len(RUNNING))),
    "copy-beyond-the-base": stream(varint(0), varint(len(RUNNING) + 1), zigzag(0)),
    "copy-of-four-gigabytes": stream(varint(0), varint(2**32 - 1), zigzag(0)),
    "copy-from-four-gigabytes-away": stream(varint(0), varint(10), zigzag(2**31 - 1)),
    "literal-longer-than-the-stream": stream(varint(5000), b"short"),
    "literal-longer-than-the-content": stream(varint(9001), weights(9001, 3), varint(0)),
    "more-than-the-content": stream(
        varint(0), varint(9000), zigzag(0), varint(0), varint(9000), zigzag(-9000)
    ),
    "operations-without-effect": stream(*[varint(0) + varint(0)] * 5000),
    "a-number-without-an-end": stream(b"\xff" * 50),
    "a-number-of-six-bytes": stream(b"\x80" * 5 + b"\x01"),
    "cut-off-in-a-copy": stream(varint(0), varint(100)),
    "nothing-at-all": stream(b""),
    "less-than-the-content": stream(varint(0), varint(100), zigzag(0)),
    "not-the-content": stream(varint(9000), weights(9000, 99), varint(0)),
    "no-deflate": b"\xff\xff\xff" * 40,
    "a-stored-block-cut-off": b"\x01\xff\xff\x00\x00" + b"x" * 20,
    "a-bomb": stream(varint(0), varint(1), zigzag(0), bytes(4_000_000)),
}


@pytest.mark.parametrize("attack", PATCHES)
def test_a_hostile_patch_falls_back_to_the_full_encoding_and_harms_nothing(attack: str) -> None:
    hostile = Encoding("patch", PATCHES[attack], BASE)
    victim = Victim().offered(make_release(OPERATOR, NAME, TARGET, 2, encodings=[full(TARGET), hostile]))
    victim.run().classify().run()
    assert victim.last() == ("confirmed", None), victim.reports[-3:]
    assert victim.model() == (NAME, TARGET)


@pytest.mark.parametrize("attack", PATCHES)
def test_a_hostile_patch_that_is_all_there_is_leaves_the_old_model(attack: str) -> None:
    hostile = Encoding("patch", PATCHES[attack], BASE)
    victim = Victim().offered(make_release(OPERATOR, NAME, TARGET, 2, encodings=[hostile]))
    assert victim.states()[-1] in ("failed", "rejected"), victim.reports[-3:]
    victim.repelled("rejected", "unsupported-encoding", untouched=False)


DEFLATES: dict[str, bytes] = {
    "endless-data/a-bomb-of-4-mb": raw_deflate(bytes(4_000_000)),
    "endless-data/one-byte-more": raw_deflate(TARGET + b"x"),
    "endless-data/the-content-twice": raw_deflate(TARGET * 2),
    "truncated/one-byte-less": raw_deflate(TARGET[:-1]),
    "truncated/stream-cut-off": raw_deflate(TARGET)[:-100],
    "truncated/nothing-in-it": raw_deflate(b""),
    "mix-and-match/another-content": raw_deflate(weights(9000, 50)),
    "mix-and-match/the-running-content": raw_deflate(RUNNING),
    "malformed/no-deflate": b"\xff" * 500,
    "malformed/a-stored-block-with-a-wrong-length": b"\x01\x10\x00\x00\x00" + b"x" * 16,
    "malformed/zlib-with-header": b"\x78\x9c" + raw_deflate(TARGET),
    "malformed/a-distance-before-the-start": b"\x03\x02\x00" * 10,
}


@pytest.mark.parametrize("attack", DEFLATES)
def test_an_encoding_that_is_not_the_content_leaves_the_old_model(attack: str) -> None:
    hostile = Encoding("deflate", DEFLATES[attack])
    victim = Victim().offered(make_release(OPERATOR, NAME, TARGET, 2, encodings=[hostile]))
    victim.repelled("failed", "digest-mismatch", untouched=False)


def test_a_manifest_that_names_the_blocks_of_another_release_fits_neither() -> None:
    """Model A with the labels of B: one digest covers both, so parts cannot be mixed."""
    swapped = plan(encodings=[OTHER.encodings[0].describe()])
    victim = Victim().offered(Release(NAME, signed(swapped), TARGET, OTHER.encodings))
    victim.repelled("failed", "digest-mismatch", untouched=False)


def test_a_patch_for_another_precursor_is_not_even_fetched() -> None:
    stranger = patch(weights(8000, 4), TARGET)
    victim = Victim().offered(make_release(OPERATOR, NAME, TARGET, 2, encodings=[full(TARGET), stranger]))
    assert all(hashlib.sha256(stranger.data).hexdigest() not in topic for topic in victim.broker.asked)
    victim.classify().run()
    assert victim.model() == (NAME, TARGET)


def test_a_bit_that_rots_in_the_slot_is_found_before_the_model_is_used() -> None:
    victim = Victim().offered(make_release(OPERATOR, NAME, TARGET, 2))
    assert victim.last()[0] == "trial"
    region = victim.files.slot_b
    assert region is not None
    region.settle()
    region.settled[12288 + 4000] ^= 1
    victim.boot().run()
    assert "trial-lost" in victim.updater.status()["problems"]
    assert victim.model() == ("model-1", RUNNING)
