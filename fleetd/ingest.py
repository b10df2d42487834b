"""Messages from cameras on their way into the database: validate, batch, commit, then acknowledge.

One writer thread takes whatever waits as soon as it is free, so batches grow with the load and a lone message
is stored at once. Nothing is acknowledged before its transaction is committed. A message that cannot be
stored as what it claims to be goes to the dead letters and is acknowledged, so that it cannot block the queue.
"""

import json
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache

from pydantic import ValidationError

from fleetd.errors import FleetError, StoreError
from fleetd.logs import get_logger
from fleetd.ports import Inbound, Inflow
from fleetd.protocol import limits
from fleetd.protocol.messages import UP
from fleetd.protocol.topics import CameraTopic, format_topic, parse_topic
from fleetd.store.landing import DEAD_LETTERS_PER_BATCH, Arrival, DeadLetter, Landed, Landing

log = get_logger(__name__)

BATCH = 2_000
INBOX_MESSAGES = 20_000
INBOX_BYTES = 64 * 1024 * 1024
RECEIPT_RANGES = 100  # ranges in one `down/ack`
RETRY_SECONDS = (0.1, 5.0)
LAST_WORD = "/up/status"
TOPIC_CHARS = 512  # a longer one is nobody's, whatever the prefix; topics are remembered


@dataclass(slots=True)
class IngestCounts:
    """What happened since the start."""

    received: int = 0
    stored: int = 0
    repeated: int = 0
    unknown: int = 0
    dead: int = 0
    lost: int = 0
    batches: int = 0
    retries: int = 0


