"""push-model --golden: pictures become frames with answers that the very engine of the cameras gives."""

import builtins
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from PIL import Image

from fleetd.bundles import golden, romfs
from fleetd.bundles.content import read_content, read_golden
from fleetd.bundles.errors import BundleError
from fleetd.simulator import golden as reference
from fleetd.simulator.assets import bundle_folder
from fleetd.simulator.drawings import LABELS, draw
from fleetd.simulator.models import Engine
from tests.integration.api_rig import Rig, running_rig
from tests.integration.cli_desk import Desk, Fleet

MODEL = bundle_folder("demo-v2")


@pytest.fixture(autouse=True)
def _quiet_services() -> Iterator[None]:
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    yield
    structlog.reset_defaults()


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    with running_rig(tmp_path) as rig:
        yield rig


@pytest.fixture
def desk(rig: Rig, tmp_path: Path) -> Desk:
    desk = Desk(rig, tmp_path)
    desk.make_key()
    Fleet(rig, "cam-1")
    return desk


@pytest.fixture
def pictures(desk: Desk) -> Path:
    """One drawing of each class, in different sizes and formats."""
    folder = desk.folder / "pictures"
    folder.mkdir()
    for kind, name in enumerate(("a.png", "b.jpg", "c.bmp")):
        Image.fromarray(draw(kind, 7 + kind)).resize((120 + 40 * kind, 120)).save(folder / name)
    (folder / "notes.txt").write_text("not a picture")
    return folder


def push(desk: Desk, *more: object) -> Any:
    return desk.json("push-model", MODEL, "--to", "all", "--yes", "--no-watch", *more)


def test_a_release_carries_frames_and_what_the_reference_kernels_answer(
    desk: Desk, rig: Rig, pictures: Path
) -> None:
    release = push(desk, "--golden", pictures)["release"]["id"]
    image = romfs.read(rig.ota.content(release))
    data, model = read_golden(image), read_content(image)[0]
    assert data is not None
    found = golden.read(data)
    engine = Engine(model)
    assert len(found.frames) == 3
    for frame, answer in zip(found.frames, found.answers, strict=True):
        assert len(frame) == 96 * 96 * 3
        assert engine.answer(frame) == pytest.approx(answer, abs=1e-7)
        assert sum(answer) == pytest.approx(1, abs=0.02)
    assert b'"golden":{"frames":3,"tolerance":0.02}' in rig.ota.manifest(release)


def test_the_operator_sees_what_the_model_makes_of_each_picture(desk: Desk, pictures: Path) -> None:
    shown = desk.run("push-model", MODEL, "--to", "all", "--golden", pictures, "--dry-run")
    assert shown.exit_code == 0, shown.output
    for name in ("a.png", "b.jpg", "c.bmp"):
        assert f"golden: {name} is " in shown.stderr
    assert "3 golden frames: a camera that answers more than 0.02 off goes back" in shown.stderr
    assert any(label in shown.stderr for label in LABELS)


def test_the_tolerance_is_the_operator_s(desk: Desk, rig: Rig, pictures: Path) -> None:
    release = push(desk, "--golden", pictures, "--golden-tolerance", "0")["release"]["id"]
    assert b'"tolerance":0.0' in rig.ota.manifest(release)


def test_of_many_pictures_eight_are_taken_spread_evenly(tmp_path: Path) -> None:
    for n in range(20):
        (tmp_path / f"{n:02}.png").write_bytes(b"")
    assert [path.stem for path in reference.pictures_in(tmp_path)] == [
        "00", "02", "05", "07", "10", "12", "15", "17",
    ]  # fmt: skip


def test_one_class_only_is_remarked_upon(desk: Desk, tmp_path: Path) -> None:
    folder = tmp_path / "same"
    folder.mkdir()
    for n in range(2):
        Image.fromarray(draw(1, 100)).save(folder / f"{n}.png")
    shown = desk.run("push-model", MODEL, "--to", "all", "--golden", folder, "--dry-run")
    assert "says the same of every picture" in shown.stderr


def test_what_is_no_picture_is_named_and_nothing_is_sent(desk: Desk, rig: Rig, tmp_path: Path) -> None:
    empty, broken = tmp_path / "empty", tmp_path / "broken"
    empty.mkdir()
    broken.mkdir()
    (broken / "x.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"x" * 100)
    assert "no pictures" in desk.fails(2, "push-model", MODEL, "--to", "all", "--golden", empty, "--yes")
    assert "x.png is no picture" in desk.fails(
        2, "push-model", MODEL, "--to", "all", "--golden", broken, "--yes"
    )
    assert "no folder" in desk.fails(
        2, "push-model", MODEL, "--to", "all", "--golden", tmp_path / "no", "--yes"
    )
    assert rig.ota.releases() == []


def test_without_the_extra_it_says_what_to_install(
    desk: Desk, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def missing(name: str, *more: Any, **kinds: Any) -> Any:
        if name.startswith("ai_edge_litert"):
            raise ImportError(name)
        return real(name, *more, **kinds)

    monkeypatch.setattr(builtins, "__import__", missing)
    said = desk.fails(2, "push-model", MODEL, "--to", "all", "--golden", pictures, "--yes")
    assert "fleetd[golden]" in said


def test_a_model_that_cannot_be_run_has_no_golden_frames(pictures: Path) -> None:
    with pytest.raises(BundleError, match="cannot be run here"):
        reference.from_pictures(b"\x1c\x00\x00\x00TFL3" + b"\x00" * 50, [pictures / "a.png"])
