"""Many cameras in a row: wait for a drive, provision it, wait until it is gone, take the next number."""

import re
from pathlib import Path
from typing import Final

from fleetd.cli.errors import UNUSABLE, CliError
from fleetd.cli.provision_camera import Order, enrolled_as, packed, provision_one
from fleetd.cli.session import Session
from fleetd.cli.text import as_json_line, safe
from fleetd.errors import FleetError
from fleetd.protocol.ids import is_camera_id

POLL_SECONDS: Final = 1.0
SETTLE_SECONDS: Final = 2.0  # from when a drive appears until it is looked at
_NUMBER: Final = re.compile(r"\{n(?::0(\d)d)?\}")


def provision_many(session: Session, order: Order, names: str, start: int, count: int | None) -> None:
    """Waits for a drive, provisions it, waits until it is gone, and takes the next number."""
    if len(_NUMBER.findall(names)) != 1 or not is_camera_id(_NUMBER.sub("1", names)):
        raise CliError(
            f"{safe(names)!r} makes no names for cameras.", "For example cam-{n:02d}.", exit_code=UNUSABLE
        )
    agent = packed(session, order)
    number, finished = start, 0
    begun: set[str] = set()  # enrolled by this run, their drive not finished yet
    while count is None or finished < count:
        number, name = _next_name(session, names, number, begun)
        session.out.warn(f"Connect the next camera: it becomes {name}.")
        _wait(session, order.mount, there=True)
        session.sleep(SETTLE_SECONDS)
        begun.add(name)
        try:
            resumed = _begun_on(order.mount)
            report = provision_one(session, order, agent, resumed or name)
        except (CliError, FleetError) as error:
            todo = error.todo if isinstance(error, CliError) else ""
            session.out.warn(f"fleetctl: {safe(error)} {safe(todo)}".rstrip())
        else:
            finished += 1
            begun.discard(report["camera"])
            if order.as_json:
                session.out.say(as_json_line(report))
            if report["camera"] == name:
                number += 1
        session.out.warn("Waiting until it is disconnected.")
        _wait(session, order.mount, there=False)


def _next_name(session: Session, names: str, number: int, begun: set[str]) -> tuple[int, str]:
    """The first free name from this number on. A name that is enrolled belongs to a camera that may be at work."""
    while True:
        name = _numbered(names, number)
        if not is_camera_id(name):
            raise CliError(f"{name} is no name for a camera.", "Take a shorter one.", exit_code=UNUSABLE)
        if name in begun or enrolled_as(session, name) is None:
            return number, name
        session.out.warn(f"{name} is enrolled already.")
        number += 1


def _numbered(names: str, number: int) -> str:
    return _NUMBER.sub(lambda found: str(number).zfill(int(found[1] or 1)), names)


def _begun_on(mount: Path) -> str | None:
    """The camera that this run, or one before it, began on this very drive."""
    from fleetd.provisioning import disk, looking  # noqa: PLC0415  # see above

    found = looking.look(disk.Disk(mount))
    return found.begun if found.camera in {None, found.begun} else None


def _wait(session: Session, mount: Path, *, there: bool) -> None:
    while _is_there(mount) != there:
        session.sleep(POLL_SECONDS)


def _is_there(mount: Path) -> bool:
    try:
        return (mount / ".openmv_disk").exists()
    except OSError:  # neither: it is coming or going
        return False