class Inbox:
    """A queue bounded in messages and bytes. `put` waits for room: that is the back-pressure."""

    def __init__(self, messages: int = INBOX_MESSAGES, size: int = INBOX_BYTES) -> None:
        self._most, self._most_bytes = messages, size
        self._items: deque[Inbound] = deque()
        self._bytes = 0
        self._closed = False
        self._changed = threading.Condition()

    def __len__(self) -> int:
        return len(self._items)

    @property
    def closed(self) -> bool:
        """Whether the inbox takes nothing any more."""
        return self._closed

    def put(self, items: Sequence[Inbound]) -> bool:
        """Adds messages in order, waiting for room as long as it takes; False when the inbox was closed."""
        with self._changed:
            for item in items:
                while not self._closed and (
                    len(self._items) >= self._most or self._bytes >= self._most_bytes
                ):
                    self._changed.notify_all()
                    self._changed.wait()
                if self._closed:
                    return False
                self._items.append(item)
                self._bytes += len(item.topic) + len(item.payload)
            self._changed.notify_all()
            return True

    def take(self, most: int, timeout: float) -> list[Inbound]:
        """Whatever waits, at most `most`; waits up to `timeout` seconds for the first."""
        with self._changed:
            if not self._items and not self._closed:
                self._changed.wait(timeout)
            batch = [self._items.popleft() for _ in range(min(most, len(self._items)))]
            self._bytes -= sum(len(item.topic) + len(item.payload) for item in batch)
            self._changed.notify_all()
            return batch

    def close(self) -> None:
        """Refuses further messages and wakes everyone; what is inside can still be taken."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


# A fleet uses the same few topics over and over; a flood of made-up ones only pushes each other out.
_parse_topic = lru_cache(maxsize=65_536)(parse_topic)


def decode(inbound: Inbound, prefix: str) -> Arrival | DeadLetter:
    """What a message is, or why it cannot be stored. Never raises, whatever arrives."""
    topic = _parse_topic(inbound.topic, prefix) if len(inbound.topic) <= TOPIC_CHARS else None
    if not isinstance(topic, CameraTopic) or topic.lane != "up":
        return _dead(inbound, "topic", "not a topic that cameras publish on")
    if len(inbound.payload) > limits.UP_BYTES:
        return _dead(inbound, "too-big", f"{len(inbound.payload)} bytes; the limit is {limits.UP_BYTES}")
    channel, _, rest = topic.channel.partition("/")
    adapter = UP.get(channel)
    if adapter is None:
        return _dead(inbound, "channel", f"this version stores nothing from up/{channel}")
    payload, _, data = inbound.payload.partition(b"\n") if channel == "image" else (inbound.payload, b"", b"")
    try:
        body = adapter.validate_json(payload)
        if channel == "reply":  # free-form data: nothing that JSON itself does not know
            json.dumps(body.get("data"), allow_nan=False)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "message"
        return _dead(inbound, "invalid", f"{where}: {first['msg']}")
    except (ValueError, RecursionError) as error:
        return _dead(inbound, "invalid", str(error))
    if body["seq"] == 0 and channel != "status":
        return _dead(inbound, "invalid", "seq: 0 is kept for last wills")
    if channel == "image":
        if not 0 < len(data) <= limits.BLOCK_BYTES or int(rest.rpartition("/")[2]) >= body["pieces"]:
            return _dead(inbound, "invalid", f"a piece with {len(data)} bytes, or behind the last one")
        body["data"] = data
    return Arrival(topic.camera, channel, rest, body, inbound.received_at, inbound.retained)


def _dead(inbound: Inbound, reason: str, detail: str) -> DeadLetter:
    return DeadLetter(inbound.topic, inbound.payload, reason, detail, inbound.received_at)


class Ingest:
    """The writer thread between the broker and the database."""

    def __init__(
        self,
        landing: Landing,
        link: Inflow,
        *,
        prefix: str,
        receipt_seconds: float = 2.0,
        landed: Callable[[Landed], None] = lambda _landed: None,
        inbox: Inbox | None = None,
    ) -> None:
        self._landing = landing
        self._link = link
        self._prefix = prefix
        self._receipt_seconds = receipt_seconds
        self._on_landed = landed
        self.inbox = inbox or Inbox()
        self.counts = IngestCounts()
        self.trouble: str | None = None  # why nothing can be stored right now
        self._receipts: dict[tuple[str, str], list[tuple[int, int]]] = {}
        self._receipts_sent = time.monotonic()
        self._abandon = threading.Event()
        self._turned_at = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="ingest", daemon=True)

    def start(self) -> None:
        """Begins storing."""
        self._thread.start()

    def stop(self, timeout: float = 10.0) -> None:
        """Stores and acknowledges what is inside, then ends; what cannot be stored stays with the broker."""
        self.inbox.close()
        if self._thread.is_alive():
            self._thread.join(timeout)
            self._abandon.set()
            self._thread.join(timeout)

    def receive(self, batch: Sequence[Inbound]) -> None:
        """Hands messages over; waits while the inbox is full."""
        self.inbox.put(batch)

    def health(self) -> Mapping[str, object]:
        """Counts since the start and what is wrong now."""
        return {**asdict(self.counts), "waiting": len(self.inbox), "trouble": self.trouble}

    def alive(self, within: float) -> bool:
        """Whether the writer has been doing something in the last so many seconds, if only waiting."""
        return self._thread.is_alive() and time.monotonic() - self._turned_at < within

    def _run(self) -> None:
        while True:
            self._turned_at = time.monotonic()
            batch = self.inbox.take(BATCH, timeout=min(0.5, self._receipt_seconds))
            if batch:
                self._store(batch)
            elif self.inbox.closed:
                break
            self._send_receipts()
        self._send_receipts(now=True)

    def _store(self, batch: Sequence[Inbound]) -> None:
        arrivals: list[Arrival] = []
        dead: list[DeadLetter] = []
        for inbound in batch:
            if not inbound.payload and inbound.topic.endswith(LAST_WORD):
                continue  # a removed camera's status was taken off the broker
            item = decode(inbound, self._prefix)
            if isinstance(item, Arrival):
                arrivals.append(item)
            else:
                dead.append(item)
        self.counts.received += len(batch)
        landed = self._write(arrivals, dead)
        if landed is None:
            return  # shutting down with a database that does not answer: the broker still has the messages
        try:
            self._link.acknowledge(batch)
        except (OSError, ValueError) as error:  # the connection is going; the broker repeats them on the next
            log.warning("not_acknowledged", messages=len(batch), error=repr(error))
        self._account(landed)

    def _write(self, arrivals: Sequence[Arrival], dead: Sequence[DeadLetter]) -> Landed | None:
        """Stores a batch, one by one if it must be; None when told to stop meanwhile."""
        for _ in range(2):  # the first time another process may just have written
            try:
                return self._insist(arrivals, dead)
            except Exception as error:  # noqa: BLE001  # one bad message must not stop the others
                log.warning("batch_refused", messages=len(arrivals), error=repr(error))
        return self._write_one_by_one(arrivals, dead)

    def _insist(self, arrivals: Sequence[Arrival], dead: Sequence[DeadLetter] = ()) -> Landed | None:
        """Stores, however long the database needs to come back; None when told to stop meanwhile.

        Raises what is wrong with the messages themselves.
        """
        delay = RETRY_SECONDS[0]
        while not self._abandon.is_set():
            self._turned_at = time.monotonic()
            try:
                landed = self._landing.write(arrivals, dead)
            except (StoreError, MemoryError) as error:  # busy, full, gone: nothing is wrong with the messages
                if self.trouble is None:
                    log.warning("store_unavailable", error=str(error), waiting=len(self.inbox))
                self.trouble = str(error) or repr(error)
                self.counts.retries += 1
                self._abandon.wait(delay)
                delay = min(RETRY_SECONDS[1], delay * 2)
            else:
                if self.trouble is not None:
                    log.info("store_available", waiting=len(self.inbox))
                self.trouble = None
                return landed
        return None

    def _write_one_by_one(self, arrivals: Sequence[Arrival], dead: Sequence[DeadLetter]) -> Landed | None:
        total = Landed(dead=max(0, len(dead) - DEAD_LETTERS_PER_BATCH))
        for arrival in arrivals:
            try:
                landed = self._insist([arrival])
            except Exception as error:  # noqa: BLE001  # whatever it is, this message is the cause
                landed = self._bury(_unstorable(arrival, self._prefix, error))
            if landed is None:
                return None
            _add(total, landed)
        for letter in dead[-DEAD_LETTERS_PER_BATCH:]:
            landed = self._bury(letter)
            if landed is None:
                return None
            _add(total, landed)
        return total

    def _bury(self, letter: DeadLetter) -> Landed | None:
        """Keeps a dead letter, or at least counts it; None when told to stop meanwhile."""
        try:
            return self._insist([], [letter])
        except Exception as error:  # noqa: BLE001  # not even that: nothing more can be done with it
            log.warning("dead_letter_refused", topic=letter.topic, error=repr(error))
            return Landed(dead=1)

    def _account(self, landed: Landed) -> None:
        counts = self.counts
        counts.stored += landed.stored
        counts.repeated += landed.repeated
        counts.unknown += landed.unknown
        counts.dead += landed.dead
        counts.lost += landed.lost
        counts.batches += 1
        self._receipts.update(landed.receipts)
        try:
            self._on_landed(landed)
        except Exception:  # whoever listens must not end this thread
            log.exception("landed_not_noted")

    def _send_receipts(self, *, now: bool = False) -> None:
        """Tells cameras what is stored, one small message per camera and boot every few seconds."""
        if not self._receipts or (not now and time.monotonic() - self._receipts_sent < self._receipt_seconds):
            return
        self._receipts_sent = time.monotonic()
        receipts, self._receipts = self._receipts, {}
        for (camera, boot), pairs in receipts.items():
            topic = format_topic(CameraTopic(camera, "down", "ack"), self._prefix)
            for start in range(0, len(pairs), RECEIPT_RANGES):
                body = {"boot": boot, "seq": pairs[start : start + RECEIPT_RANGES]}
                try:
                    self._link.publish_once(topic, json.dumps(body, separators=(",", ":")).encode())
                except (FleetError, ValueError, OSError) as error:
                    log.warning("receipt_not_sent", camera=camera, error=str(error))


def _unstorable(arrival: Arrival, prefix: str, error: Exception) -> DeadLetter:
    return DeadLetter(
        f"{prefix}/{arrival.camera}/up/{arrival.channel}",
        json.dumps(arrival.body, default=str).encode("utf-8", "replace"),
        "unstorable",
        repr(error),
        arrival.received_at,
    )


def _add(total: Landed, one: Landed) -> None:
    for name in ("stored", "repeated", "unknown", "dead", "lost"):
        setattr(total, name, getattr(total, name) + getattr(one, name))
    total.updates = total.updates or one.updates
    total.receipts.update(one.receipts)
    total.nonces.update(one.nonces)
