import hashlib
from dataclasses import replace
from typing import Any

import pytest

from camera_agent import crypto
from camera_agent.manifest import open_manifest
from camera_agent.offers import accepts
from fleetd.bundles import manifests, packing, romfs
from fleetd.bundles.encodings import cut
from fleetd.bundles.errors import (
    BundleError,
    ContentRejectedError,
    ManifestRejectedError,
    ModelError,
    PreflightError,
    RejectedError,
    ReleaseError,
)
from fleetd.bundles.inflating import deflate
from fleetd.bundles.opening import Bundle, open_bundle
from fleetd.bundles.packing import pack
from fleetd.bundles.patching import make_patch
from fleetd.bundles.release import BuiltRelease, build_release, check_release, draft_release
from fleetd.bundles.signing import OperatorKey
from fleetd.protocol import limits
from fleetd.protocol.manifest import Content, Manifest
from tests.unit.bundles.models import LABELS, Plan, make

KEY = OperatorKey.generate()
BUNDLE = open_bundle(make(Plan(height=48, width=48)), labels="\n".join(LABELS).encode())


def build(bundle: Bundle = BUNDLE, **changes: Any) -> BuiltRelease:
    return build_release(
        bundle,
        **{
            "release_id": "pets-7",
            "name": "pets",
            "version": "1.0",
            "epoch": 1,
            "sequence": 7,
            "boards": ["OMVRT1060"],
            "created": 1_700_000_000,
            "key": KEY,
            **changes,
        },
    )


def resigned(built: BuiltRelease, **changes: Any) -> bytes:
    """The same release with other facts, signed with the operator's key: a careless or compromised client."""
    return KEY.sign(manifests.canonical(built.manifest.model_copy(update=changes)))


def retrained(bundle: Bundle) -> Bundle:
    def change(model: Any) -> None:
        weights = bytearray(model.buffers[1].data)
        weights[-200:] = bytes(n % 251 for n in range(0, 1400, 7))
        model.buffers[1].data = bytes(weights)

    return replace(bundle, model=make(Plan(height=48, width=48), change))


def data(built: BuiltRelease) -> list[bytes]:
    return [encoded.data for encoded in built.encodings]


def smuggled(content: bytes, files: list[Any], built: BuiltRelease) -> tuple[bytes, list[bytes]]:
    """A properly signed release around any content."""
    encoded = cut("deflate", deflate(content))
    whole = Content(size=len(content), sha256=hashlib.sha256(content).hexdigest(), files=files)
    return resigned(built, content=whole, encodings=[encoded.entry()]), [encoded.data]


# --- end to end -------------------------------------------------------------------------------------------


def test_what_is_built_is_accepted_by_the_server_and_by_the_camera() -> None:
    built = build(threshold=0.6, expires=1_800_000_000)
    checked = check_release(built.blob, data(built), [KEY.public])
    assert checked.manifest == built.manifest
    assert checked.content == built.content
    assert checked.labels == LABELS
    assert checked.digest == built.digest == hashlib.sha256(built.blob).hexdigest()
    assert checked.key_id == KEY.key_id.hex()
    assert [encoded.blocks for encoded in checked.encodings] == [
        encoded.blocks for encoded in built.encodings
    ]
    assert checked.findings == ()
    on_camera = open_manifest(built.blob, crypto.keyring([KEY.public]))
    assert accepts(on_camera, "OMVRT1060 32768 SDRAM", (1, 6), 1_750_000_000, 10**6, 10**6) is None
    assert accepts(on_camera, "OMV4 H7 1024", (1, 6), None, 10**6, 10**6) == "wrong-board"


