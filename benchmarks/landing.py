"""How fast messages become rows: MQTT at QoS 1, validated, deduplicated, committed, then acknowledged.

The floor is a stock paho subscriber that does nothing, fed by the same stream in the same run. Beside it raw
sqlite3 (executemany of the same rows, one commit per batch). SQLite runs with full sync. Each case runs ROUNDS
times in turn, so that a machine whose speed drifts is unfair to nobody; the median counts.
"""

import argparse
import json
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from benchmarks.stream import messages
from fleetd.broker import BrokerLink
from fleetd.buffered import BufferedSocket
from fleetd.ingest import Ingest, decode
from fleetd.ports import Inbound
from fleetd.protocol.topics import all_up
from fleetd.store import migrate, tables
from fleetd.store.engine import SqlStore
from fleetd.store.landing import Arrival, Landing
from fleetd.store.rows import COLUMNS

CAMERAS = 200
WINDOW = 1000
ROUNDS = 3
BATCH = 1000


class Stream:
    """The sending side, a process of its own."""

    def __init__(self, count: int, first: int) -> None:
        words = [sys.executable, "-m", "benchmarks.stream", str(CAMERAS), str(count), str(WINDOW), str(first)]
        self._process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self._output = self._process.stdout
        self.port = int(self._output.readline())

    def seconds(self) -> float:
        """Waits until everything is acknowledged."""
        with self._process:
            return float(self._output.readline())


def noop_paho(count: int, _folder: Path, first: int) -> float:
    """A stock paho subscriber that does nothing but what the protocol asks."""
    stream = Stream(count, first)
    client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="noop")

    def subscribe(*_: Any) -> None:
        client.subscribe("#", qos=1)

    client.on_connect = subscribe
    client.on_message = lambda *_: None
    client.connect("127.0.0.1", stream.port)
    client.loop_start()
    seconds = stream.seconds()
    client.disconnect()
    client.loop_stop()
    return seconds


def fleetd(count: int, folder: Path, first: int, *, buffered: bool = True) -> float:
    """The whole path of `fleetd serve`, receipts included."""
    store = SqlStore(f"sqlite:///{folder}/fleet.db")
    if migrate.upgrade(store):
        with store.transaction() as work:
            for number in range(CAMERAS):
                work.cameras.add(f"cam-{number}", None, time.time())
    stream = Stream(count, first)
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
        buffered=buffered,
    )
    ingest = Ingest(Landing(store), link, prefix="fleet/v1")
    held.append(ingest)
    ingest.start()
    link.start()
    seconds = stream.seconds()
    ingest.stop()
    link.stop()
    stored = ingest.counts.stored
    store.close()
    if stored != count:
        raise SystemExit(f"{stored} of {count} were stored: this measurement is worth nothing")
    return seconds


def raw_sqlite(count: int, folder: Path, first: int) -> float:
    """The same rows through the driver, in batches, with nothing around it."""
    store = SqlStore(f"sqlite:///{folder}/raw.db")
    tables.metadata.create_all(store.engine)
    store.close()
    connection = sqlite3.connect(folder / "raw.db", isolation_level=None)
    connection.execute("PRAGMA synchronous=FULL")
    columns = COLUMNS["results"]
    insert = f"INSERT INTO results ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"
    rows = [
        (n % CAMERAS, 1, first + n // CAMERAS, 1.0, 1.0, 0, "blue ball", 0.9871, None, 74, n, "model-7")
        for n in range(count)
    ]
    began = time.perf_counter()
    for start in range(0, count, BATCH):
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany(insert, rows[start : start + BATCH])
        connection.execute("COMMIT")
    seconds = time.perf_counter() - began
    connection.close()
    return seconds


CASES: dict[str, Callable[..., float]] = {
    "stock paho, does nothing (floor)": noop_paho,
    "fleetd on SQLite, durable": fleetd,
    "raw sqlite3, no MQTT": raw_sqlite,
}


def history(rows: Sequence[int], count: int, folder: Path) -> dict[int, float]:
    """Messages/s on a database that already holds so many rows."""
    found: dict[int, float] = {}
    first, have = 1, 0
    for goal in rows:
        while have < goal:
            step = min(goal - have, 200_000) // CAMERAS * CAMERAS or CAMERAS
            fill(folder, step, first)
            first += step // CAMERAS
            have += step
        found[goal] = count / fleetd(count, folder, first)
        first += count // CAMERAS
        have += count
    return found


def fill(folder: Path, count: int, first: int) -> None:
    """History, as landed but without MQTT."""

    store = SqlStore(f"sqlite:///{folder}/fleet.db")
    if migrate.upgrade(store):
        with store.transaction() as work:
            for number in range(CAMERAS):
                work.cameras.add(f"cam-{number}", None, time.time())
    landing = Landing(store)
    link = BufferedSocket(None)
    link.buffer = b"".join(messages(CAMERAS, count, first))
    while batch := link.take_publishes(v5=False, most=5000):
        inbound = [Inbound(one.topic.decode(), one.payload, False, time.time()) for one in batch]
        landing.write([item for one in inbound if isinstance(item := decode(one, "fleet/v1"), Arrival)])
    store.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--messages", type=int, default=60_000)
    parser.add_argument("--history", type=int, nargs="*", default=[10_000, 100_000, 1_000_000])
    options = parser.parse_args()
    count = options.messages // CAMERAS * CAMERAS
    rates: dict[str, list[float]] = {name: [] for name in CASES}
    with tempfile.TemporaryDirectory(prefix="fleetd-bench-") as folder:
        for turn in range(ROUNDS):
            for name, case in CASES.items():
                place = Path(folder) / f"{turn}"
                place.mkdir(exist_ok=True)
                rates[name].append(count / case(count, place, 1))
        grown = Path(folder) / "grown"
        grown.mkdir()
        with_history = history(options.history, count, grown)
    floor = statistics.median(rates["stock paho, does nothing (floor)"])
    print(
        f"{count} messages at QoS 1 from {CAMERAS} cameras, window {WINDOW}, median of {ROUNDS} [lowest-highest]\n"
    )
    figures: dict[str, Any] = {}
    for name, found in rates.items():
        middle = statistics.median(found)
        print(
            f"{name:38} {middle:9,.0f}/s [{min(found):,.0f}-{max(found):,.0f}]   {middle / floor:5.2f} x floor"
        )
        figures[name] = round(middle)
    print("\nwith so many rows stored already:")
    for rows, rate in with_history.items():
        print(f"{rows:38,} {rate:9,.0f}/s   {rate / floor:5.2f} x floor")
    figures["ratio"] = round(figures["fleetd on SQLite, durable"] / floor, 2)
    figures["history"] = {str(rows): round(rate) for rows, rate in with_history.items()}
    print(json.dumps({"benchmark": "landing", "threads": threading.active_count(), **figures}))


if __name__ == "__main__":
    main()
