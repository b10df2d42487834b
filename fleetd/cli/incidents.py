"""`fleetctl incidents`, `diagnose`, `timeline`: what needs a person, why, and how it came about."""

from typing import Annotated, Any

import typer

from fleetd.cli.session import Json, Limit, Session, session_of
from fleetd.cli.text import counted, duration, moment, safe, span, when

app = typer.Typer(no_args_is_help=True, help="Incidents: what needs a person, and what became of it.")
maintenance_app = typer.Typer(no_args_is_help=True, help="Times in which cameras open no incidents.")
app.add_typer(maintenance_app, name="maintenance")

Number = Annotated[int, typer.Argument(metavar="NUMBER", min=1, help="The incident's number.")]
CameraArgument = Annotated[str, typer.Argument(metavar="CAMERA", help="The camera's name.")]
For = Annotated[str, typer.Option("--for", metavar="TIME", help="How long: 90s, 15m, 2h, 7d.")]


@app.command("ls")
@app.command("list", hidden=True)
def list_incidents(
    ctx: typer.Context,
    state: Annotated[str, typer.Option(help="open, closed or all.")] = "open",
    camera: Annotated[str | None, typer.Option("--camera", "-c", help="Only this camera's.")] = None,
    since: Annotated[str | None, typer.Option(help="Only newer: how long ago, or Unix seconds.")] = None,
    limit: Limit = 50,
    as_json: Json = False,
) -> None:
    """List incidents, newest first."""
    session = session_of(ctx)
    found = session.api.get(
        "incidents", state=state, camera=camera, since=moment(since, session.now()), limit=limit
    )
    if as_json:
        session.out.json(found)
        return
    session.out.table(
        ("number", "severity", "kind", "who", "since", "lasted", "times", "owner", "most likely"),
        ((one["id"], one["severity"], one["kind"], _who(one), when(one["opened_at"]), _lasted(session, one),
          one["times"], one["owner"], one["causes"][0]["title"] if one["causes"] else one["summary"])
         for one in found),
        empty="No open incident." if state == "open" else "No incident.",
    )  # fmt: skip


@app.command()
def show(ctx: typer.Context, number: Number, as_json: Json = False) -> None:
    """Show one incident: why, what was done, who was told."""
    session = session_of(ctx)
    found = session.api.get("incidents", number)
    if as_json:
        session.out.json(found)
        return
    session.out.facts(
        [
            ("incident", f"{found['id']}, {found['kind']}, {found['severity']}"),
            ("who", _who(found)),
            ("what", found["summary"]),
            ("state", found["state"] + (f": {found['outcome']}" if found["outcome"] else "")),
            ("opened", f"{when(found['opened_at'])}, lasted {_lasted(session, found)}"),
            ("times", found["times"]),
            ("owner", found["owner"]),
            ("muted until", when(found["muted_until"]) if found["muted_until"] else None),
        ]
    )
    print_causes(session, found["causes"])
    for note in found["notes"]:
        session.out.say(f"{when(note['at'])}  {safe(note['author'])}: {safe(note['text'])}")
    for notice in found["notices"]:
        state = (
            f"sent {when(notice['sent_at'])}" if notice["sent_at"] else f"not sent: {safe(notice['error'])}"
        )
        session.out.say(
            f"{when(notice['created_at'])}  told by {notice['channel']} ({notice['what']}): {state}"
        )
    if found["state"] == "open" and found["camera"]:
        session.out.warn(f"Bring it back: fleetctl recover {safe(found['camera'])}")


@app.command()
def note(ctx: typer.Context, number: Number, text: Annotated[str, typer.Argument()]) -> None:
    """Add a line to an incident's story."""
    session = session_of(ctx)
    session.api.post("incidents", number, "notes", body={"text": text})
    session.out.say("Noted.")


@app.command()
def own(
    ctx: typer.Context,
    number: Number,
    owner: Annotated[str | None, typer.Argument(help="Who looks after it; without: nobody.")] = None,
) -> None:
    """Say who looks after an incident."""
    session = session_of(ctx)
    session.api.post("incidents", number, "owner", body={"owner": owner})
    session.out.say(f"Incident {number}: {safe(owner) if owner else 'nobody'} looks after it.")


@app.command()
def mute(ctx: typer.Context, number: Number, how_long: For = "24h") -> None:
    """Send no notices about an incident for a while; it stays open. `--for 0s` ends that."""
    session = session_of(ctx)
    session.api.post("incidents", number, "mute", body={"seconds": span(how_long)})
    session.out.say(f"Incident {number} is quiet for {safe(how_long)}.")


@app.command()
def close(
    ctx: typer.Context,
    number: Number,
    reason: Annotated[str, typer.Option("--reason", "-r", help="Why it is over.")] = "closed by hand",
) -> None:
    """Close an incident by hand. Usually the camera's own word does it."""
    session = session_of(ctx)
    session.api.post("incidents", number, "close", body={"reason": reason})
    session.out.say(f"Incident {number} is closed.")


