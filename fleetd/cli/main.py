"""`fleetctl`: everything an operator does with a fleet, over HTTP."""

import os
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from fleetd import __version__
from fleetd.cli import (
    benchmark,
    commands,
    config,
    history,
    incidents,
    inspect,
    keys,
    login,
    mqttusers,
    provision,
    push,
    push_agent,
    recover,
    releases,
    rollouts,
    rotate,
    simulate,
    snapshot,
    system,
    tokens,
    usb,
)
from fleetd.cli.errors import ERROR, UNUSABLE, CliError
from fleetd.cli.session import Session
from fleetd.cli.text import safe
from fleetd.errors import FleetError, InvalidError, NotFoundError


class FleetctlGroup(TyperGroup):
    """The root command. Whatever goes wrong below it ends in one or two lines and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Runs the chosen command."""
        try:
            return super().invoke(ctx)
        except CliError as error:
            _complain(error.message, error.todo)
            raise typer.Exit(error.exit_code) from error
        except FleetError as error:
            # Bundles, keys and queries are checked here with the server's own rules.
            _complain(safe(error.message), "")
            unusable = isinstance(error, InvalidError | NotFoundError)
            raise typer.Exit(UNUSABLE if unusable else ERROR) from error
        except (typer.Exit, typer.Abort):
            raise
        except Exception as error:
            # Usage errors are printed by Typer, a closed pipe is handled by it; the rest is a fault of ours.
            if hasattr(error, "format_message") or isinstance(error, BrokenPipeError):
                raise
            if os.environ.get("FLEETCTL_DEBUG"):
                raise
            _complain(
                f"fleetctl itself failed: {type(error).__name__}: {safe(error)}.",
                "Please report it; FLEETCTL_DEBUG=1 shows where it happened.",
            )
            raise typer.Exit(ERROR) from error
        finally:
            if isinstance(ctx.obj, Session):
                ctx.obj.close()


def _complain(message: str, todo: str) -> None:
    typer.echo(f"fleetctl: {message}", err=True)
    if todo:
        typer.echo(f"  {todo}", err=True)


app = typer.Typer(
    name="fleetctl",
    cls=FleetctlGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Manage a fleet of OpenMV cameras through fleetd.",
    epilog="Exit codes: 0 done, 1 error, 2 unusable request or bundle, 3 rollout did not succeed, "
    "4 fleetd cannot be reached, 5 not allowed.",
)
app.add_typer(snapshot.app, name="cameras")  # cameras.app, with two commands more
app.add_typer(commands.app, name="commands")
app.add_typer(config.app, name="config")
keys.app.command()(rotate.rotate)
app.add_typer(keys.app, name="keys")
app.add_typer(history.led_app, name="led")
app.add_typer(incidents.app, name="incidents")
app.add_typer(mqttusers.app, name="mqtt-users")
app.add_typer(releases.app, name="releases")
app.add_typer(rollouts.app, name="rollouts")
app.add_typer(tokens.app, name="tokens")
app.add_typer(usb.app, name="usb")
for command, name in (
    (login.login, "login"),
    (system.status, "status"),
    (provision.provision, "provision"),
    (push.push_model, "push-model"),
    (push_agent.push_agent, "push-agent"),
    (inspect.inspect, "inspect"),
    (benchmark.benchmark, "benchmark"),
    (simulate.simulate, "simulate"),
    (history.results, "results"),
    (history.telemetry, "telemetry"),
    (history.events, "events"),
    (history.leds, "leds"),
    (incidents.diagnose, "diagnose"),
    (incidents.timeline, "timeline"),
    (recover.recover, "recover"),
    (history.dead_letters, "dead-letters"),
    (tokens.audit, "audit"),
):
    app.command(name)(command)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"fleetctl {__version__}")
        raise typer.Exit


@app.callback()
def root(
    ctx: typer.Context,
    url: Annotated[
        str | None, typer.Option("--url", metavar="URL", help="Where fleetd is. Also: FLEETCTL_URL.")
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(
            "--token-file", metavar="FILE", help="A file with the token. Also: FLEETCTL_TOKEN_FILE."
        ),
    ] = None,
    _version_wanted: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Manage a fleet of OpenMV cameras through fleetd."""
    session = ctx.obj if isinstance(ctx.obj, Session) else Session()
    session.url, session.token_file = url, token_file
    ctx.obj = session


def main() -> None:
    """The program."""
    app()
