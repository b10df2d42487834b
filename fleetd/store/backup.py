"""Backups. One is a SQLite file with the whole database in it, whichever database it was made from.

So it can be looked into with any SQLite tool, be restored into either database, and moves a fleet from one to the
other. Making one sees a single moment and keeps nobody from writing; everything that was acknowledged before it began
is in it.
"""

import contextlib
import os
import sqlite3
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa

from fleetd.errors import ConflictError, InvalidError, NotFoundError, StoreError
from fleetd.store import migrate
from fleetd.store.engine import SqlStore
from fleetd.store.tables import facts, metadata, update_reports

ROWS_AT_ONCE: Final = 5_000
REPORTS_CURSOR: Final = "ota_reports_cursor"  # as fleetd/updates/progress.py keeps it
_BESIDE: Final = ("-wal", "-shm", "-journal")  # what SQLite keeps beside a database


@dataclass(frozen=True, slots=True)
class Copied:
    """What a backup holds, or a restore brought back. `cameras` and `results` are rows, `size` bytes."""

    revision: str
    cameras: int
    results: int
    size: int


def back_up(store: SqlStore, target: Path, *, replace: bool = False) -> Copied:
    """Writes a backup, in one step: the file is there when it is complete, and only its owner can read it.

    Raises ConflictError when the file exists and is not to be replaced, StoreError when it cannot be written.
    """
    if target.exists() and not replace:
        raise ConflictError(f"{target} exists. Nothing was written; name another file, or say --replace.")
    with _file_beside(target) as draft:
        if store.is_sqlite:
            _copy_sqlite(store, draft)
        else:
            _copy_out(store, draft)
        copied = check(draft)
        _sync(draft)
        draft.replace(target)
        _sync(target.parent)
    return copied


def restore(source: Path, store: SqlStore, *, replace: bool = False) -> Copied:
    """Brings a backup into an empty database, or into one whose content is to be replaced; all of it or nothing.

    A backup of an older version is brought to this version's schema on the way; the file itself is left as it is.
    Raises ConflictError when the database holds something, InvalidError when the file is no backup.
    """
    check(source)
    if _in_use(store) and not replace:
        raise ConflictError(
            "The database holds a fleet already. Nothing was changed. Restore into an empty one, or say --replace."
        )
    where = Path(store.url.database or "") if store.is_sqlite else Path(tempfile.gettempdir()) / "restore.db"
    with _file_beside(where) as draft:
        _copy_file(source, draft)
        newest = SqlStore(f"sqlite:///{draft.absolute()}")
        try:
            migrate.upgrade(newest)
            if not store.is_sqlite:
                _copy_in(newest, store)
        finally:
            newest.close()
        copied = check(draft)
        if store.is_sqlite:
            store.close()
            _sync(draft)
            for ending in _BESIDE:
                Path(f"{where}{ending}").unlink(missing_ok=True)
            draft.replace(where)
            _sync(where.parent)
    return copied


def check(file: Path) -> Copied:
    """Looks whether a backup is whole, and what is in it."""
    if not file.is_file():
        raise NotFoundError(f"There is no file {file}.")
    try:
        with contextlib.closing(sqlite3.connect(f"file:{file.absolute()}?mode=ro", uri=True)) as connection:
            (found,) = connection.execute("PRAGMA quick_check").fetchone()
            if found != "ok":
                raise InvalidError(f"{file} is damaged: {found}. Nothing was changed; take another backup.")
            (revision,) = connection.execute("SELECT version_num FROM alembic_version").fetchone()
            (cameras,) = connection.execute("SELECT count(*) FROM cameras").fetchone()
            (results,) = connection.execute("SELECT count(*) FROM results").fetchone()
    except (sqlite3.Error, TypeError) as error:
        raise InvalidError(f"{file} is no backup of fleetd ({error}). Nothing was changed.") from error
    return Copied(revision, cameras, results, file.stat().st_size)


