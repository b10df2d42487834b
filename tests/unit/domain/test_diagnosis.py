"""The diagnosis: every combination has an answer, and the facts that matter are in it."""

from itertools import product
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetd.boards import GENERIC, BoardProfile, named, profiles
from fleetd.boards.guides import guide_for
from fleetd.boards.lights import read
from fleetd.boards.usb import USB_STATES
from fleetd.domain.diagnosis import ENOUGH, ROWS, Clues, Finding, diagnose
from fleetd.domain.diagnosis_causes import CAUSES
from fleetd.domain.presence import Presence
from fleetd.protocol.messages import LedColor, LedPattern

BOARDS = (*profiles(), GENERIC)
# Everything a last status and the clock can amount to.
LAST: list[dict[str, Any]] = [
    {"presence": Presence.NEW},
    {"presence": Presence.ONLINE},
    {"presence": Presence.LATE},
    {"presence": Presence.OFFLINE},
    {"presence": Presence.OFFLINE, "update": "lost", "update_of": "model-7"},
    {"presence": Presence.OFFLINE, "update": "trial", "update_of": "model-7"},
    {"presence": Presence.ONLINE, "boots": 6, "reset_cause": "watchdog", "watchdog_boots": 4},
    {"presence": Presence.OFFLINE, "problems": ("storage-error", "no-camera")},
    {"presence": Presence.OFFLINE, "last_state": "no-network", "outages": 9},
    {"presence": Presence.ONLINE, "frozen_s": 900.0, "is_twin": True, "brown_outs": 1},
]


def clues(board: BoardProfile, color: str = "unknown", pattern: str = "unknown", **more: Any) -> Clues:
    return Clues(
        board=board.key,
        has_power_led=board.has_power_led,
        freezes_on_fault=board.freezes_on_fault,
        has_watchdog=board.has_watchdog,
        is_nxp=board.recovery.tool == "nxp",
        lights=tuple(one.word for one in read(board, color, pattern)),
        light_seen=f"{color} {pattern}",
        **more,
    )


def causes(found: tuple[Finding, ...]) -> list[str]:
    return [one.cause.key for one in found]


def top(board: str, color: str = "unknown", pattern: str = "unknown", **more: Any) -> str:
    more = {"presence": Presence.OFFLINE, **more}
    return diagnose(clues(named(board), color, pattern, **more))[0].cause.key


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.key)
def test_every_light_usb_state_and_last_status_has_an_answer_with_a_guide(board: BoardProfile) -> None:
    """Board x 63 sightings x 6 USB states x 10 last statuses: 41,580 combinations in all."""
    seen: dict[Any, tuple[Finding, ...]] = {}  # many sightings come to the same
    for color, pattern, usb, last in product(get_args(LedColor), get_args(LedPattern), USB_STATES, LAST):
        given_clues = clues(board, color, pattern, usb=usb, **last)
        key = (given_clues.lights, usb, tuple(last.items()))
        found = seen.get(key) or diagnose(given_clues)
        if key in seen:
            continue
        seen[key] = found
        assert found
        best = found[0]
        assert best.cause.todo
        assert guide_for(board, best.cause.guide).first
        assert [one.weight for one in found] == sorted((one.weight for one in found), reverse=True) or (
            best.cause.key == "unknown"
        )
        for one in found:
            assert one.evidence
            assert not any("{" in text for text in one.evidence)
        if best.weight < ENOUGH:
            assert best.cause.key == "unknown"


def test_every_row_can_speak_and_every_cause_can_come_first() -> None:
    named_causes = {row.cause for row in ROWS} | {"unknown"}
    assert named_causes == set(CAUSES)
    firsts = set()
    for board in (named("rt1062"), named("h7"), GENERIC):
        for color, pattern, usb, last in product(get_args(LedColor), ("solid", "blink", "double-blink",
                                                 "blink-fast", "off"), USB_STATES, LAST):  # fmt: skip
            firsts.add(diagnose(clues(board, color, pattern, usb=usb, **last))[0].cause.key)
    only_alone = [
        {"brown_outs": 2}, {"frozen_s": 900.0}, {"outages": 9}, {"boots": 5}, {"problems": ("storage-error",)},
        {"watchdog_boots": 3}, {"update": "lost"}, {"problems": ("no-model",)}, {"is_twin": True},
    ]  # fmt: skip
    for facts, presence in product(only_alone, Presence):
        firsts.add(diagnose(Clues(presence=presence, **facts))[0].cause.key)  # type: ignore[arg-type]
    assert set(CAUSES) - firsts == set()


