"""Marks among the facts that change with every write of some kind, so that readers notice cheaply."""

import secrets

import sqlalchemy as sa

from fleetd.store.tables import facts


def mark(connection: sa.Connection, name: str) -> str | None:
    """The present mark, to compare with a later one; None: nothing was ever changed."""
    return connection.execute(sa.select(facts.c.value).where(facts.c.name == name)).scalar()


def mark_changed(connection: sa.Connection, name: str) -> None:
    """Sets a new mark. A random one: two writers that count up at once could arrive at the same number."""
    value = secrets.token_hex(8)
    changed = connection.execute(sa.update(facts).where(facts.c.name == name).values(value=value))
    if changed.rowcount == 0:
        connection.execute(sa.insert(facts).values(name=name, value=value))
