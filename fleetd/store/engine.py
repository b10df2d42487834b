"""Opening the database and handing out transactions.

SQLite runs in WAL mode with `synchronous=FULL`: what was committed survives a power cut, which is what an
acknowledgement promises. Writers take turns (`BEGIN IMMEDIATE`, and a lock inside this process so that
waiting is not polling); readers never wait. On PostgreSQL services take turns too; landing goes beside them.
"""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import URL, make_url

from fleetd.errors import ConflictError, SettingsError, StoreError
from fleetd.store import postgres
from fleetd.store.access import SqlAccess
from fleetd.store.accounts import SqlAccounts
from fleetd.store.cameras import SqlCameras
from fleetd.store.commands import SqlCommands
from fleetd.store.evidence import SqlEvidence
from fleetd.store.health import SqlHealth
from fleetd.store.history import SqlHistory
from fleetd.store.images import SqlImages
from fleetd.store.incidents import SqlIncidents
from fleetd.store.recoveries import SqlRecoveries
from fleetd.store.releases import SqlReleases
from fleetd.store.rollouts import SqlRollouts
from fleetd.store.upkeep import SqlUpkeep

SQLITE_BUSY_SECONDS = 30.0
SQLITE_CONNECTIONS = 48  # more than all threads that read: nobody who writes waits for one


