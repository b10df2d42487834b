"""`fleetctl releases`: what was uploaded."""

from typing import Annotated

import typer

from fleetd.cli.session import Json, Limit, session_of
from fleetd.cli.text import size, when

app = typer.Typer(no_args_is_help=True, help="Releases: signed models.")


@app.command("list")
@app.command("ls", hidden=True)
def list_releases(ctx: typer.Context, limit: Limit = 50, as_json: Json = False) -> None:
    """List releases, newest first."""
    session = session_of(ctx)
    found = session.api.get("releases", limit=limit)
    if as_json:
        session.out.json(found)
        return
    session.out.table(
        ("release", "name", "version", "sequence", "size", "labels", "signed by", "uploaded", "by"),
        (
            (
                release["id"],
                release["name"],
                release["version"],
                f"{release['epoch']}.{release['sequence']}",
                size(release["content_size"]),
                len(release["labels"]),
                release["key_id"],
                when(release["uploaded_at"]),
                release["uploaded_by"],
            )
            for release in found
        ),
        empty="There is no release. `fleetctl push-model PATH --to QUERY` makes one.",
    )


@app.command()
def show(
    ctx: typer.Context,
    release: Annotated[str, typer.Argument(help="The release's id, e.g. model-7.")],
    as_json: Json = False,
) -> None:
    """Show one release."""
    session = session_of(ctx)
    found = session.api.get("releases", release)
    if as_json:
        session.out.json(found)
        return
    session.out.facts(
        [
            ("release", found["id"]),
            ("name", f"{found['name']} {found['version']}"),
            ("sequence", f"{found['epoch']}.{found['sequence']}"),
            ("labels", ", ".join(found["labels"])),
            ("content", f"{found['content_sha256']} ({size(found['content_size'])})"),
            ("manifest", found["digest"]),
            ("signed by", found["key_id"]),
            ("uploaded", f"{when(found['uploaded_at'])} by {found['uploaded_by']}"),
        ]
    )
