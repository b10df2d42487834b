"""What PostgreSQL needs to be told: how long to wait, whose turn it is, and which of its errors are whose fault."""

from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import URL

WAIT_SECONDS: Final = 30.0  # for a lock that somebody else holds
CONNECT_SECONDS: Final = 5
CONNECTIONS_KEPT, CONNECTIONS_MORE = 5, 25  # per process

# Numbers of advisory locks. Any will do; these say "fleetd" to whoever looks into pg_locks.
_SPACE: Final = 0x666C6565
_TURN, _REPORTS, LEADER = 1, 2, 3

# The server says so when the schema or our rights are not what fleetd needs; no message is at fault.
_NOT_OURS: Final = ("42", "3D", "3F")


def options(url: URL) -> dict[str, Any]:
    """Arguments for `create_engine`."""
    arguments: dict[str, Any] = {"connect_timeout": CONNECT_SECONDS, "application_name": "fleetd"}
    return {
        "connect_args": {name: value for name, value in arguments.items() if name not in url.query},
        "pool_size": CONNECTIONS_KEPT,
        "max_overflow": CONNECTIONS_MORE,
        "pool_pre_ping": True,  # a server that was restarted is not worth an error
    }


def prepare(connection: Any, _record: object) -> None:
    """For every new connection: waiting for a lock ends."""
    with connection.cursor() as cursor:
        cursor.execute(f"SET lock_timeout = {int(WAIT_SECONDS * 1000)}")
    connection.commit()


def take_turn(connection: sa.Connection) -> None:
    """Services decide on what they have read and write in the same transaction: they take turns.

    Landing does not: it locks the rows of the boots that it writes.
    """
    _lock(connection, _TURN)


def order_reports(connection: sa.Connection) -> None:
    """Makes numbers of update reports visible in their order: assignments follow them behind a cursor."""
    _lock(connection, _REPORTS)


def _lock(connection: sa.Connection, number: int) -> None:
    connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_SPACE, number)))


def lead(connection: sa.Connection) -> bool:
    """Takes the leader's lock, which this connection keeps until it is closed; False when another has it."""
    query = sa.select(sa.func.pg_try_advisory_lock(_SPACE, LEADER))
    return bool(connection.execute(query).scalar_one())


def unusable(error: sa.exc.DBAPIError) -> bool:
    """Whether the database, rather than what was to be written, is the reason for `error`."""
    state = getattr(error.orig, "sqlstate", None)
    return isinstance(state, str) and state.startswith(_NOT_OURS)
