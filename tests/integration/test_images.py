"""Pictures on their way through fleetd: pieces in, a JPEG out, a bounded number kept."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from fleetd.domain.records import Role
from fleetd.ingest import decode
from fleetd.ports import Inbound
from fleetd.store import images, tables
from fleetd.store.landing import Arrival, DeadLetter
from tests.integration.api_rig import Rig, error_of, running_rig
from tests.integration.cli_desk import Desk

PREFIX = "fleet/v1"
JPEG = [b"\xff\xd8" + bytes(2046), b"x" * 2048, b"the end\n\xff\xd9"]


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    with running_rig(tmp_path) as rig:
        rig.enrol("cam-1", "cam-2")
        yield rig


@pytest.fixture
def desk(rig: Rig, tmp_path: Path) -> Desk:
    return Desk(rig, tmp_path / "desk")


def inbound(n: int, data: bytes, **changes: Any) -> Inbound:
    head = {
        "boot": "0" * 16,
        "seq": 1,
        "up_ms": 1,
        "size": 10,
        "pieces": 2,
        "sha256": "ab" * 32,
        "why": "command",
        **changes,
    }
    payload = json.dumps(head).encode() + b"\n" + data
    return Inbound(f"{PREFIX}/cam-1/up/image/abc/{n}", payload, retained=False, received_at=1.0)


def test_a_piece_is_a_line_of_json_and_then_any_bytes() -> None:
    data = bytes(range(256)) + b"\n\n{}"
    item = decode(inbound(1, data), PREFIX)
    assert isinstance(item, Arrival)
    assert (item.channel, item.rest, item.body["data"]) == ("image", "abc/1", data)


@pytest.mark.parametrize(
    "wrong",
    [
        inbound(1, b""),
        inbound(2, b"x"),
        inbound(0, bytes(4097)),
        inbound(0, b"x", pieces=65),
        inbound(0, b"x", size=131_073),
        inbound(0, b"x", seq=0),
    ],
)
def test_a_piece_that_cannot_be_one_is_a_dead_letter(wrong: Inbound) -> None:
    assert isinstance(decode(wrong, PREFIX), DeadLetter)


def test_pieces_become_the_picture_they_were_in_whatever_order(rig: Rig) -> None:
    rig.land_image("cam-1", "abc", 1, *JPEG, label="ball", score=0.4, release="balls-1", why="low-confidence")
    [listed] = rig.viewer.get("/cameras/cam-1/images").json()
    assert (listed["image"], listed["size"], listed["why"]) == ("abc", 4106, "low-confidence")
    assert (listed["label"], listed["score"], listed["release_id"]) == ("ball", 0.4, "balls-1")
    answer = rig.operator.get("/cameras/cam-1/images/abc")
    assert answer.content == b"".join(JPEG)
    assert answer.headers["content-type"] == "image/jpeg"
    assert rig.viewer.get("/cameras/cam-2/images").json() == []


def test_a_picture_that_is_not_all_there_is_not_shown(rig: Rig) -> None:
    whole = b"".join(JPEG)
    facts = {"size": len(whole), "pieces": 4, "sha256": hashlib.sha256(whole).hexdigest()}
    rig.land_image("cam-1", "abc", 1, *JPEG, **facts)
    assert rig.viewer.get("/cameras/cam-1/images").json() == []
    assert error_of(rig.operator.get("/cameras/cam-1/images/abc"))["code"] == "not_found"


def test_a_picture_that_is_not_what_the_camera_meant_is_not_shown(rig: Rig) -> None:
    rig.land_image("cam-1", "abc", 1, *JPEG, sha256="00" * 32)
    assert rig.operator.get("/cameras/cam-1/images/abc").status_code == 404


def test_repeated_pieces_change_nothing(rig: Rig) -> None:
    rig.land_image("cam-1", "abc", 1, *JPEG)
    rig.land_image("cam-1", "abc", 1, *JPEG)
    rig.land_image("cam-1", "abc", 11, *JPEG)
    assert rig.operator.get("/cameras/cam-1/images/abc").content == b"".join(JPEG)
    assert len(rig.viewer.get("/cameras/cam-1/images").json()) == 1


def test_the_newest_of_each_camera_are_kept(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "KEPT", 3)
    rig.land_image("cam-2", "other", 1, *JPEG)
    for n in range(6):
        rig.land_image("cam-1", f"pic-{n}", 1 + 3 * n, *JPEG)
    assert [one["image"] for one in rig.viewer.get("/cameras/cam-1/images").json()] == [
        "pic-5",
        "pic-4",
        "pic-3",
    ]
    assert len(rig.viewer.get("/cameras/cam-2/images").json()) == 1
    monkeypatch.setattr(images, "IMAGE_PIECES", 2)
    for n in range(20):
        rig.land_image("cam-1", "same", 100 + n, b"x")
    with rig.store.connect(write=False) as connection:
        mine = tables.image_pieces.c.image != "other"
        rows = connection.execute(sa.select(sa.func.count()).select_from(tables.image_pieces).where(mine))
        assert rows.scalar_one() <= 6


def test_a_picture_goes_with_its_camera(rig: Rig) -> None:
    rig.land_image("cam-1", "abc", 1, *JPEG)
    assert rig.admin.delete("/cameras/cam-1").status_code == 204
    with rig.store.connect(write=False) as connection:
        assert connection.execute(sa.select(tables.image_pieces.c.id)).all() == []


# --- fleetctl ---------------------------------------------------------------------------------------------


def answering(desk: Desk, **reply: Any) -> None:
    """The camera answers the next snapshot like this, and its picture arrives a moment later."""
    asked: list[dict[str, Any]] = []

    def meanwhile() -> None:
        if asked:
            if len(asked) == 1 and reply.get("ok"):
                asked.append({})
                desk.rig.land_image("cam-1", "abc", 60, *JPEG)
            return
        with desk.rig.store.reading() as work:
            asked.extend(dict(row) for row in work.commands.unsent(desk.rig.now))
        for row in asked:
            desk.rig.land_reply("cam-1", "snapshot", 50, id=row["id"], **reply)

    desk.meanwhile = meanwhile


def test_a_snapshot_ends_up_in_a_file(desk: Desk) -> None:
    answering(desk, ok=True, data={"image": "abc", "size": 4106, "pieces": 3})
    said = desk.ok("cameras", "snapshot", "cam-1", "-o", "view.jpg")
    assert "view.jpg" in said
    assert (desk.folder / "view.jpg").read_bytes() == b"".join(JPEG)
    desk.ok("cameras", "snapshot", "cam-1", "--image", "abc")
    assert (desk.folder / "cam-1-abc.jpg").read_bytes() == b"".join(JPEG)
    assert desk.json("cameras", "images", "cam-1")[0]["image"] == "abc"
    assert "abc" in desk.ok("cameras", "images", "cam-1")


def test_a_camera_that_has_no_picture_is_believed(desk: Desk) -> None:
    answering(desk, ok=False, reason="no-picture")
    assert "no-picture" in desk.fails(1, "cameras", "snapshot", "cam-1")
    assert list(desk.folder.iterdir()) == []


def test_what_cannot_be_written_can_be_fetched_again(desk: Desk) -> None:
    desk.rig.land_image("cam-1", "abc", 60, *JPEG)
    complaint = desk.fails(2, "cameras", "snapshot", "cam-1", "--image", "abc", "-o", "missing/view.jpg")
    assert "--image abc" in complaint


def test_pictures_take_an_operator_and_a_camera(desk: Desk) -> None:
    desk.rig.land_image("cam-1", "abc", 60, *JPEG)
    desk.ok("cameras", "images", "cam-1", role=Role.VIEWER)
    assert desk.run("cameras", "snapshot", "cam-1", "--image", "abc", role=Role.VIEWER).exit_code != 0
    assert "No camera named cam-9" in desk.fails(1, "cameras", "snapshot", "cam-9")
