"""`fleetctl`: everything an operator does with a fleet, over HTTP."""

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from fleetd import __version__
from fleetd.cli import (
    cameras,
    commands,
    history,
    inspect,
    keys,
    login,
    push,
    releases,
    rollouts,
    system,
    tokens,
)
from fleetd.cli.errors import ERROR, CliError
from fleetd.cli.session import Session
from fleetd.cli.text import safe
from fleetd.errors import FleetError


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
            _complain(safe(error.message), "")
            raise typer.Exit(ERROR) from error
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
