"""When offers may be made: hours of the week in a time zone.

    22:00-05:00 Europe/Berlin              every night; what begins on a day belongs to that day
    mon-fri 12:00-13:00 UTC                at noon, not at weekends
    sat,sun 00:00-24:00 America/New_York   all weekend
    mon-thu 22:00-05:00; fri 22:00-08:00 Europe/Berlin

A window is read once into a frozen tree. Clocks are not read here: whoever asks gives Unix seconds and how many seconds
local time is ahead of UTC then, so a change to summer time needs no thought.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from fleetd.errors import InvalidError

DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
MAX_CHARS: Final = 200
DAY_S: Final = 86400
_MINUTE_S: Final = 60
_LOOK_AHEAD_S: Final = 8 * DAY_S
_SPAN: Final = re.compile(r"(?:([a-z,\-]+)\s+)?(\d{2}):(\d{2})-(\d{2}):(\d{2})")
_EXAMPLE: Final = "for example `mon-fri 22:00-05:00 Europe/Berlin`"


@dataclass(frozen=True, slots=True)
class Span:
    """From `begin` to `end` on these days (0: Monday), in minutes after local midnight. An `end` that is not later
    than `begin` lies on the next day.
    """

    days: frozenset[int]
    begin: int
    end: int

    def holds(self, day: int, minute: float) -> bool:
        """Whether that minute of that day of the week lies inside."""
        if self.begin < self.end:
            return day in self.days and self.begin <= minute < self.end
        return (day in self.days and minute >= self.begin) or (
            (day - 1) % 7 in self.days and minute < self.end
        )


@dataclass(frozen=True, slots=True)
class Window:
    """All spans, and the name of the time zone they are meant in."""

    spans: tuple[Span, ...]
    zone: str

    def is_open(self, at: float, ahead_s: float) -> bool:
        """Whether it is open at `at` (Unix seconds), when local time is `ahead_s` ahead of UTC."""
        days, second = divmod(at + ahead_s, DAY_S)
        day = (int(days) + 3) % 7  # the first day of Unix time was a Thursday
        return any(span.holds(day, second / _MINUTE_S) for span in self.spans)

    def next_change(self, at: float, ahead_of_utc: Callable[[float], float]) -> float | None:
        """When it opens or closes next, to the minute; None when it does neither within eight days."""
        now = self.is_open(at, ahead_of_utc(at))
        moment = at - at % _MINUTE_S
        while moment < at + _LOOK_AHEAD_S:
            moment += _MINUTE_S
            if self.is_open(moment, ahead_of_utc(moment)) != now:
                return moment
        return None


def parse_window(text: str) -> Window:
    """The window that a text describes, or an InvalidError that says what is wrong with it."""
    if len(text) > MAX_CHARS:
        raise InvalidError(f"The window is longer than {MAX_CHARS} characters. Nothing was changed.")
    *spans, last = (part.strip() for part in text.split(";"))
    last, _, zone = last.rpartition(" ")
    if not last or not re.fullmatch(r"[A-Za-z][A-Za-z0-9_+\-/]{0,63}", zone):
        raise _unreadable(text, f"it does not end with a time zone, {_EXAMPLE}")
    return Window(tuple(_span(text, part) for part in (*spans, last)), zone)


def _span(text: str, part: str) -> Span:
    found = _SPAN.fullmatch(part.strip())
    if found is None:
        raise _unreadable(text, f"`{part[:40]}` are no hours, {_EXAMPLE}")
    begin, end = (int(found[n]) * 60 + int(found[n + 1]) for n in (2, 4))
    if max(int(found[3]), int(found[5])) > 59 or begin >= 1440 or end > 1440:
        raise _unreadable(text, f"`{part[:40]}` are no hours of a day")
    return Span(_days(text, found[1] or "mon-sun"), begin, end)


def _days(text: str, names: str) -> frozenset[int]:
    days: set[int] = set()
    for name in names.split(","):
        first, dash, last = name.partition("-")
        last = last if dash else first
        if first not in DAYS or last not in DAYS:
            raise _unreadable(text, f"`{name[:20]}` is no day; days are {', '.join(DAYS)}")
        begin, end = DAYS.index(first), DAYS.index(last)
        days.update((begin + n) % 7 for n in range((end - begin) % 7 + 1))
    return frozenset(days)


def _unreadable(text: str, why: str) -> InvalidError:
    return InvalidError(f"The window {text[:80]!r} cannot be read: {why}. Nothing was changed.")