@contextlib.contextmanager
def _file_beside(target: Path) -> Iterator[Path]:
    """An empty private file in the folder of `target`; what is left of it afterwards is removed."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".new", dir=target.parent)
    except OSError as error:
        raise StoreError(f"Nothing can be written to {target.parent}: {error.strerror}.") from error
    os.close(handle)
    draft = Path(name)
    try:
        yield draft
    except (OSError, sqlite3.Error) as error:
        raise StoreError(f"The copy could not be completed: {error}. Nothing was changed.") from error
    finally:
        for ending in ("", *_BESIDE):
            Path(f"{draft}{ending}").unlink(missing_ok=True)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _copy_sqlite(store: SqlStore, draft: Path) -> None:
    """SQLite's own online backup, in one step: in smaller ones it begins again whenever somebody writes."""
    if migrate.current_revision(store) is None:
        raise InvalidError("The database is empty: there is nothing to back up.")
    pooled = store.engine.raw_connection()
    try:
        source: Any = pooled.driver_connection
        with contextlib.closing(sqlite3.connect(draft)) as target:
            source.backup(target, pages=-1)
            target.execute("PRAGMA journal_mode=DELETE")
    finally:
        pooled.close()


def _copy_file(source: Path, draft: Path) -> None:
    with (
        contextlib.closing(sqlite3.connect(f"file:{source.absolute()}?mode=ro", uri=True)) as old,
        contextlib.closing(sqlite3.connect(draft)) as new,
    ):
        old.backup(new)


def _in_use(store: SqlStore) -> bool:
    if migrate.current_revision(store) is None:
        return False
    with store.connect(write=False) as connection:
        return any(
            connection.execute(sa.select(table).limit(1)).first() is not None
            for table in metadata.sorted_tables
            if table.name != "facts"
        )


def _copy_out(store: SqlStore, draft: Path) -> None:
    revision = migrate.current_revision(store)
    if revision != migrate.newest_revision():
        raise InvalidError(
            f"The database is at revision {revision}, this fleetd at {migrate.newest_revision()}. Run `fleetd migrate` "
            "first, or back up with the version that made it. Nothing was written."
        )
    copy = SqlStore(f"sqlite:///{draft.absolute()}")
    try:
        migrate.upgrade(copy)
        with store.connect(write=False) as source, copy.connect(write=True) as target:
            target.exec_driver_sql("PRAGMA defer_foreign_keys=ON")
            _copy_rows(source, target)
    finally:
        copy.close()
    with contextlib.closing(sqlite3.connect(draft)) as file:
        file.execute("PRAGMA journal_mode=DELETE")  # one file, with nothing beside it


def _copy_in(newest: SqlStore, store: SqlStore) -> None:
    migrate.upgrade(store)
    with newest.connect(write=False) as source, store.connect(write=True) as target:
        for table in reversed(metadata.sorted_tables):
            target.execute(sa.delete(table))
        _copy_rows(source, target)
        for table in metadata.sorted_tables:
            key = table.autoincrement_column
            if key is not None:
                following = sa.select(sa.func.coalesce(sa.func.max(key), 0) + 1).scalar_subquery()
                sequence = sa.func.pg_get_serial_sequence(table.name, key.name)
                target.execute(sa.select(sa.func.setval(sequence, following, sa.false())))


def _copy_rows(source: sa.Connection, target: sa.Connection) -> None:
    for table in metadata.sorted_tables:
        target.execute(sa.delete(table))  # what migrations put there
        rows = source.execution_options(yield_per=ROWS_AT_ONCE).execute(sa.select(table))
        for some in rows.mappings().partitions():
            target.execute(sa.insert(table), [dict(row) for row in some])
    _mend_cursor(target)


def _mend_cursor(target: sa.Connection) -> None:
    """Numbers of update reports begin again behind the last that is there; what was read up to must not be ahead."""
    newest = target.execute(sa.select(sa.func.coalesce(sa.func.max(update_reports.c.id), 0))).scalar_one()
    mine = facts.c.name == REPORTS_CURSOR
    read = target.execute(sa.select(facts.c.value).where(mine)).scalar_one_or_none()
    if read is not None and int(read) > newest:
        target.execute(sa.update(facts).where(mine).values(value=str(newest)))
