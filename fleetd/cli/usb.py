"""`fleetctl usb`: which boards hang at this machine, and what they are doing."""

from typing import Annotated, Any, Final

import typer

from fleetd.cli.errors import CliError
from fleetd.cli.session import Json, Session, session_of
from fleetd.cli.text import as_json_line, safe, when
from fleetd.cli.usb_devices import LOOK_SECONDS, Looker, UsbDevice, in_words, sysfs

app = typer.Typer(no_args_is_help=True, help="USB on this machine: which boards are there, and how they are.")

All = Annotated[bool, typer.Option("--all", help="Other people's devices, too.")]
_STALE: Final = "Is this Linux, and is /sys mounted? Elsewhere use OpenMV IDE to see what is connected."


@app.command("ls")
def list_devices(
    ctx: typer.Context,
    everything: All = False,
    names: Annotated[bool, typer.Option("--names", help="Ask fleetd which camera each one is.")] = False,
    as_json: Json = False,
) -> None:
    """Show the boards at this machine's USB ports."""
    session = session_of(ctx)
    looker = _looker(session)
    known = _names(session) if names else {}
    rows = [_row(device, known) for device, _ in looker.look()]
    rows = [row for row in rows if everything or row["board"] != "-"]
    if as_json:
        session.out.json(rows)
        return
    session.out.table(
        ("port", "id", "board", "state", "serial", "camera"),
        ((row["port"], row["id"], row["board"], row["state"], row["serial"], row["camera"]) for row in rows),
        empty="No board is connected to this machine. A camera with power and a data cable would show here.",
    )


@app.command()
def watch(
    ctx: typer.Context,
    camera: Annotated[
        str | None, typer.Option("--camera", "-c", help="Tell fleetd what is seen, as this camera's.")
    ] = None,
    changes: Annotated[int, typer.Option(min=0, help="Stop after so many changes; 0: never.")] = 0,
    as_json: Json = False,
) -> None:
    """Say when a board comes, goes or changes, until Ctrl-C."""
    session = session_of(ctx)
    looker = _looker(session)
    before: dict[tuple[str, str], UsbDevice] = {}
    told = 0
    while True:
        now = {(one.port, one.id): one for one, _ in looker.look() if in_words(one)[0] != "-"}
        for key in sorted(now.keys() ^ before.keys()):
            is_there = key in now
            row = {"at": session.now(), "seen": is_there, **_row((now if is_there else before)[key], {})}
            session.out.say(as_json_line(row) if as_json else _line(row))
            if camera is not None and is_there:
                body = {"color": "unknown", "pattern": "unknown", "source": "usb", "reason": row["state"]}
                session.api.post("cameras", camera, "leds", body=body)
            told += 1
            if told == changes:
                return
        before = now
        session.sleep(LOOK_SECONDS)


def _looker(session: Session) -> Looker:
    root = sysfs(session.env)
    if not (root / "bus" / "usb" / "devices").is_dir():
        raise CliError(f"{root} shows no USB devices.", _STALE)
    return Looker(root)


def _names(session: Session) -> dict[str, str]:
    return {str(one["uid"]).lower(): str(one["name"]) for one in session.api.get("cameras") if one["uid"]}


def _row(device: UsbDevice, known: dict[str, str]) -> dict[str, Any]:
    board, state = in_words(device)
    return {
        "port": device.port,
        "id": device.id,
        "board": board,
        "state": state,
        "serial": device.serial,
        "product": device.product,
        "camera": known.get((device.serial or "").lower()),
    }


def _line(row: dict[str, Any]) -> str:
    what = "is there" if row["seen"] else "is gone"
    return f"{when(row['at'])}  port {safe(row['port'])}  {safe(row['id'])}  {row['board']}: {row['state']}, {what}"
