"""The status LED: what it shows, that nobody takes it for the board's own signals, what is reported."""

import re
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from camera_agent import identify, led
from fleetd.domain.identify import colour_code
from fleetd.protocol import messages
from tests.agent.core_kit import Bench, CoreHal
from tests.agent.micropython import ROOT

# What bootloader, firmware and power supply show by themselves (docs of the boards).
TAKEN = {
    ("green", "blink"),
    ("green", "blink-fast"),
    ("green", "solid"),
    ("blue", "double-blink"),
    ("red", "solid"),
    ("white", "solid"),
    ("white", "blink-fast"),
    ("white", "cycle"),
    ("cyan", "blink"),
}


def test_no_state_looks_like_the_boards_own_signals() -> None:
    assert not TAKEN & set(led.STATES.values())


def test_no_two_states_look_the_same() -> None:
    assert len(set(led.STATES.values())) == len(led.STATES)


def test_solid_blue_says_that_main_py_is_running() -> None:
    assert led.STATES["running"] == ("blue", "solid")
    assert led.choose(()) == "running"


def test_every_state_can_be_told_to_fleetd() -> None:
    for state, (color, pattern) in led.STATES.items():
        body = {"boot": "0" * 16, "seq": 1, "up_ms": 1, "color": color, "pattern": pattern, "reason": state}
        messages.LED.validate_python(body)
        assert color in led.COLORS
        assert pattern in (*led.PATTERNS, "solid", "off")


def test_every_state_but_the_last_resorts_has_its_place_in_the_order() -> None:
    assert set(led.ORDER) | {"running", "stopped"} == set(led.STATES)
    assert len(set(led.ORDER)) == len(led.ORDER)


@pytest.mark.parametrize(("more", "less"), list(combinations(led.ORDER, 2)))
def test_the_more_urgent_of_two_states_is_shown(more: str, less: str) -> None:
    assert led.choose([less, more]) == more


@pytest.mark.parametrize(
    ("pattern", "lit"),
    [
        ("solid", "##########"),
        ("off", ".........."),
        ("blink", "######......######"),
        ("double-blink", "#.#......#.#"),
        ("unknown", "##########"),
    ],
)
def test_a_pattern_is_lit_when_it_should_be(pattern: str, lit: str) -> None:
    step = {"blink": 100, "double-blink": 150}.get(pattern, 120)
    assert "".join("#" if led.is_lit(pattern, n * step) else "." for n in range(len(lit))) == lit


def test_every_pattern_repeats_for_ever() -> None:
    for pattern, steps in led.PATTERNS.items():
        assert len(steps) % 2 == 0
        for ms in range(0, sum(steps), 10):
            assert led.is_lit(pattern, ms) == led.is_lit(pattern, ms + 1000 * sum(steps))


class Shown:
    """An LED and what it reported."""

    def __init__(self) -> None:
        self.hal = CoreHal()
        self.reports: list[tuple[str, Any]] = []
        self.led = led.Led(self.hal, lambda channel, body: self.reports.append((channel, body)))

    def wait(self, ms: int) -> "Shown":
        for _ in range(ms // 50):
            self.hal.now += 50
            self.led.step()
        return self

    def reasons(self) -> list[str]:
        return [body["reason"] for _, body in self.reports]


def test_a_state_is_shown_at_once_and_reported_when_it_lasts() -> None:
    shown = Shown()
    shown.led.show("no-camera")
    assert shown.hal.leds == [("red", "double-blink")]
    shown.wait(led.SETTLED_MS - 100)
    assert shown.reports == []
    shown.wait(200)
    assert shown.reports == [("led", {"color": "red", "pattern": "double-blink", "reason": "no-camera"})]
    shown.wait(60_000)
    assert len(shown.reports) == 1


def test_a_flicker_is_shown_but_not_reported() -> None:
    shown = Shown()
    shown.led.show("running")
    shown.wait(2000)
    for _ in range(20):
        shown.led.show("no-broker")
        shown.wait(300)
        shown.led.show("running")
        shown.wait(300)
    shown.wait(5000)
    assert len(shown.hal.leds) == 41
    assert shown.reasons() == ["running"]


def test_showing_the_same_state_again_does_not_restart_its_pattern() -> None:
    shown = Shown()
    shown.led.show("no-broker")
    shown.led.show("no-broker")
    assert len(shown.hal.leds) == 1


def meanings(path: Path) -> dict[str, tuple[str, str, str]]:
    """state -> colour, pattern, meaning: the table with its comments."""
    rows = re.findall(
        r'^    "([a-z-]+)": \("([a-z]+)", "([a-z-]+)"\),  # (.+)$', path.read_text(), re.MULTILINE
    )
    return {state: (color, pattern, meaning) for state, color, pattern, meaning in rows}


def test_the_document_shows_exactly_this_table() -> None:
    coded = meanings(ROOT / "camera_agent" / "led.py")
    assert set(coded) == set(led.STATES), "each state needs its meaning as a comment"
    document = (ROOT / "docs" / "cameras.md").read_text()
    rows = re.findall(r"^\| `([a-z-]+)` \| (\w+) \| ([\w-]+) \| (.+?) \| .+ \|$", document, re.MULTILINE)
    documented = {state: (color, pattern, meaning) for state, color, pattern, meaning in rows}
    assert documented == coded


# --- which camera is which --------------------------------------------------------------------------------


@given(st.from_regex(r"[a-z0-9][a-z0-9-]{0,62}", fullmatch=True))
def test_a_camera_and_fleetd_agree_on_its_colours(camera: str) -> None:
    colors = identify.code(camera)
    assert tuple(colors) == colour_code(camera)
    assert len(colors) == 5
    assert all(one != other for one, other in pairwise(colors))
    assert {"white", "off"}.isdisjoint(colors)


def test_cameras_of_a_hall_have_different_colours() -> None:
    codes = {colour_code(f"cam-{n:02d}") for n in range(1, 51)}
    assert len(codes) >= 49


def test_the_sequence_begins_with_white_shows_each_colour_and_repeats() -> None:
    show: Any = identify.Show("cam-07")
    seen = [show.at(ms) for ms in range(0, 20_000, 10)]
    changes = [
        color for color, before in zip(seen, ["off", *seen], strict=False) if color not in (before, "off")
    ]
    assert changes[:7] == ["white", "white", *show.code]
    assert changes[7:14] == changes[:7]


def test_an_identifying_camera_shows_its_sequence_and_reports_one_state() -> None:
    bench = Bench().start().run(5)
    bench.hal.leds.clear()
    bench.down("cmd/identify", {"id": "c-1", "t": 1, "ttl": 60, "args": {"seconds": 10}})
    bench.run(9)
    shown = [color for color, pattern in bench.hal.leds if pattern == "solid"]
    assert shown[:7] == ["white", "white", *identify.code("cam-01")]
    assert [led["reason"] for led in bench.sent("led")][-1] == "identify"
    bench.run(5)
    assert bench.led() == ("magenta", "solid"), "afterwards it says again how it is"
