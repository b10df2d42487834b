"""`fleetctl cameras risks`, and the same before a push: who would be hard to bring back."""

from collections.abc import Collection, Mapping
from typing import Any, Final

from fleetd import boards
from fleetd.boards.risks import RISKS, risks
from fleetd.cli.session import Session
from fleetd.cli.text import counted, safe

SHOWN: Final = 5  # names
INCIDENTS: Final = 1000


def risks_of(session: Session, names: Collection[str]) -> dict[str, list[str]]:
    """Risk -> the cameras that have it, for those of these names that have reported."""
    troubled = {one["camera"] for one in session.api.get("incidents", state="open", limit=INCIDENTS)}
    found: dict[str, list[str]] = {}
    for camera in session.api.get("cameras"):
        if camera["name"] in names and camera["board"]:
            for risk in _risks(camera, troubled):
                found.setdefault(risk, []).append(camera["name"])
    return {key: found[key] for key in RISKS if key in found}


def warn_of_risks(session: Session, names: Collection[str]) -> dict[str, list[str]]:
    """Says who would be hard to bring back if this went wrong; answers the same as data."""
    found = risks_of(session, names)
    for key, cameras in found.items():
        risk = RISKS[key]
        more = f" and {len(cameras) - SHOWN} more" if len(cameras) > SHOWN else ""
        shown = ", ".join(safe(name) for name in cameras[:SHOWN]) + more
        session.out.warn(f"Risk: {counted(len(cameras), 'camera')} {risk.title} ({shown}). {risk.todo}")
    return found


def _risks(camera: Mapping[str, Any], troubled: Collection[str]) -> list[str]:
    storage = camera["storage"] or {}
    found = risks(
        boards.find(camera["board"]),
        capabilities=camera["capabilities"],
        backend=storage.get("backend"),
        has_incident=camera["name"] in troubled,
    )
    return [risk.key for risk in found]
