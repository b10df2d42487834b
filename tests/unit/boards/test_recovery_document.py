"""docs/recovery.md and its drawings are what the profiles say."""

from importlib import import_module

from fleetd.boards import profiles

maker = import_module("scripts.make_recovery_doc")


def test_the_generated_parts_are_in_step_with_the_profiles() -> None:
    text = (maker.DOCS / "recovery.md").read_text(encoding="utf-8")
    assert maker.rendered(text) == text, "run `python scripts/make_recovery_doc.py`"
    for name, picture in maker.drawings().items():
        assert (maker.DOCS / "drawings" / name).read_text(encoding="utf-8") == picture


def test_every_part_is_used_and_every_board_is_there() -> None:
    text = (maker.DOCS / "recovery.md").read_text(encoding="utf-8")
    for part in maker.PARTS:
        assert f"<!-- made of {part}: do not edit -->" in text
    for board in profiles():
        assert f"### {board.name}" in text


def test_there_is_no_drawing_of_a_board_that_has_gone() -> None:
    there = {path.name for path in (maker.DOCS / "drawings").iterdir()}
    assert there == set(maker.drawings())
