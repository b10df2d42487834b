"""Which of several fleetd on one database runs the jobs: whoever holds a lock that ends with its holder."""

import contextlib
import fcntl
import threading
from typing import IO

import sqlalchemy as sa

from fleetd.errors import StoreError
from fleetd.logs import get_logger
from fleetd.store import postgres
from fleetd.store.engine import SqlStore

log = get_logger(__name__)


class Leader:
    """PostgreSQL: an advisory lock that lives as long as its connection. SQLite: a lock on a file beside the
    database, which the system takes away with the process.
    """

    def __init__(self, store: SqlStore) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._connection: sa.Connection | None = None
        self._file: IO[str] | None = None
        self._engine: sa.Engine | None = None

    def leads(self) -> bool:
        """Whether this process runs the jobs now. Takes over when nobody does."""
        with self._lock:
            before = self._holds()
            held = before or self._take()
            if held != before:
                log.info("leading")
            return held

    def _holds(self) -> bool:
        if self._store.is_sqlite:
            return self._file is not None
        if self._connection is None:
            return False
        try:
            self._connection.exec_driver_sql("SELECT 1")
        except sa.exc.SQLAlchemyError:
            log.warning(
                "leading_no_more", note="the connection to the database was lost, and the lock with it"
            )
            self._let_go()
            return False
        return True

    def _take(self) -> bool:
        if self._store.is_sqlite:
            return self._take_file()
        try:
            if self._engine is None:  # a connection of its own, which no pool closes or hands to others
                options = postgres.options(self._store.url)
                self._engine = sa.create_engine(
                    self._store.url,
                    connect_args=options["connect_args"],
                    poolclass=sa.pool.NullPool,
                    isolation_level="AUTOCOMMIT",
                )
            connection = self._engine.connect()
            if postgres.lead(connection):
                self._connection = connection
                return True
            connection.close()
        except sa.exc.SQLAlchemyError:
            return False
        return False

    def _take_file(self) -> bool:
        name = self._store.url.database
        if not name or name == ":memory:":
            return True
        try:
            file = open(f"{name}.leader", "a", encoding="ascii")  # noqa: PTH123, SIM115  # it is held
        except OSError as error:
            raise StoreError(f"{name}.leader cannot be opened: {error.strerror}.") from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.close()
            return False
        self._file = file
        return True

    def close(self) -> None:
        """Lets somebody else lead."""
        with self._lock:
            self._let_go()
            if self._engine is not None:
                self._engine.dispose()

    def _let_go(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.close()
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(sa.exc.SQLAlchemyError):
                connection.invalidate()  # closes it: a lock lives as long as its connection
            with contextlib.suppress(sa.exc.SQLAlchemyError):
                connection.close()
