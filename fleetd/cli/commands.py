"""`fleetctl commands`: tell a camera to do something once."""

from enum import StrEnum
from typing import Annotated, Any, Final

import typer

from fleetd.cli.errors import ERROR, CliError
from fleetd.cli.session import Json, Session, session_of
from fleetd.cli.text import as_json_line, safe
from fleetd.domain.identify import colour_code

POLL_SECONDS: Final = 0.5

app = typer.Typer(no_args_is_help=True, help="Commands to cameras.")


class Command(StrEnum):
    """What a camera can be told."""

    IDENTIFY = "identify"
    REBOOT = "reboot"


@app.command()
def send(
    ctx: typer.Context,
    camera: Annotated[str, typer.Argument(help="The camera's name.")],
    command: Annotated[Command, typer.Argument(help="What it should do.")],
    ttl: Annotated[int, typer.Option(min=1, max=86400, help="Seconds that the command stays good.")] = 60,
    wait: Annotated[bool, typer.Option(help="Wait for the camera's answer.")] = True,
    as_json: Json = False,
) -> None:
    """Send a command: identify (blink the LED) or reboot."""
    session = session_of(ctx)
    sent = session.api.post("cameras", camera, "commands", command.value, body={"ttl_s": ttl})
    if not wait:
        if as_json:
            session.out.json(sent)
        else:
            session.out.say(f"Queued as {safe(sent['id'])}; it is dropped if not delivered in {ttl} s.")
        return
    outcome = outcome_of(session, sent["id"])
    if as_json:
        session.out.json(outcome)
    if outcome["state"] == "done":
        if not as_json:
            data = f" {safe(as_json_line(outcome['data']))}" if outcome["data"] else ""
            session.out.say(f"{safe(camera)} did it.{data}")
            if command is Command.IDENTIFY:
                colors = ", ".join(colour_code(camera))
                session.out.say(f"Look for two white flashes, then {colors}; again and again for 30 seconds.")
        return
    if outcome["state"] == "failed":
        raise CliError(
            f"{camera} refused: {safe(outcome['reason'] or 'no reason given')}.",
            f"`fleetctl events --camera {camera}` may say more.",
            exit_code=ERROR,
        )
    raise CliError(
        f"{camera} did not answer within {ttl} s; the command has expired and will not be carried out later.",
        f"`fleetctl cameras show {camera}` says when it was last seen.",
        exit_code=ERROR,
    )


def outcome_of(session: Session, command_id: str) -> Any:
    """What became of the command; the server ends the wait by calling it expired."""
    while True:
        found = session.api.get("commands", command_id)
        if found["state"] not in {"queued", "sent"}:
            return found
        session.sleep(POLL_SECONDS)
