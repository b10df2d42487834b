"""`fleetctl cameras`: who is enrolled, how they are, tags and credentials."""

from typing import Annotated, Any

import typer

from fleetd.cli import risks
from fleetd.cli.explaining import print_camera
from fleetd.cli.session import Json, Limit, session_of
from fleetd.cli.text import duration, safe, size, when

app = typer.Typer(no_args_is_help=True, help="Cameras: list, show, enrol, tag.")

Camera = Annotated[str, typer.Argument(metavar="CAMERA", help="The camera's name.")]
Target = Annotated[
    str | None, typer.Option("--to", "-t", metavar="QUERY", help="Only these, e.g. tag=line-3, id=cam-*.")
]


def running(camera: dict[str, Any]) -> str:
    """What a camera runs, in a few words."""
    release = camera["release"]
    if release is None:
        return "-"
    trial = f" (trying {camera['trial']})" if camera["trial"] else ""
    return f"{release['id'] or 'digest ' + str(release['digest'])[:8]}{trial}"


def led(camera: dict[str, Any]) -> str:
    """What a camera's LED does, in a few words."""
    found = camera["led"]
    if found is None:
        return "-"
    return f"{found['color']} {found['pattern'] or ''}".strip()


@app.command("list")
@app.command("ls", hidden=True)
def list_cameras(ctx: typer.Context, to: Target = None, as_json: Json = False) -> None:
    """List cameras and how they are."""
    session = session_of(ctx)
    found = session.api.get("cameras", target=to)
    if as_json:
        session.out.json(found)
        return
    session.out.table(
        ("camera", "presence", "seen", "board", "running", "led", "tags"),
        (
            (
                camera["name"],
                "revoked" if camera["revoked_at"] else camera["presence"],
                "-" if camera["silent_s"] is None else f"{duration(camera['silent_s'])} ago",
                (camera["board"] or "-").split(" ")[0],
                running(camera),
                led(camera),
                " ".join(camera["tags"]),
            )
            for camera in found
        ),
        empty="No camera matches."
        if to
        else "No camera is enrolled. `fleetctl cameras add NAME` enrols one.",
    )


@app.command("risks")
def show_risks(ctx: typer.Context, to: Target = None, as_json: Json = False) -> None:
    """Show which cameras would be hard to bring back if something went wrong, and what to do about it."""
    session = session_of(ctx)
    names = {camera["name"] for camera in session.api.get("cameras", target=to)}
    if as_json:
        session.out.json(risks.risks_of(session, names))
    elif not risks.warn_of_risks(session, names):
        session.out.say("No camera that has reported would be hard to bring back.")


@app.command()
def show(ctx: typer.Context, camera: Camera, as_json: Json = False) -> None:
    """Show everything known of one camera."""
    session = session_of(ctx)
    found = session.api.get("cameras", camera)
    if as_json:
        session.out.json(found)
        return
    release, storage, network = found["release"] or {}, found["storage"] or {}, found["network"] or {}
    sighting = found["led"] or {}
    session.out.facts(
        [
            ("name", found["name"]),
            ("presence", found["presence"]),
            ("revoked", f"{when(found['revoked_at'])}: it is shut out" if found["revoked_at"] else None),
            (
                "last seen",
                f"{when(found['seen_at'])} ({duration(found['silent_s'])} ago)"
                if found["seen_at"]
                else "never",
            ),
            ("tags", " ".join(found["tags"]) or None),
            ("site", found["site"] or None),
            ("pinned to", found["pinned"]),
            ("note", found["note"] or None),
            ("enrolled", when(found["created_at"])),
            ("board", found["board"]),
            ("firmware", found["firmware"]),
            ("agent", found["agent"]),
            ("hardware id", found["uid"]),
            ("running", running(found)),
            ("content", release.get("digest")),
            ("sequence", f"{release['epoch']}.{release['sequence']}" if release else None),
            (
                "keys",
                f"record {found['key_serial']}, epoch {found['key_epoch']}" if found["key_epoch"] else None,
            ),
            ("led", f"{led(found)} ({sighting.get('reason') or 'no reason given'})" if sighting else None),
            ("last boot", f"{found['boot']} ({found['reset_cause']})" if found["boot"] else None),
            ("storage", f"{storage.get('backend')}, {size(storage.get('free'))} free" if storage else None),
            ("network", " ".join(f"{key}={value}" for key, value in network.items()) or None),
            ("abilities", " ".join(found["capabilities"]) or None),
            ("problems", " ".join(found["problems"]) or None),
        ]
    )


@app.command("add")
@app.command("enroll", hidden=True)
def add(
    ctx: typer.Context,
    camera: Camera,
    tag: Annotated[list[str] | None, typer.Option("--tag", help="A tag; may be repeated.")] = None,
    note: Annotated[str, typer.Option(help="A note for people.")] = "",
    as_json: Json = False,
) -> None:
    """Enrol a camera and print its credential, which is shown this once."""
    session = session_of(ctx)
    body = {"name": camera, "tags": tag or [], "note": note}
    found = session.api.post("cameras", body=body)
    _print_secret(ctx, found["camera"]["name"], found["secret"], found, as_json=as_json)


