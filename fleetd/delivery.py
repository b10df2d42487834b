"""What must lie at the broker: manifests and blocks that open assignments need, desired states, commands.

Always in this order, each acknowledged by the broker before the next begins: key records, blocks, manifest, the
desired states that name it. First publish, then note it: a crash in between repeats, and cameras know generations and
command ids. Everything retained is published again in every new session with the broker, because brokers
forget. fleetd's own traffic is one copy of a release, however many cameras take it.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, Final, TypeVar

from fleetd.bundles.encodings import cut
from fleetd.domain.records import DesiredState
from fleetd.errors import BrokerError
from fleetd.logs import get_logger
from fleetd.ports import Clock, Publisher, Store, UnitOfWork
from fleetd.protocol.keyrecord import record_name
from fleetd.protocol.manifest import HEADER_BYTES, Encoding, Manifest
from fleetd.protocol.topics import BlobTopic, CameraTopic, ReleaseTopic, Topic, format_topic

log = get_logger(__name__)

CHUNK: Final = 64  # messages on their way at a time: 256 KB of blocks
DESIRED_CHUNK: Final = 500  # desired states on their way at a time
FLUSH_S: Final = 30.0  # the broker has that long to acknowledge a chunk
CLEARING: Final = "clearing"  # instead of a session: it is being taken off the broker

Message = tuple[Topic, bytes]
T = TypeVar("T")


class Delivery:
    """Brings what the database wants published to the broker. `step` is called by one thread at a time."""

    def __init__(
        self,
        store: Store,
        publisher: Publisher,
        clock: Clock,
        prefix: str,
        announce: Callable[[int], None] = lambda _serial: None,
    ) -> None:
        """`announce`: says on `_fleetd/status` up to which number key records are there."""
        self._store = store
        self._publisher = publisher
        self._clock = clock
        self._prefix = prefix
        self._announce = announce
        self._keys_told: tuple[str, int] | None = None  # session and newest key record
        self._instance: str | None = None  # the present session with the broker
        self._resending: str | None = None  # the session in which all desired states were begun to be sent
        self._told: dict[int, int] = {}  # in this session: camera id -> generation
        self._all_told = False

    def broker_connected(self, instance: str) -> None:
        """A session with the broker begins that may know nothing of earlier ones. Any thread."""
        self._instance = instance

    def step(self) -> bool:
        """Publishes some of what is missing and clears some of what nobody needs; True when there was work.

        BrokerError: the broker did not take it; nothing is noted as published, the next step repeats it.
        """
        instance = self._instance
        if instance is None:
            return False
        work = [
            self._clear_departed(),
            self._publish_keys(instance),
            self._publish_release(instance),
            self._send_desired(instance),
            self._send_commands(),
            self._clear_release(),
        ]
        return any(work)

    def _publish_keys(self, instance: str) -> bool:
        """Publishes all key records, in every session and when there is a new one: a camera may lack any of them."""
        with self._store.reading() as work:
            serial = work.releases.ring().serial
            if self._keys_told == (instance, serial) or not serial:
                return False
            records = work.releases.records()
        self._publish(
            ((ReleaseTopic(record_name(one)), blob) for one, blob in sorted(records.items())), CHUNK
        )
        self._announce(serial)
        self._keys_told = instance, serial
        return True

    # -- releases --------------------------------------------------------------------------------------------

    def _publish_release(self, instance: str) -> bool:
        """Publishes one release that is needed and was not published in this session."""
        with self._store.reading() as work:
            published = work.releases.published()
            missing = sorted(one for one in work.rollouts.open_releases() if published.get(one) != instance)
            if not missing:
                return False
            release_id = missing[0]
            manifest = work.releases.manifest(release_id)
        messages = 0
        for encoding in _described(manifest).encodings:
            messages += self._publish(self._blocks(release_id, encoding), CHUNK)
        messages += self._publish([(ReleaseTopic(release_id), manifest)], CHUNK)
        with self._store.transaction() as work:
            work.releases.mark_published(release_id, instance, self._clock())
        log.info("release_published", release=release_id, messages=messages)
        return True

    def _blocks(self, release_id: str, encoding: Encoding) -> Iterator[Message]:
        """All blocks of one encoding; only one encoding is in memory at a time."""
        with self._store.reading() as work:
            stored = work.releases.encoding(release_id, encoding.sha256)
        if stored is None:
            log.error("encoding_missing", release=release_id, encoding=encoding.sha256)
            return
        pieces = cut(encoding.kind, stored.data, encoding.base)
        for number, block in enumerate(pieces.blocks):
            yield BlobTopic(encoding.sha256, number), block
        for digest, block in zip(encoding.index, pieces.index_blocks, strict=True):
            yield BlobTopic(digest, 0), block

    def _clear_release(self) -> bool:
        """Takes one release that no open assignment needs off the broker, but for what others share with it."""
        with self._store.reading() as work:
            if not _idle(work):
                return False
        with self._store.transaction() as work:
            idle = _idle(work)
            if not idle:
                return False
            release_id, published = idle[0], work.releases.published()
            # Should it be needed again meanwhile, it counts as not published.
            work.releases.mark_published(release_id, CLEARING, self._clock())
            others = published.keys() - {release_id}
            kept = {topic for other in others for topic in _topics(work, other)}
            topics = [topic for topic in _topics(work, release_id) if topic not in kept]
        self._publish(((topic, b"") for topic in topics), CHUNK)
        with self._store.transaction() as work:
            work.releases.forget_published(release_id)
        log.info("release_cleared", release=release_id, messages=len(topics))
        return True

    def _clear_departed(self) -> bool:
        """Takes what is retained of removed cameras off the broker: the next of that name starts afresh."""
        with self._store.reading() as work:
            names = work.cameras.departed(DESIRED_CHUNK)
        if not names:
            return False
        lanes: list[Topic] = []
        for name in names:
            lanes += (CameraTopic(name, "down", "desired"), CameraTopic(name, "up", "status"))
        self._publish(((topic, b"") for topic in lanes), DESIRED_CHUNK)
        with self._store.transaction() as work:
            work.cameras.forget_departed(names)
        return True

    # -- desired states and commands -------------------------------------------------------------------------

    def _send_desired(self, instance: str) -> bool:
        """Sends desired states that the broker does not have, unless the release they name is not there yet."""
        if self._resending != instance:
            self._resending, self._told, self._all_told = instance, {}, False
        with self._store.reading() as work:
            published = work.releases.published()
            absent = {one for one in work.rollouts.open_releases() if published.get(one) != instance}
            wanted = work.rollouts.all_desired(unsent_only=self._all_told)
        held = [one for one in wanted if one.release_id in absent]
        ready = [one for one in wanted if one.release_id not in absent and not self._is_told(one)]
        for chunk in _chunks(ready, DESIRED_CHUNK):
            self._publish(map(_desired, chunk), DESIRED_CHUNK)
            with self._store.transaction() as work:
                for one in chunk:
                    work.rollouts.mark_sent(one.camera_id, one.generation)
            self._told.update((one.camera_id, one.generation) for one in chunk)
        self._all_told = self._all_told or not held
        return bool(ready)

    def _is_told(self, one: DesiredState) -> bool:
        return one.sent_generation >= one.generation and self._told.get(one.camera_id) == one.generation

    def _send_commands(self) -> bool:
        """Sends commands that are still good; how long they stay so is told in seconds from now."""
        with self._store.reading() as work:
            commands = work.commands.unsent(self._clock())
        for chunk in _chunks(commands, CHUNK):
            now = self._clock()
            self._publish((_command(one, now) for one in chunk), CHUNK, retain=False)
            with self._store.transaction() as work:
                for one in chunk:
                    work.commands.mark_sent(one["id"], now)
        return bool(commands)

    def _publish(self, messages: Iterable[Message], chunk: int, *, retain: bool = True) -> int:
        """Publishes in chunks and waits for the broker after each; answers how many there were."""
        total = 0
        for some in _chunks(messages, chunk):
            for topic, payload in some:
                self._publisher.publish(format_topic(topic, self._prefix), payload, retain=retain)
            if not self._publisher.flush(FLUSH_S):
                raise BrokerError(
                    f"The MQTT broker did not acknowledge {len(some)} messages. They are published again."
                )
            total += len(some)
        return total


def _described(manifest: bytes) -> Manifest:
    """What a stored manifest says; its signature was checked before it was stored."""
    return Manifest.model_validate_json(manifest[HEADER_BYTES:])


def _idle(work: UnitOfWork) -> list[str]:
    """Releases of which something is retained though no open assignment is about them."""
    return sorted(work.releases.published().keys() - work.rollouts.open_releases())


def _topics(work: UnitOfWork, release_id: str) -> Iterator[Topic]:
    """Every topic on which something of a release is retained. The manifest goes first."""
    yield ReleaseTopic(release_id)
    for encoding in _described(work.releases.manifest(release_id)).encodings:
        yield from (BlobTopic(encoding.sha256, number) for number in range(encoding.blocks))
        yield from (BlobTopic(digest, 0) for digest in encoding.index)


def _desired(one: DesiredState) -> Message:
    body: dict[str, Any] = {"generation": one.generation, "release": one.release_id, "config": one.config}
    if one.digest is not None:
        body["digest"] = one.digest
    if one.deadline is not None:
        body["deadline"] = int(one.deadline)
    return CameraTopic(one.camera, "down", "desired"), _json(body)


def _command(one: Mapping[str, Any], now: float) -> Message:
    left = max(1, int(one["created_at"] + one["ttl_s"] - now))
    # Whole seconds: boards with 32-bit floats would read a fraction up to a minute wrong.
    body = {"id": one["id"], "t": int(now), "ttl": min(left, one["ttl_s"]), "args": one["args"]}
    return CameraTopic(one["camera"], "down", f"cmd/{one['name']}"), _json(body)


def _json(body: Mapping[str, Any]) -> bytes:
    return json.dumps(body, separators=(",", ":")).encode()


def _chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    left = iter(items)
    while chunk := list(islice(left, size)):
        yield chunk
