"""Landing: one transaction per batch, every message once, whatever is repeated."""

import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fleetd.domain.records import Camera
from fleetd.errors import StoreError
from fleetd.store import tables
from fleetd.store.engine import SqlStore
from fleetd.store.landing import UNKNOWN_KEPT, Arrival, DeadLetter, Landing

BOOT, BOOT_2 = "0123456789abcdef", "fedcba9876543210"


@pytest.fixture
def store(database_url: str) -> Iterator[SqlStore]:
    store = SqlStore(database_url)
    with store.transaction() as work:
        work.cameras.add("cam-1", None, 0.0)
        work.cameras.add("cam-2", None, 0.0)
    yield store
    store.close()


def message(seq: int, *, boot: str = BOOT, up_ms: int | None = None, **body: Any) -> dict[str, Any]:
    return {"boot": boot, "seq": seq, "up_ms": seq * 1000 if up_ms is None else up_ms, **body}


def result(seq: int, *, camera: str = "cam-1", at: float = 1000.0, **more: Any) -> Arrival:
    body = message(seq, results=[{"label": f"n{seq}", "score": 0.5}], **more)
    return Arrival(camera, "result", "", body, at, retained=False)


def status(
    seq: int, *, online: bool = True, at: float = 1000.0, retained: bool = False, **more: Any
) -> Arrival:
    return Arrival("cam-1", "status", "", message(seq, online=online, **more), at, retained)


def labels(store: SqlStore) -> list[str]:
    with store.connect(write=False) as connection:
        return list(
            connection.execute(sa.select(tables.results.c.label).order_by(tables.results.c.id)).scalars()
        )


def camera(store: SqlStore, name: str = "cam-1") -> Camera:
    with store.reading() as work:
        found = work.cameras.get(name)
    assert found is not None
    return found


def test_a_repeated_message_changes_nothing_but_is_receipted_again(store: SqlStore) -> None:
    landing = Landing(store)
    first = landing.write([result(1), result(2)])
    again = landing.write([result(2), result(1), result(2)])
    assert (first.stored, first.repeated) == (2, 0)
    assert (again.stored, again.repeated) == (0, 3)
    assert again.receipts == {("cam-1", BOOT): [(1, 2)]}
    assert labels(store) == ["n1", "n2"]


def test_repeats_are_known_after_a_restart(store: SqlStore) -> None:
    Landing(store).write([result(1), result(3)])
    landed = Landing(store).write([result(1), result(2), result(3)])
    assert (landed.stored, landed.repeated) == (1, 2)
    assert sorted(labels(store)) == ["n1", "n2", "n3"]


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.lists(
        st.lists(st.tuples(st.sampled_from(["cam-1", "cam-2"]), st.integers(1, 30)), max_size=20), max_size=8
    ),
    st.data(),
)
def test_whatever_order_repeats_restarts_and_failures_every_message_is_stored_exactly_once(
    store: SqlStore, batches: list[list[tuple[str, int]]], data: st.DataObject
) -> None:
    boot = secrets.token_hex(8)  # the database outlives one example
    landing = Landing(store)
    sent: set[tuple[str, int]] = set()
    for batch in batches:
        arrivals = [result(seq, camera=name, boot=boot) for name, seq in batch]
        if data.draw(st.booleans(), label="fails first"):
            poisoned = [*arrivals, arrivals[0]._replace(channel="no such channel")] if arrivals else []
            if poisoned and poisoned[-1].body["seq"]:
                poisoned[-1] = poisoned[-1]._replace(body=message(99, boot=boot))
                with pytest.raises(KeyError):
                    landing.write(poisoned)
        if data.draw(st.booleans(), label="restarts"):
            landing = Landing(store)
        landing.write(arrivals)
        sent |= set(batch)
    with store.connect(write=False) as connection:
        rows = connection.execute(
            sa.select(tables.cameras.c.name, tables.results.c.seq)
            .join(tables.cameras, tables.cameras.c.id == tables.results.c.camera_id)
            .join(tables.boots, tables.boots.c.id == tables.results.c.boot_id)
            .where(tables.boots.c.boot == boot)
        ).all()
    assert sorted((name, seq) for name, seq in rows) == sorted(sent)


def test_two_boots_of_one_camera_do_not_mix(store: SqlStore) -> None:
    landed = Landing(store).write([result(1), result(1, boot=BOOT_2)])
    assert landed.stored == 2
    assert set(landed.receipts) == {("cam-1", BOOT), ("cam-1", BOOT_2)}


def test_what_a_camera_declares_lost_is_counted_and_receipted(store: SqlStore) -> None:
    landed = Landing(store).write([result(1), result(10, low=8)])
    assert landed.lost == 6, "2 to 7 are neither held nor coming"
    assert landed.receipts == {("cam-1", BOOT): [(1, 7), (10, 10)]}


