"""Model health: bad models are found, weather and chance are not taken for one."""

import math
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetd.domain.health import (
    MIN_CONTROLS,
    NEEDED,
    SIGNALS,
    Bucket,
    Finding,
    SignalName,
    Watch,
    judge,
    stability,
)

PAST, LATER = 40, 20
Harm = Callable[[Bucket, random.Random], Bucket]


def camera(
    name: str,
    chance: random.Random,
    *,
    harm: Harm | None = None,
    weather: Sequence[float] = (),
    later: int = LATER,
    control: bool = False,
) -> Watch:
    """A camera with habits of its own. `weather` is added to everybody's score, bucket by bucket."""
    habits = [chance.uniform(0.2, 1.0) for _ in "abcd"]
    level, speed = chance.uniform(0.75, 0.85), chance.uniform(40, 60)
    buckets = {}
    for number in range(PAST + later):
        weights = [habit * math.exp(chance.gauss(0, 0.15)) for habit in habits]
        results = max(0, round(chance.gauss(30, 3)))
        sky = weather[number] if weather else 0.0
        bucket = Bucket(
            results,
            Counter(chance.choices("abcd", weights, k=results)),
            score=level + chance.gauss(0, 0.02) + sky,
            margin=level - 0.1 + chance.gauss(0, 0.03) + sky,
            unknown=max(0.0, 0.05 + chance.gauss(0, 0.02) - sky),
            inference_ms=speed + chance.gauss(0, 2),
        )
        buckets[number] = harm(bucket, chance) if harm and number >= PAST else bucket
    return Watch(name, buckets) if control else Watch(name, buckets, PAST, PAST)


def fleet(harm: Harm | None, canaries: int, seed: int = 1, **more: object) -> list[Finding]:
    chance = random.Random(seed)
    tried = [camera(f"cam-{n}", chance, harm=harm, **more) for n in range(canaries)]  # type: ignore[arg-type]
    others = [camera(f"other-{n}", chance, control=True, **more) for n in range(6)]  # type: ignore[arg-type]
    return judge(tried, others)


def moved(findings: Sequence[Finding]) -> set[SignalName]:
    return {one.signal for one in findings if one.moved}


def one_class(bucket: Bucket, _chance: random.Random) -> Bucket:
    return bucket._replace(labels=Counter({"a": bucket.results}), frozen=True)


