"""Old rows become sums: nothing counts twice or gets lost on the way, and what is too old goes."""

from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import sqlalchemy as sa

from fleetd.store import chunks, tables
from fleetd.store.engine import SqlStore
from fleetd.store.landing import Arrival, Landing
from fleetd.store.upkeep import SqlUpkeep
from fleetd.upkeep import DAY_S, Keeping, Upkeep

NOW = 1_700_000_000.0 - 1_700_000_000.0 % 3600


@pytest.fixture
def store(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[SqlStore]:
    monkeypatch.setattr(chunks, "CHUNK_ROWS", 20)
    store = SqlStore(database_url)
    with store.transaction() as work:
        work.cameras.add("cam-1", None, 0.0)
        work.cameras.add("cam-2", None, 0.0)
    yield store
    store.close()


class Sender:
    """Lands messages that were received when they happened."""

    def __init__(self, store: SqlStore) -> None:
        self.landing = Landing(store)
        self._seq = 0

    def send(self, at: float, camera: str = "cam-1", **body: Any) -> None:
        self._seq += 1
        channel = "result" if "results" in body else "telemetry" if "fps" in body else "event"
        content = {"boot": "0" * 16, "seq": self._seq, "up_ms": self._seq, "t": at, **body}
        self.landing.write([Arrival(camera, channel, "", content, at, retained=False)])

    def saw(self, at: float, label: str = "ball", score: float = 0.5, camera: str = "cam-1") -> None:
        self.send(at, camera, results=[{"label": label, "score": score, "inference_ms": 10}])


def summary(store: SqlStore, since: float = 0.0, camera: str | None = None) -> Mapping[Any, Any]:
    with store.reading() as work:
        rows = work.history.labels(camera=camera, since=since)
    return {(row["camera"], row["label"]): (row["count"], round(row["mean_score"], 9)) for row in rows}


def count(store: SqlStore, table: sa.Table) -> int:
    with store.connect(write=False) as connection:
        return int(connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one())


def keep(store: SqlStore, now: float = NOW, **keeping: float) -> None:
    upkeep = Upkeep(store, lambda: now, Keeping(**keeping))
    for _ in range(1000):
        if not upkeep.step():
            return
    raise AssertionError("upkeep never comes to an end")


def test_a_summary_says_the_same_before_and_after_rows_have_become_sums(store: SqlStore) -> None:
    sender = Sender(store)
    for n in range(150):
        sender.saw(NOW - 100 * DAY_S + n * 977, ("ball", "cube")[n % 2], n / 150, f"cam-{n % 3 % 2 + 1}")
    for n in range(30):
        sender.saw(NOW - n, "ball", 1.0)
    before = summary(store)
    keep(store, raw_days=90)
    assert count(store, tables.results) < 60
    assert count(store, tables.result_rollups) > 50
    assert summary(store) == before
    assert summary(store, camera="cam-2") == {
        key: value for key, value in before.items() if key[0] == "cam-2"
    }
    keep(store, raw_days=90)
    assert summary(store) == before, "a second time changes nothing"


def test_what_comes_late_is_added_to_the_sums_of_its_time(store: SqlStore) -> None:
    sender = Sender(store)
    old = NOW - 200 * DAY_S
    for n in range(25):
        sender.saw(old + n, score=0.2)
    keep(store, raw_days=90)
    for n in range(25):
        sender.saw(old + 30 + n, score=0.8)
    keep(store, raw_days=90)
    assert summary(store) == {("cam-1", "ball"): (50, 0.5)}
    with store.connect(write=False) as connection:
        rows = connection.execute(
            sa.select(tables.result_rollups).where(tables.result_rollups.c.step == 3600)
        ).all()
    assert [
        (row.n, row.score_min, row.score_max, row.inference_ms_sum, row.inference_ms_n) for row in rows
    ] == [(50, 0.2, 0.8, 500.0, 50)]


def test_telemetry_keeps_its_extremes_although_some_messages_lack_a_value(store: SqlStore) -> None:
    sender = Sender(store)
    old = NOW - 200 * DAY_S
    sender.send(old, fps=10.0, rssi=-70.0)
    sender.send(old + 1, fps=20.0, temperature_c=40.5)
    keep(store, raw_days=90)
    sender.send(old + 2, fps=30.0, rssi=-80.0, queue=7)
    keep(store, raw_days=90)
    with store.connect(write=False) as connection:
        table = tables.telemetry_rollups
        row = connection.execute(sa.select(table).where(table.c.step == 60)).one()
    assert (row.n, row.fps_sum, row.fps_n) == (3, 60.0, 3)
    assert (row.rssi_min, row.rssi_n, row.temperature_c_max, row.queue_max) == (-80.0, 2, 40.5, 7)


def test_a_step_that_breaks_off_changes_nothing(store: SqlStore, monkeypatch: pytest.MonkeyPatch) -> None:
    sender = Sender(store)
    for n in range(30):
        sender.saw(NOW - 100 * DAY_S + n)
    before, kept = summary(store), SqlUpkeep._add_up

    def cut(self: SqlUpkeep, kind: str, chunk: int, step: int) -> None:
        kept(self, kind, chunk, step)
        if step == 3600:
            raise RuntimeError("power cut")

    with monkeypatch.context() as patch:
        patch.setattr(SqlUpkeep, "_add_up", cut)
        with pytest.raises(RuntimeError):
            keep(store, raw_days=90)
    assert (count(store, tables.results), count(store, tables.result_rollups)) == (30, 0)
    keep(store, raw_days=90)
    assert summary(store) == before


def test_each_kind_is_kept_as_long_as_was_said(store: SqlStore) -> None:
    sender = Sender(store)
    for days in (400, 200, 50):
        for n in range(20):
            sender.saw(NOW - days * DAY_S + n)
        sender.send(NOW - days * DAY_S, kind="boot")
    keep(store, raw_days=0, event_days=0)
    assert (count(store, tables.results), count(store, tables.events)) == (60, 3)
    keep(store, raw_days=90, minute_days=300, hour_days=0, event_days=100)
    steps = sa.select(tables.result_rollups.c.step, sa.func.count()).group_by(tables.result_rollups.c.step)
    with store.connect(write=False) as connection:
        assert {row[0]: row[1] for row in connection.execute(steps)} == {60: 1, 3600: 2}
    assert (count(store, tables.results), count(store, tables.events)) == (20, 1)
    keep(store, raw_days=90, hour_days=300)
    assert summary(store) == {("cam-1", "ball"): (40, 0.5)}


def test_a_boot_that_was_silent_for_very_long_is_forgotten_and_one_that_talks_is_not(store: SqlStore) -> None:
    sender = Sender(store)
    sender.saw(NOW - 100 * DAY_S)
    keep(store, raw_days=30)
    assert count(store, tables.boots) == 0
    sender.saw(NOW - 80 * DAY_S)
    keep(store, raw_days=30)
    assert count(store, tables.boots) == 1, "it may still repeat what it holds"
