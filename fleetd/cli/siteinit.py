"""`fleetd broker`: a mosquitto of one's own, beside fleetd instead of below it."""

import getpass
import sys
from pathlib import Path
from typing import Annotated

import typer

from fleetd.accountfiles import AccountFiles, write_private
from fleetd.certificates import Authority
from fleetd.domain.records import Roll
from fleetd.embedded import LOOPBACK, Accounts, TlsListener, find_mosquitto, mosquitto_conf
from fleetd.errors import ConflictError, SettingsError
from fleetd.settings import load_settings

app = typer.Typer(
    no_args_is_help=True, help="A mosquitto that runs beside fleetd, with accounts that fleetd keeps."
)

Config = Annotated[Path | None, typer.Option("--config", "-c", help="Settings file.")]
UNIT = """\
[Unit]
Description=MQTT broker of the camera fleet
After=network-online.target
Wants=network-online.target

[Service]
User={user}
ExecStart={binary} -c {folder}/mosquitto.conf
ExecReload=/bin/kill -HUP $MAINPID
Restart=always
RestartSec=1
LimitNOFILE=65536
NoNewPrivileges=true
ProtectSystem=strict
ProtectHome=read-only
PrivateTmp=true
ReadWritePaths={folder}

[Install]
WantedBy=multi-user.target
"""


@app.callback()
def broker() -> None:
    """A mosquitto that runs beside fleetd."""


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(help="A new folder for everything this mosquitto needs.")],
    listen: Annotated[str, typer.Option(help="The address on which cameras find it.")] = "0.0.0.0",  # noqa: S104
    port: Annotated[int, typer.Option(min=1, max=65535, help="Its plain port, on loopback.")] = 1883,
    tls_port: Annotated[int, typer.Option(min=1, max=65535, help="Its port for TLS.")] = 8883,
    plain: Annotated[
        bool, typer.Option("--plain", help="No TLS: the plain port for everybody. Credentials can be read.")
    ] = False,
    config: Config = None,
) -> None:
    """Writes configuration, accounts and a systemd unit for a mosquitto that outlives fleetd's restarts.

    It has to run as the same user as fleetd, which keeps its accounts in step.
    """
    settings = load_settings(config)
    folder = folder.absolute()
    if any(character.isspace() for character in str(folder)):
        raise SettingsError(
            "mosquitto and systemd take no folder with a space in its name. Nothing was written."
        )
    configuration = folder / "mosquitto.conf"
    if configuration.exists():
        raise ConflictError(f"{configuration} exists already. Nothing was changed; choose another folder.")
    tls = None
    if not plain:
        authority = Authority(settings.state_dir / "ca")
        if not authority.exists:
            raise SettingsError(
                "There are no certificates for TLS: `fleetd ca init` first. Nothing was written."
            )
        tls = TlsListener(listen, tls_port, authority.broker_certificate, authority.broker_key)
    files = AccountFiles(folder, settings.prefix)
    files.own_secret()
    (folder / "data").mkdir(mode=0o700, exist_ok=True)
    files.write(Roll(None))
    text = mosquitto_conf(
        host=listen if plain else LOOPBACK,
        port=port,
        data=folder / "data",
        pid_file=folder / "mosquitto.pid",
        durable=True,
        accounts=Accounts(files.passwords, files.acl),
        tls=tls,
        title="Written by `fleetd broker init`. passwords and acl are kept by fleetd; the rest is yours.",
    )
    write_private(configuration, text)
    unit = folder / "fleet-mosquitto.service"
    binary = find_mosquitto(settings.broker.mosquitto) or Path("/usr/sbin/mosquitto")
    unit.write_text(UNIT.format(user=getpass.getuser(), binary=binary, folder=folder), encoding="utf-8")
    typer.echo(f"{configuration} is ready. Start it:\n")
    typer.echo(f"  sudo cp {unit} /etc/systemd/system/ && sudo systemctl enable --now fleet-mosquitto\n")
    typer.echo("and tell fleetd, in fleetd.toml:\n")
    typer.echo(f'  [broker]\n  host = "{LOOPBACK}"\n  port = {port}\n  site = "{folder}"')
    if sys.platform != "linux":
        typer.echo(
            "\nThe unit is for Linux with systemd; elsewhere run mosquitto with that file your own way."
        )
