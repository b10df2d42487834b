import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetd.bundles import romfs
from fleetd.bundles.content import build_content, read_content
from fleetd.bundles.errors import ContentRejectedError, ReleaseError
from tests.agent.micropython import Arch, run_device
from tests.unit.bundles.models import LABELS, make

MODEL = make()
NAMES = st.text("abcdefghijklmnopqrstuvwxyz0123456789_.-", min_size=1, max_size=48)
FILES = st.lists(
    st.tuples(NAMES, st.binary(max_size=300), st.sampled_from([1, 2, 4, 16, 32])),
    min_size=1,
    max_size=6,
    unique_by=lambda file: file[0],
)

# On the camera's interpreter: mount the image, report every file as its directory has it.
LISTING = """
import json, hashlib, os, sys, vfs
with open(sys.argv[1], "rb") as file:
    image = file.read()
vfs.mount(vfs.VfsRom(memoryview(image)), "/slot")
found = {}
for name in os.listdir("/slot"):
    with open("/slot/" + name, "rb") as file:
        data = file.read()
    found[name] = [os.stat("/slot/" + name)[6], "".join("%02x" % b for b in hashlib.sha256(data).digest())]
print(json.dumps(found))
"""


@given(FILES)
def test_what_is_built_is_read_back_and_lies_where_it_says(files: list[tuple[str, bytes, int]]) -> None:
    image = romfs.build(files)
    assert romfs.read(image.data) == image
    for (name, data, alignment), entry in zip(files, image.files, strict=True):
        assert entry.path == name
        assert entry.offset % alignment == 0
        assert image.data[entry.offset : entry.offset + entry.size] == data
        assert entry.sha256 == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("arch", ["amd64", "i386"])
def test_micropython_mounts_the_image_and_finds_the_same_files(tmp_path: Path, arch: Arch) -> None:
    image = build_content(MODEL, LABELS)
    (tmp_path / "content.romfs").write_bytes(image.data)
    script = tmp_path / "listing.py"
    script.write_text(LISTING)
    found = json.loads(run_device(arch, script, str(tmp_path / "content.romfs")).stdout)
    assert found == {file.path: [file.size, file.sha256] for file in image.files}


def test_content_holds_the_model_and_its_labels() -> None:
    image = build_content(MODEL, LABELS)
    assert read_content(image) == (MODEL, LABELS)
    assert {file.path for file in image.files} == {"trained.tflite", "labels.txt"}


def test_content_without_a_model_or_with_other_labels_than_plain_ones_is_refused() -> None:
    with pytest.raises(ContentRejectedError, match="lacks"):
        read_content(romfs.build([("labels.txt", b"cat\n", 4), ("notes.txt", b"", 1)]))
    untidy = romfs.build([("labels.txt", b"cat\r\ndog\r\n", 4), ("trained.tflite", MODEL, 32)])
    with pytest.raises(ContentRejectedError, match="plain form") as caught:
        read_content(untidy)
    assert caught.value.reason == "labels-mismatch"


def test_a_model_that_is_not_aligned_is_refused() -> None:
    labels = ("labels.txt", b"cat\ndog\nfox\n", 4)
    images = [romfs.build([labels, ("padding", bytes(n), 1), ("trained.tflite", MODEL, 16)]) for n in (0, 16)]
    misplaced = [image for image in images if image.files[-1].offset % 32]
    assert len(misplaced) == 1
    with pytest.raises(ContentRejectedError, match="aligned"):
        read_content(misplaced[0])


def test_content_larger_than_a_release_may_be_is_refused() -> None:
    with pytest.raises(ReleaseError, match="at most"):
        romfs.build([("big", bytes(16 * 1024 * 1024), 16)])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xd2\xcd\x31",
        b"\xd2\xcd\x31\x00",
        b"\xd2\xcd\x31\x02\x01\x00",
        b"\xd2\xcd\x31\x05\x05\x03\x01a\x02",
        b"\xd2\xcd\x31\x06\x05\x04\x01a\x02\x01",
        b"\xd2\xcd\x31\x06\x05\x04\x01A\x02\x00",
        b"\xd2\xcd\x31\x06\x04\x04\x01a\x02\x00",
        b"\xd2\xcd\x31\xff\xff\xff\xff\xff\xff\x00",
        b"\xd2\xcd\x31\x0c" + b"\x05\x04\x01a\x02\x00" * 2,
        b"\xd2\xcd\x31\x82\x00" + b"\x01\x00" * 128,
    ],
)
def test_what_is_no_image_of_ours_is_refused(data: bytes) -> None:
    with pytest.raises(ReleaseError):
        romfs.read(data)


@given(st.lists(st.tuples(st.integers(0, 79), st.integers(0, 255)), max_size=8), st.integers(0, 90))
def test_any_damage_to_an_image_is_noticed_or_harmless(changes: list[tuple[int, int]], cut: int) -> None:
    data = bytearray(romfs.build([("labels.txt", b"cat\n", 4), ("trained.tflite", b"model", 16)]).data)
    for at, value in changes:
        data[min(at, len(data) - 1)] = value
    try:
        image = romfs.read(bytes(data[:cut]))
    except ReleaseError:
        return
    assert all(file.offset + file.size <= len(image.data) for file in image.files)
