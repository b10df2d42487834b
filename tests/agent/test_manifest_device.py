"""What the camera accepts as a manifest, and what it decides about it."""

import copy
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from camera_agent import crypto, protocol
from camera_agent.crypto import digest_of
from camera_agent.manifest import ManifestError, open_manifest
from camera_agent.offers import accepts, choose_encoding
from fleetd.protocol.manifest import Manifest
from tests.agent.micropython import Arch
from tests.agent.update_kit import ARCH, Signer, describe, full, make_release, patch, retrained, weights
from tests.faults.bit_flips import judge, signed_manifest

SIGNER = Signer()
KEYS = crypto.keyring([SIGNER.public])
OLD = weights(9000)
NEW = retrained(OLD)


@cache
def text() -> str:
    return json.dumps(describe("model-7", NEW, [full(NEW), patch(OLD, NEW)], sequence=7))


def described(**changes: Any) -> dict[str, Any]:
    made: dict[str, Any] = json.loads(text())
    made.update(changes)
    return made


def signed(manifest: Any) -> bytes:
    return SIGNER.manifest(json.dumps(manifest).encode())


def refusal(blob: bytes) -> str:
    with pytest.raises(ManifestError) as caught:
        open_manifest(blob, KEYS)
    reason: str = caught.value.reason
    return reason


# --- the signature ----------------------------------------------------------------------------------------


def test_a_signed_manifest_is_opened() -> None:
    blob = signed(described())
    assert open_manifest(blob, KEYS) == described()
    assert open_manifest(memoryview(bytearray(blob)), KEYS)["release"] == "model-7"


def test_fleetd_and_the_camera_read_the_same_manifest() -> None:
    manifest = Manifest.model_validate_json(json.dumps(described()))
    assert open_manifest(SIGNER.manifest(manifest.model_dump_json().encode()), KEYS)["release"] == "model-7"


def test_an_unsigned_manifest_is_refused_before_it_is_parsed() -> None:
    body = text().encode()
    assert refusal(body) == "signature-invalid"
    assert refusal(b"FLM1" + SIGNER.key_id + bytes(64) + body) == "signature-invalid"
    assert refusal(b"FLM1" + SIGNER.key_id + bytes(64) + b"{not json") == "signature-invalid"
    assert refusal(b"") == "signature-invalid"
    assert refusal(signed(described())[:76]) == "signature-invalid"


def test_another_magic_is_refused() -> None:
    assert refusal(b"FLM2" + signed(described())[4:]) == "signature-invalid"


def test_a_key_that_the_camera_does_not_hold_is_named() -> None:
    assert refusal(Signer(99).manifest(text().encode())) == "unknown-key"


def test_a_stranger_who_claims_our_key_id_is_refused() -> None:
    body = text().encode()
    head = b"FLM1" + SIGNER.key_id
    assert refusal(head + Signer(99).sign(head + body) + body) == "signature-invalid"


def test_the_signature_covers_the_key_id_and_every_byte_of_the_text() -> None:
    blob = signed(described())
    other = Signer(99)
    ring = {**KEYS, other.key_id: SIGNER.public}
    swapped = blob[:4] + other.key_id + blob[12:]
    with pytest.raises(ManifestError):
        open_manifest(swapped, ring)
    for at in range(76, len(blob), 97):
        flipped = bytearray(blob)
        flipped[at] ^= 1
        assert refusal(bytes(flipped)) == "signature-invalid"


def test_a_manifest_that_is_cut_or_longer_is_refused() -> None:
    blob = signed(described())
    assert refusal(blob[:-1]) == "signature-invalid"
    assert refusal(blob + b" ") == "signature-invalid"


def test_more_than_the_ceiling_is_not_even_hashed() -> None:
    big = signed(described(notes="x" * 9000))
    assert refusal(big) == "manifest-invalid"
    assert refusal(big[:-1] + b" ") == "manifest-invalid", "whoever signed it"


@settings(max_examples=300)
@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_only_ever_refused(blob: bytes) -> None:
    assert refusal(blob) in ("signature-invalid", "unknown-key")


# --- the structure ----------------------------------------------------------------------------------------


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=200))
def test_signed_arbitrary_bytes_are_only_ever_refused(body: bytes) -> None:
    assert refusal(SIGNER.manifest(body)) in ("manifest-invalid", "signature-invalid")


