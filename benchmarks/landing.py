"""How fast messages become rows: MQTT at QoS 1, validated, deduplicated, committed, then acknowledged.

The floor is a stock paho subscriber that does nothing, fed by the same stream in the same run. Beside it the
databases' own fastest way for the same rows (sqlite3 executemany, COPY) with nothing around it. SQLite runs with full
sync, PostgreSQL with fsync on. Each case runs ROUNDS times in turn, so that a machine whose speed drifts is unfair to
nobody; the median counts. Then the same on databases that hold history already, and how long a message waits for its
acknowledgement when less arrives than could.

Beside each rate stands what a message costs this process in CPU time: that hardly depends on what else the machine
does, where messages a second do. The database server's own time is not in it.
"""

import argparse
import contextlib
import json
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import paho.mqtt.client as mqtt
import psycopg
from paho.mqtt.enums import CallbackAPIVersion

from benchmarks.prefill import prefill
from fleetd import logs
from fleetd.broker import BrokerLink
from fleetd.ingest import Ingest
from fleetd.ports import Inbound
from fleetd.protocol.topics import all_up
from fleetd.store import migrate
from fleetd.store.engine import SqlStore
from fleetd.store.landing import Landing
from fleetd.store.rows import COLUMNS
from tests.postgres import Postgres

CAMERAS = 200
WINDOW = 1000
ROUNDS = 3
BATCH = 1000
FLOOR = "stock paho, does nothing (floor)"


class Stream:
    """The sending side, a process of its own."""

    def __init__(self, count: int, first: int, rate: int = 0) -> None:
        words = [CAMERAS, count, WINDOW, first, rate]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.stream", *map(str, words)], stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        self._output = self._process.stdout
        self.port = int(self._output.readline())

    def answer(self) -> Any:
        """Waits until everything is acknowledged: the seconds it took, or p50 and p99 at a rate."""
        with self._process:
            return json.loads(self._output.readline())


class Rate(NamedTuple):
    """What one run showed."""

    per_second: float
    cpu_us: float  # of this process, per message


class Stopwatch:
    """Counts this process's CPU time from its making."""

    def __init__(self) -> None:
        self._began, self._cpu = time.perf_counter(), time.process_time()

    def rate(self, count: int, seconds: float | None = None) -> Rate:
        """For so many messages, in the seconds that passed or in those that somebody else measured."""
        cpu = time.process_time() - self._cpu
        return Rate(count / (seconds or time.perf_counter() - self._began), cpu / count * 1e6)


def noop_paho(count: int, first: int) -> Rate:
    """A stock paho subscriber that does nothing but what the protocol asks."""
    stream = Stream(count, first)
    client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="noop")

    def subscribe(*_: Any) -> None:
        client.subscribe("#", qos=1)

    client.on_connect = subscribe
    client.on_message = lambda *_: None
    stopwatch = Stopwatch()
    client.connect("127.0.0.1", stream.port)
    client.loop_start()
    rate = stopwatch.rate(count, stream.answer())
    client.disconnect()
    client.loop_stop()
    return rate


def make(url: str) -> SqlStore:
    """A migrated database with the stream's cameras."""
    store = SqlStore(url)
    if migrate.upgrade(store):
        with store.transaction() as work:
            for number in range(CAMERAS):
                work.cameras.add(f"cam-{number}", None, time.time())
    return store


def fleetd(url: str, count: int, first: int, *, rate: int = 0) -> Any:
    """The whole path of `fleetd serve`, receipts included: a Rate, or p50 and p99 at a rate."""
    store = make(url)
    stream = Stream(count, first, rate)
    held: list[Ingest] = []

    def receive(batch: Sequence[Inbound]) -> None:
        held[0].receive(batch)

    link = BrokerLink(
        host="127.0.0.1",
        port=stream.port,
        client_id="bench",
        subscribe=all_up(),
        receive=receive,
        version="3.1.1",
    )
    ingest = Ingest(Landing(store), link, prefix="fleet/v1")
    held.append(ingest)
    ingest.start()
    stopwatch = Stopwatch()
    link.start()
    answer = stream.answer()
    spent = stopwatch.rate(count, answer) if not rate else answer
    ingest.stop()
    link.stop()
    store.close()
    if ingest.counts.stored != count:
        raise SystemExit(f"{ingest.counts.stored} of {count} were stored: this measurement is worth nothing")
    return spent


_ROW = {
    "boot_id": 1,
    "at": 1.0,
    "received_at": 1.0,
    "n": 0,
    "label": "blue ball",
    "score": 0.9871,
    "inference_ms": 74,
    "release_id": "model-7",
    "chunk": 1,
}


def _rows(count: int, first: int) -> list[tuple[Any, ...]]:
    """What landing would insert for the stream's messages; columns that are not named stay empty."""
    rows = []
    for n in range(count):
        row = {**_ROW, "camera_id": n % CAMERAS + 1, "seq": first + n // CAMERAS, "frame": n}
        rows.append(tuple(row.get(column) for column in COLUMNS["results"]))
    return rows


def raw_sqlite(url: str, count: int, first: int) -> Rate:
    """The same rows through the driver, in batches, with nothing around it."""
    make(url).close()
    connection = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)
    connection.execute("PRAGMA synchronous=FULL")
    columns = COLUMNS["results"]
    insert = f"INSERT INTO results ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"
    rows = _rows(count, first)
    stopwatch = Stopwatch()
    for start in range(0, count, BATCH):
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany(insert, rows[start : start + BATCH])
        connection.execute("COMMIT")
    rate = stopwatch.rate(count)
    connection.close()
    return rate


