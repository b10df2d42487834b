"""Backups: nothing that was acknowledged is missing, whatever happens meanwhile, and either database takes them."""

import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from fleetd.errors import ConflictError, InvalidError, NotFoundError, StoreError
from fleetd.registry import Registry
from fleetd.store import backup, migrate, tables
from fleetd.store.engine import SqlStore
from fleetd.store.landing import Arrival, DeadLetter, Landing

BOOT = "0123456789abcdef"


@pytest.fixture
def store(database_url: str) -> Iterator[SqlStore]:
    store = SqlStore(database_url)
    yield store
    store.close()


def fill(store: SqlStore) -> None:
    registry = Registry(store, lambda: 1000.0)
    registry.enrol("cam-1", actor="alice", tags=["line-3"], note="über dem Band")
    Landing(store).write(
        [result(1), result(2), Arrival("stranger", "result", "", result(1).body, 5.0, retained=False)],
        [DeadLetter("fleet/v1/x/up/result", b"\x00\xff", "invalid", "why", 1.0)],
    )


def result(seq: int) -> Arrival:
    body = {"boot": BOOT, "seq": seq, "up_ms": seq}
    body["results"] = [{"label": f"n{seq}", "score": 0.5, "scores": [0.5, 0.25]}]
    return Arrival("cam-1", "result", "", body, 1000.0, retained=False)


def content(store: SqlStore) -> dict[str, list[tuple[object, ...]]]:
    with store.connect(write=False) as connection:
        return {
            table.name: sorted((tuple(row) for row in connection.execute(sa.select(table))), key=repr)
            for table in tables.metadata.sorted_tables
        }


def test_a_backup_brings_everything_back_into_either_database(
    store: SqlStore, empty_database_url: str, tmp_path: Path
) -> None:
    if store.is_sqlite and empty_database_url == str(store.url):
        empty_database_url = f"sqlite:///{tmp_path}/other.db"
    fill(store)
    made = backup.back_up(store, tmp_path / "fleet.backup")
    assert (made.revision, made.cameras, made.results) == (migrate.newest_revision(), 1, 2)
    assert (tmp_path / "fleet.backup").stat().st_mode & 0o777 == 0o600
    other = SqlStore(empty_database_url)
    assert backup.restore(tmp_path / "fleet.backup", other) == made
    assert content(other) == content(store)
    assert migrate.differences(other) == []
    # It goes on where it was: a repeat counts no second time, new rows get new numbers.
    landed = Landing(other).write([result(2), result(3)])
    assert (landed.stored, landed.repeated) == (1, 1)
    Registry(other, lambda: 1000.0).enrol("cam-2", actor="alice")
    with other.reading() as work:
        assert work.access.first_broken_entry() is None
    other.close()
    assert sorted(path.name for path in tmp_path.iterdir() if ".new" in path.name) == []


def test_what_was_acknowledged_before_a_backup_began_is_in_it_although_landing_goes_on(
    store: SqlStore, tmp_path: Path
) -> None:
    fill(store)
    landing = Landing(store)
    acknowledged = 0
    stop = threading.Event()

    def land() -> None:
        nonlocal acknowledged
        while not stop.is_set():
            landing.write([result(acknowledged + 1)])
            acknowledged += 1

    writer = threading.Thread(target=land)
    writer.start()
    try:
        for number in range(3):
            while acknowledged < (number + 1) * 5:
                time.sleep(0.005)
            before = acknowledged
            made = backup.back_up(store, tmp_path / f"{number}.backup")
            assert before <= made.results <= acknowledged + 1
            with sqlite3.connect(tmp_path / f"{number}.backup") as connection:
                labels = {row[0] for row in connection.execute("SELECT label FROM results")}
                (ranges,) = connection.execute("SELECT ranges FROM boots").fetchone()
            connection.close()
            assert labels == {f"n{seq}" for seq in range(1, made.results + 1)}
            assert ranges == f"[[1,{made.results}]]", "rows and marks are of the same moment"
    finally:
        stop.set()
        writer.join()


def test_a_backup_of_an_older_version_is_brought_to_the_newest_schema(
    empty_database_url: str, tmp_path: Path
) -> None:
    old = SqlStore(f"sqlite:///{tmp_path}/old.db")
    migrate.upgrade(old, "0001")
    with old.connect(write=True) as connection:
        connection.execute(sa.text("INSERT INTO cameras (name, created_at) VALUES ('cam-1', 0)"))
        connection.execute(
            sa.text(
                "INSERT INTO results (camera_id, boot_id, seq, at, received_at, n, label, score) "
                "VALUES (1, 1, 1, 7, 7, 0, 'ball', 0.5)"
            )
        )
    backup.back_up(old, tmp_path / "old.backup")
    old.close()
    store = SqlStore(empty_database_url)
    backup.restore(tmp_path / "old.backup", store)
    with store.reading() as work:
        found = work.history.results(camera="cam-1", since=None, until=None, label=None, limit=5)
    assert [row["label"] for row in found] == ["ball"]
    assert migrate.differences(store) == []
    store.close()


def test_a_database_in_use_is_replaced_only_when_that_is_said(store: SqlStore, tmp_path: Path) -> None:
    fill(store)
    backup.back_up(store, tmp_path / "fleet.backup")
    Landing(store).write([result(3)])
    with pytest.raises(ConflictError, match="holds a fleet already"):
        backup.restore(tmp_path / "fleet.backup", store)
    with store.reading() as work:
        assert work.history.counts()["results"] == 3
    backup.restore(tmp_path / "fleet.backup", store, replace=True)
    with store.reading() as work:
        assert work.history.counts()["results"] == 2
    assert Landing(store).write([result(3)]).stored == 1


def test_a_file_that_exists_is_kept_unless_told_otherwise(store: SqlStore, tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("mine")
    with pytest.raises(ConflictError, match="exists"):
        backup.back_up(store, tmp_path / "precious")
    assert (tmp_path / "precious").read_text() == "mine"
    backup.back_up(store, tmp_path / "precious", replace=True)
    assert backup.check(tmp_path / "precious").cameras == 0


def test_what_is_no_backup_is_refused_in_one_sentence_and_nothing_is_changed(
    store: SqlStore, tmp_path: Path
) -> None:
    fill(store)
    before = content(store)
    backup.back_up(store, tmp_path / "good")
    damaged = bytearray((tmp_path / "good").read_bytes())
    damaged[4096 * 3 : 4096 * 8] = bytes(4096 * 5)
    (tmp_path / "damaged").write_bytes(damaged)
    (tmp_path / "cat").write_bytes(b"hello, I am a picture of a cat" * 100)
    (tmp_path / "empty").touch()
    sqlite3.connect(tmp_path / "foreign").execute("CREATE TABLE cats (name)").connection.close()
    for name in ("damaged", "cat", "empty", "foreign"):
        with pytest.raises(InvalidError):
            backup.restore(tmp_path / name, store, replace=True)
    with pytest.raises(NotFoundError):
        backup.restore(tmp_path / "nothing", store, replace=True)
    assert content(store) == before


def test_a_folder_that_cannot_be_written_is_one_sentence(store: SqlStore, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="Nothing can be written"):
        backup.back_up(store, tmp_path / "file" / "backup")