def test_green_is_the_bootloader_blue_a_running_main_white_a_panic() -> None:
    for board in profiles():
        assert top(board.key, "green", "blink-fast") == "stuck-in-bootloader"
        assert top(board.key, "white", "blink-fast") == "firmware-panic"
        assert top(board.key, "blue", "solid") == "agent-hangs"  # it runs, and nothing is heard
        assert "firmware-panic" not in causes(diagnose(clues(board, "blue", "solid")))


def test_a_steady_green_on_a_board_with_a_power_led_is_no_bootloader() -> None:
    for key in ("rt1062", "n6"):
        assert "stuck-in-bootloader" not in causes(diagnose(clues(named(key), "green", "solid")))
    assert top("h7", "green", "solid") == "stuck-in-bootloader"


def test_blue_double_blinking_is_a_formatted_storage_and_needs_no_flashing() -> None:
    for board in profiles():
        assert top(board.key, "blue", "double-blink") == "storage-reset"
        assert top(board.key, "blue", "double-blink", usb="running") == "storage-reset"
    guide = guide_for(named("rt1062"), CAUSES["storage-reset"].guide)
    assert guide.first.then == "provision"


def test_a_dark_or_frozen_rt1062_has_hit_a_fault_other_boards_have_no_power() -> None:
    assert top("rt1062", "off", "off") == "firmware-fault"
    assert top("rt1062", "off", "off", usb="absent") == "firmware-fault"
    assert top("rt1062", "blue", "solid", usb="absent") == "firmware-fault"
    assert top("h7", "off", "off") == "no-power"
    assert top("h7", "off", "off", usb="absent") == "no-power"


def test_usb_beats_what_people_see() -> None:
    assert top("rt1062", "blue", "solid", usb="rom") == "bootloader-lost"
    assert top("rt1062", "white", "blink", usb="interrupted") == "flash-interrupted"
    assert top("h7", "white", "blink", usb="bootloader") == "stuck-in-bootloader"


def test_a_camera_that_went_silent_over_an_update_says_so_until_something_better_is_known() -> None:
    assert top("rt1062", update="lost", update_of="model-7") == "lost-over-update"
    found = diagnose(clues(named("rt1062"), update="lost", update_of="model-7"))
    assert "it went silent over the update to model-7" in found[0].evidence
    assert top("rt1062", "white", "cycle", update="lost") == "firmware-panic"


def test_mere_silence_is_unknown_with_guesses_behind() -> None:
    found = diagnose(clues(named("rt1062"), presence=Presence.OFFLINE, silent_s=900.0))
    assert causes(found)[0] == "unknown"
    assert {"no-power", "no-network"} <= set(causes(found))


def test_a_camera_that_reports_is_healthy_unless_something_speaks_against_it() -> None:
    online = {"presence": Presence.ONLINE}
    assert top("rt1062", **online) == "healthy"
    assert top("rt1062", "blue", "solid", **online) == "healthy"
    assert top("rt1062", boots=5, **online) == "boot-loop"
    assert top("rt1062", is_twin=True, **online) == "two-cameras-one-name"


@settings(max_examples=60, deadline=None)
@given(
    st.builds(
        Clues,
        presence=st.sampled_from(Presence),
        usb=st.sampled_from([*USB_STATES, "nonsense"]),
        lights=st.lists(st.text(max_size=12), max_size=3).map(tuple),
        light_seen=st.text(max_size=20),
        last_state=st.none() | st.text(max_size=12),
        boots=st.integers(-5, 50),
        update=st.none() | st.text(max_size=10),
        update_of=st.text(max_size=10),
        problems=st.lists(st.text(max_size=10), max_size=4).map(tuple),
    )
)
def test_no_clues_whatever_raise_anything(facts: Clues) -> None:
    found = diagnose(facts)
    assert found
    assert all(one.evidence for one in found)