def test_the_manifest_says_where_the_files_are_and_what_the_model_is() -> None:
    built = build()
    for file in built.manifest.content.files:
        piece = built.content[file.offset : file.offset + file.size]
        assert hashlib.sha256(piece).hexdigest() == file.sha256
    places = {file.path: file for file in built.manifest.content.files}
    model = places["trained.tflite"]
    assert built.content[model.offset : model.offset + model.size] == BUNDLE.model
    facts = built.manifest.model
    assert facts is not None
    assert (facts.input.shape, facts.input.dtype, facts.labels) == ([1, 48, 48, 3], "int8", 3)
    assert facts.ops == ["FULLY_CONNECTED", "SOFTMAX"]
    assert facts.arena_bytes is not None


def test_building_the_same_release_again_gives_the_same_content() -> None:
    assert build().content == build(version="1.1").content
    assert build().manifest == build().manifest


def test_warnings_travel_with_the_release() -> None:
    bundle = replace(BUNDLE, model=make(Plan(dtype="FLOAT32", output_dtype="FLOAT32", weights="FLOAT32")))
    built = build(bundle)
    assert [finding.code for finding in built.findings] == ["float-model"]
    assert check_release(built.blob, data(built), [KEY.public]).findings == built.findings


def test_a_patch_is_offered_on_what_cameras_run() -> None:
    old, new = build(), build(retrained(BUNDLE), bases=[build().content])
    full, patch = new.encodings
    assert (full.kind, patch.kind, patch.base) == ("deflate", "patch", old.manifest.content.sha256)
    assert patch.size < 0.5 * full.size
    known = {hashlib.sha256(old.content).hexdigest(): old.content}
    for contents in (known, {}):
        assert check_release(new.blob, data(new), [KEY.public], contents=contents).content == new.content


def test_a_patch_that_saves_nothing_is_not_offered() -> None:
    assert len(build(bases=[b"something else entirely"]).encodings) == 1


def test_bases_that_differ_only_where_the_content_is_new_get_a_patch_each() -> None:
    """Only the last layer is trained: the patches' bytes would be the same, and encodings are known by these."""

    def version(fill: int) -> Bundle:
        def change(model: Any) -> None:
            model.buffers[1].data = bytes(model.buffers[1].data)[:-200] + bytes([fill]) * 200

        return replace(BUNDLE, model=make(Plan(height=48, width=48), change))

    olds = {one.manifest.content.sha256: one.content for one in (build(version(n)) for n in range(252, 256))}
    assert len({make_patch(old, build(version(251)).content) for old in olds.values()}) == 1
    new = build(version(251), bases=olds.values())
    assert {encoded.base for encoded in new.encodings[1:]} == olds.keys()
    assert check_release(new.blob, data(new), [KEY.public], contents=olds).content == new.content


def test_the_same_content_again_costs_next_to_nothing() -> None:
    """Another threshold, another key: only the manifest is new."""
    old = build()
    new = build(threshold=0.7, bases=[old.content])
    full, patch = new.encodings
    assert new.content == old.content
    assert (patch.base, patch.blocks) == (old.manifest.content.sha256, patch.blocks[:1])
    assert patch.size < 0.01 * full.size
    known = {old.manifest.content.sha256: old.content}
    assert check_release(new.blob, data(new), [KEY.public], contents=known).content == old.content


def test_a_draft_is_what_will_be_signed() -> None:
    draft = draft_release(
        pack(BUNDLE, ["OMVRT1060"]),
        release_id="pets-7",
        name="pets",
        version="1.0",
        epoch=1,
        sequence=7,
        created=1_700_000_000,
    )
    built = draft.sign(KEY)
    assert built.blob[76:] == draft.payload == build().blob[76:]
    assert draft.manifest_bytes == len(built.blob)
    assert check_release(built.blob, data(built), [KEY.public]).manifest == draft.manifest


