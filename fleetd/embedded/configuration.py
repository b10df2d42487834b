"""What mosquitto reads: the settings that fleetd relies on, in explicit numbers. Pure.

Limits are large and never 0, which each version of mosquitto understands otherwise.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

DURABLE_CHANGES: Final = 100
AUTOSAVE_SECONDS: Final = 60
PACKET_BYTES: Final = 131_072
INFLIGHT_MESSAGES: Final = 1_000
QUEUED_MESSAGES: Final = 1_000_000
QUEUED_BYTES: Final = 536_870_912


@dataclass(frozen=True, slots=True)
class Accounts:
    """The files that say who is let in and what they may do."""

    passwords: Path
    acl: Path


@dataclass(frozen=True, slots=True)
class TlsListener:
    """A second way in, for everyone who is not on this machine. PEM files.

    With `client_ca` only those are let in who also show a certificate of that authority.
    """

    host: str
    port: int
    certificate: Path
    key: Path
    client_ca: Path | None = None


def mosquitto_conf(
    *,
    host: str,
    port: int,
    data: Path,
    pid_file: Path,
    durable: bool,
    accounts: Accounts | None,
    tls: TlsListener | None = None,
    as_root: bool = False,
    extra: Sequence[str] = (),
    title: str = "Written by fleetd at every start; changes here are lost.",
) -> str:
    """The configuration file. Without accounts everybody is let in."""
    lines = [
        f"# {title}",
        "per_listener_settings false",
        "persistence true",
        f"persistence_location {data}/",
        f"autosave_on_changes {'true' if durable else 'false'}",
        f"autosave_interval {DURABLE_CHANGES if durable else AUTOSAVE_SECONDS}",
        "persistent_client_expiration 30d",
        f"max_inflight_messages {INFLIGHT_MESSAGES}",
        f"max_queued_messages {QUEUED_MESSAGES}",
        f"max_queued_bytes {QUEUED_BYTES}",
        f"max_packet_size {PACKET_BYTES}",
        "set_tcp_nodelay true",
        "connection_messages false",
        "log_dest stderr",
        "log_type error",
        "log_type warning",
        "log_type notice",
        "log_timestamp_format %Y-%m-%dT%H:%M:%S",
        f"pid_file {pid_file}",
    ]
    if as_root:
        lines.append("user root")  # it would change to a user who cannot write in that folder
    if accounts is None:
        lines.append("allow_anonymous true")
    else:
        lines += [
            "allow_anonymous false",
            f"password_file {accounts.passwords}",
            f"acl_file {accounts.acl}",
        ]
    lines += _listener(port, host, accounts)
    if tls is not None:
        lines += _listener(tls.port, tls.host, accounts)
        lines += [f"certfile {tls.certificate}", f"keyfile {tls.key}", "tls_version tlsv1.2"]
        if tls.client_ca is not None:
            lines += [f"cafile {tls.client_ca}", "require_certificate true"]
    return "\n".join([*lines, *extra]) + "\n"


def _listener(port: int, host: str, accounts: Accounts | None) -> list[str]:
    # Whoever has a camera's credential is that camera, whatever client id he gives: he cannot take over another's
    # session.
    bound = ["use_username_as_clientid true"] if accounts is not None else []
    return [f"listener {port} {host}", *bound]
