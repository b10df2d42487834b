"""How many cameras a bad release harms before a rollout halts, and how often a good one is halted for nothing.

Fleets of 200 cameras take a release in waves of 1 camera, 5, 25, 50 and 100 %. The release is bad for a part of them:

- loud: they go back by themselves and say so;
- silent: they take the update up and are never heard of again;
- slow: they confirm, and fall silent some minutes later;
- wrong: they confirm and run, but one class takes over and the scores drop a little.

Beside fleetd's own decisions (`fleetd.domain`, the code that runs in the service) two rules see the same traces:

- AWS IoT Jobs: abort once 10 devices have executed and 10 % of them failed or timed out (its timers are set);
- fallback ratio: pause when more than 5 % of those that were offered the release have reported going back, as
  openmv-ota does.

Both are asked after every outcome and get the same waves, so they differ from fleetd by what they look at only. In
every fleet, also with a good release, 0.5 % of the cameras go back and 0.2 % fall silent for reasons of their own, and
weather moves all scores. Seeds are fixed: every run prints the same numbers.
"""

import argparse
import json
import math
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Final

from fleetd.domain.halting import Dark
from fleetd.domain.health import Bucket, Watch, judge
from fleetd.domain.records import RolloutSettings
from fleetd.domain.rollout import Evidence, Move, Tally, next_step, split

CAMERAS: Final = 200
WAVES: Final = (5, 25, 50, 100)
CANARIES: Final = 1
SHARES: Final = (0.01, 0.02, 0.05, 0.10, 0.20)
KINDS: Final = ("loud", "silent", "slow", "wrong")
REVERTS, SILENT = 0.005, 0.002  # of any release, for reasons of its own
PAST, SOAK = 40, 30  # buckets before the rollout and of each wave's watch
WATCHED, CONTROLS = 36, 24  # canaries and controls that fleetd reads
RESULTS: Final = 25  # in a bucket
SETTINGS: Final = RolloutSettings(canaries=CANARIES, soak_s=600.0)

Outcome = str  # "confirmed", "reverted", "lost"


@dataclass(frozen=True)
class Camera:
    """One camera of a trace: what becomes of it when it is offered the release."""

    name: str
    wave: int
    bad: bool  # the release harms it
    outcome: Outcome
    dies_after: int | None  # buckets from the confirmation to silence


@dataclass(frozen=True)
class Fleet:
    """A trace: everything that every rule would see."""

    kind: str
    cameras: tuple[Camera, ...]
    seed: int

    def in_wave(self, wave: int) -> list[Camera]:
        return [camera for camera in self.cameras if camera.wave == wave]

    @property
    def waves(self) -> range:
        return range(1 + max(camera.wave for camera in self.cameras))


def make_fleet(kind: str, share: float, seed: int) -> Fleet:
    """A fleet for which the release is bad in that way for that share of the cameras."""
    chance = random.Random(f"{kind}{share}{seed}")
    names = [f"cam-{number}" for number in range(CAMERAS)]
    waves = split(names, WAVES, f"release-{seed}", CANARIES)
    cameras = []
    for name in names:
        bad = chance.random() < share
        luck = chance.random()
        outcome = "reverted" if luck < REVERTS else "lost" if luck < REVERTS + SILENT else "confirmed"
        if bad and kind in ("loud", "silent"):
            outcome = "reverted" if kind == "loud" else "lost"
        dies = chance.randint(2, 12) if bad and kind == "slow" else None
        cameras.append(Camera(name, waves[name], bad, outcome, dies))
    return Fleet(kind, tuple(cameras), seed)


@dataclass(frozen=True)
class Verdict:
    """What a rule made of a trace."""

    halted: bool
    harmed: int  # cameras that the release had harmed when the rule had come to an end
    wave: int


def harmed(fleet: Fleet, up_to: int) -> int:
    return sum(camera.bad for camera in fleet.cameras if camera.wave <= up_to)


def by_outcomes(fleet: Fleet, stops: Callable[[Counter[str], int], bool]) -> Verdict:
    """A rule that is asked after every outcome, with counts of outcomes and of offers."""
    seen: Counter[str] = Counter()
    offered = 0
    for wave in fleet.waves:
        members = fleet.in_wave(wave)
        offered += len(members)
        for camera in members:
            seen[camera.outcome] += 1
            if stops(seen, offered):
                return Verdict(True, harmed(fleet, wave), wave)
    return Verdict(False, harmed(fleet, CAMERAS), fleet.waves[-1])


def aws(fleet: Fleet) -> Verdict:
    """Abort at 10 % failed or timed out, once 10 have executed."""

    def stops(seen: Counter[str], _offered: int) -> bool:
        bad, executed = seen["reverted"] + seen["lost"], seen.total()
        return executed >= 10 and bad >= 0.10 * executed

    return by_outcomes(fleet, stops)


def fallback_ratio(fleet: Fleet) -> Verdict:
    """Pause when more than 5 % of the offers have come back as fallbacks."""
    return by_outcomes(fleet, lambda seen, offered: seen["reverted"] > 0.05 * offered)


def fleetd(fleet: Fleet) -> Verdict:
    """What `fleetd.domain` decides, asked after every outcome and at the end of each wave's watch."""
    seen: Counter[str] = Counter()
    world = World(fleet)
    for wave in fleet.waves:
        members = fleet.in_wave(wave)
        last = wave == fleet.waves[-1]
        mine: Counter[str] = Counter()
        for number, camera in enumerate(members, 1):
            seen[camera.outcome] += 1
            mine[camera.outcome] += 1
            left = len(members) - number
            step = next_step(tally(seen, left), tally(mine, left), SETTINGS, last_wave=last)
            if step.move is Move.HALT:
                return Verdict(True, harmed(fleet, wave), wave)
        evidence = world.evidence(wave)
        step = next_step(tally(seen, 0), tally(mine, 0), SETTINGS, last_wave=last, evidence=evidence)
        if step.move is Move.HALT:
            return Verdict(True, harmed(fleet, wave), wave)
    return Verdict(False, harmed(fleet, CAMERAS), fleet.waves[-1])


