"""`fleetctl mqtt-users`: people and programs that read over MQTT."""

from typing import Annotated

import typer

from fleetd.cli.session import Json, session_of
from fleetd.cli.text import safe, when

app = typer.Typer(no_args_is_help=True, help="Who may read over MQTT, e.g. with mosquitto_sub.")

Name = Annotated[str, typer.Argument(metavar="NAME", help="Lower case letters, digits, dashes.")]


@app.command("list")
@app.command("ls", hidden=True)
def list_users(ctx: typer.Context, as_json: Json = False) -> None:
    """List who may read. Cameras are not among them: they have accounts of their own."""
    session = session_of(ctx)
    found = session.api.get("mqtt-users")
    if as_json:
        session.out.json(found)
        return
    session.out.table(
        ("name", "created", "by"),
        ((user["name"], when(user["created_at"]), user["created_by"]) for user in found),
        empty="Nobody. `fleetctl mqtt-users add NAME` lets somebody in.",
    )


@app.command()
def add(ctx: typer.Context, name: Name, as_json: Json = False) -> None:
    """Let somebody read everything over MQTT and publish nothing. Prints the password, this once."""
    session = session_of(ctx)
    found = session.api.post("mqtt-users", body={"name": name})
    if as_json:
        session.out.json(found)
        return
    status = session.api.get("status")
    host, _, port = str(status["broker"]["address"]).rpartition(":")
    session.out.facts([("user", found["name"]), ("password", found["password"])])
    session.out.warn("Shown this once. One account is one connection: give every program its own.")
    session.out.say(
        f"mosquitto_sub -h {safe(host)} -p {safe(port)} -u {safe(name)} -P {found['password']} "
        f"-v -t '{safe(status['prefix'])}/+/up/result'"
    )


@app.command()
def remove(ctx: typer.Context, name: Name) -> None:
    """End somebody's account and connection."""
    session = session_of(ctx)
    session.api.delete("mqtt-users", name)
    session.out.say(f"{safe(name)} reads no more.")