HARMS: dict[SignalName, Harm] = {
    SignalName.CLASS_MIX: lambda bucket, chance: bucket._replace(
        labels=Counter(chance.choices("abcd", (9, 1, 1, 1), k=bucket.results))
    ),
    SignalName.CONFIDENCE: lambda bucket, _: bucket._replace(score=(bucket.score or 0) - 0.15),
    SignalName.MARGIN: lambda bucket, _: bucket._replace(margin=(bucket.margin or 0) - 0.25),
    SignalName.UNKNOWN: lambda bucket, _: bucket._replace(unknown=(bucket.unknown or 0) + 0.3),
    SignalName.INFERENCE_TIME: lambda bucket, _: bucket._replace(inference_ms=(bucket.inference_ms or 0) * 2),
    SignalName.RESULT_RATE: lambda bucket, _: bucket._replace(results=bucket.results // 3),
    SignalName.FROZEN: one_class,
}


def test_every_signal_has_a_harm_to_be_tried_with() -> None:
    assert set(HARMS) == set(SIGNALS) == set(SignalName)


@pytest.mark.parametrize("signal", SignalName)
@pytest.mark.parametrize("canaries", [1, 6])
def test_each_signal_is_found_within_twenty_buckets(signal: SignalName, canaries: int) -> None:
    found = fleet(HARMS[signal], canaries)
    assert signal in moved(found)
    worst = next(one for one in found if one.signal is signal)
    assert worst.size >= worst.limit
    assert worst.evidence >= NEEDED
    assert worst.cameras
    assert ":" in str(worst)


@pytest.mark.parametrize("canaries", [1, 5])
def test_a_good_release_raises_no_alarm_whenever_one_looks(canaries: int) -> None:
    for seed in range(8):
        for later in (9, 20):
            assert not moved(fleet(None, canaries, seed, later=later)), (seed, later)


def test_weather_befalls_everybody_and_is_nobodys_fault() -> None:
    dusk = [0.0] * PAST + [-0.3] * LATER
    assert not moved(fleet(None, 5, weather=dusk))
    lone = judge([camera("cam-1", random.Random(3), weather=dusk)], [])
    assert SignalName.CONFIDENCE in moved(lone), "without controls nobody can know"


def test_what_moves_surely_but_not_far_halts_nothing() -> None:
    def slightly(bucket: Bucket, _: random.Random) -> Bucket:
        return bucket._replace(inference_ms=(bucket.inference_ms or 0) * 1.2)

    found = {one.signal: one for one in fleet(slightly, 6)}
    assert found[SignalName.INFERENCE_TIME].evidence >= NEEDED
    assert not found[SignalName.INFERENCE_TIME].moved


def test_one_camera_of_many_that_was_knocked_over_is_not_the_releases_fault() -> None:
    chance = random.Random(5)
    tried = [camera(f"cam-{n}", chance, harm=one_class if n == 0 else None) for n in range(8)]
    others = [camera(f"other-{n}", chance, control=True) for n in range(6)]
    assert not moved(judge(tried, others))


def test_two_of_many_that_go_wrong_are_found_and_named() -> None:
    chance = random.Random(6)
    tried = [camera(f"cam-{n}", chance, harm=one_class if n < 2 else None, later=40) for n in range(12)]
    others = [camera(f"other-{n}", chance, control=True, later=40) for n in range(6)]
    found = judge(tried, others)
    assert moved(found)
    assert {name for one in found if one.moved for name in one.cameras} == {"cam-0", "cam-1"}


def test_a_signal_that_is_ignored_is_not_even_reckoned() -> None:
    chance = random.Random(1)
    found = judge([camera("cam-0", chance, harm=HARMS[SignalName.CONFIDENCE])], [], ["confidence"])
    assert SignalName.CONFIDENCE not in {one.signal for one in found}


def test_the_update_itself_and_a_camera_without_a_past_count_for_nothing() -> None:
    chance = random.Random(2)
    watch = camera("cam-0", chance, harm=HARMS[SignalName.INFERENCE_TIME])
    during = replace(watch, changed=PAST + LATER, left=PAST)
    assert not judge([during], [])
    newborn = replace(watch, changed=0, left=0)
    assert not judge([newborn], [])
    assert judge([], []) == []


def test_too_few_controls_take_nothing_off() -> None:
    chance = random.Random(4)
    dusk = [0.0] * PAST + [-0.3] * LATER
    tried = [camera("cam-0", chance, weather=dusk)]
    few = [camera(f"other-{n}", chance, weather=dusk, control=True) for n in range(MIN_CONTROLS - 1)]
    assert SignalName.CONFIDENCE in moved(judge(tried, few))


COUNTS = st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 500), max_size=6)


@given(COUNTS, COUNTS)
def test_the_index_of_two_mixes_is_a_distance(one: dict[str, int], other: dict[str, int]) -> None:
    assert stability(one, other) == pytest.approx(stability(other, one))
    assert stability(one, other) >= -1e-9
    assert stability(one, one) == 0.0


def test_a_class_that_vanishes_is_another_mix() -> None:
    assert stability({"a": 50, "b": 50}, {"a": 50, "b": 50}) < 0.01
    assert stability({"a": 100}, {"a": 50, "b": 50}) > 0.25


def test_a_large_move_after_a_short_past_is_doubt_and_a_small_one_is_not() -> None:
    chance = random.Random(9)
    whole = camera("cam-0", chance, harm=one_class)
    short = replace(whole, buckets={n: whole.buckets[n] for n in range(PAST - 8, PAST + 15)})
    found = {one.signal: one for one in judge([short], [])}
    assert not found[SignalName.CLASS_MIX].moved
    assert found[SignalName.CLASS_MIX].is_doubtful
    assert not any(one.is_doubtful for seed in range(10) for one in fleet(None, 1, seed))
