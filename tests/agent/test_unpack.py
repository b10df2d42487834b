"""Unpacking: what comes out is exactly the content, and nothing that comes in can do more than fail."""

import hashlib
import json
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from camera_agent.regions import StorageError
from camera_agent.unpack import Unpacker, UnpackError
from tests.agent.micropython import Arch, run_device
from tests.agent.update_kit import (
    BLOCK,
    Medium,
    MemoryRegion,
    full,
    patch,
    patch_stream,
    raw_deflate,
    retrained,
    varint,
    weights,
    zigzag,
)

DEVICE = Path(__file__).parent / "device" / "check_unpack.py"
OLD = weights(20_000)
NEW = retrained(OLD)
PADDING = b"\xa5" * 700  # what an earlier encoding left behind in the stage


class Base:
    """The content of the confirmed slot; a read outside it is an error of the unpacker."""

    def __init__(self, data: bytes) -> None:
        self.size = len(data)
        self._data = data

    def readinto(self, offset: int, view: memoryview) -> int:
        assert offset >= 0
        assert offset + len(view) <= self.size, "a read outside the base"
        view[:] = self._data[offset : offset + len(view)]
        return len(view)


class Sink:
    """The spare slot: takes blocks in order, never more than the manifest says."""

    def __init__(self, size: int) -> None:
        self.data = bytearray()
        self.size = size

    def write(self, offset: int, buf: memoryview) -> None:
        assert offset == len(self.data)
        assert len(buf) == BLOCK, "whole blocks only, so that no erase block is torn twice"
        assert offset < self.size, "more than the manifest says"
        self.data += buf[: self.size - offset]
        assert not any(buf[self.size - offset :]), "nothing but zeros behind the end"


def stage(data: bytes) -> MemoryRegion:
    region = MemoryRegion(Medium(), -(-len(data + PADDING) // BLOCK) * BLOCK)
    region.settled[: len(data) + len(PADDING)] = data + PADDING
    return region


def unpack(
    data: bytes, size: int, kind: str = "deflate", base: bytes | None = None, encoded: int | None = None
) -> Sink:
    """Everything that comes out of `data`; raises what the unpacker raises. Checks that steps are bounded."""
    sink = Sink(size)
    encoding = {"kind": kind, "size": len(data) if encoded is None else encoded}
    unpacker = Unpacker(
        stage(data), encoding, size, sink.write, bytearray(BLOCK), Base(base) if base is not None else None
    )
    steps = 0
    while unpacker.step():
        steps += 1
        assert unpacker.produced <= size
        assert steps <= 2 + size // BLOCK + size // 200, "a step without progress"
    return sink


def patch_of(*steps: tuple[bytes, int, int]) -> bytes:
    return raw_deflate(patch_stream(iter(steps)))


# --- what is right ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 4095, 4096, 4097, 20_000])
def test_a_full_encoding_comes_out_as_it_went_in(size: int) -> None:
    data = weights(size)
    assert bytes(unpack(full(data).data, size).data) == data


def test_a_patch_makes_the_new_content_out_of_the_old() -> None:
    encoding = patch(OLD, NEW)
    sink = unpack(encoding.data, len(NEW), "patch", OLD)
    assert bytes(sink.data) == NEW
    assert len(encoding.data) < len(full(NEW).data) / 4


def test_a_patch_of_many_tiny_operations_stays_bounded_per_step() -> None:
    steps = [(bytes([n & 255]), 1, n % 1000) for n in range(5000)]
    made = b"".join(literal + OLD[source : source + 1] for literal, _, source in steps)
    assert bytes(unpack(patch_of(*steps), len(made), "patch", OLD).data) == made


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=2000), st.binary(min_size=1, max_size=2000), st.integers(0, 8))
def test_any_content_survives_both_encodings(base: bytes, extra: bytes, repeats: int) -> None:
    content = extra + base * repeats + extra[::-1]
    assert bytes(unpack(full(content).data, len(content)).data) == content
    assert bytes(unpack(patch(base, content).data, len(content), "patch", base).data) == content


