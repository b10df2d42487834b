"""`fleetctl recover CAMERA`: from a silent camera to one that reports, step by step.

fleetd knows the guide and how far it is; this machine has the board at its USB, the programs and the files. It can be
stopped at every question and goes on there.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from fleetd import boards
from fleetd.boards.images import ROLES
from fleetd.cli import flashing
from fleetd.cli.asking import Asking, QuitError, read_answers
from fleetd.cli.bench import Bench, Result, find_drive
from fleetd.cli.errors import NOT_SUCCEEDED, UNUSABLE, CliError
from fleetd.cli.incidents import print_causes
from fleetd.cli.session import Json, Session, session_of
from fleetd.cli.text import counted, duration, safe
from fleetd.errors import FleetError

POLL_SECONDS: Final = 2.0
DRIVE_SECONDS: Final = 60.0
STEPS_MOST: Final = 200

File = Annotated[Path | None, typer.Option(metavar="FILE")]


@dataclass(slots=True)
class Wishes:
    """What was asked for on the command line."""

    mount: Path | None = None
    wifi_ssid: str | None = None
    wifi_key_file: Path | None = None
    country: str | None = None
    broker_host: str | None = None
    broker_port: int | None = None
    files: dict[str, Path] = field(default_factory=dict)
    ide: Path | None = None


def recover(
    ctx: typer.Context,
    camera: Annotated[str, typer.Argument(metavar="CAMERA", help="The camera's name.")],
    guide: Annotated[
        str | None, typer.Option(help="Skip the diagnosis: ladder, erase, reflash, jumper, provision, ...")
    ] = None,
    restart: Annotated[bool, typer.Option("--restart", help="Begin anew instead of going on.")] = False,
    abandon: Annotated[
        bool, typer.Option("--abandon", help="End the open recovery, and nothing else.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only print the diagnosis, the steps and the commands.")
    ] = False,
    answers: Annotated[
        Path | None, typer.Option(metavar="FILE", help="JSON with the answers; nobody is asked.")
    ] = None,
    ide: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="OpenMV IDE, for its firmware files.")
    ] = None,
    firmware: Annotated[Path | None, typer.Option(metavar="FILE", help="firmware.bin of this board.")] = None,
    romfs: Annotated[Path | None, typer.Option(metavar="FILE", help="romfs0.img of this board.")] = None,
    bootloader: Annotated[Path | None, typer.Option(metavar="FILE", help="bootloader.bin (STM32).")] = None,
    sdphost_loader: Annotated[
        Path | None, typer.Option(metavar="FILE", help="sdphost_flash_loader.bin (RT1062).")
    ] = None,
    blhost_loader: Annotated[
        Path | None, typer.Option(metavar="FILE", help="blhost_flash_loader.bin (RT1062).")
    ] = None,
    mount: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Where the camera's drive appears.")
    ] = None,
    wifi_ssid: Annotated[
        str | None, typer.Option(metavar="NAME", help="WiFi, when its settings are lost.")
    ] = None,
    wifi_key_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A file with its password.")
    ] = None,
    country: Annotated[str | None, typer.Option(metavar="XX", help="Two letters, for the radio.")] = None,
    broker_host: Annotated[
        str | None, typer.Option(metavar="HOST", help="Where cameras find the broker.")
    ] = None,
    broker_port: Annotated[int | None, typer.Option(min=1, max=65535, help="Its port.")] = None,
    as_json: Json = False,
) -> None:
    """Bring a silent camera back, step by step. Exit code 0: it reports again; 3: it does not."""
    session = session_of(ctx)
    given = {"firmware": firmware, "romfs": romfs, "bootloader": bootloader,
             "sdphost-loader": sdphost_loader, "blhost-loader": blhost_loader}  # fmt: skip
    wishes = Wishes(
        mount=mount,
        wifi_ssid=wifi_ssid,
        wifi_key_file=wifi_key_file,
        country=country,
        broker_host=broker_host,
        broker_port=broker_port,
        files={role: session.folder / path for role, path in given.items() if path is not None},
        ide=None if ide is None else session.folder / ide,
    )
    known = session.api.get("cameras", camera)
    board = boards.find(known["board"] or "")
    home = Path(session.env.get("HOME") or Path.home())
    bench = Bench(session, board, flashing.Files(board, wishes.files, wishes.ide, home))
    if abandon:
        _abandon(session, camera)
        return
    if dry_run:
        _rehearse(session, bench, camera, guide, as_json=as_json)
        return
    asking = Asking(read_answers(session.folder / answers) if answers else {} if as_json else None)
    body = {"usb": bench.state(), "guide": guide, "restart": restart}
    way = session.api.post("cameras", camera, "recoveries", body=body)
    if not as_json:
        _greet(session, way)
    _Walk(session, bench, asking, wishes, camera).go(way, as_json=as_json)


class _Walk:
    """From step to step until the end."""

    def __init__(self, session: Session, bench: Bench, asking: Asking, wishes: Wishes, camera: str) -> None:
        self._session = session
        self._bench = bench
        self._asking = asking
        self._wishes = wishes
        self._camera = camera
        self._cause = ""
        self._caught: Result | None = None  # what became of commands that followed a catch at once

    def go(self, way: dict[str, Any], *, as_json: bool) -> None:
        """Walks; the exit code says how it ended."""
        self._cause = way["cause"]
        for _ in range(STEPS_MOST):
            if way["state"] != "open":
                break
            step = way["step"]
            self._print(step)
            try:
                result = self._do(way, step)
            except QuitError:
                self._session.out.warn(f"`fleetctl recover {safe(self._camera)}` goes on at this step.")
                raise typer.Exit(NOT_SUCCEEDED) from None
            outcome, detail, usb = result
            if detail:
                self._session.out.warn(f"  {'-> ' if outcome != 'failed' else 'x  '}{safe(detail)}")
            body = {"step": step["id"], "outcome": outcome, "detail": _line(detail), "usb": usb}
            way = self._session.api.post("recoveries", way["id"], "outcomes", body=body)
            if way["cause"] != self._cause and not as_json:  # somebody's look has changed the diagnosis
                self._cause = way["cause"]
                print_causes(self._session, way["causes"])
        self._end(way, as_json=as_json)

    def _do(self, way: dict[str, Any], step: dict[str, Any]) -> tuple[str, str, str]:
        """Outcome, detail, USB state."""
        kind = step["kind"]
        if kind == "ask":
            return self._asking.choose(step["id"], step["choices"]), "", self._bench.state()
        if kind == "do":
            return self._asking.done(step["id"]), "", "unknown"
        if kind == "usb":
            return self._usb(step)
        if kind == "run":
            return self._run(step)
        if kind == "provision":
            return self._provision(step)
        return self._back(way, step)

    def _usb(self, step: dict[str, Any]) -> tuple[str, str, str]:
        if not step["ahead"]:
            return _told(self._bench.wait(step["usb"], step["timeout_s"]))
        if self._by_hand(step["ahead"]):
            return _told(self._bench.wait(step["usb"], step["timeout_s"]))
        caught, self._caught = self._bench.catch_and_run(step["ahead"], step["usb"])
        return _told(caught)

    def _run(self, step: dict[str, Any]) -> tuple[str, str, str]:
        result, self._caught = self._caught, None
        if result is None and self._by_hand(step["commands"]):
            return self._asking.done(step["id"]), "by hand", "unknown"
        return _told(result or self._bench.run(step["commands"]))

    def _by_hand(self, commands: list[dict[str, Any]]) -> bool:
        """Whether a person has to do it, because a program is missing; says which, and how to get it."""
        missing = flashing.missing_tools(commands, self._session.env.get("PATH"))
        if not missing:
            return False
        if self._asking.is_scripted:
            raise CliError(f"{missing[0][0]} is not installed.", missing[0][1], exit_code=UNUSABLE)
        for name, remedy in missing:
            self._session.out.warn(f"  {name} is not installed. {remedy}")
        self._session.out.warn(
            "  Do it by hand, with the commands above or with OpenMV IDE; or quit, install, go on."
        )
        return True

    def _provision(self, step: dict[str, Any]) -> tuple[str, str, str]:
        """The agent, the settings and the old name onto the drive."""
        from fleetd.cli.provision_camera import Order, packed, provision_one  # noqa: PLC0415  # takes a while to load
        from fleetd.provisioning.config import Wishes as Settings  # noqa: PLC0415

        try:
            drive = self._drive()
        except CliError as error:
            return "failed", error.message, "unknown"
        ssid, key = self._wifi()
        settings = Settings(
            wifi_ssid=ssid,
            wifi_key=key,
            country=self._wishes.country,
            broker_host=self._wishes.broker_host,
            broker_port=self._wishes.broker_port,
        )
        order = Order(
            mount=drive, tags=[], wishes=settings, source="mpy", label_dir=None, rotate=True, replace=True,
            as_json=self._asking.is_scripted,
        )  # fmt: skip
        try:
            provision_one(self._session, order, packed(self._session, order), self._camera)
        except CliError as error:
            return "failed", f"{error.message} {error.todo}", "unknown"
        except FleetError as error:
            return "failed", error.message, "unknown"
        if not self._asking.is_scripted:
            self._session.out.warn("Eject the drive, unplug the camera and plug it in again.")
            return self._asking.done(step["id"]), f"provisioned at {drive}", "unknown"
        return "ok", f"provisioned at {drive}", "unknown"

    def _drive(self) -> Path:
        """The camera's drive: named, or the only one that is mounted."""
        if self._wishes.mount is not None:
            return self._session.folder / self._wishes.mount
        mounts = Path(self._session.env.get("FLEETCTL_MOUNTS") or "/proc/self/mounts")
        deadline = self._session.now() + DRIVE_SECONDS
        while True:
            found = find_drive(mounts)
            if len(found) == 1:
                return found[0]
            if found:
                raise CliError(
                    f"{counted(len(found), 'camera drive')} are mounted: {', '.join(map(str, found))}.",
                    "Name the right one with --mount.",
                )
            if self._session.now() >= deadline:
                raise CliError("No camera's drive is mounted.", "Mount it, or name its folder with --mount.")
            self._session.sleep(POLL_SECONDS)

    def _wifi(self) -> tuple[str | None, str | None]:
        if self._wishes.wifi_ssid is None:
            ssid = self._asking.text("wifi-ssid", "WiFi name (empty: Ethernet, or keep what is on the drive)")
            key = self._asking.text("wifi-key", "WiFi password", hidden=True) if ssid else None
            return ssid, key
        if self._wishes.wifi_key_file is None:
            return self._wishes.wifi_ssid, None
        path = self._session.folder / self._wishes.wifi_key_file
        try:
            return self._wishes.wifi_ssid, path.read_text(encoding="utf-8").splitlines()[0]
        except (OSError, ValueError, IndexError):
            raise CliError(
                f"The file {safe(path)} cannot be read.", "It holds the WiFi's password."
            ) from None

    def _back(self, way: dict[str, Any], step: dict[str, Any]) -> tuple[str, str, str]:
        """Until the camera itself has reported, or for as long as the step allows."""
        self._session.out.warn(
            f"  Waiting up to {duration(step['timeout_s'])} (Ctrl-C stops; it goes on later)."
        )
        deadline = self._session.now() + step["timeout_s"]
        while self._session.now() < deadline:
            if self._session.api.get("recoveries", way["id"])["is_back"]:
                return "ok", f"{self._camera} reports again", "unknown"
            self._session.sleep(POLL_SECONDS)
        return (
            "failed",
            f"{self._camera} did not report within {duration(step['timeout_s'])}",
            self._bench.state(),
        )

    def _print(self, step: dict[str, Any]) -> None:
        if self._asking.is_scripted:
            self._session.out.warn(f"[{step['id']}] {safe(step['title'])}")
        else:
            _print_step(self._session, step, self._bench.files)

    def _end(self, way: dict[str, Any], *, as_json: bool) -> None:
        if as_json:
            self._session.out.json(way)
        elif way["state"] == "recovered":
            self._session.out.say(f"{safe(self._camera)} is back, {duration(way['finished_at'] - way['created_at'])} "
                                  "after this recovery began.")  # fmt: skip
        else:
            for line in way["step"]["say"]:
                self._session.out.say(safe(line))
        if way["state"] != "recovered":
            raise typer.Exit(NOT_SUCCEEDED)


