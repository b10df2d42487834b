import io
import os
import struct
import time
import tracemalloc
import zipfile
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetd.bundles import archive
from fleetd.bundles.errors import BundleError
from fleetd.bundles.opening import open_bundle
from tests.unit.bundles.models import LABELS, make

MODEL = make()
TEXT = b"cat\ndog\nfox\n"
EXPORT = {"trained.tflite": MODEL, "labels.txt": TEXT, "ei_image_classification.py": b"import ml\n"}


def zipped(
    files: dict[str, bytes] | list[tuple[str | zipfile.ZipInfo, bytes]], method: int = zipfile.ZIP_DEFLATED
) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as made:
        for name, data in files.items() if isinstance(files, dict) else files:
            made.writestr(name, data)
    return out.getvalue()


def member(name: str, mode: int = 0o100644) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    return info


# --- what people have -------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_an_export_is_opened_from_its_zip(tmp_path: Path, method: int) -> None:
    path = tmp_path / "ei-bees-openmv-v3.zip"
    path.write_bytes(zipped(EXPORT, method))
    bundle = open_bundle(path)
    assert bundle.model == MODEL
    assert bundle.labels == LABELS
    assert bundle.name == "ei-bees-openmv-v3"
    assert (bundle.source, bundle.model_path) == ("zip", "trained.tflite")
    assert bundle.ignored == ("ei_image_classification.py",)
    assert bundle.warnings == ()


def test_an_export_is_opened_from_its_folder(tmp_path: Path) -> None:
    folder = tmp_path / "bees"
    folder.mkdir()
    for name, data in EXPORT.items():
        (folder / name).write_bytes(data)
    bundle = open_bundle(str(folder))
    assert (bundle.model, bundle.labels, bundle.source, bundle.name) == (MODEL, LABELS, "folder", "bees")


def test_a_model_file_takes_the_labels_beside_it_or_those_named(tmp_path: Path) -> None:
    path = tmp_path / "bees.tflite"
    path.write_bytes(MODEL)
    with pytest.raises(BundleError, match=r"no labels\.txt beside"):
        open_bundle(path)
    (tmp_path / "labels.txt").write_bytes(TEXT)
    assert open_bundle(path).labels == LABELS
    (tmp_path / "names.txt").write_bytes(b"a\nb\nc")
    assert open_bundle(path, labels=tmp_path / "names.txt").labels == ("a", "b", "c")
    assert open_bundle(MODEL, labels=TEXT).labels == LABELS


def test_an_uploaded_zip_is_opened_from_its_bytes() -> None:
    assert open_bundle(zipped(EXPORT)).model == MODEL


@pytest.mark.parametrize("prefix", ["ei-bees/", "ei-bees\\", "a/b/c/"])
def test_an_export_inside_a_folder_of_the_zip_is_found(prefix: str) -> None:
    bundle = open_bundle(zipped({prefix + name: data for name, data in EXPORT.items()}))
    assert (bundle.model, bundle.labels) == (MODEL, LABELS)


def test_what_macos_adds_to_a_zip_is_ignored() -> None:
    bundle = open_bundle(zipped({"__MACOSX/._trained.tflite": b"junk", "._labels.txt": b"\0", **EXPORT}))
    assert bundle.labels == LABELS


def test_of_several_models_the_usual_name_is_taken_with_a_warning() -> None:
    bundle = open_bundle(zipped({**EXPORT, "float.tflite": b"another"}))
    assert bundle.model == MODEL
    assert "float.tflite" in bundle.warnings[0]


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"labels.txt": TEXT}, "no .tflite"),
        ({}, "no .tflite"),
        ({"trained.tflite": MODEL}, "no labels.txt beside"),
        ({"a/trained.tflite": MODEL, "b/labels.txt": TEXT}, "no labels.txt beside"),
        ({"a.tflite": MODEL, "b.tflite": MODEL, "labels.txt": TEXT}, "several models"),
        ({"a/trained.tflite": MODEL, "b/trained.tflite": MODEL}, "several models"),
        ({"trained.tflite": b"", "labels.txt": b""}, "is empty"),
        ({"trained.tflite": MODEL, "labels.txt": b""}, "labels.txt is empty"),
    ],
)
def test_a_zip_without_one_model_and_its_labels_is_refused(files: dict[str, bytes], words: str) -> None:
    with pytest.raises(BundleError, match=words):
        open_bundle(zipped(files))