@pytest.mark.parametrize("body", [b"[" * 4000, b'{"a":' * 1500, b"1" * 5000, b"\xff\xfe{\x00}\x00", b"NaN"])
def test_signed_nonsense_is_refused_without_an_accident(body: bytes) -> None:
    assert refusal(SIGNER.manifest(body)) == "manifest-invalid"


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every path to a value inside a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found: list[tuple[Any, ...]] = []
    for key, inner in items:
        found += [(*path, key), *places(inner, (*path, key))]
    return found


def replaced(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    made = copy.deepcopy(value)
    at = made
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = new
    return made


PLACES = places(json.loads(text()))


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(PLACES), JSON)
def test_a_field_of_any_other_value_is_refused_or_harmless(path: tuple[Any, ...], value: Any) -> None:
    """Whatever passes must be decidable without an accident, and be what fleetd's model allows too."""
    manifest = replaced(described(), path, value)
    try:
        blob = SIGNER.manifest(json.dumps(manifest).encode())
        opened = open_manifest(blob, KEYS)
    except ManifestError as error:
        reason = error.reason
    else:
        reason = None
    if reason:
        assert reason == "manifest-invalid"
        return
    accepts(opened, ARCH, (0, 0), 1_800_000_000, 1 << 20, 1 << 20, None)
    if path[0] != "encodings" and path != ("kind",):  # there the camera lets newer words pass
        Manifest.model_validate_json(json.dumps(manifest))


@pytest.mark.parametrize("path", PLACES, ids=lambda path: ".".join(map(str, path)))
def test_no_field_may_be_a_truth_value_or_an_object(path: tuple[Any, ...]) -> None:
    for value in (True, {"a": 1}):
        manifest = replaced(described(), path, value)
        if path == ("encodings", 0, "kind"):
            continue
        assert refusal(signed(manifest)) == "manifest-invalid"


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("format", [0, 2, None, "1"]),
        ("release", ["", "Model", "a/b", "-a", "a" * 65, None]),
        ("kind", ["", None]),
        ("name", ["", "x" * 65, "a\x00b"]),
        ("version", ["", "x" * 33]),
        ("epoch", [0, 2**31, 1.0]),
        ("sequence", [0, 2**32, -1]),
        ("created", [-1, None]),
        ("expires", [-1, "tomorrow"]),
        ("boards", [[], "*", [""], [7], ["x"] * 33]),
        ("content", [None, {}]),
        ("encodings", [[], None, [{}], {}]),
        ("threshold", [-0.1, 1.1, float("nan"), "0.5"]),
        ("model", [{}, [], "x"]),
    ],
)
def test_fields_out_of_range_are_refused(field: str, values: list[Any]) -> None:
    for value in values:
        assert refusal(signed(described(**{field: value}))) == "manifest-invalid", value


def edited(change: Callable[[dict[str, Any]], None]) -> bytes:
    manifest = described()
    change(manifest)
    return signed(manifest)


def set_in(*path: Any, to: Any) -> bytes:
    return signed(replaced(described(), path, to))


def test_sizes_and_digests_are_checked_everywhere() -> None:
    size = len(NEW)
    for blob in (
        set_in("content", "size", to=0),
        set_in("content", "size", to=protocol.CONTENT_BYTES + 1),
        set_in("content", "sha256", to="0" * 63),
        set_in("content", "sha256", to="G" * 64),
        set_in("content", "files", to=[]),
        set_in("content", "files", 0, "path", to="../x"),
        set_in("content", "files", 0, "path", to="a" * 49),
        set_in("content", "files", 0, "offset", to=-1),
        set_in("content", "files", 0, "size", to=size + 1),
        set_in("content", "files", 1, "offset", to=size),
        set_in("encodings", 0, "size", to=0),
        set_in("encodings", 0, "size", to=protocol.CONTENT_BYTES * 2),
        set_in("encodings", 0, "sha256", to="abc"),
        set_in("encodings", 0, "index", to=[]),
        set_in("encodings", 0, "index", to=["0" * 64] * 2),  # more than the blocks need
        set_in("encodings", 0, "index", to=["0" * 65]),
        set_in("encodings", 1, "base", to=None),
        set_in("encodings", 1, "base", to="abc"),
        set_in("model", "labels", to=protocol.LABELS + 1),
        set_in("model", "input", "shape", to=[1] * 9),
        set_in("model", "ops", to=["X"] * 129),
    ):
        assert refusal(blob) == "manifest-invalid"