def _told(result: Result) -> tuple[str, str, str]:
    return "ok" if result.ok else "failed", result.detail, result.usb


def _line(text: str) -> str:
    return "".join(char if char.isprintable() else " " for char in text)[:500]


def _greet(session: Session, way: dict[str, Any]) -> None:
    if way["log"]:
        ago = duration(session.now() - way["changed_at"])
        session.out.say(
            f"Going on with recovery {way['id']}, last touched {ago} ago (--restart begins anew)."
        )
    else:
        session.out.say(f"Recovery {way['id']} of {safe(way['camera'])}, {way['guide']['board']}.")
    print_causes(session, way["causes"])
    low, high = way["guide"]["minutes"]
    session.out.say(
        f"Guide: {way['guide']['title']}, {low} to {high} minutes. Quit at any question; it goes on there."
    )


def _print_step(session: Session, step: dict[str, Any], files: flashing.Files) -> None:
    out = session.out
    out.say("")
    out.say(f"== {safe(step['title'])} [{step['id']}]")
    for line in step["say"]:
        out.say(f"  {safe(line)}")
    for line in step["drawing"]:
        out.say(f"    {safe(line)}")
    if step["risk"]:
        out.say(f"  Careful: {safe(step['risk'])}")
    if step["ahead"]:
        out.say("  These follow at once, by themselves:")
    for line in flashing.shown([*step["ahead"], *step["commands"]], files):
        out.say(f"    $ {safe(line)}")
    if step["ide"] and step["kind"] == "run":
        out.say("  With OpenMV IDE instead:")
        for place, line in enumerate(step["ide"], start=1):
            out.say(f"    {place}. {safe(line)}")
    if step["expect"]:
        out.say(f"  You should see: {safe(step['expect'])}")
    if step["if_not_say"]:
        out.say(f"  If not: {safe(step['if_not_say'])}")
    for place, one in enumerate(step["choices"], start=1):
        out.say(f"    {place:2}. {safe(one['words'])}")