@pytest.mark.parametrize("data", [b"", b"hello", b"PK\x03\x04", b"PK\x05\x06", b"\0" * 100])
def test_what_is_no_bundle_is_refused(data: bytes) -> None:
    with pytest.raises(BundleError):
        open_bundle(data, labels=TEXT)


def test_a_model_larger_than_a_release_is_refused() -> None:
    with pytest.raises(BundleError, match="at most"):
        open_bundle(MODEL + bytes(16 * 1024 * 1024), labels=TEXT)


def test_paths_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, words in [("nothing", "No such file"), ("pipe", "not a plain file"), ("a\0b", "NUL")]:
        with pytest.raises(BundleError, match=words):
            open_bundle(tmp_path / path)
    with pytest.raises(BundleError, match="No such file"):
        open_bundle(MODEL, labels=tmp_path / "nothing")


def test_a_link_found_in_a_folder_is_refused_but_a_named_one_is_followed(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(TEXT)
    folder = tmp_path / "bundle"
    folder.mkdir()
    (folder / "trained.tflite").write_bytes(MODEL)
    (folder / "labels.txt").symlink_to(secret)
    for source in (folder, folder / "trained.tflite"):
        with pytest.raises(BundleError, match="is a link"):
            open_bundle(source)
    assert open_bundle(folder / "trained.tflite", labels=folder / "labels.txt").labels == LABELS


# --- traps ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "../../etc/labels.txt",
        "/abs/labels.txt",
        "a\\..\\labels.txt",
        "C:\\labels.txt",
        "C:labels.txt",
        "..",
        "a/./labels.txt",
        "a//labels.txt",
        "\\\\host\\labels.txt",
        "a\x1b[2J/labels.txt",
        "a\u202e/labels.txt",
        "../outside.py",
    ],
)
def test_an_entry_with_a_dangerous_name_spoils_the_zip(name: str) -> None:
    with pytest.raises(BundleError, match="dangerous name"):
        open_bundle(zipped([("trained.tflite", MODEL), (name, TEXT)]))


def test_a_name_with_a_nul_is_refused() -> None:
    data = zipped({"trained.tflite": MODEL, "labels.txt?evil": TEXT}).replace(
        b"labels.txt?evil", b"labels.txt\0evil"
    )
    with pytest.raises(BundleError):
        open_bundle(data)


@pytest.mark.parametrize("mode", [0o120777, 0o020666, 0o010644, 0o060644])
def test_links_and_devices_are_refused(mode: int) -> None:
    with pytest.raises(BundleError, match="link or device"):
        open_bundle(zipped([("trained.tflite", MODEL), (member("labels.txt", mode), b"/etc/passwd")]))


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("again", ["labels.txt", "LABELS.TXT"])
def test_the_same_name_twice_is_refused(again: str) -> None:
    with pytest.raises(BundleError, match="twice"):
        open_bundle(zipped([("trained.tflite", MODEL), ("labels.txt", TEXT), (again, b"x\ny\nz")]))


@pytest.mark.parametrize("name", ["inner.zip", "x/Inner.ZIP", "inner.tar.gz", "inner.7z"])
def test_an_archive_in_the_zip_is_refused(name: str) -> None:
    with pytest.raises(BundleError, match="another archive"):
        open_bundle(zipped({**EXPORT, name: zipped(EXPORT)}))