def test_messages_of_cameras_that_are_not_enrolled_are_counted_not_stored(store: SqlStore) -> None:
    landed = Landing(store).write([result(1, camera="stranger"), result(2, camera="stranger"), result(1)])
    assert (landed.unknown, landed.stored) == (2, 1)
    with store.reading() as work:
        assert [(row["name"], row["messages"]) for row in work.cameras.unknown(10)] == [("stranger", 2)]


def test_a_flood_of_made_up_names_stays_bounded(store: SqlStore) -> None:
    Landing(store).write([result(1, camera=f"x{n}") for n in range(UNKNOWN_KEPT + 50)])
    with store.reading() as work:
        assert len(work.cameras.unknown(5000)) == UNKNOWN_KEPT


def test_a_camera_enrolled_later_is_stored_from_then_on(store: SqlStore) -> None:
    landing = Landing(store)
    landing.write([result(1, camera="late")])
    with store.transaction() as work:
        work.cameras.add("late", None, 0.0)
        assert work.cameras.unknown(10) == []
    assert landing.write([result(1, camera="late")]).stored == 1


def remove(store: SqlStore, name: str) -> None:
    with store.transaction() as work:
        work.cameras.remove(camera(store, name).id, 0.0)


def enrol(store: SqlStore, name: str) -> None:
    with store.transaction() as work:
        work.cameras.add(name, None, 0.0)


def test_a_removed_camera_is_unknown_from_then_on(store: SqlStore) -> None:
    landing = Landing(store)
    landing.write([result(1)])
    remove(store, "cam-1")
    assert landing.write([result(2)]).unknown == 1


def test_what_a_removed_camera_goes_on_sending_is_not_stored_for_the_one_that_got_its_number(
    store: SqlStore,
) -> None:
    landing = Landing(store)
    landing.write([result(1, camera="cam-2")])
    number = camera(store, "cam-2").id
    remove(store, "cam-2")
    enrol(store, "cam-9")
    if store.is_sqlite:  # PostgreSQL never gives a number twice
        assert camera(store, "cam-9").id == number, "otherwise this shows nothing"
    landed = landing.write([result(2, camera="cam-2")])
    assert (landed.stored, landed.unknown) == (0, 1)
    assert labels(store) == []


def test_a_camera_removed_and_enrolled_again_in_mid_boot_is_stored_once_also_after_a_restart(
    store: SqlStore,
) -> None:
    landing = Landing(store)
    landing.write([result(1, camera="cam-2"), result(2, camera="cam-2")])
    remove(store, "cam-2")
    enrol(store, "cam-2")
    landed = landing.write([result(3, camera="cam-2")])
    assert landed.receipts == {("cam-2", BOOT): [(3, 3)]}, "nothing of its earlier life is stored any more"
    assert Landing(store).write([result(3, camera="cam-2")]).repeated == 1


def test_marks_of_a_removed_camera_do_not_swallow_another_cameras_messages(store: SqlStore) -> None:
    landing = Landing(store)
    landing.write([result(seq, camera="cam-2") for seq in (1, 2, 3)])
    remove(store, "cam-2")
    enrol(store, "cam-2")
    landing.write([result(1)])  # its boot gets the number that cam-2's had
    landing.write([result(4, camera="cam-2")])
    assert Landing(store).write([result(2), result(3)]).stored == 2


def test_dead_letters_keep_the_newest_and_the_head_of_the_payload(store: SqlStore) -> None:
    landing = Landing(store)
    for n in range(25):
        landing.write([], [DeadLetter(f"t/{n}/{i}", b"x" * 5000, "invalid", "why", 1.0) for i in range(60)])
    with store.reading() as work:
        letters = work.history.dead_letters(limit=5000)
    assert len(letters) == 1000
    assert letters[0]["topic"] == "t/24/59"
    assert (len(letters[0]["payload"]), letters[0]["size"]) == (2048, 5000)


def test_the_status_of_a_camera_is_what_it_said_last(store: SqlStore) -> None:
    landing = Landing(store)
    running = {"id": "model-1", "digest": "a" * 64, "sequence": 1}
    landing.write([status(1, board="OMVRT1060 32768 SDRAM", release=running, problems=["no-camera"])])
    seen = camera(store)
    assert (seen.board, seen.release_id, seen.problems, seen.connected) == (
        "OMVRT1060 32768 SDRAM",
        "model-1",
        ("no-camera",),
        True,
    )
    landing.write([status(5, firmware="4.8.1"), status(3, firmware="old news")])
    assert camera(store).firmware == "4.8.1", "an older message that arrives late does not win"


def test_a_last_will_of_an_older_boot_does_not_mark_the_new_one(store: SqlStore) -> None:
    landing = Landing(store)
    landing.write([status(1, boot=BOOT_2)])
    landing.write([status(0, online=False, boot=BOOT, up_ms=0)])
    assert camera(store).connected
    landing.write([status(0, online=False, boot=BOOT_2, up_ms=0)])
    assert not camera(store).connected


