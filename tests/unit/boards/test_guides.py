"""Guides: every board has one for every cause, each comes to an end, none can hurt a board or a person."""

from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import pytest

from fleetd.boards import GENERIC, BoardProfile, named, profiles
from fleetd.boards.guides import FAMILIES, Guide, Step, UnknownGuideError, guide_for
from fleetd.boards.guides.drawing import svg, terminal
from fleetd.domain.diagnosis_causes import CAUSES

GOLDEN = Path(__file__).parent / "golden"
BOARDS = (*profiles(), GENERIC)
ALL = [(board, family) for board in BOARDS for family in FAMILIES]


def following(step: Step) -> list[str]:
    return [target for target in (step.then, step.if_not, *(one[2] for one in step.choices)) if target]


def every(guide: Guide, *, bridge: str) -> Iterator[tuple[Step, str, str]]:
    """Each step with every state of power and bridge in which somebody can come to it."""
    seen: set[tuple[str, str, str]] = set()
    todo = [(guide.first.id, "on", bridge)]
    while todo:
        state = todo.pop()
        if state in seen:
            continue
        seen.add(state)
        step = guide.step(state[0])
        assert step is not None
        yield step, state[1], state[2]
        power, bridged = step.power or state[1], step.bridge or state[2]
        todo += [(target, power, bridged) for target in following(step)]


def test_every_cause_has_a_guide_on_every_board() -> None:
    for cause in CAUSES.values():
        for board in BOARDS:
            guide = guide_for(board, cause.guide)
            assert guide.first.say or guide.first.kind in ("usb", "back", "ask")


def test_a_guide_that_does_not_exist_is_an_error_that_names_those_that_do() -> None:
    with pytest.raises(UnknownGuideError, match="ladder"):
        guide_for(GENERIC, "magic")


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.key)
def test_a_guide_can_always_come_to_both_of_its_ends(board: BoardProfile) -> None:
    for family in FAMILIES:
        _has_both_ends(guide_for(board, family))


def _has_both_ends(guide: Guide) -> None:
    ends = {step.kind for step in guide.steps if step.kind in ("done", "stop")}
    assert ends == {"done", "stop"}
    for start in guide.steps:  # from wherever somebody is
        reached, todo = set(), [start.id]
        while todo:
            step_id = todo.pop()
            if step_id not in reached:
                reached.add(step_id)
                step = guide.step(step_id)
                assert step is not None
                todo += following(step)
        kinds = {guide.step(one).kind for one in reached}  # type: ignore[union-attr]
        assert kinds & {"done", "stop"}


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.key)
@pytest.mark.parametrize("bridge", ["in", "out"])
def test_nobody_ever_changes_a_bridge_under_power(board: BoardProfile, bridge: str) -> None:
    ways = [every(guide_for(board, family), bridge=bridge) for family in FAMILIES]
    for step, power, bridged in chain.from_iterable(ways):
        if step.bridge is not None:
            assert power == "off", step.id
        if step.kind == "run" or (step.kind == "usb" and step.power is None):
            assert power == "on", step.id
        if step.kind in ("done", "stop") and bridge == "out":
            assert bridged == "out", f"{step.id}: the wire is still in"


def test_no_guide_burns_a_fuse_or_erases_a_whole_chip() -> None:
    for board, family in ALL:
        for step in guide_for(board, family).steps:
            for command in step.commands:
                line = command.line().lower()
                assert "efuse" not in line
                assert "erase-all" not in line
                assert "mass-erase" not in line
            assert "efuse" not in " ".join((*step.say, *step.ide)).lower()


def test_what_loses_something_says_so_before() -> None:
    for board, family in ALL:
        for step in guide_for(board, family).steps:
            if step.kind == "run" and "bootloader" not in step.title.lower():
                assert "erased" in step.risk, (board.key, family, step.id)


def test_the_rt1062_is_recovered_by_sbl_to_3v3_unplugged_before_and_after() -> None:
    guide = guide_for(named("rt1062"), "jumper")
    by_hand = [
        step.id for step in guide.steps if step.bridge or step.power == "off" or step.id.startswith("bridge")
    ]
    way = ["bridge-unplug", "bridge-in", "bridge-plug", "bridge-run", "bridge-off", "bridge-out", "plug-usb"]
    step_id = way[0]
    for expected in way:
        assert step_id == expected
        step_id = guide.step(step_id).then  # type: ignore[union-attr]
    assert set(way[:6]) <= set(by_hand)
    bridge = guide.step("bridge-in")
    assert bridge is not None
    assert "SBL to 3.3V" in bridge.title
    plug = guide.step("bridge-plug")
    assert plug is not None
    assert plug.usb == ("rom",)
    assert "1FC9:0135" in plug.expect


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("h7", "BOOT0 to 3.3V"),
        ("h7-plus", "BOOT0 to 3.3V"),
        ("pure-thermal", "BOOT0 to 3.3V"),
        ("m7", "BOOT0 to 3.3V"),
    ],
)
def test_stm32_boards_are_recovered_by_boot0(key: str, words: str) -> None:
    titles = [step.title for step in guide_for(named(key), "jumper").steps]
    assert any(words in title for title in titles)


def test_boards_whose_bootloader_openmv_cannot_bring_back_say_so() -> None:
    for key in ("nicla-vision", "portenta-h7", "giga-r1"):
        (stop,) = [step for step in guide_for(named(key), "ladder").steps if step.kind == "stop"]
        assert "cannot be brought back with OpenMV's tools" in " ".join(stop.say)


def test_an_unknown_board_is_led_through_openmv_ide_without_any_command() -> None:
    for family in FAMILIES:
        guide = guide_for(GENERIC, family)
        assert not any(step.commands for step in guide.steps)
    assert any("Tools > Run Bootloader" in line for s in guide_for(GENERIC, "ladder").steps for line in s.say)


@pytest.mark.parametrize("board", profiles(), ids=lambda board: board.key)
def test_the_command_lines_are_the_documented_ones(board: BoardProfile) -> None:
    """The golden files were written from the vendor's instructions, by hand."""
    lines = []
    for family in ("erase", "reflash", "jumper"):
        for step in guide_for(board, family).steps:
            if step.commands and step.id in (f"{family}-run", "bridge-run"):
                lines += [f"# {family}", *(command.line() for command in step.commands)]
                break
    path = GOLDEN / f"{board.key}.txt"
    wanted = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    assert lines == wanted


def test_drawings_name_the_pins_and_fit_a_terminal() -> None:
    for board in profiles():
        picture, text = svg(board), terminal(board)
        if board.recovery.bridge is None and board.recovery.switch is None:
            assert picture is None
            assert text == ()
            continue
        words = board.recovery.bridge or (board.recovery.switch,)
        assert picture is not None
        for word in words:
            assert word is not None
            assert word in picture
            assert any(word in line for line in text)
        assert max(map(len, text)) < 80
        assert "unplugged" in picture
