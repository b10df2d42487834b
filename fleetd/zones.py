"""Time zones by name: how far local time is ahead of UTC at a moment. The only place that knows a calendar."""

import datetime
from functools import lru_cache
from zoneinfo import ZoneInfo

from fleetd.errors import InvalidError


def ahead_of_utc(zone: str, at: float) -> float:
    """Seconds by which the zone's clocks are ahead of UTC at `at` (Unix seconds); InvalidError for unknown names."""
    offset = datetime.datetime.fromtimestamp(at, _zone(zone)).utcoffset()
    return 0.0 if offset is None else offset.total_seconds()


@lru_cache(maxsize=64)
def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (OSError, ValueError, LookupError) as error:
        raise InvalidError(
            f"{name[:64]!r} is no time zone that this machine knows. Nothing was changed; write one like Europe/Berlin "
            "or UTC, or install the package tzdata.",
            zone=name[:64],
        ) from error
