"""`fleetctl tokens` and `fleetctl audit`: who may ask, and what was done."""

from enum import StrEnum
from typing import Annotated

import typer

from fleetd.cli.session import Json, Limit, session_of
from fleetd.cli.text import as_json_line, safe, when

app = typer.Typer(no_args_is_help=True, help="API tokens.")


class TokenRole(StrEnum):
    """What a token may do."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"


@app.command("list")
@app.command("ls", hidden=True)
def list_tokens(ctx: typer.Context, as_json: Json = False) -> None:
    """List tokens, revoked ones too. Their secrets are not kept anywhere."""
    session = session_of(ctx)
    found = session.api.get("tokens")
    if as_json:
        session.out.json(found)
        return
    session.out.table(
        ("name", "role", "created", "revoked"),
        (
            (token["name"], token["role"], when(token["created_at"]), when(token["revoked_at"]))
            for token in found
        ),
        empty="There is no token.",
    )


@app.command()
def create(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="Whose token, or what for.")],
    role: Annotated[TokenRole, typer.Option(help="What it may do.")] = TokenRole.VIEWER,
    as_json: Json = False,
) -> None:
    """Make a token and print it, this once."""
    session = session_of(ctx)
    found = session.api.post("tokens", body={"name": name, "role": role.value})
    if as_json:
        session.out.json(found)
        return
    session.out.say(found["token"])
    session.out.warn(f"A {role.value}'s token for {safe(name)}, shown this once: fleetd keeps only a hash.")


@app.command()
def revoke(ctx: typer.Context, name: Annotated[str, typer.Argument(help="The token's name.")]) -> None:
    """End a token at once."""
    session = session_of(ctx)
    session.api.delete("tokens", name)
    session.out.say(f"Revoked {safe(name)}.")


def audit(ctx: typer.Context, limit: Limit = 50, as_json: Json = False) -> None:
    """Show what was changed by whom, newest first."""
    session = session_of(ctx)
    found = session.api.get("audit", limit=limit)
    if as_json:
        session.out.json(found)
        return
    session.out.table(
        ("at", "who", "did", "to", "facts"),
        (
            (when(row["at"]), row["actor"], row["action"], row["subject"], as_json_line(row["facts"]))
            for row in found
        ),
        empty="Nothing was changed yet.",
    )
