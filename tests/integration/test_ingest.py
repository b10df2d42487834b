"""Ingest: nothing is acknowledged before it is stored, nothing bad blocks the queue, nothing grows without bound."""

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetd.errors import StoreError
from fleetd.ingest import Inbox, Ingest, _parse_topic, decode
from fleetd.ports import Inbound
from fleetd.protocol.messages import UP
from fleetd.store import tables
from fleetd.store.engine import SQLITE_CONNECTIONS, SqlStore
from fleetd.store.landing import Arrival, DeadLetter, Landed, Landing

BOOT = "0123456789abcdef"
PREFIX = "fleet/v1"


class Link:
    """Stands where the broker is: remembers what was acknowledged and published."""

    def __init__(self) -> None:
        self.acknowledged: list[int] = []
        self.receipts: list[tuple[str, dict[str, Any]]] = []

    def acknowledge(self, batch: Sequence[Inbound]) -> None:
        self.acknowledged += [inbound.mid for inbound in batch]

    def publish_once(self, topic: str, payload: bytes) -> None:
        self.receipts.append((topic, json.loads(payload)))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqlStore]:
    store = SqlStore(f"sqlite:///{tmp_path}/fleet.db")
    tables.metadata.create_all(store.engine)
    with store.transaction() as work:
        work.cameras.add("cam-1", None, 0.0)
    yield store
    store.close()


def inbound(seq: int, payload: bytes | None = None, topic: str = f"{PREFIX}/cam-1/up/result") -> Inbound:
    body = {"boot": BOOT, "seq": seq, "up_ms": seq, "results": [{"label": f"n{seq}", "score": 1}]}
    return Inbound(topic, json.dumps(body).encode() if payload is None else payload, False, 1000.0, None, seq)


def stored(store: SqlStore) -> list[str]:
    with store.reading() as work:
        rows = work.history.results(camera=None, since=None, until=None, label=None, limit=10_000)
    return [row["label"] for row in rows][::-1]


def until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


class Watched(Landing):
    """A landing that can be made to fail, and tells what it was asked to write."""

    def __init__(self, store: SqlStore) -> None:
        super().__init__(store)
        self.failures: list[Exception] = []
        self.hold = threading.Event()
        self.hold.set()

    def write(self, arrivals: Sequence[Arrival], dead: Sequence[DeadLetter] = ()) -> Landed:
        self.hold.wait(10)
        if self.failures:
            raise self.failures.pop(0)
        return super().write(arrivals, dead)


def test_messages_are_stored_then_acknowledged_in_order_then_receipted(store: SqlStore) -> None:
    link, landing = Link(), Watched(store)
    ingest = Ingest(landing, link, prefix=PREFIX, receipt_seconds=0.1)
    landing.hold.clear()
    ingest.start()
    for seq in range(1, 101):
        ingest.receive([inbound(seq)])
    time.sleep(0.05)
    assert link.acknowledged == [], "nothing is acknowledged before it is stored"
    landing.hold.set()
    until(lambda: len(link.acknowledged) == 100)
    assert link.acknowledged == list(range(1, 101))
    until(lambda: bool(link.receipts) and link.receipts[-1][1]["seq"] == [[1, 100]])
    assert link.receipts[-1] == (f"{PREFIX}/cam-1/down/ack", {"boot": BOOT, "seq": [[1, 100]]})
    ingest.stop()
    assert stored(store) == [f"n{n}" for n in range(1, 101)]


def test_a_database_that_is_away_for_a_while_costs_time_but_no_message(store: SqlStore) -> None:
    link, landing = Link(), Watched(store)
    landing.failures = [StoreError("disk full"), StoreError("disk full")]
    ingest = Ingest(landing, link, prefix=PREFIX)
    ingest.start()
    ingest.receive([inbound(1)])
    until(lambda: ingest.trouble == "disk full")
    until(lambda: link.acknowledged == [1])
    assert ingest.trouble is None
    ingest.stop()
    assert stored(store) == ["n1"]


def test_stopping_with_a_database_that_is_away_acknowledges_nothing(store: SqlStore) -> None:
    link, landing = Link(), Watched(store)
    landing.failures = [StoreError("gone") for _ in range(1000)]
    ingest = Ingest(landing, link, prefix=PREFIX)
    ingest.start()
    ingest.receive([inbound(1)])
    until(lambda: ingest.trouble is not None)
    ingest.stop(timeout=0.2)
    assert link.acknowledged == []
    assert stored(store) == []


def test_a_stop_stores_and_acknowledges_what_is_already_inside(store: SqlStore) -> None:
    link, landing = Link(), Watched(store)
    ingest = Ingest(landing, link, prefix=PREFIX, receipt_seconds=30)
    landing.hold.clear()
    ingest.start()
    for seq in range(1, 4001):
        ingest.receive([inbound(seq)])
    threading.Timer(0.1, landing.hold.set).start()
    ingest.stop()
    assert len(link.acknowledged) == 4000
    assert len(stored(store)) == 4000
    assert link.receipts[-1][1]["seq"] == [[1, 4000]], "receipts are not kept back at the end"


