"""Releases of the agent itself: one image that MicroPython imports from, and what is refused."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from camera_agent.regions import AGENT_BYTES, CONTENT_OFFSET
from fleetd.bundles import agents, manifests, romfs
from fleetd.bundles.agents import build_image, pack_agent
from fleetd.bundles.encodings import cut
from fleetd.bundles.errors import ContentRejectedError, RejectedError, ReleaseError
from fleetd.bundles.inflating import deflate
from fleetd.bundles.release import BuiltRelease, check_release, draft_release
from fleetd.bundles.signing import OperatorKey
from tests.agent.micropython import Arch, run_device

KEY = OperatorKey.generate()
MPY = b"M\x06\x00\x1f"
FILES = {
    name: MPY + name.encode() * 30 for name in ("__init__.mpy", "start.mpy", "agent.mpy", "boot.mpy", "x.mpy")
}

LISTING = """
import json, os, sys, vfs
sys.path.insert(0, sys.argv[1])
from camera_agent.regions import CONTENT_OFFSET, FileRegion
from camera_agent.slotfs import SlotFs

with open(sys.argv[2], "rb") as file:
    image = file.read()
vfs.mount(vfs.VfsRom(image), "/rom")
slot = bytes(CONTENT_OFFSET) + image
slot += bytes(-len(slot) % 4096 + 4096)
with open(sys.argv[3], "wb") as file:
    file.write(slot)
fs = SlotFs(FileRegion(sys.argv[3]), len(image))
vfs.mount(fs, "/slot")
found = {}
for name in os.listdir("/rom/camera_agent"):
    path = "/camera_agent/" + name
    data = open("/rom" + path, "rb").read()
    room = bytearray(len(data) + 1)
    assert open("/slot" + path, "rb").readinto(room) == len(data), name
    assert room[:-1] == data, name
    assert os.stat("/slot" + path)[6] == len(data)
    found[name] = len(data)
for path in ("/slot/nothing", "/slot/camera_agent/nothing.mpy"):
    try:
        os.stat(path)
    except OSError as error:
        assert error.errno == 2
    else:
        raise AssertionError(path)
print(json.dumps(found))
"""


def release(files: dict[str, bytes] | None = None, **changes: Any) -> BuiltRelease:
    return draft_release(
        pack_agent(files or FILES, "1.2", ["OMVRT1060"], **changes),
        release_id="agent-3",
        name="camera agent",
        version="1.2",
        epoch=1,
        sequence=3,
        created=1_700_000_000,
    ).sign(KEY)


def upload(built: BuiltRelease, blob: bytes | None = None) -> Any:
    return check_release(blob or built.blob, [each.data for each in built.encodings], [KEY.public])


@pytest.mark.parametrize("arch", ["amd64", "i386"])
def test_micropython_finds_every_module_in_flash_and_in_a_slot_that_is_a_file(
    arch: Arch, tmp_path: Path
) -> None:
    (tmp_path / "image").write_bytes(build_image(FILES).data)
    script = tmp_path / "listing.py"
    script.write_text(LISTING)
    root = str(Path(__file__).resolve().parents[3])
    ran = run_device(arch, script, root, str(tmp_path / "image"), str(tmp_path / "slot"))
    assert json.loads(ran.stdout) == {name: len(data) for name, data in FILES.items()}


@given(
    st.dictionaries(st.from_regex(r"[a-z_]{1,12}\.mpy", fullmatch=True), st.binary(max_size=300), min_size=1)
)
def test_what_is_built_is_read_back(files: dict[str, bytes]) -> None:
    assert romfs.read_folder(romfs.build_folder("camera_agent", files)) == ("camera_agent", files)


@given(st.binary(max_size=120), st.integers(0, 400), st.integers(1, 255))
def test_no_damaged_image_gets_through_as_something_else(tail: bytes, at: int, change: int) -> None:
    image = bytearray(build_image(FILES).data)
    image[at % len(image)] ^= change
    for damaged in (bytes(image), b"\xd2\xcd\x31" + tail):
        try:
            folder, files = romfs.read_folder(damaged)
        except ReleaseError:
            continue
        assert romfs.build_folder(folder, files) != build_image(FILES).data or (folder, files) == (
            "camera_agent",
            FILES,
        )


def test_an_agent_is_checked_on_upload_and_has_no_model() -> None:
    checked = upload(release())
    assert (checked.manifest.kind, checked.model, checked.labels) == ("agent", None, ())
    assert checked.content == build_image(FILES).data


def test_a_patch_on_the_agent_before_is_offered_where_it_is_worth_it() -> None:
    before = build_image({**FILES, "x.mpy": MPY + b"before" * 200}).data
    built = release(bases=[before])
    assert [each.kind for each in built.encodings] == ["deflate", "patch"]


@pytest.mark.parametrize(
    ("files", "complaint"),
    [
        ({"start.mpy": MPY}, "lacks __init__.mpy"),
        ({**FILES, "notes.txt": b"hello"}, "notes.txt"),
        ({**FILES, "x.mpy": b"M\x05\x00 of another MicroPython"}, "x.mpy"),
        ({**FILES, "x.py": b"import os"}, "x.py"),
        ({**FILES, "x.mpy": MPY + bytes(150_000)}, "a camera has room for"),
    ],
)
def test_what_no_camera_could_start_is_not_built(files: dict[str, bytes], complaint: str) -> None:
    with pytest.raises(ReleaseError, match=complaint):
        build_image(files)


def test_an_upload_that_is_no_agent_is_refused_although_it_is_signed() -> None:
    built = release()
    for content in (
        romfs.build_folder("other_folder", FILES),
        romfs.build_folder("camera_agent", {**FILES, "evil.py": b"x"}),
        romfs.build([("labels.txt", b"cat\n", 4)]).data,
        b"not an image at all",
    ):
        encoded = cut("deflate", deflate(content))
        manifest = built.manifest.model_copy(
            update={
                "content": built.manifest.content.model_copy(
                    update={"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
                ),
                "encodings": [encoded.entry()],
            }
        )
        with pytest.raises(RejectedError):
            check_release(KEY.sign(manifests.canonical(manifest)), [encoded.data], [KEY.public])


def test_settings_are_no_release() -> None:
    built = release()
    blob = KEY.sign(manifests.canonical(built.manifest.model_copy(update={"kind": "config"})))
    with pytest.raises(ContentRejectedError) as caught:
        upload(built, blob)
    assert caught.value.reason == "unsupported-kind"


def test_both_sides_agree_on_the_room_for_an_agent() -> None:
    assert AGENT_BYTES - CONTENT_OFFSET == agents.MOST_BYTES