def test_unknown_fields_and_encodings_of_a_later_fleetd_are_passed_by() -> None:
    manifest = described(mood="good")
    manifest["encodings"].append({"kind": "zstd", "size": 3, "level": 22})
    opened = open_manifest(signed(manifest), KEYS)
    chosen = choose_encoding(opened, 1 << 20)
    assert chosen["kind"] == "deflate"


def test_a_manifest_without_the_optional_fields_is_fine() -> None:
    manifest = described()
    for field in ("model", "threshold"):
        del manifest[field]
    assert open_manifest(signed(manifest), KEYS)["release"] == "model-7"


def test_the_digest_of_a_manifest_is_that_of_its_stored_bytes() -> None:
    release = make_release(SIGNER, "model-7", NEW)
    assert digest_of(release.blob) == release.manifest_digest


# --- decisions --------------------------------------------------------------------------------------------


ROOM = 1 << 20


def verdict(
    manifest: dict[str, Any],
    arch: str = ARCH,
    floor: tuple[int, int] = (1, 7),
    now: int | None = None,
    slot: int = ROOM,
    stage: int = ROOM,
    base: str | None = None,
) -> str | None:
    reason: str | None = accepts(manifest, arch, floor, now, slot, stage, base)
    return reason


def test_a_release_for_this_board_is_accepted() -> None:
    assert verdict(described()) is None
    assert verdict(described(boards=["*"])) is None
    assert verdict(described(boards=["OMV4P H7", "OMVRT1060"])) is None


def test_a_release_for_another_board_is_refused() -> None:
    assert verdict(described(boards=["OMV4 H7"])) == "wrong-board"
    assert verdict(described(), arch="OMV4P H7 32768 SDRAM") == "wrong-board"
    assert verdict(described(boards=["VRT1060"])) == "wrong-board", "a board is a prefix, not any part"


@pytest.mark.parametrize(
    ("epoch", "sequence", "reason"),
    [
        (3, 7, None),
        (3, 8, None),
        (4, 1, None),  # the next epoch starts again
        (3, 6, "sequence-too-old"),
        (2, 2**32 - 1, "sequence-too-old"),  # a stolen key's largest number ends with its epoch
    ],
)
def test_the_floor_is_epoch_first(epoch: int, sequence: int, reason: str | None) -> None:
    assert verdict(described(epoch=epoch, sequence=sequence), floor=(3, 7)) == reason


def test_an_expired_release_is_refused_when_the_clock_is_trusted() -> None:
    assert verdict(described(expires=1000), now=999) is None
    assert verdict(described(expires=1000), now=1000) == "expired"
    assert verdict(described(expires=1000), now=None) is None
    assert verdict(described(expires=None), now=10**12) is None


@pytest.mark.parametrize("kind", ["agent", "config", "poem"])
def test_kinds_that_the_agent_cannot_install_are_refused(kind: str) -> None:
    assert verdict(described(kind=kind)) == "unsupported-kind"


def test_content_larger_than_the_slot_is_refused() -> None:
    assert verdict(described(), slot=len(NEW)) is None
    assert verdict(described(), slot=len(NEW) - 1) == "not-enough-storage"


def test_an_encoding_that_does_not_fit_the_stage_is_refused() -> None:
    size = len(full(NEW).data)
    assert verdict(described(), stage=size) is None
    assert verdict(described(), stage=size - 1) == "not-enough-storage"


def test_only_patches_for_other_content_are_no_way_to_install() -> None:
    only_patch = described(encodings=[patch(OLD, NEW).describe()])
    assert verdict(only_patch) == "unsupported-encoding"
    assert verdict(only_patch, base="0" * 64) == "unsupported-encoding"
    assert verdict(only_patch, base=only_patch["encodings"][0]["base"]) is None


def test_the_smallest_encoding_that_can_be_unpacked_is_chosen() -> None:
    manifest = described()
    base = manifest["encodings"][1]["base"]
    assert choose_encoding(manifest, ROOM)["kind"] == "deflate"
    assert choose_encoding(manifest, ROOM, "0" * 64)["kind"] == "deflate"
    assert choose_encoding(manifest, ROOM, base)["kind"] == "patch"
    assert choose_encoding(manifest, 10, base) is None


@pytest.mark.parametrize("arch", ["amd64", "i386"])
def test_micropython_accepts_no_manifest_with_a_flipped_bit(arch: Arch, tmp_path: Path) -> None:
    """A sample; `make faults` flips every one."""
    bits = signed_manifest(tmp_path)
    assert judge(tmp_path, 5, 199, arch) == (-(-(bits - 5) // 199), 0)
