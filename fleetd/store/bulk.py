"""Inserting many rows the fastest way the database's driver has."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import sqlalchemy as sa

from fleetd.store.tables import metadata


def insert_many(
    connection: sa.Connection, table: str, columns: Sequence[str], rows: Sequence[tuple[Any, ...]]
) -> None:
    """Inserts `rows` (tuples in the order of `columns`; JSON columns as text) in the current transaction.

    SQLite takes tuples as they are, about three times as fast as through SQLAlchemy's own executemany.
    """
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql(_sqlite_insert(table, tuple(columns)), list(rows))
        return
    raw = sa.table(table, *(sa.column(name) for name in columns))
    connection.execute(sa.insert(raw), [dict(zip(columns, row, strict=True)) for row in rows])


@lru_cache(maxsize=64)
def _sqlite_insert(table: str, columns: tuple[str, ...]) -> str:
    known = metadata.tables[table].c
    names = ", ".join(f'"{known[name].name}"' for name in columns)  # a name that is no column raises here
    return f'INSERT INTO "{table}" ({names}) VALUES ({", ".join("?" * len(columns))})'  # noqa: S608
