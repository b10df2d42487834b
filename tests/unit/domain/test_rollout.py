"""Waves: who belongs to which, and whether the next one may begin."""

import math
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetd.domain.assignment import HARM, OPEN
from fleetd.domain.health import Finding, SignalName
from fleetd.domain.records import AssignmentState, Camera, Release, RolloutSettings
from fleetd.domain.rollout import (
    Evidence,
    Move,
    StateCount,
    Tally,
    check_settings,
    check_waves,
    count,
    next_step,
    reason_to_skip,
    split,
)
from fleetd.errors import InvalidError

NAMES = st.sets(st.from_regex(r"[a-z0-9][a-z0-9-]{0,10}", fullmatch=True), max_size=60)
SHARES = st.sets(st.integers(1, 99), max_size=6).map(lambda some: (*sorted(some), 100))
NUMBERS = st.integers(0, 40)
TALLIES = st.builds(
    lambda *parts: Tally(sum(parts), *parts), NUMBERS, NUMBERS, NUMBERS, NUMBERS, NUMBERS, NUMBERS
)
BOLDNESS = {Move.HALT: 0, Move.HOLD: 1, Move.WIDEN: 2, Move.FINISH: 2}
LIMITS = st.builds(RolloutSettings, max_failed=NUMBERS, min_sample=st.integers(1, 50), accepted=NUMBERS)


def tally(**parts: int) -> Tally:
    return Tally(targeted=sum(parts.values()), **parts)


def move(offered: Tally, wave: Tally | None = None, *, last: bool = False, **limits: Any) -> Move:
    return next_step(offered, wave or offered, RolloutSettings(**limits), last_wave=last).move


@given(NAMES, SHARES, st.text(max_size=5))
def test_every_camera_has_one_wave_and_it_does_not_depend_on_the_order(
    names: set[str], waves: Sequence[int], salt: str
) -> None:
    found = split(sorted(names), waves, salt)
    assert found.keys() == names
    assert found == split(sorted(names, reverse=True), waves, salt)
    assert all(0 <= wave < len(waves) for wave in found.values())


@given(NAMES, st.integers(1, 99), st.integers(1, 99))
def test_raising_a_percentage_only_adds_cameras(names: set[str], one: int, other: int) -> None:
    low, high = sorted((one, other))
    first = {name for name, wave in split(names, (low, 100), "model-1").items() if wave == 0}
    more = {name for name, wave in split(names, (high, 100), "model-1").items() if wave == 0}
    assert first <= more
    assert len(first) == math.ceil(len(names) * low / 100)


def test_the_first_wave_of_one_percent_of_three_cameras_is_one_camera() -> None:
    assert sorted(split(["a", "b", "c"], (1, 100), "model-1").values()) == [0, 1, 1]


def test_it_is_not_always_the_same_camera_that_goes_first() -> None:
    names = [f"cam-{n}" for n in range(20)]
    firsts = {
        min(split(names, (1, 100), f"model-{n}").items(), key=lambda item: item[1])[0] for n in range(30)
    }
    assert len(firsts) > 8


@pytest.mark.parametrize(
    "waves", [(), (50,), (0, 100), (50, 50, 100), (100, 50), (5, 101), (-1, 100), range(1, 101)]
)
def test_waves_must_grow_and_end_at_a_hundred(waves: Sequence[int]) -> None:
    with pytest.raises(InvalidError, match="grow and end at 100"):
        check_waves(waves)


def test_good_waves_pass() -> None:
    assert check_waves([100]) == (100,)
    assert check_waves([1, 5, 25, 100]) == (1, 5, 25, 100)


@pytest.mark.parametrize(
    "limits",
    [
        {"max_failed": -1},
        {"min_sample": 0},
        {"silence_s": 0.0},
        {"silence_s": math.nan},
        {"silence_s": math.inf},
        {"accepted": -1},
    ],
)
def test_limits_that_make_no_sense_are_refused(limits: dict[str, Any]) -> None:
    with pytest.raises(InvalidError, match=next(iter(limits))):
        check_settings(RolloutSettings(**limits))


def test_a_wave_waits_for_its_cameras() -> None:
    assert move(tally(confirmed=3, busy=1)) is Move.HOLD


