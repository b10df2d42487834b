"""Evidence that may be looked at as often as one likes.

A series of numbers from before a change and one from after it. As long as the change did nothing, the newest
number is as likely to be the largest of all, the second largest and so on: its rank is a p-value that assumes
nothing about how the numbers are distributed. `against_chance` bets on small p-values, one number after the
other, each ranked among all that came before it. The capital of such a bet is, without a change, more than 1/a
with a chance of at most a, **at whatever moment one looks and however often** (Ville's inequality): that is what
makes it safe to look every minute of a rollout.

Equal numbers are ranked by lot. The lots are drawn once and for all (`_lot`): the same facts must always lead to the
same decision, and the numbers know nothing of the lots.

Several bets are made side by side, because nobody knows how large a change will be; their mean is a bet too.
"""

import hashlib
import math
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Final

_BETS: Final = (0.1, 0.25, 0.5, 0.8)  # the smaller, the more is won by the smallest p-values
_LEAST: Final = 5  # numbers before the change; a rank among fewer says nothing


def against_chance(before: Sequence[float], after: Iterable[float]) -> float:
    """The evidence (a factor, 1 is none) that `after` tends to larger numbers than `before`.

    The largest that it ever was counts: a change that was there once is not undone by a quiet hour.
    """
    if len(before) < _LEAST:
        return 1.0
    seen = sorted(before)
    capital = [1.0] * len(_BETS)
    most = 1.0
    for place, value in enumerate(after):
        first, end = bisect_left(seen, value), bisect_right(seen, value)
        p = (len(seen) - end + _lot(place) * (end - first + 1)) / (len(seen) + 1)
        capital = [min(won * bet * p ** (bet - 1), 1e12) for won, bet in zip(capital, _BETS, strict=True)]
        most = max(most, sum(capital) / len(capital))
        insort(seen, value)
    return most


@cache
def _lot(place: int) -> float:
    """A number above 0 and at most 1, as good as drawn at random, the same at every place for ever."""
    return (int.from_bytes(hashlib.sha256(place.to_bytes(8, "big")).digest()[:6], "big") + 1) / 2**48


def together(evidence: Sequence[float]) -> float:
    """The evidence of several series of which one, some or all may have changed: their mean is a bet too."""
    return math.fsum(evidence) / len(evidence) if evidence else 1.0