def test_a_retained_replay_never_counts_as_being_seen(store: SqlStore) -> None:
    Landing(store).write([status(1, retained=True)])
    seen = camera(store)
    assert seen.seen_at is None
    assert seen.connected


def test_the_time_of_a_message_is_estimated_from_the_boots_fastest_message(store: SqlStore) -> None:
    landing = Landing(store)
    landing.write([result(1, at=1000.0, up_ms=10_000)])  # so the boot was at 990 at the latest
    landing.write([result(2, at=1500.0, up_ms=20_000)])  # waited 490 s in some queue
    with store.reading() as work:
        rows = work.history.results(camera="cam-1", since=None, until=None, label=None, limit=10)
    assert [row["at"] for row in rows] == [1010.0, 1000.0]
    assert camera(store).seen_at == 1010.0, "an old message from a queue does not make a camera alive now"


@pytest.mark.parametrize("t", [0.0, 1000.0 + 7200, 1000.0 - 400 * 86400])
def test_a_camera_clock_that_cannot_be_right_is_not_believed(store: SqlStore, t: float) -> None:
    Landing(store).write([result(1, at=1000.0 + 400 * 86400, t=t)])
    with store.reading() as work:
        (row,) = work.history.results(camera=None, since=None, until=None, label=None, limit=10)
    assert row["at"] == 1000.0 + 400 * 86400


def test_every_channel_lands_in_its_table(store: SqlStore) -> None:
    def arrival(channel: str, body: dict[str, Any], rest: str = "") -> Arrival:
        return Arrival("cam-1", channel, rest, body, 1000.0, retained=False)

    landed = Landing(store).write(
        [
            arrival("telemetry", message(1, fps=11.2, dropped={"result": 2})),
            arrival("led", message(2, color="blue", pattern="solid", reason="running")),
            arrival(
                "update",
                message(3, generation=4, release="model-2", state="trial", blocks={"done": 1, "total": 2}),
            ),
            arrival("event", message(4, kind="boot", text="hello")),
            arrival("reply", message(5, id="c1", ok=True, data={"a": 1}), "identify"),
        ]
    )
    assert landed.updates
    with store.reading() as work:
        (telemetry,) = work.history.telemetry(camera="cam-1", since=None, until=None, limit=5)
        (led,) = work.history.sightings(camera="cam-1", since=None, limit=5)
        (event,) = work.history.events(camera="cam-1", since=None, until=None, limit=5)
        (reply,) = work.history.replies(command_id="c1")
    assert (telemetry["fps"], telemetry["dropped"]) == (11.2, {"result": 2})
    assert (led.color, led.source, led.reason) == ("blue", "agent", "running")
    assert (event["kind"], event["boot"]) == ("boot", BOOT)
    assert (reply["command"], reply["data"]) == ("identify", {"a": 1})
    assert camera(store).led_color == "blue"


def test_a_database_that_is_locked_by_someone_else_is_an_error_and_nothing_is_stored(
    store: SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fleetd.store.engine.SQLITE_BUSY_SECONDS", 0.05)
    monkeypatch.setattr("fleetd.store.postgres.WAIT_SECONDS", 0.05)
    impatient = SqlStore(store.url)
    try:
        with store.connect(write=True) as somebody:
            if not store.is_sqlite:
                somebody.execute(sa.text("LOCK TABLE boots"))
            with pytest.raises(StoreError, match="lock"):
                Landing(impatient).write([result(1)])
    finally:
        impatient.close()
    assert labels(store) == []


def test_a_flood_of_made_up_names_does_not_hide_a_stranger_who_keeps_talking(store: SqlStore) -> None:
    landing = Landing(store)
    for n in range(3):
        landing.write([result(1, camera=f"x{n}-{i}", at=1000.0 + n) for i in range(UNKNOWN_KEPT)])
        landing.write([result(n + 1, camera="stranger", at=1000.5 + n)])
    with store.reading() as work:
        known = {row["name"]: row["messages"] for row in work.cameras.unknown(5000)}
    assert len(known) == UNKNOWN_KEPT
    assert known["stranger"] >= 1


def test_a_flood_of_dead_letters_from_one_camera_pushes_out_only_its_own(store: SqlStore) -> None:
    landing = Landing(store)
    quiet = DeadLetter("fleet/v1/quiet/up/result", b"evidence", "invalid", "why", 1.0)
    flood = [DeadLetter(f"fleet/v1/loud/up/image/x/{i}", b"x", "channel", "no", 2.0) for i in range(2000)]
    landing.write([], [quiet, *flood])
    for _ in range(12):
        landing.write([], flood)
    with store.reading() as work:
        letters = work.history.dead_letters(limit=5000)
    assert len(letters) == 1000
    assert letters[-1]["payload"] == b"evidence"


def test_a_last_will_takes_its_turn_among_the_statuses_of_a_batch(store: SqlStore) -> None:
    landing = Landing(store)
    will = status(0, online=False, up_ms=0)
    landing.write([status(1), will])
    assert not camera(store).connected, "it connected and was lost"
    landing.write([will, status(2)])
    assert camera(store).connected, "it was lost and came back"


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)  # thousands of batches; only arithmetic
def test_a_camera_clock_that_runs_slow_does_not_make_the_camera_look_silent(store: SqlStore) -> None:
    """At 50 ppm, an ordinary crystal, the fastest message ever would be 181 s off after six weeks."""
    landing = Landing(store)
    now = 0.0
    for seq in range(1, 2000):
        now = seq * 1800.0
        landing.write([result(seq, at=1e9 + now, up_ms=int(now * 1000 * (1 - 50e-6)))])
    seen_at = camera(store).seen_at
    assert seen_at is not None
    assert 1e9 + now - seen_at < 5