def test_on_trial_or_offered_is_not_yet_success() -> None:
    """(q)"""
    counts = [
        StateCount(0, AssignmentState.TRIAL, False, 1),
        StateCount(0, AssignmentState.OFFERED, False, 1),
    ]
    assert count(counts).confirmed == 0
    assert move(count(counts)) is Move.HOLD


def test_the_next_wave_follows_a_confirmed_one_and_the_last_one_finishes() -> None:
    assert move(tally(confirmed=2)) is Move.WIDEN
    assert move(tally(confirmed=2), last=True) is Move.FINISH


def test_one_failure_is_tolerated_and_two_halt_by_default() -> None:
    assert move(tally(confirmed=5, harmed=1)) is Move.WIDEN
    assert move(tally(confirmed=5, harmed=2)) is Move.HALT
    assert move(tally(confirmed=5, harmed=2, busy=9)) is Move.HALT


def test_too_much_harm_waits_for_the_sample_but_never_past_the_wave() -> None:
    assert move(tally(harmed=2, busy=4), min_sample=5) is Move.HOLD
    assert move(tally(harmed=2, confirmed=3, busy=4), min_sample=5) is Move.HALT
    assert move(tally(harmed=2, confirmed=1), min_sample=5) is Move.HALT


def test_a_lone_canary_that_fails_stops_the_rollout_though_one_failure_is_tolerated() -> None:
    assert move(tally(harmed=1)) is Move.HALT


def test_a_wave_that_refuses_is_no_harm_and_no_evidence() -> None:
    assert move(tally(rejected=5)) is Move.HALT
    assert move(tally(rejected=5, confirmed=1)) is Move.WIDEN
    assert move(tally(rejected=5), last=True) is Move.FINISH


def test_earlier_success_is_no_evidence_for_a_wave_without_any() -> None:
    assert move(tally(confirmed=4, harmed=1), tally(harmed=1)) is Move.HALT


def test_cameras_that_are_not_there_hold_up_the_end_but_not_the_next_wave() -> None:
    assert move(tally(confirmed=1, waiting=3)) is Move.WIDEN
    assert move(tally(waiting=3)) is Move.HOLD
    assert move(tally(confirmed=9, waiting=1), last=True) is Move.HOLD
    assert move(tally(confirmed=9, waiting=1), tally(confirmed=3), last=True) is Move.HOLD


def test_a_wave_without_cameras_is_passed_over() -> None:
    assert move(tally(confirmed=1), Tally()) is Move.WIDEN
    assert move(Tally(), last=True) is Move.FINISH


def test_accepted_harm_halts_nothing_and_new_harm_does() -> None:
    assert move(tally(confirmed=1, harmed=3), accepted=3) is Move.WIDEN
    assert move(tally(confirmed=1, harmed=4), accepted=3) is Move.WIDEN
    assert move(tally(confirmed=1, harmed=5), accepted=3) is Move.HALT


@pytest.mark.parametrize(
    ("offered", "wave"),
    [
        (Tally(targeted=1, confirmed=2), Tally(targeted=1, confirmed=1)),
        (Tally(targeted=1, confirmed=2, busy=-1), Tally()),
        (Tally(targeted=1, confirmed=1), Tally(targeted=2, confirmed=2)),
        (Tally(targeted=1, confirmed=1), Tally(targeted=-1, confirmed=-1)),
    ],
)
def test_counts_that_cannot_be_halt(offered: Tally, wave: Tally) -> None:
    step = next_step(offered, wave, RolloutSettings(), last_wave=True)
    assert step.move is Move.HALT
    assert "do not add up" in step.reason


@given(TALLIES, TALLIES, LIMITS, st.booleans())
def test_it_never_goes_on_while_more_is_harmed_than_tolerated(
    offered: Tally, wave: Tally, settings: RolloutSettings, last_wave: bool
) -> None:
    step = next_step(offered, wave, settings, last_wave=last_wave)
    assert step.reason
    if offered.harmed - settings.accepted > settings.max_failed:
        assert step.move in (Move.HALT, Move.HOLD)
        if step.move is Move.HOLD:
            assert wave.busy > 0
    if step.move is Move.WIDEN:
        assert not last_wave
        assert wave.confirmed > 0 or wave.targeted == 0
        assert wave.busy == 0
    if step.move is Move.FINISH:
        assert last_wave
        assert offered.waiting == offered.busy == 0