def test_an_incompressible_stream_of_stored_blocks_is_fine() -> None:
    packer = zlib.compressobj(0, zlib.DEFLATED, -12)
    data = packer.compress(NEW) + packer.flush()
    assert bytes(unpack(data, len(NEW)).data) == NEW


# --- what is wrong ----------------------------------------------------------------------------------------


def refused(*args: Any, **kwargs: Any) -> str:
    with pytest.raises(UnpackError) as caught:
        unpack(*args, **kwargs)
    assert caught.value.reason == "digest-mismatch"
    return str(caught.value.detail)


def test_a_stream_that_makes_more_than_the_manifest_says_is_stopped() -> None:
    assert "more than" in refused(full(NEW).data, len(NEW) - 1)
    bomb = raw_deflate(bytes(1 << 20))
    assert len(bomb) < 2000
    assert "more than" in refused(bomb, 5000)


def test_a_stream_that_makes_less_is_refused() -> None:
    assert "early" in refused(full(NEW).data, len(NEW) + 1)
    assert "early" in refused(patch(OLD, NEW).data, len(NEW) + 1, "patch", OLD)


def test_a_stream_that_uses_more_or_fewer_bytes_than_the_manifest_says_is_refused() -> None:
    data = full(NEW).data
    assert "encoded bytes" in refused(data, len(NEW), encoded=len(data) - 1)
    assert "encoded bytes" in refused(data, len(NEW), encoded=len(data) + 1)


def far_reaching() -> tuple[bytes, int]:
    """A stream that refers back further than 4 KB, and the size of what it makes."""
    content = weights(8000) + bytes(6000) + weights(8000)
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packer.compress(content) + packer.flush(), len(content)


def test_a_window_larger_than_the_camera_has_is_refused() -> None:
    assert refused(*far_reaching())


@pytest.mark.parametrize(
    ("steps", "size"),
    [
        ([(b"x", 10, 20_000)], 11),  # from the very end of the base
        ([(b"x", 10, 19_991)], 11),  # reaching over its end
        ([(b"x", 20_001, 0)], 20_002),
        ([(b"x", 10, 2**33)], 11),
    ],
)
def test_a_copy_from_outside_the_base_is_refused(steps: list[tuple[bytes, int, int]], size: int) -> None:
    refused(patch_of(*steps), size, "patch", OLD)


def test_a_copy_from_before_the_base_is_refused() -> None:
    stream = varint(1) + b"x" + varint(10) + zigzag(-2)
    assert "outside" in refused(raw_deflate(stream), 11, "patch", OLD)
    assert bytes(unpack(raw_deflate(varint(1) + b"x" + varint(10) + zigzag(-1)), 11, "patch", OLD).data)


@pytest.mark.parametrize(
    ("stream", "says"),
    [
        (varint(0) + varint(0), "without effect"),
        (varint(12) + b"x" * 12, "more than"),
        (varint(1) + b"x" + varint(11) + zigzag(0), "more than"),
        (varint(2**40), "too long"),
        (b"\xff" * 20, "too long"),
        (varint(5) + b"xxx", "early"),
        (varint(5) + b"xxxxx", "early"),
        (varint(0) + varint(3), "early"),
        (varint(11) + b"x" * 11 + varint(0) + varint(0) + varint(0), "more than"),
        (b"", "early"),
    ],
)
def test_a_malformed_patch_is_refused(stream: bytes, says: str) -> None:
    assert says in refused(raw_deflate(stream), 11, "patch", OLD)


def test_a_patch_without_its_base_is_refused() -> None:
    assert "without its base" in refused(patch(OLD, NEW).data, len(NEW), "patch", None)


def test_a_wrong_base_gives_wrong_content_but_no_accident() -> None:
    other = weights(len(OLD), seed=9)
    sink = unpack(patch(OLD, NEW).data, len(NEW), "patch", other)
    assert len(sink.data) == len(NEW)
    assert bytes(sink.data) != NEW