def test_a_message_that_the_database_refuses_goes_to_the_dead_letters_and_the_others_are_stored(
    store: SqlStore,
) -> None:
    """A poison message as the first of a hundred must not stop the other 99."""
    link = Link()

    class Refusing(Landing):
        def write(self, arrivals: Sequence[Arrival], dead: Sequence[DeadLetter] = ()) -> Landed:
            if any(arrival.body["seq"] == 1 for arrival in arrivals):
                raise UnicodeEncodeError("utf-8", "x", 0, 1, "surrogates not allowed")
            return super().write(arrivals, dead)

    ingest = Ingest(Refusing(store), link, prefix=PREFIX)
    for seq in range(1, 101):
        ingest.receive([inbound(seq)])
    ingest.start()
    until(lambda: len(link.acknowledged) == 100)
    ingest.stop()
    assert len(stored(store)) == 99
    with store.reading() as work:
        (letter,) = work.history.dead_letters(limit=10)
    assert letter["reason"] == "unstorable"


class Reluctant(Landing):
    """A database that refuses message 1, and is busy when its dead letter is to be written."""

    busy = 2

    def write(self, arrivals: Sequence[Arrival], dead: Sequence[DeadLetter] = ()) -> Landed:
        if any(arrival.body["seq"] == 1 for arrival in arrivals):
            raise UnicodeEncodeError("utf-8", "x", 0, 1, "surrogates not allowed")
        if dead and self.busy:
            self.busy -= 1
            raise StoreError("disk full")
        return super().write(arrivals, dead)


def test_a_database_that_is_busy_while_a_poison_message_is_buried_does_not_end_the_writer(
    store: SqlStore,
) -> None:
    link = Link()
    ingest = Ingest(Reluctant(store), link, prefix=PREFIX)
    for seq in range(1, 11):
        ingest.receive([inbound(seq)])
    ingest.start()
    until(lambda: len(link.acknowledged) == 10)
    ingest.receive([inbound(11)])
    until(lambda: len(link.acknowledged) == 11)
    ingest.stop()
    assert len(stored(store)) == 10
    assert ingest.counts.dead == 1


def test_a_listener_that_fails_and_a_connection_that_is_gone_do_not_end_the_writer(store: SqlStore) -> None:
    class Gone(Link):
        def acknowledge(self, batch: Sequence[Inbound]) -> None:
            super().acknowledge(batch)
            raise ConnectionError("gone")

    def fails(_landed: Landed) -> None:
        raise RuntimeError("no listener")

    link = Gone()
    ingest = Ingest(Landing(store), link, prefix=PREFIX, landed=fails)
    ingest.start()
    for seq in (1, 2):
        ingest.receive([inbound(seq)])
        until(lambda: len(link.acknowledged) == seq)  # noqa: B023  # it is called here only
    ingest.stop()
    assert len(stored(store)) == 2


def test_a_message_is_not_blamed_for_a_database_without_a_free_connection(tmp_path: Path) -> None:
    crowded = SqlStore(f"sqlite:///{tmp_path}/crowded.db")
    tables.metadata.create_all(crowded.engine)
    crowded.engine.pool._timeout = 0.1  # type: ignore[attr-defined]
    with contextlib.ExitStack() as readers:
        for _ in range(SQLITE_CONNECTIONS):
            readers.enter_context(crowded.connect(write=False))
        with pytest.raises(StoreError, match="in use"):
            Landing(crowded).write([])
    crowded.close()


def test_long_topics_are_neither_remembered_nor_free(store: SqlStore) -> None:
    endless = f"{PREFIX}/cam-1/up/" + "x" * 60_000
    before = _parse_topic.cache_info().currsize
    assert isinstance(decode(inbound(1, topic=endless), PREFIX), DeadLetter)
    assert _parse_topic.cache_info().currsize == before
    inbox = Inbox(messages=100, size=100_000)
    threading.Timer(0.3, inbox.close).start()
    assert not inbox.put([inbound(1, topic=endless)] * 3), "two of them fill it"
    assert len(inbox) == 2


def test_a_result_with_a_last_wills_number_is_not_acknowledged_as_stored(store: SqlStore) -> None:
    assert isinstance(decode(inbound(0), PREFIX), DeadLetter)


