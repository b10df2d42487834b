"""From what is stored to what a diagnosis needs: facts about cameras, gathered for many at once.

Used by the incident watch and by recoveries; part of both, a service of its own to nobody.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from fleetd import boards
from fleetd.boards import lights
from fleetd.boards.usb import USB_STATES
from fleetd.domain.diagnosis import Clues, Finding, diagnose
from fleetd.domain.incidents import CameraFacts
from fleetd.domain.presence import PresenceRules, presence_of
from fleetd.domain.records import Camera
from fleetd.ports import UnitOfWork

BOOTS_S: Final = 900.0  # a boot loop shows within a quarter of an hour
HOUR_S: Final = 3600.0
SIGHTING_S: Final = 7 * 86400.0  # an older look at the light says nothing about today
USB_S: Final = 300.0  # what USB showed is true for a moment only
CAUSES_KEPT: Final = 5
TWIN_S: Final = 30.0  # two boots that talk over each other for so long are two devices

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Looked:
    """What somebody with the camera before them adds: a USB state, or nothing."""

    usb: str = "unknown"


def gather(
    work: UnitOfWork,
    cameras: Collection[Camera],
    now: float,
    rules: PresenceRules,
    *,
    looked: Looked | None = None,
    with_pictures: bool = True,
) -> list[CameraFacts]:
    """The facts about these cameras, each with its diagnosis."""
    ids = [camera.id for camera in cameras]
    known = work.evidence
    boots, told = known.boots(ids, now - BOOTS_S), known.events(ids, now - HOUR_S)
    seen, updates = known.sightings(ids, now - SIGHTING_S), known.updates(ids)
    measured = known.telemetry(ids, now - HOUR_S) if with_pictures else {}
    found = []
    for camera in cameras:
        clues, light_at = _clues(
            camera,
            now,
            rules,
            boots=boots.get(camera.id, ()),
            told=told.get(camera.id, ()),
            seen=seen.get(camera.id, ()),
            updates=updates.get(camera.id, ()),
            measured=measured.get(camera.id, ()),
            looked=looked or Looked(),
        )
        found.append(CameraFacts(camera, clues, diagnose(clues), light_at))
    return found


def _clues(
    camera: Camera,
    now: float,
    rules: PresenceRules,
    *,
    boots: Sequence[Row],
    told: Sequence[Row],
    seen: Sequence[Row],
    updates: Sequence[Row],
    measured: Sequence[Row],
    looked: Looked,
) -> tuple[Clues, float | None]:
    board = board_of(camera)
    here = presence_of(camera, now, rules)
    since = camera.seen_at or 0.0
    light = next((one for one in seen if one["color"] != "unknown" and one["at"] >= since), None)
    usb, usb_at = looked.usb, now if looked.usb != "unknown" else None
    if usb == "unknown":
        probe = next((one for one in seen if one["source"] == "usb" and one["at"] >= since), None)
        if probe is not None and now - probe["at"] < USB_S and probe["reason"] in USB_STATES:
            usb, usb_at = probe["reason"], probe["at"]
    fresh = [one for one in boots if one["first_seen"] >= now - BOOTS_S]
    causes = [_cause_of(one) for one in told if one["kind"] == "boot" and one["at"] >= now - BOOTS_S]
    update = next((one for one in updates if one["state"] != "lost" or one["changed_at"] >= since), None)
    clues = Clues(
        board=board.key,
        has_power_led=board.has_power_led,
        freezes_on_fault=board.freezes_on_fault,
        has_watchdog=board.has_watchdog,
        is_nxp=board.recovery.tool == "nxp",
        presence=here,
        silent_s=None if camera.seen_at is None else max(0.0, now - camera.seen_at),
        usb=usb,
        lights=()
        if light is None
        else tuple(one.word for one in lights.read(board, light["color"], light["pattern"])),
        light_seen="" if light is None else f"{light['color']} {light['pattern']}",
        last_state=camera.led_reason if light is None else None,
        reset_cause=camera.reset_cause,
        boots=len(fresh),
        watchdog_boots=causes.count("watchdog"),
        brown_outs=causes.count("brown-out"),
        update=None if update is None else str(update["state"]),
        update_of="" if update is None else str(update["release_id"]),
        problems=camera.problems,
        frozen_s=_frozen_s(camera, measured, now),
        is_twin=_is_twin(boots),
        outages=max(sum(one["kind"] == "connection-lost" for one in told), _reconnects(measured)),
    )
    times = [at for at in (None if light is None else light["at"], usb_at) if at is not None]
    return clues, max(times, default=None)


def causes_of(findings: Sequence[Finding]) -> list[dict[str, Any]]:
    """The likeliest findings as they are kept and answered."""
    return [
        {
            "cause": one.cause.key,
            "title": one.cause.title,
            "guide": one.cause.guide,
            "weight": one.weight,
            "evidence": list(one.evidence),
            "todo": one.cause.todo,
        }
        for one in findings[:CAUSES_KEPT]
    ]


def board_of(camera: Camera) -> boards.BoardProfile:
    """The profile of a camera's board; the generic one while it has not said."""
    return boards.find(camera.board) if camera.board else boards.GENERIC


def _cause_of(event: Row) -> str:
    """A boot's event begins with why the board restarted."""
    return str(event["text"] or "").partition(":")[0]


def _is_twin(boots: Sequence[Row]) -> bool:
    """Whether two boots talked side by side for long: an older one's kept messages may arrive late, all at once."""
    return any(
        min(older["last_seen"], newer["last_seen"]) > newer["first_seen"] + TWIN_S
        for place, older in enumerate(boots)
        for newer in boots[place + 1 :]
    )


def _frozen_s(camera: Camera, measured: Sequence[Row], now: float) -> float:
    """For how long the picture has been the same: by its digest, else because no frame was taken."""
    if not measured or any(word.startswith(("no-", "model-failed")) for word in camera.problems):
        return 0.0
    newest = _picture(measured[0])
    if newest is None:
        return 0.0
    newest_at = since = float(measured[0]["at"])
    for row in measured:
        if _picture(row) != newest:
            break
        since = float(row["at"])
    return max(0.0, newest_at - since) if now - newest_at < HOUR_S else 0.0


def _picture(row: Row) -> object | None:
    picture = row["picture"] or {}
    if picture.get("hash") is not None:
        return str(picture["hash"])
    return None if row["frames"] is None else (row["boot_id"], row["frames"])


def _reconnects(measured: Sequence[Row]) -> int:
    """Lost connections within the time, counted by the camera itself."""
    by_boot: dict[int, list[int]] = {}
    for row in measured:
        if row["reconnects"] is not None:
            by_boot.setdefault(row["boot_id"], []).append(row["reconnects"])
    return sum(max(counts) - min(counts) for counts in by_boot.values())