def test_a_stage_that_cannot_be_read_is_a_storage_error() -> None:
    class Broken:
        def read(self, _count: int) -> bytes:
            raise OSError(5, "EIO")

    class Stage:
        def stream(self) -> Broken:
            return Broken()

    unpacker = Unpacker(Stage(), {"kind": "deflate", "size": 10}, 10, Sink(10).write, bytearray(BLOCK))
    with pytest.raises(StorageError):
        unpacker.step()


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300), st.integers(1, 9000), st.sampled_from(["deflate", "patch"]))
def test_arbitrary_bytes_only_fail(data: bytes, size: int, kind: str) -> None:
    try:
        unpack(data, size, kind, OLD)
    except UnpackError:
        return


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300), st.integers(1, 9000))
def test_arbitrary_operations_only_fail(stream: bytes, size: int) -> None:
    try:
        unpack(raw_deflate(stream), size, "patch", OLD)
    except UnpackError:
        return


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_damaged_encoding_never_makes_more_than_its_size(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(["deflate", "patch"]))
    encoded = bytearray((full(NEW) if kind == "deflate" else patch(OLD, NEW)).data)
    for _ in range(data.draw(st.integers(1, 4))):
        encoded[data.draw(st.integers(0, len(encoded) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    try:
        sink = unpack(bytes(encoded), len(NEW), kind, OLD)
    except UnpackError:
        return
    assert len(sink.data) == len(NEW)


# --- the same on the interpreter that cameras run -----------------------------------------------------------


def cases() -> list[tuple[str, bytes, int, str, str]]:
    """(kind, encoded, size, "ok" or "bad", what is expected) for MicroPython's own deflate."""
    made: list[tuple[str, bytes, int, str, str]] = []

    def good(kind: str, data: bytes, content: bytes) -> None:
        made.append((kind, data, len(content), "ok", hashlib.sha256(content).hexdigest()))

    def bad(kind: str, data: bytes, size: int, encoded: int | None = None) -> None:
        made.append((kind, data, size, "bad", str(len(data) if encoded is None else encoded)))

    for size in (1, 4096, 4097, 20_000):
        good("deflate", full(weights(size)).data, weights(size))
    good("patch", patch(OLD, NEW).data, NEW)
    tiny = [(bytes([n & 255]), 1, n % 1000) for n in range(3000)]
    good("patch", patch_of(*tiny), b"".join(part + OLD[at : at + 1] for part, _, at in tiny))
    deflated, patched = full(NEW).data, patch(OLD, NEW).data
    bad("deflate", deflated, len(NEW) - 1)
    bad("deflate", deflated, len(NEW) + 1)
    bad("deflate", deflated, len(NEW), len(deflated) - 1)
    bad("deflate", deflated, len(NEW), len(deflated) + 1)
    bad("deflate", raw_deflate(bytes(1 << 20)), 5000)
    bad("deflate", deflated[:4000], len(NEW))
    bad("patch", patched[:500], len(NEW))
    bad("patch", patched, len(NEW) - 1)
    bad("patch", patched, len(NEW) + 1)
    bad("patch", b"\xff" * 300, 1000)
    bad("deflate", b"\x07" * 300, 1000)
    bad("deflate", *far_reaching())
    for stream in (
        varint(0) + varint(0),
        varint(1) + b"x" + varint(10) + zigzag(-2),
        varint(1) + b"x" + varint(10) + zigzag(len(OLD)),
        varint(2**40),
        b"",
    ):
        bad("patch", raw_deflate(stream), 11)
    return made


@pytest.mark.parametrize("arch", ["amd64", "i386"])
def test_micropython_unpacks_and_refuses_the_same(arch: Arch, tmp_path: Path) -> None:
    (tmp_path / "base").write_bytes(OLD)
    listed = []
    for n, (kind, data, size, verdict, expected) in enumerate(cases()):
        padded = data + PADDING + bytes(-len(data + PADDING) % BLOCK)
        (tmp_path / f"case{n}").write_bytes(padded)
        listed.append([kind, len(data) if verdict == "ok" else int(expected), size, verdict, expected])
    (tmp_path / "cases").write_text(json.dumps(listed))
    done = run_device(arch, DEVICE, str(tmp_path), heapsize={"amd64": "96k", "i386": "64k"}[arch])
    assert done.stdout.split()[:2] == ["unpacked", str(len(listed))], done.stdout
