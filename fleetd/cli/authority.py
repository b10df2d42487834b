"""`fleetd ca`: the certificate authority of this installation, for TLS between cameras and the broker."""

import socket
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from fleetd.certificates import BROKER_NAME, Authority, Shown
from fleetd.settings import Settings, load_settings

app = typer.Typer(no_args_is_help=True, help="Certificates for TLS between cameras and fleetd's own broker.")

Config = Annotated[Path | None, typer.Option("--config", "-c", help="Settings file.")]
Names = Annotated[
    list[str] | None,
    typer.Option("--name", help="Host name or address of this machine, for programs; may be repeated."),
]


@app.command()
def init(name: Names = None, config: Config = None) -> None:
    """Makes the authority and the broker's certificate. Once: cameras trust this authority from then on."""
    settings = load_settings(config)
    authority = _authority(settings)
    authority.make(name or _own_names(settings), time.time())
    _print(authority)
    typer.echo(f"Keep {authority.key} to yourself: whoever has it can pretend to be your broker.")
    if not settings.broker.is_open:
        typer.echo('Next: let cameras in, with listen = "0.0.0.0" under [broker] in fleetd.toml.')


@app.command()
def renew(name: Names = None, config: Config = None) -> None:
    """Makes a new certificate for the broker; cameras notice nothing. fleetd does it by itself in time."""
    authority = _authority(load_settings(config))
    authority.renew(name or [], time.time())
    _print(authority)
    typer.echo("A running fleetd takes it at its next start.")


@app.command()
def show(config: Config = None) -> None:
    """Prints what the certificates say and where they are."""
    _print(_authority(load_settings(config)))


@app.command()
def client(
    name: Annotated[str, typer.Argument(help="Which program or person.")], config: Config = None
) -> None:
    """Makes a certificate by which a program shows who it is, for brokers that ask for one."""
    certificate, key = _authority(load_settings(config)).issue_client(name, time.time())
    typer.echo(f"certificate  {certificate}\nkey          {key}")


def _authority(settings: Settings) -> Authority:
    return Authority(settings.state_dir / "ca")


def _own_names(settings: Settings) -> list[str]:
    """The names under which this machine is likely to be asked for."""
    found = [settings.broker.public_host, socket.gethostname(), "localhost", "127.0.0.1"]
    listen: Any = settings.broker.listen
    if settings.broker.is_open and listen not in {"0.0.0.0", "::"}:  # noqa: S104  # compared, not bound
        found.append(listen)
    return [name for name in found if name]


def _print(authority: Authority) -> None:
    for what, shown, path in (
        ("authority", authority.authority(), authority.certificate),
        ("broker", authority.broker(), authority.broker_certificate),
    ):
        typer.echo(f"{what:10} {path}")
        typer.echo(f"{'':10} until {_day(shown)}, SHA-256 {shown.sha256}")
        if shown.names:
            typer.echo(f"{'':10} for {', '.join(shown.names)}")
    typer.echo(f"Cameras ask for the name {BROKER_NAME}, whatever address the broker has.")


def _day(shown: Shown) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(shown.ends_at))
