"""Whether the outcomes of a rollout are worse than tolerated: a bound, not a bare ratio.

Two of three cameras that failed say a lot, two of three hundred say little, and a ratio does not know the
difference. So a rollout halts when the *lower end* of Wilson's interval for the share of bad outcomes lies above
what is tolerated. Outcomes are looked at as they come in, one after the other, and whoever looks a thousand
times finds something by chance: an interval for 95 % that is looked at after every camera gives a false alarm in
a third of all good rollouts. Therefore the allowed chance of error is spent bit by bit: each doubling of the
number of outcomes gets a smaller part of it, all parts together less than `ALPHA` (`tests` reckon exactly that
fewer than 1 in 20 rollouts at the tolerated share ever halt for it).

Silence weighs more than a failure that was told: a camera that went back by itself works, one that fell silent
needs somebody with a ladder. It has a tolerated share of its own.
"""

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final

ALPHA: Final = 0.008  # nominal; looks within a doubling share a part, which makes it up to six times as much
_NORMAL: Final = NormalDist()


def deviations(outcomes: int) -> float:
    """How many standard deviations a bound keeps after so many outcomes, all earlier looks considered."""
    doubling = outcomes.bit_length()  # 1 for the first outcome, 2 for two and three, 3 for four to seven
    return _NORMAL.inv_cdf(1 - ALPHA / (doubling * (doubling + 1))) if outcomes else math.inf


def at_least(bad: int, outcomes: int, z: float) -> float:
    """The lower end of Wilson's interval for a share, `z` standard deviations down; 0 without outcomes."""
    if outcomes <= 0 or bad <= 0:
        return 0.0
    return max(0.0, _centre(bad, outcomes, z) - _spread(bad, outcomes, z))


def at_most(bad: int, outcomes: int, z: float) -> float:
    """The upper end of the same interval; 1 without outcomes."""
    if outcomes <= 0:
        return 1.0
    return min(1.0, _centre(bad, outcomes, z) + _spread(bad, outcomes, z))


def _centre(bad: int, outcomes: int, z: float) -> float:
    return (bad + z * z / 2) / (outcomes + z * z)


def _spread(bad: int, outcomes: int, z: float) -> float:
    good = outcomes - bad
    return z / (outcomes + z * z) * math.sqrt(bad * good / outcomes + z * z / 4)


@dataclass(frozen=True, slots=True)
class Excess:
    """More bad outcomes than tolerated: how many of how many, and the least share that lies behind them."""

    signal: str  # "harm" or "silence"
    bad: int
    outcomes: int
    share: float  # the lower bound
    tolerated: float

    def __str__(self) -> str:
        what = "have not taken the release (reverted, failed, lost or timed out)"
        if self.signal == "silence":
            what = "fell silent after they took the update up"
        return (
            f"{self.bad} of {self.outcomes} cameras that finished {what}. That is at least "
            f"{self.share:.1%} of all; {self.tolerated:.1%} are tolerated."
        )


def excess(signal: str, bad: int, outcomes: int, *, free: int, tolerated: float) -> Excess | None:
    """The excess if there is one. `free` bad outcomes never are; `tolerated` 0 makes every further one count."""
    if bad <= free:
        return None
    share = at_least(bad, outcomes, deviations(outcomes))
    return Excess(signal, bad, outcomes, share, tolerated) if share > tolerated else None


@dataclass(frozen=True, slots=True)
class Dark:
    """Cameras that run the release and are silent for too long, beside those that do not run it."""

    running: int
    silent: int
    others: int
    others_silent: int


def darkness(dark: Dark, *, free: int, tolerated: float) -> Excess | None:
    """Silence after success: worse than tolerated *and* than what befalls cameras without the release anyway.

    Without others to compare with it decides nothing: in a fleet that sleeps, silence is no sign.
    """
    if dark.others < 3:
        return None
    usual = at_most(dark.others_silent, dark.others, 1.0)
    return excess("silence", dark.silent, dark.running, free=free, tolerated=tolerated + usual)