def raw_copy(url: str, count: int, first: int) -> Rate:
    """The same rows by COPY, in batches, with nothing around it."""
    make(url).close()
    rows = _rows(count, first)
    copy_in = f"COPY results ({', '.join(COLUMNS['results'])}) FROM STDIN"
    with psycopg.connect(url.replace("+psycopg", "")) as connection:
        stopwatch = Stopwatch()
        for start in range(0, count, BATCH):
            with connection.cursor() as cursor, cursor.copy(copy_in) as copy:
                for row in rows[start : start + BATCH]:
                    copy.write_row(row)
            connection.commit()
        return stopwatch.rate(count)


Databases = Callable[[str], str]  # kind -> URL of an empty database


@contextlib.contextmanager
def databases() -> Iterator[Databases]:
    """Makes empty databases of both kinds, on the disk and with every write waited for."""
    with tempfile.TemporaryDirectory(prefix="fleetd-bench-") as folder, Postgres("fsync=on") as server:
        made = iter(range(1000))

        def new(kind: str) -> str:
            return f"sqlite:///{folder}/{next(made)}.db" if kind == "sqlite" else server.new_database()

        yield new


def speed(new: Databases, count: int) -> dict[str, list[Rate]]:
    """What every case did in each round."""
    cases: dict[str, Callable[[], Rate]] = {
        FLOOR: lambda: noop_paho(count, 1),
        "fleetd on SQLite, durable": lambda: fleetd(new("sqlite"), count, 1),
        "fleetd on PostgreSQL, durable": lambda: fleetd(new("postgresql"), count, 1),
        "raw sqlite3, no MQTT": lambda: raw_sqlite(new("sqlite"), count, 1),
        "raw COPY, no MQTT": lambda: raw_copy(new("postgresql"), count, 1),
    }
    rates: dict[str, list[Rate]] = {name: [] for name in cases}
    for _ in range(ROUNDS):
        for name, case in cases.items():
            rates[name].append(case())
    return rates


def middle(rates: Sequence[Rate]) -> Rate:
    """The median of each figure."""
    return Rate(*(statistics.median(column) for column in zip(*rates, strict=True)))


def history(url: str, goals: Sequence[int], count: int) -> dict[int, Rate]:
    """What it does on a database that holds so many results already."""
    found: dict[int, Rate] = {}
    have, first = 0, 1
    for goal in goals:
        store = make(url)
        prefill(store, have, goal, CAMERAS)
        store.close()
        rates = []
        for _ in range(ROUNDS):
            rates.append(fleetd(url, count, first))
            first += count // CAMERAS
        have = max(goal, have)
        found[goal] = middle(rates)
    return found


def show(name: str, rate: Rate, floor: Rate, spread: str = "") -> None:
    """One line."""
    print(
        f"{name:34} {rate.per_second:9,.0f}/s {spread:18} {rate.per_second / floor.per_second:5.2f} x floor"
        f"   {rate.cpu_us:5.1f} us CPU, {floor.cpu_us / rate.cpu_us:5.2f} x floor",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--messages", type=int, default=60_000)
    parser.add_argument(
        "--history", type=int, nargs="*", default=[10_000, 100_000, 1_000_000, 10_000_000], help="rows"
    )
    parser.add_argument("--kinds", nargs="*", default=["sqlite", "postgresql"])
    options = parser.parse_args()
    logs.configure(level="error")
    count = options.messages // CAMERAS * CAMERAS
    figures: dict[str, Any] = {"benchmark": "landing"}
    with databases() as new:
        rates = speed(new, count)
        floor = middle(rates[FLOOR])
        print(
            f"{count} messages at QoS 1 from {CAMERAS} cameras, window {WINDOW}, median of {ROUNDS} [lowest-highest]\n"
        )
        for name, found in rates.items():
            slowest, *_, fastest = sorted(rate.per_second for rate in found)
            show(name, middle(found), floor, f"[{slowest:,.0f}-{fastest:,.0f}]")
            figures[name] = [round(figure, 1) for figure in middle(found)]
        for kind in options.kinds:
            print(f"\n{kind}, with so many results stored already:")
            for rows, rate in history(new(kind), options.history, count).items():
                show(f"{rows:,}", rate, floor)
                figures[f"{kind} at {rows}"] = [round(figure, 1) for figure in rate]
            name = "fleetd on SQLite, durable" if kind == "sqlite" else "fleetd on PostgreSQL, durable"
            print(f"\n{kind}, from the broker's sending to its acknowledgement, at a share of that rate:")
            for share in (10, 50, 90):
                offered = int(figures[name][0] * share / 100)
                some = max(2000, min(count, offered * 5)) // CAMERAS * CAMERAS
                waits = fleetd(new(kind), some, 1, rate=offered)
                print(
                    f"{share:32} % {offered:9,}/s   p50 {waits['p50_ms']:6.2f} ms   p99 {waits['p99_ms']:6.1f} ms",
                    flush=True,
                )
                figures[f"{kind} p50/p99 at {share} %"] = [
                    round(waits["p50_ms"], 2),
                    round(waits["p99_ms"], 1),
                ]
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
