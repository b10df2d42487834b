"""One camera's drive: who it is to be, its credential, and what an operator sees of it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from fleetd.cli.errors import UNUSABLE, CliError
from fleetd.cli.session import Session
from fleetd.cli.text import counted, safe, size
from fleetd.protocol.ids import is_camera_id

if TYPE_CHECKING:  # the agent and its compiler take a while to load, and help needs none of it
    from fleetd.provisioning.config import Credential, Draft, FleetFacts, Wishes
    from fleetd.provisioning.install import Done
    from fleetd.provisioning.looking import Found
    from fleetd.provisioning.package import AgentPackage

_EJECT: Final = "Eject the drive, then unplug the camera and plug it in again."


@dataclass(frozen=True, slots=True)
class Order:
    """What a run is to do, for one camera after the other."""

    mount: Path
    tags: Sequence[str]
    wishes: "Wishes"
    source: Literal["py", "mpy"]
    label_dir: Path | None
    rotate: bool = False
    replace: bool = False
    force: bool = False
    in_place: bool = False
    dry_run: bool = False
    as_json: bool = False


def packed(session: Session, order: Order) -> "AgentPackage":
    """The agent for the drive, with a note when it could not be compiled."""
    from fleetd.provisioning import package  # noqa: PLC0415  # see above

    agent = package.load(order.source)
    if agent.note:
        session.out.warn(safe(agent.note))
    return agent


def provision_one(
    session: Session, order: Order, agent: "AgentPackage", wanted: str | None
) -> dict[str, Any]:
    """Provisions the drive; answers what was done."""
    from fleetd.provisioning import config, disk, install, looking  # noqa: PLC0415  # see above
    from fleetd.provisioning.errors import DriveError  # noqa: PLC0415

    looking.refuse_place(order.mount, Path(session.env.get("HOME") or Path.home()))
    try:
        drive = disk.Disk(order.mount)
        found = looking.look(drive)
    except DriveError as error:
        raise CliError(safe(error.message), error.remedy) from error
    name = _name(session, order, found, wanted)
    enrolled = enrolled_as(session, name)
    is_again = found.camera == name
    before = found.config if is_again else None
    keeps = bool(before and before.get("password") and enrolled and not order.rotate and found.begun is None)
    if enrolled and enrolled["presence"] == "online" and not is_again and not order.rotate:
        raise CliError(
            f"{name} is online right now, so this drive is not its own. Nothing was written.",
            "Choose another name. If it is the same camera after all, --rotate gives it a new credential.",
            exit_code=UNUSABLE,
        )
    draft = config.draft(name, before, order.wishes, _fleet_facts(session))
    if not found.has_slots and found.agent is None:
        draft = config.leave_room(draft, found.room, found.room.cost(*agent.sizes()))
    warnings = [*draft.warnings, *_remarks(session, found, name, enrolled)]
    report = {
        "camera": name,
        "drive": _drive_facts(order, found),
        "enrolled": enrolled is None,
        "credential": "kept" if keeps else "new",
        "broker": {"host": draft.values["host"], "port": draft.values["port"]},
        "keys": len(draft.values["keys"]),
        "agent": {"version": agent.version, "source": agent.source, "bytes": sum(agent.sizes())},
        "warnings": warnings,
        "dry_run": order.dry_run,
        "label": None,
    }
    if not order.as_json:
        _print_plan(session, order, found, draft, agent, report)
    for warning in warnings:
        session.out.warn(f"Note: {safe(warning)}")
    if order.dry_run:
        session.out.warn("Dry run: nothing was written, nobody was enrolled.")
        return report
    secret: Callable[[], config.Credential] = _asking(session, order, name)
    if keeps and before is not None:
        secret = install.KnownSecret(config.Credential(before["password"], before.get("fresh_key")))
    session.out.warn("Writing. Leave the camera connected.")
    done = install.install(drive, agent, draft, secret, main_before=found.main, in_place=order.in_place)
    if enrolled and order.tags:
        session.api.patch("cameras", name, body={"add_tags": list(order.tags)})
    report["written"] = {"agent": done.agent, "settings": done.config, "main": done.main}
    report["kept_main"] = done.kept_main
    report["label"] = _write_label(session, order, name)
    _conclude(session, order, done, report)
    return report


def _name(session: Session, order: Order, found: "Found", wanted: str | None) -> str:
    """Who this camera is to be; CliError when that is not clear, or not for this drive."""
    if not found.is_camera and not order.force:
        raise CliError(
            f"{order.mount} does not look like the drive of an OpenMV camera: there is no .openmv_disk on it. "
            "Nothing was written.",
            "Name the folder of its drive, often called OPENMV. --force takes this one all the same.",
            exit_code=UNUSABLE,
        )
    name = wanted or found.camera or found.begun
    if not name:
        known = _with_hardware(session, found.hardware_id)
        raise CliError(
            f"The drive does not say which camera it is ({safe(found.in_words())}).",
            f"fleetd knows this board as {known[0]}: give --camera {known[0]}."
            if known
            else "Give its name with --camera.",
            exit_code=UNUSABLE,
        )
    if not is_camera_id(name):
        raise CliError(
            f"{safe(name)!r} is no name for a camera.",
            "Lower case letters, digits and dashes, 1 to 63 characters.",
            exit_code=UNUSABLE,
        )
    if found.camera not in {None, name} and not order.replace:
        raise CliError(
            f"This drive belongs to {found.camera}. Nothing was written.",
            f"Give --camera {found.camera}, or --replace to make it {name}.",
            exit_code=UNUSABLE,
        )
    return name


def enrolled_as(session: Session, name: str) -> dict[str, Any] | None:
    """What fleetd knows of that camera; None when it is not enrolled."""
    try:
        found: dict[str, Any] = session.api.get("cameras", name)
    except CliError as error:
        if error.code == "unknown_camera":
            return None
        raise
    return found


def _with_hardware(session: Session, hardware_id: str | None) -> list[str]:
    """The cameras that fleetd last saw on this very board."""
    if hardware_id is None:
        return []
    cameras = session.api.get("cameras")
    return [str(one["name"]) for one in cameras if (one["uid"] or "").lower() == hardware_id]


def _fleet_facts(session: Session) -> "FleetFacts":
    from fleetd.provisioning import config  # noqa: PLC0415  # see above

    status = session.api.get("status")
    ring = session.api.get("keys", "ring")
    broker = status.get("broker") or {}
    for_cameras = broker.get("for_cameras") or {}
    return config.FleetFacts(
        broker=for_cameras.get("address") or broker.get("address"),
        tls=for_cameras.get("tls"),
        prefix=status.get("prefix") or config.DEFAULT_PREFIX,
        keys=[str(key) for key in ring["keys"]],
        recovery=[str(key) for key in ring["recovery"]],
        key_serial=int(ring["serial"]),
        key_epoch=int(ring["epoch"]),
    )


def _remarks(session: Session, found: "Found", name: str, enrolled: Mapping[str, Any] | None) -> list[str]:
    """What looks odd about this drive and this name."""
    remarks = []
    if found.was_formatted and enrolled:
        remarks.append(f"The drive was formatted; {name} gets its old name again, with a new credential.")
    others = [other for other in _with_hardware(session, found.hardware_id) if other != name]
    if others:
        remarks.append(f"fleetd last saw this board as {', '.join(others)}.")
    before = (enrolled or {}).get("uid")
    if before and found.hardware_id and before.lower() != found.hardware_id:
        remarks.append(f"{name} was another board until now.")
    if found.has_boot:
        remarks.append("There is a boot.py on the drive, which runs before the agent and may prevent it.")
    return remarks


def _asking(session: Session, order: Order, name: str) -> "Callable[[], Credential]":
    """Asks fleetd for the credential: enrols the camera, or gives it a new one."""
    from fleetd.provisioning import config  # noqa: PLC0415  # see above

    def ask() -> "Credential":
        if enrolled_as(session, name) is None:
            answer = session.api.post("cameras", body={"name": name, "tags": list(order.tags)})
        else:
            answer = session.api.post("cameras", name, "secret")
        fresh = session.api.post("cameras", name, "fresh-key")
        return config.Credential(str(answer["secret"]), str(fresh["fresh_key"]))

    return ask


def _drive_facts(order: Order, found: "Found") -> dict[str, Any]:
    return {
        "folder": str(order.mount),
        "free": found.room.free,
        "total": found.room.total,
        "hardware_id": found.hardware_id,
        "formatted": found.was_formatted,
        "camera": found.camera,
        "agent": None if found.agent is None else found.agent.version,
        "main": found.main,
    }


def _print_plan(
    session: Session,
    order: Order,
    found: "Found",
    draft: "Draft",
    agent: "AgentPackage",
    report: Mapping[str, Any],
) -> None:
    values = draft.values
    wifi = values.get("wifi")
    board = f", board {found.hardware_id}" if found.hardware_id else ""
    state = "will be enrolled" if report["enrolled"] else f"is enrolled, {report['credential']} credential"
    session.out.facts(
        [
            ("drive", f"{order.mount}, {size(found.room.free)} of {size(found.room.total)} free{board}"),
            ("on it", found.in_words()),
            ("camera", f"{report['camera']}, {state}"),
            ("broker", f"{values['host']}:{values['port']}" + (", TLS" if values.get("tls") else "")),
            ("network", f"WiFi {wifi['ssid']}" if wifi else "Ethernet"),
            ("trusts", counted(len(values["keys"]), "key")),
            ("agent", f"{agent.version}, {agent.source}, {size(sum(agent.sizes()))}"),
        ]
    )


def _write_label(session: Session, order: Order, name: str) -> str | None:
    from fleetd.provisioning import label  # noqa: PLC0415  # see above

    if order.label_dir is None:
        return None
    matrix = label.qr_matrix(name)
    if matrix is None:
        session.out.warn("Note: the label has no QR code: that takes `pip install 'fleetd[labels]'`.")
    path = session.folder / order.label_dir / f"{name}.svg"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(label.svg(name, matrix), encoding="utf-8")
    except OSError as error:  # the camera is ready all the same
        session.out.warn(f"Note: the label {path} could not be written: {error.strerror}.")
        return None
    return str(path)


def _conclude(session: Session, order: Order, done: "Done", report: Mapping[str, Any]) -> None:
    if done.kept_main:
        session.out.warn(f"Note: the main.py that was there is kept as {done.kept_main}.")
    if order.as_json:
        return
    session.out.say(f"Provisioned {report['camera']}.")
    if report["label"]:
        session.out.say(f"Label: {safe(report['label'])}")
    else:
        session.out.say(f"Put a label on it: {report['camera']}")
    session.out.say(_EJECT)
