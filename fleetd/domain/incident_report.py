"""How long it takes to get cameras back, and which ones need it again and again. Pure."""

from collections.abc import Iterable, Sequence
from statistics import fmean, median
from typing import Any, Final

from fleetd.domain.incidents import Incident

OFFENDERS: Final = 20


def report(incidents: Iterable[Incident], since: float, now: float) -> dict[str, Any]:
    """Incidents of a time, counted. Times to recover are those of closed ones, in seconds; None without any."""
    found = list(incidents)
    kinds = [
        _kind(kind, [one for one in found if one.kind is kind])
        for kind in dict.fromkeys(o.kind for o in found)
    ]
    by_camera: dict[str, list[Incident]] = {}
    for one in found:
        if one.camera is not None:
            by_camera.setdefault(one.camera, []).append(one)
    offenders = [
        {
            "camera": camera,
            "incidents": len(own),
            "times": sum(one.times for one in own),
            "down_s": sum((one.closed_at or now) - one.opened_at for one in own),
        }
        for camera, own in by_camera.items()
    ]
    offenders.sort(key=lambda row: (-row["times"], -row["down_s"], row["camera"]))  # type: ignore[operator]
    return {
        "since": since,
        "incidents": len(found),
        "open": sum(one.closed_at is None for one in found),
        "mttr_s": _mean(found),
        "kinds": sorted(kinds, key=lambda row: (-row["incidents"], row["kind"])),
        "offenders": offenders[:OFFENDERS],
    }


def _kind(kind: str, own: Sequence[Incident]) -> dict[str, Any]:
    lasted = _lasted(own)
    return {
        "kind": str(kind),
        "incidents": len(own),
        "open": sum(one.closed_at is None for one in own),
        "mttr_s": _mean(own),
        "median_s": median(lasted) if lasted else None,
    }


def _mean(own: Sequence[Incident]) -> float | None:
    lasted = _lasted(own)
    return fmean(lasted) if lasted else None


def _lasted(own: Sequence[Incident]) -> list[float]:
    return [one.closed_at - one.opened_at for one in own if one.closed_at is not None]