BAD = {
    "not json": (b"hello", "invalid"),
    "an array": (b"[1,2]", "invalid"),
    "nan": (
        b'{"boot":"0123456789abcdef","seq":1,"up_ms":1,"results":[{"label":"x","score":NaN}]}',
        "invalid",
    ),
    "a score above one": (
        b'{"boot":"0123456789abcdef","seq":1,"up_ms":1,"results":[{"label":"x","score":1.5}]}',
        "invalid",
    ),
    "a lone surrogate": (
        b'{"boot":"0123456789abcdef","seq":1,"up_ms":1,"results":[{"label":"\\ud800","score":1}]}',
        "invalid",
    ),
    "a nul character": (
        b'{"boot":"0123456789abcdef","seq":1,"up_ms":1,"results":[{"label":"\\u0000","score":1}]}',
        "invalid",
    ),
    "a number that no database holds": (
        b'{"boot":"0123456789abcdef","seq":99999999999999999999,"up_ms":1}',
        "invalid",
    ),
    "deep nesting": (b"[" * 5000 + b"]" * 5000, "invalid"),
    "too big": (b'{"x":"' + b"a" * 17_000 + b'"}', "too-big"),
    "empty": (b"", "invalid"),
    "not utf-8": (b"\xff\xfe{}", "invalid"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_message_is_kept_for_the_operator_acknowledged_and_followed_by_the_next(
    store: SqlStore, name: str
) -> None:
    payload, reason = BAD[name]
    link = Link()
    ingest = Ingest(Landing(store), link, prefix=PREFIX)
    ingest.receive([inbound(1, payload)])
    ingest.receive([inbound(2)])
    ingest.start()
    until(lambda: link.acknowledged == [1, 2])
    ingest.stop()
    assert stored(store) == ["n2"]
    with store.reading() as work:
        (letter,) = work.history.dead_letters(limit=10)
    assert letter["reason"] == reason


@pytest.mark.parametrize(
    "topic",
    [
        "",
        "fleet/v1",
        "fleet/v1/cam-1/down/desired",
        "fleet/v1/_fleetd/status",
        "fleet/v1/CAM/up/result",
        "fleet/v1/cam-1/up/result/more",
        "fleet/v1/cam-1/up/",
        "other/cam-1/up/result",
        "fleet/v1/cam-1/up/" + "x" * 70_000,
        "fleet/v1/" + "a/" * 200 + "up/result",
    ],
)
def test_a_topic_that_no_camera_publishes_on_is_a_dead_letter(topic: str) -> None:
    item = decode(inbound(1, topic=topic), PREFIX)
    assert isinstance(item, DeadLetter)
    assert item.reason == "topic"


@given(st.binary(max_size=300), st.sampled_from(sorted(UP)))
def test_arbitrary_bytes_are_a_message_or_a_dead_letter_but_never_an_exception(
    payload: bytes, channel: str
) -> None:
    name = "reply/x" if channel == "reply" else channel
    assert isinstance(decode(inbound(1, payload, f"{PREFIX}/cam-1/up/{name}"), PREFIX), Arrival | DeadLetter)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@given(
    st.sampled_from(sorted(UP)),
    st.dictionaries(
        st.sampled_from(
            [
                "results",
                "online",
                "release",
                "storage",
                "color",
                "pattern",
                "state",
                "generation",
                "kind",
                "id",
                "ok",
                "data",
                "fps",
                "dropped",
                "low",
                "t",
            ]
        ),
        JSON,
        max_size=6,
    ),
)
def test_well_formed_json_of_any_shape_is_a_message_or_a_dead_letter(
    channel: str, body: dict[str, Any]
) -> None:
    name = "reply/x" if channel == "reply" else channel
    payload = json.dumps({"boot": BOOT, "seq": 1, "up_ms": 1, **body}).encode()
    assert isinstance(decode(inbound(1, payload, f"{PREFIX}/cam-1/up/{name}"), PREFIX), Arrival | DeadLetter)


def test_a_full_inbox_makes_the_sender_wait_and_loses_nothing() -> None:
    inbox = Inbox(messages=10, size=10_000)
    sent = threading.Event()

    def send() -> None:
        for seq in range(1, 31):
            inbox.put([inbound(seq)])
        sent.set()

    threading.Thread(target=send, daemon=True).start()
    time.sleep(0.1)
    assert len(inbox) == 10
    assert not sent.is_set()
    got: list[int] = []
    while len(got) < 30:
        got += [item.mid for item in inbox.take(7, timeout=1)]
    assert got == list(range(1, 31))


def test_the_inbox_is_bounded_in_bytes_too() -> None:
    inbox = Inbox(messages=1000, size=1000)
    done = threading.Event()

    def send() -> None:
        for seq in range(5):
            inbox.put([inbound(seq + 1, b"x" * 600)])
        done.set()

    threading.Thread(target=send, daemon=True).start()
    time.sleep(0.1)
    assert len(inbox) == 2
    inbox.close()
    assert done.wait(2), "closing releases whoever waits"


def test_a_camera_with_very_many_gaps_gets_several_small_receipts(store: SqlStore) -> None:
    link = Link()
    ingest = Ingest(Landing(store), link, prefix=PREFIX, receipt_seconds=0.1)
    for seq in range(1, 600, 2):
        ingest.receive([inbound(seq)])
    ingest.start()
    until(lambda: len(link.acknowledged) == 300)
    ingest.stop()
    last = link.receipts[-3:]
    assert [len(body["seq"]) for _, body in last] == [100, 100, 100]
    assert all(len(json.dumps(body)) < 4096 for _, body in last)