@app.command()
def report(
    ctx: typer.Context,
    since: Annotated[str, typer.Option(help="From when on: how long ago, or Unix seconds.")] = "30d",
    as_json: Json = False,
) -> None:
    """Show how long it took to get cameras back, and which ones need it again and again."""
    session = session_of(ctx)
    found = session.api.get("incidents", "report", since=moment(since, session.now()))
    if as_json:
        session.out.json(found)
        return
    mean = "-" if found["mttr_s"] is None else duration(found["mttr_s"])
    session.out.say(
        f"{counted(found['incidents'], 'incident')}, {found['open']} open, mean time to recover {mean}"
    )
    session.out.table(
        ("kind", "incidents", "open", "mean", "median"),
        (
            (one["kind"], one["incidents"], one["open"], duration(one["mttr_s"]), duration(one["median_s"]))
            for one in found["kinds"]
        ),
        empty="No incident in that time.",
    )
    if found["offenders"]:
        session.out.say("")
        session.out.table(
            ("camera", "incidents", "times", "away in all"),
            ((o["camera"], o["incidents"], o["times"], duration(o["down_s"])) for o in found["offenders"]),
            empty="",
        )


@maintenance_app.command("start")
def start_maintenance(
    ctx: typer.Context,
    subject: Annotated[str, typer.Argument(metavar="WHO", help="A camera, site=NAME, or all.")],
    how_long: For,
    reason: Annotated[str, typer.Option("--reason", "-r", help="Why.")] = "",
) -> None:
    """Open no incidents about a camera, a site or everything for a while."""
    session = session_of(ctx)
    seconds = span(how_long)
    session.api.put("maintenance", subject, body={"seconds": seconds, "reason": reason})
    session.out.say(f"{safe(subject)}: maintenance until {when(session.now() + seconds)}.")


@maintenance_app.command("end")
def end_maintenance(ctx: typer.Context, subject: Annotated[str, typer.Argument(metavar="WHO")]) -> None:
    """End a maintenance early."""
    session = session_of(ctx)
    session.api.delete("maintenance", subject)
    session.out.say(f"{safe(subject)}: maintenance is over.")


@maintenance_app.command("ls")
def list_maintenance(ctx: typer.Context, as_json: Json = False) -> None:
    """List maintenance under way."""
    session = session_of(ctx)
    found = session.api.get("maintenance")
    if as_json:
        session.out.json(found)
        return
    session.out.table(
        ("who", "until", "by", "reason"),
        ((one["subject"], when(one["until"]), one["created_by"], one["reason"]) for one in found),
        empty="No maintenance under way.",
    )


def diagnose(ctx: typer.Context, camera: CameraArgument, as_json: Json = False) -> None:
    """Say what may be wrong with a camera, and why. Changes nothing."""
    session = session_of(ctx)
    found = session.api.get("cameras", camera, "diagnosis")
    if as_json:
        session.out.json(found)
        return
    silent = "" if found["silent_s"] is None else f", heard {duration(found['silent_s'])} ago"
    session.out.say(f"{safe(found['camera'])} ({found['board']}): {found['presence']}{silent}")
    print_causes(session, found["causes"])
    low, high = found["guide"]["minutes"]
    session.out.say(
        f"Guide: {found['guide']['title']} ({low} to {high} minutes): fleetctl recover {safe(camera)}"
    )


def timeline(
    ctx: typer.Context,
    camera: CameraArgument,
    since: Annotated[str, typer.Option(help="From when on: how long ago, or Unix seconds.")] = "7d",
    limit: Limit = 50,
    as_json: Json = False,
) -> None:
    """Show a camera's story: starts, silences, lights, updates, events, incidents; newest first."""
    session = session_of(ctx)
    found = session.api.get("cameras", camera, "timeline", since=moment(since, session.now()), limit=limit)
    if as_json:
        session.out.json(found)
        return
    session.out.table(
        ("at", "kind", "what"),
        ((when(one["at"]), one["kind"], one["text"]) for one in found),
        empty="Nothing happened in that time.",
    )


def print_causes(session: Session, causes: list[dict[str, Any]]) -> None:
    """What may be wrong, most likely first, with the reasons."""
    for place, one in enumerate(causes, start=1):
        session.out.say(f"{place}. {safe(one['title'])} ({one['cause']}, weight {one['weight']})")
        for reason in one["evidence"]:
            session.out.say(f"     because {safe(reason)}")
        if place == 1:
            session.out.say(f"     do first: {safe(one['todo'])}")


def _who(incident: dict[str, Any]) -> str:
    if incident["camera"]:
        return str(incident["camera"])
    return f"site {incident['site']}" if incident["site"] else "the fleet"


def _lasted(session: Session, incident: dict[str, Any]) -> str:
    return duration((incident["closed_at"] or session.now()) - incident["opened_at"])