def test_an_encrypted_entry_is_refused() -> None:
    data = bytearray(zipped(EXPORT))
    for mark, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(mark) + flags] |= 1
    with pytest.raises(BundleError, match="encrypted"):
        open_bundle(bytes(data))


def test_an_unusual_compression_is_refused() -> None:
    with pytest.raises(BundleError, match="ordinary zip"):
        open_bundle(zipped(EXPORT, zipfile.ZIP_LZMA))


@pytest.mark.parametrize("name", ["trained.tflite", "other.bin"])
def test_a_zip_bomb_is_refused_before_it_unpacks(name: str) -> None:
    bomb = zipped({"labels.txt": TEXT, name: bytes(30 * 1024 * 1024)})
    assert len(bomb) < 50_000
    tracemalloc.start()
    with pytest.raises(BundleError, match="zip bomb"):
        open_bundle(bomb)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * 1024 * 1024


def test_an_entry_larger_than_any_model_is_refused() -> None:
    with pytest.raises(BundleError, match="at most 33554432"):
        open_bundle(zipped({**EXPORT, "big.bin": bytes(33 * 1024 * 1024)}))


def test_a_header_that_lies_about_the_size_does_not_help_a_bomb() -> None:
    true, false = 5 * 1024 * 1024, 100
    data = zipped({"labels.txt": TEXT, "trained.tflite": bytes(true)})
    data = data.replace(struct.pack("<I", true), struct.pack("<I", false))
    tracemalloc.start()
    with pytest.raises(BundleError, match="damaged"):
        open_bundle(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 * 1024 * 1024


def test_what_is_taken_has_a_ceiling_in_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "TOTAL_BYTES", 4000)
    noise = bytes(range(250)) * 10
    with pytest.raises(BundleError, match="more than it may"):
        open_bundle(zipped({f"{n}.tflite": noise for n in range(3)}))


def test_a_zip_of_a_hundred_thousand_entries_is_refused_without_listing_them() -> None:
    entry = (
        struct.pack("<4s6H3I5H2I", b"PK\x01\x02", 20, 20, 0, 0, 0, 33, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0) + b"x"
    )
    directory = entry * 100_000
    end = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 65535, 65535, len(directory), 30, 0)
    data = b"PK\x03\x04" + bytes(26) + directory + end
    start = time.perf_counter()
    tracemalloc.start()
    with pytest.raises(BundleError, match="more than 256 files"):
        open_bundle(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1024 * 1024
    assert time.perf_counter() - start < 5


def test_a_zip_larger_than_the_limit_is_not_looked_into(tmp_path: Path) -> None:
    path = tmp_path / "big.zip"
    with path.open("wb") as file:
        file.write(b"PK\x03\x04")
        file.truncate(archive.ZIP_BYTES + 1)
    with pytest.raises(BundleError, match="more than is accepted"):
        open_bundle(path)


def test_a_wrong_checksum_is_noticed() -> None:
    data = zipped(EXPORT, zipfile.ZIP_STORED).replace(MODEL, MODEL[:-1] + bytes([MODEL[-1] ^ 1]))
    with pytest.raises(BundleError, match="damaged"):
        open_bundle(data)


def test_nothing_is_ever_written_to_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    open_bundle(zipped(EXPORT))
    with pytest.raises(BundleError):
        open_bundle(zipped({"../labels.txt": TEXT}))
    assert list(tmp_path.iterdir()) == []


@settings(deadline=None)
@given(st.data())
def test_any_damage_to_a_zip_gives_the_bundle_or_a_reason(data: st.DataObject) -> None:
    whole = bytearray(zipped(EXPORT))
    for _ in range(data.draw(st.integers(1, 5))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(whole)))
    try:
        bundle = open_bundle(bytes(whole[:cut] if cut % 3 == 0 else whole))
    except BundleError:
        return
    assert zlib.crc32(bundle.model) == zlib.crc32(MODEL)
