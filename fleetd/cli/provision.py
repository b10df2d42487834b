"""`fleetctl provision`: the agent, its settings and its credential onto a camera's USB drive."""

from collections.abc import Sequence
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fleetd.cli.errors import UNUSABLE, CliError
from fleetd.cli.provision_camera import Order, packed, provision_one
from fleetd.cli.provision_series import provision_many
from fleetd.cli.session import Json, session_of

if TYPE_CHECKING:  # help needs none of it
    from fleetd.provisioning.config import Wishes


class Source(StrEnum):
    """How the agent goes onto the drive."""

    MPY = "mpy"
    PY = "py"


def provision(
    ctx: typer.Context,
    mount: Annotated[Path, typer.Argument(metavar="MOUNT", help="The folder of the camera's USB drive.")],
    camera: Annotated[
        str | None, typer.Option("--camera", "-c", help="Its name; usually what the drive says.")
    ] = None,
    tag: Annotated[list[str] | None, typer.Option("--tag", help="A tag; may be repeated.")] = None,
    wifi_ssid: Annotated[str | None, typer.Option(help="The WiFi's name.")] = None,
    wifi_key_file: Annotated[Path | None, typer.Option(help="A file with the WiFi's password.")] = None,
    country: Annotated[str | None, typer.Option(help="Two letters, for the radio's rules.")] = None,
    broker_host: Annotated[str | None, typer.Option(help="Where the camera finds the broker.")] = None,
    broker_port: Annotated[int | None, typer.Option(min=1, max=65535, help="The broker's port.")] = None,
    tls_ca: Annotated[
        Path | None, typer.Option(help="Encrypt: the certificate of the CA that signed the broker's.")
    ] = None,
    tls_name: Annotated[
        str | None, typer.Option(help="The name in the broker's certificate, if it is not --broker-host.")
    ] = None,
    no_tls: Annotated[bool, typer.Option("--no-tls", help="Without encryption again.")] = False,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Another setting of docs/cameras.md; null removes."),
    ] = None,
    source: Annotated[Source, typer.Option(help="The agent compiled, or as plain Python.")] = Source.MPY,
    rotate: Annotated[bool, typer.Option("--rotate", help="A new credential even if it has one.")] = False,
    replace_camera: Annotated[
        bool, typer.Option("--replace", help="Give another name to a drive that has one.")
    ] = False,
    in_place: Annotated[
        bool, typer.Option("--in-place", help="Take the old agent away first, if there is no room for both.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Write although it looks like no camera.")] = False,
    label_dir: Annotated[Path | None, typer.Option(help="Write a label to print into this folder.")] = None,
    watch: Annotated[bool, typer.Option("--watch", help="One camera after the other, until Ctrl-C.")] = False,
    names: Annotated[str | None, typer.Option(help="With --watch: names such as cam-{n:02d}.")] = None,
    start: Annotated[int, typer.Option(min=0, help="With --watch: the first number.")] = 1,
    count: Annotated[int | None, typer.Option(min=1, help="With --watch: stop after so many.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    as_json: Json = False,
) -> None:
    """Put the agent, its settings and its credential onto a camera's USB drive."""
    session = session_of(ctx)
    order = Order(
        mount=session.folder / mount,
        tags=tag or [],
        wishes=replace(
            _wishes(wifi_ssid, wifi_key_file, country, broker_host, broker_port, settings or []),
            tls_ca=None if tls_ca is None else _certificate(tls_ca),
            tls_name=tls_name,
            no_tls=no_tls,
        ),
        source="py" if source is Source.PY else "mpy",
        label_dir=label_dir,
        rotate=rotate,
        replace=replace_camera,
        force=force,
        in_place=in_place,
        dry_run=dry_run,
        as_json=as_json,
    )
    if watch:
        if camera is not None or dry_run or force or replace_camera or names is None:
            raise CliError(
                "--watch goes with --names, not with --camera, --dry-run, --force or --replace.",
                "For example: fleetctl provision --watch --names cam-{n:02d} --start 7 MOUNT",
                exit_code=UNUSABLE,
            )
        provision_many(session, order, names, start, count)
        return
    if names is not None or count is not None:
        raise CliError("--names and --count go with --watch.", "One camera: --camera.", exit_code=UNUSABLE)
    report = provision_one(session, order, packed(session, order), camera)
    if as_json:
        session.out.json(report)


def _wishes(
    wifi_ssid: str | None,
    wifi_key_file: Path | None,
    country: str | None,
    broker_host: str | None,
    broker_port: int | None,
    settings: Sequence[str],
) -> "Wishes":
    from fleetd.provisioning import config  # noqa: PLC0415  # see above

    key = None
    if wifi_key_file is not None:
        try:
            with wifi_key_file.open(encoding="utf-8") as file:
                key = file.readline(200).strip("\r\n")
        except (OSError, ValueError) as error:
            raise CliError(
                f"The file {wifi_key_file} cannot be read.",
                "It holds the WiFi's password.",
                exit_code=UNUSABLE,
            ) from error
    return config.Wishes(
        wifi_ssid=wifi_ssid,
        wifi_key=key,
        country=country,
        broker_host=broker_host,
        broker_port=broker_port,
        values=dict(config.setting(text) for text in settings),
    )


def _certificate(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(100_000)
    except OSError as error:
        raise CliError(
            f"The file {path} cannot be read.",
            "It holds the certificate of the CA, PEM or DER.",
            exit_code=UNUSABLE,
        ) from error
