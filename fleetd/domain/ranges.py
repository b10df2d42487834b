"""Sets of sequence numbers as inclusive ranges: what of one boot is stored.

Usually one range, so a membership test is two comparisons and the whole set is a few bytes in the database.
"""

import json
from bisect import bisect_right
from collections.abc import Iterable

MAX_RANGES = 512  # a camera that leaves more gaps than this has its oldest gap closed and counted as lost


class Ranges:
    """A set of non-negative integers kept as sorted, disjoint, non-adjacent inclusive ranges."""

    __slots__ = ("_firsts", "_lasts")

    def __init__(self, pairs: Iterable[tuple[int, int]] = ()) -> None:
        self._firsts: list[int] = []
        self._lasts: list[int] = []
        for first, last in sorted(pairs):
            self._append(first, last)

    def _append(self, first: int, last: int) -> None:
        if self._lasts and first <= self._lasts[-1] + 1:
            self._lasts[-1] = max(self._lasts[-1], last)
        else:
            self._firsts.append(first)
            self._lasts.append(last)

    @classmethod
    def from_json(cls, text: str) -> "Ranges":
        """The set that `to_json` wrote."""
        return cls((int(first), int(last)) for first, last in json.loads(text))

    def to_json(self) -> str:
        """`[[first,last],...]`, as stored and as sent in receipts."""
        return json.dumps(self.pairs(), separators=(",", ":"))

    def pairs(self) -> list[tuple[int, int]]:
        """The ranges, lowest first."""
        return list(zip(self._firsts, self._lasts, strict=True))

    def copy(self) -> "Ranges":
        """An independent copy."""
        twin = Ranges()
        twin._firsts = self._firsts.copy()
        twin._lasts = self._lasts.copy()
        return twin

    def __contains__(self, seq: int) -> bool:
        i = bisect_right(self._firsts, seq) - 1
        return i >= 0 and seq <= self._lasts[i]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Ranges) and self.pairs() == other.pairs()

    __hash__ = None  # type: ignore[assignment]  # mutable

    def __len__(self) -> int:
        return sum(last - first + 1 for first, last in zip(self._firsts, self._lasts, strict=True))

    def add(self, seq: int) -> bool:
        """Puts `seq` in; False when it was there already."""
        firsts, lasts = self._firsts, self._lasts
        if lasts and seq == lasts[-1] + 1:  # in order, as nearly always
            lasts[-1] = seq
            return True
        i = bisect_right(firsts, seq)  # ranges before i start at or below seq
        if i and seq <= lasts[i - 1]:
            return False
        joins_left = i > 0 and lasts[i - 1] + 1 == seq
        joins_right = i < len(firsts) and firsts[i] == seq + 1
        if joins_left and joins_right:
            lasts[i - 1] = lasts[i]
            del firsts[i], lasts[i]
        elif joins_left:
            lasts[i - 1] = seq
        elif joins_right:
            firsts[i] = seq
        else:
            firsts.insert(i, seq)
            lasts.insert(i, seq)
        return True

    def close_below(self, low: int, start: int = 1) -> int:
        """Puts in everything from `start` up to `low - 1`; answers how many were missing."""
        if low <= start:
            return 0
        before = len(self)
        pairs = self.pairs()
        self.__init__([(start, low - 1), *pairs])  # type: ignore[misc]  # rebuilding is the simplest merge
        return len(self) - before

    def many(self, most: int = MAX_RANGES) -> bool:
        """Whether `bound` has something to do."""
        return len(self._firsts) > most

    def bound(self, most: int = MAX_RANGES) -> int:
        """Closes the oldest gaps until at most `most` ranges are left; answers how many numbers that took."""
        closed = 0
        while len(self._firsts) > most:
            closed += self._firsts[1] - self._lasts[0] - 1
            self._lasts[0] = self._lasts[1]
            del self._firsts[1], self._lasts[1]
        return closed