class SqlUnitOfWork:
    """One transaction's repositories, made when first used."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    @cached_property
    def cameras(self) -> SqlCameras:
        """Enrolled cameras."""
        return SqlCameras(self._connection)

    @cached_property
    def history(self) -> SqlHistory:
        """What cameras sent."""
        return SqlHistory(self._connection)

    @cached_property
    def images(self) -> SqlImages:
        """Pictures that cameras sent."""
        return SqlImages(self._connection)

    @cached_property
    def releases(self) -> SqlReleases:
        """Signed releases."""
        return SqlReleases(self._connection)

    @cached_property
    def rollouts(self) -> SqlRollouts:
        """Rollouts, assignments, desired states."""
        return SqlRollouts(self._connection)

    @cached_property
    def health(self) -> SqlHealth:
        """What cameras saw before and after a release."""
        return SqlHealth(self._connection)

    @cached_property
    def commands(self) -> SqlCommands:
        """Commands to cameras."""
        return SqlCommands(self._connection)

    @cached_property
    def evidence(self) -> SqlEvidence:
        """What a diagnosis looks at."""
        return SqlEvidence(self._connection)

    @cached_property
    def incidents(self) -> SqlIncidents:
        """Incidents, maintenance, notices."""
        return SqlIncidents(self._connection)

    @cached_property
    def recoveries(self) -> SqlRecoveries:
        """Cameras on their way back."""
        return SqlRecoveries(self._connection)

    @cached_property
    def upkeep(self) -> SqlUpkeep:
        """Old rows on their way out."""
        return SqlUpkeep(self._connection)

    @cached_property
    def accounts(self) -> SqlAccounts:
        """Who may connect to the broker."""
        return SqlAccounts(self._connection)

    @cached_property
    def access(self) -> SqlAccess:
        """Tokens and the audit trail."""
        return SqlAccess(self._connection)


class SqlStore:
    """The database behind `url`, e.g. `sqlite:///fleet.db` or `postgresql+psycopg://...`."""

    def __init__(self, url: str | URL) -> None:
        try:
            self.url = make_url(url)
        except (sa.exc.ArgumentError, ValueError):  # their words repeat the URL, which may hold a password
            raise SettingsError(
                "The database URL cannot be read. Examples: sqlite:///fleetd-data/fleet.db, "
                "postgresql+psycopg://user:password@host:5432/fleet"
            ) from None
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        options: dict[str, Any] = {}
        if self.is_sqlite:
            options["connect_args"] = {"timeout": SQLITE_BUSY_SECONDS, "check_same_thread": False}
            if self.url.database and self.url.database != ":memory:":
                options["max_overflow"] = SQLITE_CONNECTIONS - 5  # 5 are kept open
                _make_private_file(Path(self.url.database))
        elif self.url.get_backend_name() == "postgresql":
            options = postgres.options(self.url)
        else:
            raise SettingsError(
                f"fleetd keeps its data in SQLite or PostgreSQL, not in {self.url.get_backend_name()}. "
                "Examples: sqlite:///fleetd-data/fleet.db, postgresql+psycopg://user:password@host:5432/fleet"
            )
        try:
            self.engine = sa.create_engine(self.url, **options)
        except ModuleNotFoundError as error:
            raise SettingsError(
                f"The database {self.url.render_as_string()} needs a driver that is not installed: "
                "pip install 'fleetd[postgres]'"
            ) from error
        except (sa.exc.SQLAlchemyError, ImportError) as error:
            raise SettingsError(
                f"The database {self.url.render_as_string()} cannot be used: {error}"
            ) from error
        self._writing = threading.Lock()
        if self.is_sqlite:
            event.listen(self.engine, "connect", _prepare_sqlite)
            event.listen(self.engine, "begin", _begin_sqlite)
        else:
            event.listen(self.engine, "connect", postgres.prepare)

    @contextmanager
    def connect(self, *, write: bool, alone: bool = True) -> Iterator[sa.Connection]:
        """A connection inside one transaction; database errors leave as errors of ours.

        Writers take turns unless they say `alone=False`, which PostgreSQL heeds: they lock the rows they change.
        """
        lock = self._writing if write and self.is_sqlite else None
        if lock is not None and not lock.acquire(timeout=SQLITE_BUSY_SECONDS):
            raise StoreError("The database is busy with another write for too long. Nothing was changed.")
        try:
            with (
                self.engine.connect().execution_options(**self._manner(write)) as connection,
                connection.begin(),
            ):
                if write and alone and not self.is_sqlite:
                    postgres.take_turn(connection)
                yield connection
        except sa.exc.IntegrityError as error:
            raise ConflictError(
                f"That clashes with what is stored already. Nothing was changed. ({error.orig})"
            ) from error
        except sa.exc.TimeoutError as error:
            raise StoreError(
                "All connections to the database are in use for too long. Nothing was changed; try again."
            ) from error
        except sa.exc.DBAPIError as error:
            wrong = (sa.exc.DataError, sa.exc.ProgrammingError, sa.exc.NotSupportedError)
            if isinstance(error, wrong) and not postgres.unusable(error):
                raise  # what was to be written is wrong, not the database
            raise StoreError(
                f"The database cannot be used right now: {error.orig}. Nothing was changed."
            ) from error
        finally:
            if lock is not None:
                lock.release()

    def _manner(self, write: bool) -> dict[str, Any]:
        """Options for a connection: what a reader sees is one moment, on both databases."""
        if self.is_sqlite:
            return {"fleetd_write": write}
        return {} if write else {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}

    @contextmanager
    def transaction(self) -> Iterator[SqlUnitOfWork]:
        """A writing transaction: commits at the end of the block, rolls back on any exception."""
        with self.connect(write=True) as connection:
            yield SqlUnitOfWork(connection)

    @contextmanager
    def reading(self) -> Iterator[SqlUnitOfWork]:
        """A consistent view for reading."""
        with self.connect(write=False) as connection:
            yield SqlUnitOfWork(connection)

    def close(self) -> None:
        """Closes all connections."""
        self.engine.dispose()


def _make_private_file(path: Path) -> None:
    """Makes a new database one that only its owner can read; SQLite gives its other files the same mode."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    except OSError as error:
        raise SettingsError(
            f"The database file {path} cannot be opened: {error.strerror}. fleetd did not start."
        ) from error


def _prepare_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # we say BEGIN ourselves
    cursor = connection.cursor()
    for pragma in (
        "journal_mode=WAL",
        "synchronous=FULL",
        "foreign_keys=ON",
        f"busy_timeout={int(SQLITE_BUSY_SECONDS * 1000)}",
        "temp_store=MEMORY",
        "cache_size=-16000",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: sa.Connection) -> None:
    write = connection.get_execution_options().get("fleetd_write", True)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")
