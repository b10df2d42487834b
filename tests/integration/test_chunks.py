"""Chunks: reading is exact whatever order rows arrived in, and writing touches few pages however much is stored."""

import random
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from fleetd.store import chunks, tables
from fleetd.store.engine import SqlStore
from fleetd.store.landing import Arrival, Landing

CAMERAS = 40


def fleet(store: SqlStore, cameras: int = CAMERAS) -> None:
    with store.transaction() as work:
        for number in range(cameras):
            work.cameras.add(f"cam-{number}", None, 0.0)


def result(camera: int, seq: int, at: float, label: str = "ball") -> Arrival:
    body = {"boot": f"{camera:016x}", "seq": seq, "up_ms": seq, "t": at}
    body["results"] = [{"label": label, "score": 0.5}]
    return Arrival(f"cam-{camera}", "result", "", body, 5000.0, retained=False)


def read(store: SqlStore, **narrow: Any) -> list[tuple[float, str]]:
    asked = {"camera": None, "since": None, "until": None, "label": None, "limit": 50, **narrow}
    with store.reading() as work:
        return [(row["at"], row["camera"]) for row in work.history.results(**asked)]


def test_the_newest_rows_are_found_exactly_although_cameras_send_late_and_out_of_order(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunks, "CHUNK_ROWS", 25)
    store = SqlStore(database_url)
    fleet(store)
    chance = random.Random(7)
    landing = Landing(store)
    truth = []
    for seq in range(1, 41):
        batch = []
        for camera in chance.sample(range(CAMERAS - 1), 12):  # the last camera has nothing to say
            at = (
                2000.0 + seq if chance.random() < 0.8 else chance.uniform(1000.0, 2000.0)
            )  # some kept it for long
            batch.append(result(camera, seq, at, label=chance.choice(("ball", "cube"))))
            truth.append((at, f"cam-{camera}", batch[-1].body["results"][0]["label"]))
        landing.write(batch)
    with store.connect(write=False) as connection:
        assert connection.execute(sa.select(sa.func.count()).select_from(tables.chunks)).scalar_one() > 10
    for _ in range(60):
        name = chance.choice([None, f"cam-{chance.randrange(CAMERAS)}"])
        label = chance.choice([None, "ball"])
        since = chance.choice([None, chance.uniform(1000.0, 2050.0)])
        until = chance.choice([None, chance.uniform(1000.0, 2050.0)])
        limit = chance.choice([1, 5, 50, 1000])
        expected = sorted(
            (
                at
                for at, who, what in truth
                if name in (None, who)
                and label in (None, what)
                and (since is None or at >= since)
                and (until is None or at < until)
            ),
            reverse=True,
        )[:limit]
        found = read(store, camera=name, label=label, since=since, until=until, limit=limit)
        assert [at for at, _ in found] == expected
    with store.reading() as work:
        counted = sum(row["count"] for row in work.history.labels(camera=None, since=1990.0))
    assert counted == sum(1 for at, _, _ in truth if at >= 1990.0)
    store.close()


def test_a_batch_dirties_few_pages_however_many_cameras_and_rows_there_are(tmp_path: Path) -> None:
    """With an index over (camera, time) each of these batches would dirty a page per camera."""
    store = SqlStore(f"sqlite:///{tmp_path}/fleet.db")
    tables.metadata.create_all(store.engine)
    fleet(store, 400)
    landing = Landing(store)
    for seq in range(1, 61):
        landing.write([result(camera, seq, 1000.0 + seq) for camera in range(400)])
    with store.connect(write=False) as connection:
        connection.execute(sa.text("PRAGMA wal_checkpoint(TRUNCATE)"))
    before = (tmp_path / "fleet.db-wal").stat().st_size
    landing.write([result(camera, 61, 2000.0) for camera in range(400)])
    pages = ((tmp_path / "fleet.db-wal").stat().st_size - before) / 4096
    assert pages < 100, "rows, their index, boots and reported state of 400 cameras"
    store.close()


def test_a_chunk_that_was_deleted_under_its_writer_is_there_again(database_url: str) -> None:
    store = SqlStore(database_url)
    fleet(store)
    landing = Landing(store)
    landing.write([result(1, 1, 1000.0)])
    with store.connect(write=True) as connection:
        connection.execute(sa.delete(tables.results))
        connection.execute(sa.delete(tables.chunks))
    landing.write([result(1, 2, 2000.0)])
    assert read(store) == [(2000.0, "cam-1")]
    store.close()
