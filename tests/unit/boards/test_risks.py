"""Who would be hard to bring back, said before anything is sent."""

from fleetd.boards import GENERIC, find, named
from fleetd.boards.risks import RISKS, risks


def keys(
    board: str, *, capabilities: tuple[str, ...] = ("watchdog",), backend: str | None = "raw"
) -> list[str]:
    found = risks(named(board), capabilities=capabilities, backend=backend, has_incident=False)
    return [risk.key for risk in found]


def test_a_healthy_rt1062_has_none() -> None:
    assert keys("rt1062") == []


def test_a_camera_without_a_watchdog_hangs_until_somebody_comes() -> None:
    assert keys("ae3", capabilities=("classify",)) == ["no-watchdog"]
    assert keys("ae3", capabilities=()) == [], "it has not said what it can do"


def test_boards_that_openmv_cannot_bring_back_are_named() -> None:
    assert keys("nicla-vision") == ["no-way-back"]
    assert keys("giga-r1") == ["no-way-back"]
    assert keys("h7", backend="sdcard") == []


def test_a_drive_of_one_erase_block_needs_a_card() -> None:
    assert keys("h7", backend="flash") == ["one-erase-block"]
    assert keys("h7", backend="sdcard") == []
    assert keys("rt1062", backend="flash") == []


def test_an_unknown_board_and_an_open_incident_are_risks() -> None:
    found = risks(GENERIC, capabilities=(), backend=None, has_incident=True)
    assert [risk.key for risk in found] == ["board-not-known", "has-incident"]
    assert find("XY 9") is GENERIC
    assert all(risk.title and risk.todo for risk in RISKS.values())
