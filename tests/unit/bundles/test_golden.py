"""Golden frames on the operator's side: the file, the manifest's word about it, and what is refused."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from camera_agent import crypto
from camera_agent.manifest import open_manifest
from fleetd.bundles import golden, romfs
from fleetd.bundles.errors import ContentRejectedError, ReleaseError
from fleetd.bundles.golden import Golden
from fleetd.bundles.packing import pack
from fleetd.bundles.release import check_release
from tests.unit.bundles.test_release import BUNDLE, KEY, build, resigned

SIZE = 48 * 48 * 3  # of the input tensor of BUNDLE's model
GOLDEN = Golden((bytes(SIZE), b"\x7f" * SIZE), ((0.1, 0.2, 0.7), (0.5, 0.25, 0.25)))


@given(st.integers(1, 8), st.integers(1, 5), st.integers(1, 64), st.data())
def test_what_is_built_is_read_back(count: int, outputs: int, size: int, data: st.DataObject) -> None:
    answers = st.lists(st.floats(0, 1, width=32), min_size=outputs, max_size=outputs)
    made = Golden(
        tuple(data.draw(st.binary(min_size=size, max_size=size)) for _ in range(count)),
        tuple(tuple(data.draw(answers)) for _ in range(count)),
    )
    assert golden.read(golden.build(made)) == made


@given(st.binary(max_size=200))
def test_any_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(ContentRejectedError):
        golden.read(data)


def test_the_file_is_as_the_document_says() -> None:
    made = golden.build(Golden((b"ab",), ((0.5,),)))
    assert made == b"FGF1" + struct.pack("<HHII", 1, 1, 2, 0) + struct.pack("<f", 0.5) + b"ab"


@pytest.mark.parametrize(
    "wrong",
    [
        Golden((), ()),
        Golden((b"a",) * 9, ((0.5,),) * 9),
        Golden((b"a",), ()),
        Golden((b"a", b"bb"), ((0.5,), (0.5,))),
        Golden((b"",), ((0.5,),)),
        Golden((b"a",), ((),)),
        Golden((b"a",), ((float("nan"),),)),
    ],
)
def test_frames_that_no_camera_would_take_are_not_built(wrong: Golden) -> None:
    with pytest.raises(ReleaseError):
        golden.build(wrong)


def test_a_release_with_golden_frames_is_built_checked_and_taken_by_a_camera() -> None:
    built = build(golden=GOLDEN)
    checked = check_release(built.blob, [each.data for each in built.encodings], [KEY.public])
    assert checked.manifest.golden is not None
    assert checked.manifest.golden.frames == 2
    entry = next(file for file in checked.manifest.content.files if file.path == golden.FILE)
    held = golden.read(checked.content[entry.offset : entry.offset + entry.size])
    assert held.frames == GOLDEN.frames
    manifest = open_manifest(built.blob, crypto.keyring([KEY.public]))
    assert manifest["golden"] == {"frames": 2, "tolerance": golden.TOLERANCE}


def test_a_release_without_them_is_the_same_as_before() -> None:
    image = romfs.read(build().content)
    assert [file.path for file in image.files] == ["labels.txt", "trained.tflite"]


def test_the_model_stays_in_its_place_so_that_patches_stay_small() -> None:
    with_them, without = build(golden=GOLDEN).content, build().content
    assert with_them[8 : len(without)] == without[8:]


@pytest.mark.parametrize(
    "wrong", [Golden((bytes(SIZE - 1),), GOLDEN.answers[:1]), Golden(GOLDEN.frames[:1], ((0.5, 0.5),))]
)
def test_frames_of_another_model_are_refused(wrong: Golden) -> None:
    with pytest.raises(ContentRejectedError, match="another model"):
        pack(BUNDLE, ["OMVRT1060"], golden=wrong)


def test_a_manifest_that_does_not_fit_the_file_is_refused() -> None:
    built = build(golden=GOLDEN)
    assert built.manifest.golden is not None
    data = [each.data for each in built.encodings]
    other = built.manifest.golden.model_copy(update={"frames": 3})
    with pytest.raises(ContentRejectedError, match="number of golden frames"):
        check_release(resigned(built, golden=other), data, [KEY.public])
    with pytest.raises(ContentRejectedError, match="go together"):
        check_release(resigned(built, golden=None), data, [KEY.public])