def test_when_the_manifest_would_be_too_long_patches_are_given_up_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    old = build().content
    bases = [old + bytes([n]) * 50 * n for n in range(12)]
    monkeypatch.setattr(packing, "PATCH_WORTH", 10.0)
    assert len(build(retrained(BUNDLE), bases=bases).encodings) == 13
    monkeypatch.setattr(limits, "MANIFEST_BYTES", 3000)
    tight = build(retrained(BUNDLE), bases=bases)
    assert 1 < len(tight.encodings) < 13
    assert 2700 < len(tight.blob) <= 3000
    assert tight.encodings[0].kind == "deflate"
    monkeypatch.setattr(limits, "MANIFEST_BYTES", 800)
    with pytest.raises(ReleaseError, match="at most 800 are possible"):
        build(retrained(BUNDLE), bases=bases)


# --- what cannot be built ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"release_id": "Pets 7"}, "release"),
        ({"name": ""}, "name"),
        ({"name": "x" * 65}, "name"),
        ({"version": ""}, "version"),
        ({"sequence": 0}, "sequence"),
        ({"sequence": 2**32}, "sequence"),
        ({"epoch": 0}, "epoch"),
        ({"boards": []}, "boards"),
        ({"threshold": 2.0}, "threshold"),
        ({"created": -1}, "created"),
    ],
)
def test_a_release_with_impossible_facts_is_not_built(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ReleaseError, match=words):
        build(**changes)


def test_a_model_that_the_boards_refuse_is_not_built() -> None:
    with pytest.raises(PreflightError, match="4 classes and labels") as caught:
        build(replace(BUNDLE, model=make(Plan(classes=4))))
    assert [finding.code for finding in caught.value.findings] == ["labels-mismatch"]
    with pytest.raises(PreflightError, match="stedgeai"):
        build(boards=["OMVRT1060", "OpenMV N6"])


def test_a_damaged_model_is_not_built() -> None:
    with pytest.raises(ModelError):
        build(replace(BUNDLE, model=BUNDLE.model[:5000]))


# --- what the server refuses ------------------------------------------------------------------------------


def test_encodings_that_are_not_the_manifests_are_refused() -> None:
    built = build()
    whole = data(built)
    flipped = bytes([whole[0][0] ^ 1]) + whole[0][1:]
    for uploaded in ([], [flipped], [whole[0][:-1]], [*whole, b"more"], whole * 2):
        with pytest.raises(ContentRejectedError) as caught:
            check_release(built.blob, uploaded, [KEY.public])
        assert caught.value.reason == "digest-mismatch"


def test_an_unsigned_or_foreign_release_is_refused_before_anything_is_looked_at() -> None:
    built = build()
    with pytest.raises(ManifestRejectedError) as caught:
        check_release(built.blob, [], [OperatorKey.generate().public])
    assert caught.value.reason == "unknown-key"


def test_a_signed_index_that_does_not_fit_the_blocks_is_refused() -> None:
    built = build()
    wrong = built.manifest.encodings[0].model_copy(update={"index": ["ab" * 32]})
    with pytest.raises(ContentRejectedError, match="block index"):
        check_release(resigned(built, encodings=[wrong]), data(built), [KEY.public])


def test_a_signed_size_that_does_not_fit_is_refused() -> None:
    built = build()
    wrong = built.manifest.encodings[0].model_copy(update={"size": built.encodings[0].size - 1})
    with pytest.raises(ContentRejectedError, match="size"):
        check_release(resigned(built, encodings=[wrong]), data(built), [KEY.public])


@pytest.mark.parametrize("change", [{"sha256": "ab" * 32}, {"size": 10**6}])
def test_a_content_that_is_not_the_manifests_is_refused(change: dict[str, Any]) -> None:
    built = build()
    wrong = built.manifest.content.model_copy(update=change)
    with pytest.raises(ContentRejectedError) as caught:
        check_release(resigned(built, content=wrong), data(built), [KEY.public])
    assert caught.value.reason == "digest-mismatch"


