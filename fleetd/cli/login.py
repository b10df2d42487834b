"""`fleetctl login`: remember a server and its token in a file only the user can read."""

from typing import Annotated

import typer

from fleetd.cli.server import Server, is_loopback, normal_url, read_token, save_login
from fleetd.cli.session import session_of


def login(
    ctx: typer.Context,
    url: Annotated[str, typer.Argument(help="Where fleetd is, e.g. http://fleet.local:8080.")],
) -> None:
    """Remember a fleetd; asks for the token, or reads it with --token-file (before `login`)."""
    session = session_of(ctx)
    address = normal_url(url)
    if session.token_file is not None:
        token = read_token(session.token_file)
    else:
        token = str(typer.prompt("Token", hide_input=True)).strip()
    if not address.startswith("https://") and not is_loopback(address):
        session.out.warn(f"{address} is not encrypted: whoever is on the way can read the token.")
    with session.connect(Server(address, token, "fleetctl login")) as api:
        api.get("status")  # a token that does not work is not worth keeping
    path = save_login(session.env, address, token)
    session.out.say(f"Logged in to {address}; remembered in {path}.")
