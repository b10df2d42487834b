"""Migrations: complete, repeatable, and all or nothing."""

from itertools import count
from pathlib import Path

import pytest
import sqlalchemy as sa

from fleetd.errors import StoreError
from fleetd.store import migrate
from fleetd.store.engine import SqlStore
from fleetd.store.landing import Arrival, Landing


def test_an_empty_database_gets_exactly_the_tables_of_the_code(empty_database_url: str) -> None:
    store = SqlStore(empty_database_url)
    assert migrate.current_revision(store) is None
    assert migrate.upgrade(store)
    assert migrate.differences(store) == []
    assert migrate.current_revision(store) == migrate.newest_revision()
    assert not migrate.upgrade(store), "a second start has nothing to do"
    store.close()


def test_a_migration_that_breaks_half_way_leaves_the_database_as_it_was_and_can_be_resumed(
    empty_database_url: str,
) -> None:
    """Regression (u): an interrupted migration must not leave the database stuck."""
    store = SqlStore(empty_database_url)
    statements = stop_at = 0

    def cut(*_: object) -> None:
        nonlocal statements
        statements += 1
        if statements == stop_at:
            raise RuntimeError("power cut")

    sa.event.listen(store.engine, "before_cursor_execute", cut)
    for at in count(1, 5):
        statements, stop_at = 0, at
        try:
            migrate.upgrade(store)
        except RuntimeError:
            stop_at = 0
            assert migrate.current_revision(store) is None
        else:
            break
    stop_at = 0
    assert at > 40, "most of the statements were cut off once"
    assert migrate.differences(store) == []
    store.close()


def test_a_database_of_a_newer_fleetd_is_left_alone(tmp_path: Path) -> None:
    store = SqlStore(f"sqlite:///{tmp_path}/fleet.db")
    migrate.upgrade(store)
    with store.connect(write=True) as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(StoreError, match="newer fleetd"):
        migrate.upgrade(store)
    store.close()


def test_a_database_that_is_in_use_keeps_everything_when_it_moves_to_a_newer_schema(
    empty_database_url: str,
) -> None:
    store = SqlStore(empty_database_url)
    migrate.upgrade(store, "0001")
    rows = 10_000
    with store.connect(write=True) as connection:
        connection.execute(sa.text("INSERT INTO cameras (id, name, created_at) VALUES (1, 'cam-1', 0)"))
        connection.execute(sa.text("INSERT INTO camera_state (camera_id) VALUES (1)"))
        for table, columns, values in (
            ("results", "n, label, score", "0, :label, 0.5"),
            ("telemetry", "fps", "10"),
        ):
            connection.execute(
                sa.text(
                    f"INSERT INTO {table} (camera_id, boot_id, seq, at, received_at, {columns}) "
                    f"VALUES (1, 1, :seq, :seq, :seq, {values})"
                ),
                [{"seq": seq, "label": f"n{seq}"} for seq in range(1, rows + 1)],
            )
    assert migrate.upgrade(store)
    assert migrate.differences(store) == []
    with store.reading() as work:
        found = work.history.results(camera="cam-1", since=None, until=None, label=None, limit=rows * 2)
        assert [row["seq"] for row in found] == list(range(rows, 0, -1))
        some = work.history.telemetry(camera=None, since=500.0, until=600.0, limit=1000)
        assert [row["seq"] for row in some] == list(range(599, 499, -1))
    landing = Landing(store)
    body = {"boot": "0" * 16, "seq": 1, "up_ms": 5, "results": [{"label": "new", "score": 0.5}]}
    assert landing.write([Arrival("cam-1", "result", "", body, 20_000.0, retained=False)]).stored == 1
    with store.reading() as work:
        newest = work.history.results(camera="cam-1", since=None, until=None, label=None, limit=1)
    assert newest[0]["label"] == "new"
    store.close()


OLD_ROWS = """
INSERT INTO cameras (id, name, created_at) VALUES (7, 'cam-7', 1.0);
INSERT INTO camera_state (camera_id) VALUES (7);
INSERT INTO boots (camera_id, boot, first_seen, last_seen, ranges) VALUES (7, 'aa', 1, 1, '[]');
INSERT INTO results (camera_id, boot_id, seq, at, received_at, n, label, score)
VALUES (7, 1, 1, 1, 1, 0, 'bee', 0.5);
INSERT INTO releases (id, kind, name, version, epoch, sequence, key_id, digest, manifest,
content_sha256, content_size, labels, uploaded_at, uploaded_by)
VALUES ('model-1', 'model', 'm', '1', 1, 1, 'k', 'd', x'00', 'c', 1, '[]', 1, 'me');
INSERT INTO rollouts (release_id, target, state, waves, wave, settings, created_at, created_by)
VALUES ('model-1', 'all', 'running', '[100]', 0, '{}', 1, 'me');
INSERT INTO assignments (rollout_id, camera_id, release_id, wave, state, created_at, changed_at)
VALUES (1, 7, 'model-1', 0, 'pending', 1, 1)
"""


def test_what_was_stored_before_is_still_there_afterwards(tmp_path: Path) -> None:
    """A table that is made anew must not take the rows of others with it."""
    store = SqlStore(f"sqlite:///{tmp_path}/fleet.db")
    migrate.upgrade(store, "0001")
    with store.connect(write=True) as connection:
        for statement in OLD_ROWS.strip().split(";\n"):
            connection.execute(sa.text(statement))
    assert migrate.upgrade(store)
    with store.reading() as work:
        camera = work.cameras.get("cam-7")
        assert camera is not None
        assert (camera.site, camera.pinned) == ("", None)
        assert [one.camera for one in work.rollouts.assignments(1)] == ["cam-7"]
        assert len(work.history.results(camera="cam-7", since=None, until=None, label=None, limit=9)) == 1
    store.close()
