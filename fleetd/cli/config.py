"""`fleetctl config`: settings of cameras that are already out there."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from fleetd.cli.errors import UNUSABLE, CliError
from fleetd.cli.session import Json, session_of
from fleetd.cli.text import safe
from fleetd.domain.tuning import check_tuning

app = typer.Typer(no_args_is_help=True, help="Settings of cameras, from afar.")

To = Annotated[
    str, typer.Option("--to", "-t", metavar="QUERY", help="Which cameras, e.g. tag=line-3, id=cam-7.")
]


@app.command()
def show(
    ctx: typer.Context,
    camera: Annotated[str, typer.Argument(metavar="CAMERA", help="The camera's name.")],
    as_json: Json = False,
) -> None:
    """Show what is wanted of a camera beyond its own config.json, and whether it has heard it."""
    session = session_of(ctx)
    found = session.api.get("cameras", camera, "config")
    if as_json:
        session.out.json(found)
        return
    if not found["settings"]:
        session.out.say(f"{safe(camera)}: nothing beyond its own config.json.")
        return
    session.out.facts([(name, json.dumps(value)) for name, value in sorted(found["settings"].items())])
    heard = found["reported"] is not None and found["reported"] >= found["generation"]
    session.out.say("It has heard it." if heard else "It has not said yet that it heard it.")


@app.command("set")
def set_values(
    ctx: typer.Context,
    settings: Annotated[list[str], typer.Argument(metavar="NAME=VALUE...")],
    to: To,
    as_json: Json = False,
) -> None:
    """Want settings of cameras, e.g. `publish=on_change threshold=0.8 roi=10,10,80,80 frame_size=none`."""
    values: dict[str, Any] = {}
    for text in settings:
        name, equals, value = text.partition("=")
        if not equals:
            raise CliError(f"{safe(text)!r} is no NAME=VALUE. Nothing was changed.", exit_code=UNUSABLE)
        values[name] = _value(value)
    if "wifi" in values:
        raise CliError(
            "A WiFi's key does not belong on a command line. Nothing was changed.",
            "`fleetctl config wifi SSID --to ...` asks for it.",
            exit_code=UNUSABLE,
        )
    _change(ctx, to, {"set": check_tuning(values)}, as_json=as_json)


@app.command()
def unset(
    ctx: typer.Context,
    names: Annotated[list[str], typer.Argument(metavar="NAME...")],
    to: To,
    as_json: Json = False,
) -> None:
    """Leave settings to the cameras' own config.json again, from their next start on."""
    _change(ctx, to, {"unset": names}, as_json=as_json)


@app.command()
def wifi(
    ctx: typer.Context,
    ssid: Annotated[str, typer.Argument(metavar="SSID", help="The network's name.")],
    to: To,
    key_file: Annotated[
        Path | None, typer.Option(help="A file that holds the network's key; asked for otherwise.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Move cameras to another WiFi. Each tries it, and goes back when it does not reach the broker there."""
    if key_file is None:
        key = typer.prompt(f"Key of {safe(ssid)}", hide_input=True)
    else:
        try:
            key = key_file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise CliError(
                f"{safe(key_file)} cannot be read: {error}. Nothing was changed.", exit_code=UNUSABLE
            ) from error
    _change(ctx, to, {"set": check_tuning({"wifi": {"ssid": ssid, "key": key}})}, as_json=as_json)


def _value(text: str) -> Any:
    """What is meant by what follows `=`: JSON where it is some, none, numbers with commas, else the word itself."""
    if text.lower() in ("none", "null"):
        return None
    try:
        return json.loads(f"[{text}]" if "," in text and not text.startswith("[") else text)
    except ValueError:
        return text


def _change(ctx: typer.Context, to: str, body: dict[str, Any], *, as_json: bool) -> None:
    session = session_of(ctx)
    found = session.api.patch("config", body={"target": to, **body})
    if as_json:
        session.out.json(found)
        return
    changed, unchanged = found["changed"], found["unchanged"]
    names = ", ".join(safe(name) for name in changed[:10]) + (" ..." if len(changed) > 10 else "")
    if changed:
        session.out.say(f"Wanted of {len(changed)} camera{'s' * (len(changed) != 1)}: {names}.")
    if unchanged:
        session.out.say(f"Nothing new for {len(unchanged)}: so it was already.")