def _rehearse(session: Session, bench: Bench, camera: str, guide: str | None, *, as_json: bool) -> None:
    found = session.api.get("cameras", camera, "diagnosis", usb=bench.state(), guide=guide)
    if as_json:
        session.out.json(found)
        return
    session.out.say(f"{safe(camera)}: {found['guide']['board']}, {found['presence']}")
    print_causes(session, found["causes"])
    session.out.say(f"Guide: {found['guide']['title']}")
    for step in found["steps"]:
        _print_step(session, step, bench.files)
    missing = [role for role in ROLES if any(role in c["files"] for s in found["steps"] for c in s["commands"])
               and bench.files.find(role) is None]  # fmt: skip
    if missing:
        session.out.warn(
            f"Not found here: {', '.join(ROLES[role] for role in missing)}. --ide FOLDER, or by path."
        )
    session.out.warn("Dry run: nothing was begun, written or reported.")


def _abandon(session: Session, camera: str) -> None:
    found = [one for one in session.api.get("recoveries", camera=camera) if one["state"] == "open"]
    if not found:
        session.out.say(f"No recovery of {safe(camera)} is open.")
        return
    session.api.post("recoveries", found[0]["id"], "abandon")
    session.out.say(f"Recovery {found[0]['id']} of {safe(camera)} is over.")
