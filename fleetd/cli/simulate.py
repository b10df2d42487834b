"""`fleetctl simulate`: many thin cameras, to see what a broker, a database and fleetd carry, and how they recover."""

import asyncio
import contextlib
import time
from collections.abc import Iterator
from typing import Annotated, Any, Final

import typer

from fleetd.cli.session import Json, Session, session_of
from fleetd.errors import InvalidError
from fleetd.simulator.thin import Counts, Load, ThinCamera, ThinFleet

PREFIX: Final = "load-"
TAG: Final = "simulated"
LOOK_S: Final = 5.0
RECOVER_S: Final = 120.0

Share = Annotated[float, typer.Option(min=0, max=1)]


def simulate(
    ctx: typer.Context,
    cameras: Annotated[int, typer.Option("--cameras", "-n", min=1, max=20_000, help="How many.")] = 100,
    seconds: Annotated[float, typer.Option(min=1, help="For how long they talk.")] = 60.0,
    broker: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="The broker; by default the one fleetd uses.")
    ] = None,
    telemetry: Annotated[float, typer.Option(min=0, help="Seconds between telemetry; 0: none.")] = 30.0,
    results: Annotated[float, typer.Option(min=0, help="Seconds between results; 0: none.")] = 0.0,
    storm: Annotated[
        bool, typer.Option("--storm", help="Cut all connections at once, after half of the time.")
    ] = False,
    churn: Annotated[float, typer.Option(min=0, max=1, help="Chance to hang up, each turn.")] = 0.0,
    bad: Annotated[float, typer.Option(min=0, max=1, help="Chance to send what is no message.")] = 0.0,
    repeat: Annotated[float, typer.Option(min=0, max=1, help="Chance to say everything twice.")] = 0.0,
    clock_jump: Annotated[float, typer.Option(min=0, max=1, help="Chance of an absurd time.")] = 0.0,
    silent: Annotated[float, typer.Option(min=0, max=1, help="Share of cameras that say nothing.")] = 0.0,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the cameras enrolled afterwards.")] = False,
    as_json: Json = False,
) -> None:
    """Enrol many thin cameras, let them talk, and say whether everything was stored. For load, not for models."""
    session = session_of(ctx)
    status = session.api.get("status")
    host, port = _address(broker or status["broker"]["address"])
    load = Load(telemetry, results, churn=churn, bad=bad, repeat=repeat, clock_jump=clock_jump, silent=silent)
    with _enrolled(session, cameras, keep=keep) as secrets:

        def make(counts: Counts) -> list[ThinCamera]:
            return [
                ThinCamera(name, load, counts, host=host, port=port, prefix=status["prefix"], secret=secret)
                for name, secret in secrets.items()
            ]

        fleet = ThinFleet(make)
        found = asyncio.run(_talk(session, fleet, seconds, storm=storm, quiet=as_json))
    if as_json:
        session.out.json(found)
    else:
        session.out.facts([(name.replace("_", " "), value) for name, value in found.items()])
    if found["without_receipt"]:
        raise typer.Exit(1)


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit():
        raise InvalidError(f"{text!r} is no HOST:PORT. Nothing was started.")
    return host, int(port)


@contextlib.contextmanager
def _enrolled(session: Session, count: int, *, keep: bool) -> Iterator[dict[str, str]]:
    """Names and credentials of new cameras, which are removed afterwards."""
    there = {camera["name"] for camera in session.api.get("cameras") if camera["name"].startswith(PREFIX)}
    if there:
        raise InvalidError(
            f"{len(there)} cameras named {PREFIX}... are enrolled already, e.g. {min(there)}. Remove them first: "
            f"fleetctl cameras remove NAME. Nothing was started."
        )
    secrets: dict[str, str] = {}
    try:
        for number in range(count):
            name = f"{PREFIX}{number:05d}"
            made = session.api.post("cameras", body={"name": name, "tags": [TAG]})
            secrets[name] = str(made["secret"])
        yield secrets
    finally:
        if not keep:
            for name in secrets:
                session.api.delete("cameras", name)


async def _talk(
    session: Session, fleet: ThinFleet, seconds: float, *, storm: bool, quiet: bool
) -> dict[str, Any]:
    counts, began = fleet.counts, time.monotonic()
    await fleet.start()
    cut_at = seconds / 2 if storm else None
    recovered: float | None = None
    cut = 0.0
    while (passed := time.monotonic() - began) < seconds:
        await asyncio.sleep(min(LOOK_S if not cut or recovered is not None else 0.2, seconds - passed + 0.01))
        if cut_at is not None and passed >= cut_at and not cut:
            cut = time.monotonic()
            fleet.storm()
            await asyncio.sleep(0.5)  # until the cut is noticed
        elif cut and recovered is None and counts.online >= len(fleet.cameras):
            recovered = time.monotonic() - cut
        if not quiet:
            session.out.say(
                f"{passed:5.0f} s  {counts.online} online, {counts.sent} sent, {counts.receipted} stored, "
                f"{fleet.waiting} waiting"
            )
    for camera in fleet.cameras:
        camera.hush()
    deadline = time.monotonic() + RECOVER_S
    while fleet.waiting and time.monotonic() < deadline:  # noqa: ASYNC110  # thousands of cameras, no single event
        await asyncio.sleep(0.2)
    waiting = fleet.waiting
    await fleet.stop()
    return {
        "cameras": len(fleet.cameras),
        "connects": counts.connects,
        "refused": counts.refused,
        "lost_connections": counts.lost_connections,
        "sent": counts.sent,
        "stored": counts.receipted,
        "repeated": counts.repeated,
        "dropped_by_cameras": counts.dropped,
        "without_receipt": waiting,
        "all_back_after_s": None if recovered is None else round(recovered, 1),
    }