def test_a_server_clock_set_forward_is_followed_after_some_minutes(store: SqlStore) -> None:
    """A small computer without a battery starts in the past, until it is told the time."""
    landing = Landing(store)
    landing.write([result(1, at=1000.0, up_ms=1000)])
    at = 0.0
    for seq in range(2, 60):
        at = 1000.0 + 86400 + seq * 30
        landing.write([result(seq, at=at, up_ms=seq * 30_000)])
    seen_at = camera(store).seen_at
    assert seen_at is not None
    assert at - seen_at < 60


def test_a_backlog_after_a_long_absence_keeps_its_own_times(store: SqlStore) -> None:
    landing = Landing(store)
    for seq in range(1, 100):
        landing.write([result(seq, at=1000.0 + seq * 30, up_ms=seq * 30_000)])
    back = 1000.0 + 99 * 30 + 7200  # fleetd was away for two hours and reads all of it within seconds
    backlog = [result(seq, at=back, up_ms=seq * 30_000) for seq in range(100, 340)]
    landing.write(backlog)
    with store.reading() as work:
        rows = work.history.results(camera="cam-1", since=None, until=None, label=None, limit=240)
    assert [row["at"] for row in rows[::-1]] == [1000.0 + seq * 30 for seq in range(100, 340)]


def test_a_server_clock_set_back_does_not_leave_a_camera_seen_in_the_future(store: SqlStore) -> None:
    landing = Landing(store)
    blue = message(2, color="blue", pattern="solid")
    red = message(4, color="red", pattern="solid")
    landing.write([result(1, at=100_000.0), Arrival("cam-1", "led", "", blue, 100_000.0, retained=False)])
    landing.write([result(3, at=1000.0), Arrival("cam-1", "led", "", red, 1000.0, retained=False)])
    seen = camera(store)
    assert seen.seen_at == 1000.0
    assert seen.led_color == "red"


def test_several_processes_land_the_same_messages_and_each_counts_once(store: SqlStore) -> None:
    """A broker that shares a subscription out gives messages of one boot to all workers, and repeats some."""
    fleet = [Landing(SqlStore(store.url)) for _ in range(3)]
    batches = [[result(seq) for seq in range(at, at + 40)] for at in range(1, 600, 20)]  # each half a repeat
    batches += [[result(seq, camera="cam-2") for seq in range(at, at + 40)] for at in range(1, 600, 20)]
    with ThreadPoolExecutor(3) as pool:
        shares = [[(landing, batch) for batch in batches[n::3]] for n, landing in enumerate(fleet)]
        landed = list(pool.map(lambda share: [one.write(batch) for one, batch in share], shares))
    for landing in fleet:
        landing._store.close()
    stored = sum(one.stored for some in landed for one in some)
    assert stored == 2 * 620
    assert sorted(labels(store)) == sorted(f"n{seq}" for seq in range(1, 621) for _ in range(2))
    assert len({receipt for some in landed for one in some for receipt in one.receipts}) == 2
    with store.connect(write=False) as connection:
        ranges = connection.execute(sa.select(tables.boots.c.ranges)).scalars().all()
    assert ranges == ["[[1,620]]"] * 2


def test_an_entry_of_a_summary_counts_for_its_frames(store: SqlStore) -> None:
    entries = [{"label": "ball", "score": 0.9, "count": 30}, {"label": "ball", "score": 0.6}]
    Landing(store).write([Arrival("cam-1", "result", "", message(1, results=entries), 1000.0, False)])
    with store.reading() as work:
        [row] = work.history.labels(camera="cam-1", since=0.0)
    assert (row["label"], row["count"]) == ("ball", 31)
    assert row["mean_score"] == pytest.approx((30 * 0.9 + 0.6) / 31)