@given(TALLIES, LIMITS, st.booleans(), NUMBERS)
def test_more_harm_never_makes_it_bolder(
    offered: Tally, settings: RolloutSettings, last_wave: bool, more: int
) -> None:
    worse = Tally(
        offered.targeted + more,
        offered.confirmed,
        offered.harmed + more,
        offered.rejected,
        offered.gone,
        offered.waiting,
        offered.busy,
    )
    before = next_step(offered, offered, settings, last_wave=last_wave).move
    after = next_step(worse, worse, settings, last_wave=last_wave).move
    assert BOLDNESS[after] <= BOLDNESS[before]


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from(AssignmentState), st.booleans(), NUMBERS)))
def test_counting_loses_nobody(rows: list[tuple[int, AssignmentState, bool, int]]) -> None:
    counts = [StateCount(*row) for row in rows]
    found = count(counts)
    assert found.is_possible
    assert found.targeted == sum(one.cameras for one in counts)
    assert found.harmed == sum(one.cameras for one in counts if one.state in HARM)
    assert found.busy + found.waiting == sum(one.cameras for one in counts if one.state in OPEN)


RELEASE = Release(
    id="model-5",
    kind="model",
    name="bees",
    version="5",
    epoch=1,
    sequence=5,
    key_id="00" * 8,
    digest="d" * 64,
    content_sha256="c" * 64,
    content_size=1000,
    labels=("bee", "wasp"),
    uploaded_at=0.0,
    uploaded_by="me",
)


def skipped(
    *, reverted: bool = False, on_its_way: bool = False, boards: Sequence[str] = ("OMVRT1060",), **facts: Any
) -> str | None:
    camera = Camera(**{"id": 1, "name": "cam-1", "created_at": 0.0, **facts})
    why = reason_to_skip(camera, RELEASE, boards, reverted_before=reverted, on_its_way=on_its_way)
    return None if why is None else why[0]


def test_a_camera_that_already_runs_it_needs_nothing() -> None:
    running: dict[str, Any] = {"release_id": "model-5", "release_digest": "c" * 64, "release_sequence": 5}
    assert skipped(**running) == "already-runs-it"
    assert skipped(**running, on_its_way=True) is None
    assert skipped(**{**running, "release_digest": "e" * 64}) is None
    assert skipped(**{**running, "release_id": "model-4", "release_sequence": 4}) is None


def test_an_unsuitable_board_is_not_offered_and_an_unknown_one_is() -> None:
    assert skipped(board="OMVH7 512") == "unsuitable-board"
    assert skipped(board="OMVRT1060 32768 SDRAM") is None
    assert skipped(board="OMVH7 512", boards=("*",)) is None
    assert skipped(board=None) is None


def test_a_camera_that_reverted_is_not_offered_the_same_release_again() -> None:
    """(p)"""
    assert skipped(reverted=True) == "reverted-before"


def test_a_camera_that_runs_something_newer_is_left_alone() -> None:
    assert skipped(release_id="model-6", release_sequence=6, release_epoch=1) == "runs-newer"
    assert skipped(release_id="model-2.1", release_sequence=1, release_epoch=2) == "runs-newer"
    assert skipped(release_id="model-4", release_sequence=4) is None


def test_doubt_about_the_model_holds_up_the_next_wave_but_not_the_end() -> None:
    doubt = Finding(SignalName.CLASS_MIX, 0.0, 3.0, 3.0, 0.25, 14.0, False, ("cam-1",))
    evidence = Evidence(findings=(doubt,))
    done = tally(confirmed=3)
    step = next_step(done, done, RolloutSettings(), last_wave=False, evidence=evidence)
    assert (step.move, step.signal) == (Move.HALT, "class-mix")
    assert "Too little is known to be sure" in step.reason
    assert next_step(done, done, RolloutSettings(), last_wave=True, evidence=evidence).move is Move.FINISH
    busy = tally(confirmed=3, busy=1)
    assert next_step(busy, busy, RolloutSettings(), last_wave=False, evidence=evidence).move is Move.HOLD
