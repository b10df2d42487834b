"""Migrations: complete, repeatable, and all or nothing."""

from pathlib import Path

import pytest
import sqlalchemy as sa

from fleetd.errors import StoreError
from fleetd.store import migrate
from fleetd.store.engine import SqlStore


def test_an_empty_database_gets_exactly_the_tables_of_the_code(tmp_path: Path) -> None:
    store = SqlStore(f"sqlite:///{tmp_path}/new/folder/fleet.db")
    assert migrate.current_revision(store) is None
    assert migrate.upgrade(store)
    assert migrate.differences(store) == []
    assert migrate.current_revision(store) == migrate.newest_revision()
    assert not migrate.upgrade(store), "a second start has nothing to do"
    store.close()


def test_a_migration_that_breaks_half_way_leaves_the_database_as_it_was_and_can_be_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Regression (u): an interrupted migration must not leave the database stuck."""
    store = SqlStore(f"sqlite:///{tmp_path}/fleet.db")
    statements = 0

    def count(*_: object) -> None:
        nonlocal statements
        statements += 1

    sa.event.listen(store.engine, "before_cursor_execute", count)
    probe = SqlStore(f"sqlite:///{tmp_path}/probe.db")
    sa.event.listen(probe.engine, "before_cursor_execute", count)
    migrate.upgrade(probe)
    total, stop_at = statements, 0

    def cut(*_: object) -> None:
        nonlocal statements
        statements += 1
        if statements == stop_at:
            raise RuntimeError("power cut")

    sa.event.remove(store.engine, "before_cursor_execute", count)
    sa.event.listen(store.engine, "before_cursor_execute", cut)
    for at in range(1, total, 3):
        statements, stop_at = 0, at
        with pytest.raises(RuntimeError, match="power cut"):
            migrate.upgrade(store)
    stop_at = -1
    assert migrate.upgrade(store)
    assert migrate.differences(store) == []
    store.close()
    probe.close()


def test_a_database_of_a_newer_fleetd_is_left_alone(tmp_path: Path) -> None:
    store = SqlStore(f"sqlite:///{tmp_path}/fleet.db")
    migrate.upgrade(store)
    with store.connect(write=True) as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(StoreError, match="newer fleetd"):
        migrate.upgrade(store)
    store.close()