@app.command()
def remove(
    ctx: typer.Context,
    camera: Camera,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Remove a camera with everything it sent; its credential stops working."""
    session = session_of(ctx)
    found = session.api.get("cameras", camera)
    if not yes:
        typer.confirm(f"Remove {safe(found['name'])} with all its results, events and telemetry?", abort=True)
    session.api.delete("cameras", camera)
    session.out.say(f"Removed {safe(camera)}.")


@app.command()
def tag(
    ctx: typer.Context, camera: Camera, tags: Annotated[list[str], typer.Argument(metavar="TAG...")]
) -> None:
    """Put tags on a camera."""
    _change_tags(ctx, camera, {"add_tags": tags})


@app.command()
def untag(
    ctx: typer.Context, camera: Camera, tags: Annotated[list[str], typer.Argument(metavar="TAG...")]
) -> None:
    """Take tags off a camera."""
    _change_tags(ctx, camera, {"remove_tags": tags})


@app.command()
def move(
    ctx: typer.Context,
    camera: Camera,
    site: Annotated[str, typer.Argument(metavar="SITE", help="A place that shares a link; '' takes it off.")],
) -> None:
    """Say at which site a camera is: rollouts keep limits for each site."""
    session = session_of(ctx)
    found = session.api.patch("cameras", camera, body={"site": site})
    session.out.say(f"{safe(found['name'])}: {safe(found['site']) or 'no site'}")


@app.command()
def pin(
    ctx: typer.Context,
    camera: Camera,
    release: Annotated[str | None, typer.Argument(metavar="[RELEASE]", help="Usually what it runs.")] = None,
) -> None:
    """Keep a camera at a release: rollouts of others leave it out."""
    session = session_of(ctx)
    found = session.api.put("cameras", camera, "pin", body={"release": release})
    session.out.say(f"{safe(found['name'])} is pinned to {safe(found['pinned'])}.")


@app.command()
def unpin(ctx: typer.Context, camera: Camera) -> None:
    """Let rollouts bring a camera anything again."""
    session = session_of(ctx)
    session.api.delete("cameras", camera, "pin")
    session.out.say(f"{safe(camera)} is not pinned.")


@app.command()
def explain(ctx: typer.Context, camera: Camera, as_json: Json = False) -> None:
    """Say what a camera should run, what it says it runs, and what happens next."""
    session = session_of(ctx)
    found = session.api.get("cameras", camera, "explain")
    if as_json:
        session.out.json(found)
        return
    print_camera(session, found)


@app.command("rotate-secret")
def rotate_secret(ctx: typer.Context, camera: Camera, as_json: Json = False) -> None:
    """Replace a camera's credential; whoever is connected with the old one is cut off."""
    found = session_of(ctx).api.post("cameras", camera, "secret")
    _print_secret(ctx, found["name"], found["secret"], found, as_json=as_json)


@app.command("fresh-key")
def fresh_key(ctx: typer.Context, camera: Camera, as_json: Json = False) -> None:
    """Make a key with which fleetd proves its answers to a camera: `fresh_key` in its configuration."""
    session = session_of(ctx)
    found = session.api.post("cameras", camera, "fresh-key")
    if as_json:
        session.out.json(found)
        return
    session.out.facts([("camera", found["name"]), ("fresh_key", found["fresh_key"])])
    session.out.warn("The one before does not count any more. `fleetctl provision` does this by itself.")


@app.command()
def revoke(
    ctx: typer.Context,
    camera: Camera,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Shut a camera out at once, e.g. a stolen one. What it has sent stays; `reinstate` takes it back."""
    session = session_of(ctx)
    found = session.api.get("cameras", camera)
    if not yes:
        typer.confirm(f"Shut {safe(found['name'])} ({found['presence']}) out?", abort=True)
    session.api.post("cameras", camera, "revoke")
    session.out.say(f"{safe(camera)} is shut out.")
    if session.api.get("status")["broker"].get("kind") == "external":
        session.out.warn(
            "fleetd stores nothing from it any more; its account at your broker is yours to end."
        )


@app.command()
def reinstate(ctx: typer.Context, camera: Camera, as_json: Json = False) -> None:
    """Take a revoked camera back; prints its new credential, this once."""
    found = session_of(ctx).api.post("cameras", camera, "reinstate")
    _print_secret(ctx, found["name"], found["secret"], found, as_json=as_json)


@app.command()
def unknown(ctx: typer.Context, limit: Limit = 100, as_json: Json = False) -> None:
    """List names that publish without being enrolled."""
    session = session_of(ctx)
    found = session.api.get("unknown-cameras", limit=limit)
    if as_json:
        session.out.json(found)
        return
    session.out.table(
        ("name", "first seen", "last seen", "messages"),
        ((row["name"], when(row["first_seen"]), when(row["last_seen"]), row["messages"]) for row in found),
        empty="Nobody publishes without being enrolled.",
    )


def _change_tags(ctx: typer.Context, camera: str, body: dict[str, Any]) -> None:
    session = session_of(ctx)
    found = session.api.patch("cameras", camera, body=body)
    session.out.say(f"{safe(found['name'])}: {safe(' '.join(found['tags'])) or 'no tags'}")


def _print_secret(
    ctx: typer.Context, name: str, secret: str, answer: dict[str, Any], *, as_json: bool
) -> None:
    session = session_of(ctx)
    if as_json:
        session.out.json(answer)
        return
    session.out.facts([("user", name), ("password", secret)])
    session.out.warn("Shown this once: fleetd keeps only a hash. Write it to the camera's configuration now.")