def tally(seen: Counter[str], busy: int) -> Tally:
    bad = seen["reverted"] + seen["lost"]
    return Tally(seen.total() + busy, seen["confirmed"], bad, busy=busy, lost=seen["lost"])


class World:
    """What cameras see, bucket by bucket, with and without the release."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._chance = random.Random(f"world{fleet.seed}{fleet.kind}")
        span = PAST + SOAK * len(fleet.waves)
        sky, weather = 0.0, []
        for _ in range(span):
            sky = 0.9 * sky + self._chance.gauss(0, 0.01)
            weather.append(sky)
        self._weather = weather

    def evidence(self, wave: int) -> Evidence:
        """What is known when the watch of this wave is over."""
        now = PAST + SOAK * (wave + 1)
        took = [one for one in self._fleet.cameras if one.wave <= wave and one.outcome == "confirmed"]
        others = [one for one in self._fleet.cameras if one.wave > wave]
        silent = [one for one in took if self._died_at(one) is not None and self._died_at(one) < now - 10]  # type: ignore[operator]
        canaries = [self._watch(one, now) for one in sorted(took, key=lambda one: one.wave)[:WATCHED]]
        controls = [self._watch(one, now, control=True) for one in others[:CONTROLS]]
        dark = Dark(len(took), len(silent), len(others), 0)
        return Evidence(dark, tuple(judge(canaries, controls)))

    def _died_at(self, camera: Camera) -> int | None:
        if camera.dies_after is None:
            return None
        return PAST + SOAK * camera.wave + camera.dies_after

    def _watch(self, camera: Camera, now: int, *, control: bool = False) -> Watch:
        chance = random.Random(f"{self._fleet.seed}{self._fleet.kind}{camera.name}")
        habits = [chance.uniform(0.3, 1.0) for _ in "abcd"]
        level, speed = chance.uniform(0.75, 0.88), chance.uniform(40, 60)
        changed = PAST + SOAK * camera.wave
        dies = None if control else self._died_at(camera)
        begin = max(0, changed - PAST) if not control else max(0, now - SOAK - PAST)
        buckets = {}
        for number in range(begin, min(now, dies) if dies is not None else now):
            wrong = not control and camera.bad and self._fleet.kind == "wrong" and number >= changed
            weights = [habit * math.exp(chance.gauss(0, 0.2)) for habit in habits]
            if wrong:
                weights[0] *= 5
            results = max(0, round(chance.gauss(RESULTS, 3)))
            score = level + self._weather[number] + chance.gauss(0, 0.02) - (0.12 if wrong else 0.0)
            labels = Counter(chance.choices("abcd", weights, k=results))
            buckets[number] = Bucket(results, labels, score, inference_ms=speed + chance.gauss(0, 2))
        return Watch(camera.name, buckets) if control else Watch(camera.name, buckets, changed, changed)


RULES: Final[Mapping[str, Callable[[Fleet], Verdict]]] = {
    "fleetd": fleetd,
    "aws": aws,
    "ratio": fallback_ratio,
}


def study(runs: int, good_runs: int, shares: Sequence[float] = SHARES) -> list[dict[str, object]]:
    """Rows of the table: one per kind and share, with every rule's mean harm and how often it halted."""
    rows: list[dict[str, object]] = []
    for kind in KINDS:
        for share in shares:
            fleets = [make_fleet(kind, share, seed) for seed in range(runs)]
            rows.append(row(kind, share, fleets))
    rows.append(row("good", 0.0, [make_fleet("good", 0.0, seed) for seed in range(good_runs)]))
    return rows


def row(kind: str, share: float, fleets: Sequence[Fleet]) -> dict[str, object]:
    found: dict[str, object] = {"kind": kind, "share": share, "fleets": len(fleets)}
    found["bad"] = round(fmean(harmed(fleet, CAMERAS) for fleet in fleets), 1)
    for name, rule in RULES.items():
        verdicts = [rule(fleet) for fleet in fleets]
        found[name] = {
            "harmed": round(fmean(one.harmed for one in verdicts), 1),
            "halted": round(fmean(one.halted for one in verdicts), 3),
        }
    return found


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=30, help="fleets for each kind and share")
    parser.add_argument("--good-runs", type=int, default=300, help="fleets with a good release")
    wanted = parser.parse_args()
    began = time.monotonic()
    rows = study(wanted.runs, wanted.good_runs)
    print(f"{CAMERAS} cameras, waves of {CANARIES} camera, {', '.join(f'{one} %' for one in WAVES)};")
    print("cameras harmed on average (and how many of the rollouts were halted)\n")
    print(f"{'release':8} {'bad for':>8} {'no rule':>8}" + "".join(f"{name:>18}" for name in RULES))
    for one in rows:
        line = f"{one['kind']:8} {one['share']:8.0%} {one['bad']:>8}"
        for name in RULES:
            cell = one[name]
            assert isinstance(cell, dict)
            line += f"{cell['harmed']:>10} ({cell['halted']:4.0%})"
        print(line)
    print(f"\nthe last line: good releases that were halted for nothing. {time.monotonic() - began:.0f} s")
    print(json.dumps({"benchmark": "halting", "cameras": CAMERAS, "rows": rows}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