def test_a_content_that_unpacks_to_more_than_the_manifest_says_is_refused() -> None:
    built = build()
    bomb = cut("deflate", deflate(bytes(10**7)))
    with pytest.raises(ContentRejectedError, match="more than the manifest says"):
        check_release(resigned(built, encodings=[bomb.entry()]), [bomb.data], [KEY.public])


def test_a_patch_that_gives_something_else_is_refused_when_its_base_is_known() -> None:
    built = build()
    base = b"what cameras run" * 100
    lie = cut("patch", make_patch(base, base), hashlib.sha256(base).hexdigest())
    blob = resigned(built, encodings=[*built.manifest.encodings, lie.entry()])
    uploaded = [*data(built), lie.data]
    with pytest.raises(ContentRejectedError, match="does not give"):
        check_release(blob, uploaded, [KEY.public], contents={hashlib.sha256(base).hexdigest(): base})
    assert check_release(blob, uploaded, [KEY.public]).content == built.content


def test_files_that_lie_elsewhere_than_the_manifest_says_are_refused() -> None:
    built = build()
    files = [
        file.model_copy(update={"offset": max(0, file.offset - 1)}) for file in built.manifest.content.files
    ]
    with pytest.raises(ContentRejectedError, match="files"):
        check_release(
            resigned(built, content=built.manifest.content.model_copy(update={"files": files})),
            data(built),
            [KEY.public],
        )


def test_a_content_that_is_no_image_is_refused() -> None:
    built = build()
    blob, uploaded = smuggled(b"just some bytes", [{**_file(built), "size": 5, "offset": 0}], built)
    with pytest.raises(ContentRejectedError, match="not a ROMFS image"):
        check_release(blob, uploaded, [KEY.public])


def _file(built: BuiltRelease) -> dict[str, Any]:
    return built.manifest.content.files[0].model_dump()


@pytest.mark.parametrize(
    ("model", "labels", "error"),
    [
        (make(), b"cat\ndog\n", PreflightError),  # a label is missing
        (make(Plan(classes=4)), b"cat\ndog\nfox\n", PreflightError),
        (make(Plan(operator="POW")), b"cat\ndog\nfox\n", PreflightError),
        (make()[:1000], b"cat\ndog\nfox\n", ModelError),
        (make(), b"cat\ndog\nf\x1bx\n", BundleError),
        (make(), b"cat\r\ndog\r\nfox\r\n", ContentRejectedError),
    ],
)
def test_a_client_that_skips_the_checks_gains_nothing(
    model: bytes, labels: bytes, error: type[Exception]
) -> None:
    image = romfs.build([("labels.txt", labels, 4), ("trained.tflite", model, 32)])
    blob, uploaded = smuggled(image.data, list(image.files), build())
    with pytest.raises(error):
        check_release(blob, uploaded, [KEY.public])


def test_facts_that_are_not_the_models_are_refused() -> None:
    built = build()
    assert built.manifest.model is not None
    wrong = built.manifest.model.model_copy(update={"ops": ["SOFTMAX"]})
    with pytest.raises(ContentRejectedError, match="not what the manifest says"):
        check_release(resigned(built, model=wrong), data(built), [KEY.public])


@pytest.mark.parametrize("change", [{"kind": "agent"}, {"model": None}])
def test_a_model_that_calls_itself_an_agent_or_says_nothing_of_itself_is_refused(
    change: dict[str, Any],
) -> None:
    built = build()
    with pytest.raises(RejectedError) as caught:
        check_release(resigned(built, **change), data(built), [KEY.public])
    assert caught.value.reason == "manifest-invalid"


def test_boards_that_the_model_does_not_fit_are_refused_on_the_server_too() -> None:
    built = build()
    with pytest.raises(PreflightError, match="stedgeai"):
        check_release(resigned(built, boards=["OpenMV N6"]), data(built), [KEY.public])


def test_the_manifest_model_accepts_what_is_built() -> None:
    built = build()
    assert Manifest.model_validate_json(manifests.canonical(built.manifest)) == built.manifest
