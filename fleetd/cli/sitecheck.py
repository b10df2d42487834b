"""`fleetd broker check`: is this broker fit for a fleet?"""

import contextlib
import json
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from secrets import token_hex
from typing import Annotated

import typer

from fleetd.accounts import Accounts
from fleetd.brokercheck import Account, Broker, Finding, check
from fleetd.cli.text import safe
from fleetd.errors import SettingsError
from fleetd.registry import Registry
from fleetd.settings import Settings, load_settings
from fleetd.store import migrate
from fleetd.store.engine import SqlStore

APPLY_SECONDS = 20.0  # a running fleetd carries accounts to the broker within a second, when it is not busy
SIGNS = {"ok": "ok ", "bad": "BAD", "unknown": "?  "}

Config = Annotated[Path | None, typer.Option("--config", "-c", help="Settings file.")]


def check_command(
    address: Annotated[
        str | None, typer.Argument(metavar="HOST:PORT", help="By default fleetd's own or configured broker.")
    ] = None,
    accounts: Annotated[
        Path | None,
        typer.Option(
            help="For a broker whose accounts are not fleetd's: a file with three lines NAME PASSWORD, two "
            "throw-away cameras and somebody who may read everything."
        ),
    ] = None,
    tls: Annotated[bool, typer.Option("--tls", help="Speak TLS.")] = False,
    ca: Annotated[Path | None, typer.Option(help="The authority to trust (PEM). Implies --tls.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    config: Config = None,
) -> None:
    """Tries a broker out as throw-away cameras would: what it lets strangers and cameras do, what it keeps.

    With accounts that fleetd keeps it makes and removes its own; fleetd has to be running. Exit code 1: something
    is bad.
    """
    settings = load_settings(config)
    host, port = _address(settings, address)
    trust = _trust(settings, ca) if tls or ca is not None else None
    broker = Broker(host, port, settings.prefix, trust)
    with (
        _from_file(accounts) if accounts is not None else _throw_away(settings, broker) as (
            one,
            other,
            reader,
        )
    ):
        found = check(broker, one, other, reader)
    if as_json:
        typer.echo(
            json.dumps([{name: getattr(one, name) for name in Finding.__slots__} for one in found], indent=1)
        )
    else:
        for finding in found:
            typer.echo(f"{SIGNS[finding.verdict]} {finding.what}: {safe(finding.detail)}")
            if finding.remedy:
                typer.echo(f"    {finding.remedy}")
    if any(finding.verdict == "bad" for finding in found):
        raise typer.Exit(1)


def _address(settings: Settings, address: str | None) -> tuple[str, int]:
    if address is None:
        return settings.broker.host or "127.0.0.1", settings.broker.port
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdigit() or not 0 < int(port) < 65536:
        raise SettingsError(f"{address!r} is no address: HOST:PORT, e.g. 192.168.1.10:1883.")
    return host.strip("[]"), int(port)


def _trust(settings: Settings, ca: Path | None) -> ssl.SSLContext:
    own = settings.state_dir / "ca" / "ca.pem"
    file = ca or settings.broker.ca_file or (own if own.exists() else None)
    try:
        return ssl.create_default_context(cafile=file)
    except (OSError, ssl.SSLError) as error:
        raise SettingsError(f"The authority {file} cannot be used: {error}") from error


@contextlib.contextmanager
def _from_file(path: Path) -> Iterator[tuple[Account, ...]]:
    try:
        lines = [line.split() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} cannot be read: {error}") from error
    if len(lines) != 3 or any(len(words) != 2 for words in lines):
        raise SettingsError(f"{path} has to have three lines NAME PASSWORD: two cameras and a reader.")
    yield tuple(Account(*words) for words in lines)


@contextlib.contextmanager
def _throw_away(settings: Settings, broker: Broker) -> Iterator[tuple[Account, ...]]:
    """Two cameras and a reader of our own, for as long as it takes."""
    if settings.broker.host is not None and settings.broker.site is None:
        raise SettingsError(
            "fleetd does not keep this broker's accounts, so it cannot make throw-away ones. Make two cameras and a "
            "reader there and name a file with them: --accounts FILE, three lines NAME PASSWORD."
        )
    store = SqlStore(settings.database_url)
    migrate.upgrade(store)
    registry, accounts = Registry(store, time.time), Accounts(store, time.time)
    names = [f"check-{token_hex(4)}" for _ in range(3)]
    try:
        cameras = [Account(name, registry.enrol(name, actor="broker check")[1]) for name in names[:2]]
        reader = Account(names[2], accounts.add_user(names[2], actor="broker check"))
        _wait_until_let_in(broker, reader)  # the last that was made
        yield (*cameras, reader)
    finally:
        for name in names[:2]:
            with contextlib.suppress(Exception):  # it was not made
                registry.remove(name, actor="broker check")
        with contextlib.suppress(Exception):
            accounts.remove_user(names[2], actor="broker check")
        store.close()


def _wait_until_let_in(broker: Broker, account: Account) -> None:
    """Until the broker knows the account, or is not going to: then the check says so."""
    deadline = time.monotonic() + APPLY_SECONDS
    while time.monotonic() < deadline:
        with broker.open(account) as link:
            if link.inside:
                return
        time.sleep(0.3)
