"""What a light means: the user's convention (green, blue, white) and the exceptions that matter."""

from typing import get_args

import pytest

from camera_agent import led as agent_led
from fleetd.boards import GENERIC, named, profiles
from fleetd.boards.lights import agent_lights, read, usual_looks
from fleetd.protocol.messages import LedColor, LedPattern

BOARDS = (*profiles(), GENERIC)


def first(board: str, color: str, pattern: str) -> str | None:
    found = read(next(one for one in BOARDS if one.key == board), color, pattern)
    return found[0].word if found else None


def test_the_agents_lights_are_those_that_the_agent_shows() -> None:
    assert {one.state: (one.color, one.pattern) for one in agent_lights()} == agent_led.STATES


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.key)
def test_green_is_the_bootloader_blue_a_running_main_white_a_panic(board: object) -> None:
    key = board.key  # type: ignore[attr-defined]
    for pattern in ("blink", "blink-fast", "unknown"):
        assert first(key, "green", pattern) == "bootloader"
    assert first(key, "blue", "solid") == "main-running"
    assert first(key, "blue", "unknown") == "main-running"
    for pattern in ("solid", "blink", "blink-fast", "cycle", "unknown"):
        assert first(key, "white", pattern) == "panic"
    assert first(key, "red", "cycle") == "panic", "all colours in turn"


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.key)
def test_blue_double_blinking_is_a_formatted_storage_not_a_running_agent(board: object) -> None:
    assert first(board.key, "blue", "double-blink") == "default-main"  # type: ignore[attr-defined]


def test_steady_green_is_the_power_led_where_there_is_one_and_the_bootloader_elsewhere() -> None:
    for board in BOARDS:
        assert first(board.key, "green", "solid") == ("power" if board.has_power_led else "bootloader")


def test_the_agent_showing_itself_is_no_panic() -> None:
    for board in BOARDS:
        assert [one.word for one in read(board, "white", "double-blink")] == ["identify"]


def test_cyan_blinking_is_a_panic_on_the_ae3_only() -> None:
    assert first("ae3", "cyan", "blink") == "panic"
    assert first("rt1062", "cyan", "blink") == "starting"


def test_red_means_do_not_cut_the_power_where_flash_is_written_late() -> None:
    assert first("h7", "red", "solid") == "flash-writing"
    assert first("rt1062", "red", "solid") == "agent-trouble"


def test_every_light_on_every_board_is_read_without_an_exception_and_without_doubles() -> None:
    for board in BOARDS:
        for color in get_args(LedColor):
            for pattern in get_args(LedPattern):
                words = [one.word for one in read(board, color, pattern)]
                assert len(set(words)) == len(words)
                assert bool(words) or color == "unknown", (board.key, color, pattern)


def test_whoever_looks_is_offered_what_the_board_can_show() -> None:
    looks = usual_looks(named("rt1062"))
    shown = {(color, pattern) for color, pattern, _ in looks}
    assert {("green", "solid"), ("blue", "double-blink"), ("off", "off"), ("white", "blink-fast")} <= shown
    assert len(shown) == len(looks)
