"""`fleetctl cameras snapshot` and `images`: what a camera sees."""

import time
from pathlib import Path
from typing import Annotated, Final

import typer

from fleetd.cli.cameras import Camera, app
from fleetd.cli.commands import outcome_of
from fleetd.cli.errors import ERROR, UNUSABLE, CliError
from fleetd.cli.session import Json, Limit, session_of
from fleetd.cli.text import number, safe, size, when

__all__ = ["app"]  # the cameras' commands, with these two

ARRIVAL_SECONDS: Final = 60.0
IMAGE_BYTES: Final = 1024 * 1024


@app.command()
def snapshot(
    ctx: typer.Context,
    camera: Camera,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where to write it; else NAME-IMAGE.jpg here.")
    ] = None,
    image: Annotated[
        str | None, typer.Option("--image", help="Not a new one: this one of `fleetctl cameras images`.")
    ] = None,
    quality: Annotated[int, typer.Option(min=1, max=100, help="Of the JPEG.")] = 70,
    ttl: Annotated[int, typer.Option(min=1, max=86400, help="Seconds that the command stays good.")] = 60,
    as_json: Json = False,
) -> None:
    """Have a camera take a picture and write it to a file."""
    session = session_of(ctx)
    if image is None:
        body = {"ttl_s": ttl, "args": {"quality": quality}}
        sent = session.api.post("cameras", camera, "commands", "snapshot", body=body)
        outcome = outcome_of(session, sent["id"])
        if outcome["state"] == "failed":
            raise CliError(
                f"{camera} refused: {safe(outcome['reason'] or 'no reason given')}.",
                "docs/cameras.md says what that means.",
                exit_code=ERROR,
            )
        if outcome["state"] != "done":
            raise CliError(
                f"{camera} did not answer within {ttl} s.",
                f"`fleetctl cameras show {camera}` says when it was last seen.",
                exit_code=ERROR,
            )
        image = str(outcome["data"]["image"])
    data = b""
    deadline = time.monotonic() + ARRIVAL_SECONDS
    while not data:
        try:
            data = session.api.download("cameras", camera, "images", image, limit=IMAGE_BYTES)
        except CliError as error:
            if error.code != "not_found" or time.monotonic() >= deadline:
                raise
            session.sleep(0.2)  # the answer may be here before the last piece
    path = session.folder / (output or Path(f"{camera}-{image}.jpg"))
    try:
        path.write_bytes(data)
    except OSError as error:
        raise CliError(
            f"{path} cannot be written: {error.strerror}.",
            f"fleetd has the picture: --image {image} fetches it again.",
            exit_code=UNUSABLE,
        ) from error
    if as_json:
        session.out.json({"camera": camera, "image": image, "bytes": len(data), "file": str(path)})
    else:
        session.out.say(f"{safe(str(path))}: {size(len(data))}")


@app.command("images")
def list_images(ctx: typer.Context, camera: Camera, limit: Limit = 50, as_json: Json = False) -> None:
    """List the pictures that a camera sent, newest first."""
    session = session_of(ctx)
    found = session.api.get("cameras", camera, "images", limit=limit)
    if as_json:
        session.out.json(found)
        return
    session.out.table(
        ("at", "image", "bytes", "why", "label", "score", "release"),
        (
            (
                when(one["at"]),
                one["image"],
                size(one["size"]),
                one["why"],
                one["label"] or "-",
                number(one["score"], 2),
                one["release_id"] or "-",
            )
            for one in found
        ),
        empty=f"No picture of {camera}. `fleetctl cameras snapshot {camera}` takes one.",
    )
