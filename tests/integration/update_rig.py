"""Updates on a real database, with a broker and cameras of which tests know everything.

rig = Rig(folder)
rig.cameras("cam-1", "cam-2")            enrolled, online, running model-1
rig.release(5)                           model-5, signed, stored
rig.ota.start_rollout("model-5", "all", actor="me")
rig.settle()                             everything that follows without a camera's doing
rig.camera("cam-1").report("transferring")
"""

import functools
import hashlib
import json
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa

from fleetd.bundles.encodings import cut
from fleetd.bundles.manifests import canonical
from fleetd.bundles.signing import OperatorKey
from fleetd.delivery import Delivery
from fleetd.domain.assignment import BUSY
from fleetd.domain.records import AssignmentState, Release, StoredEncoding
from fleetd.errors import BrokerError
from fleetd.ota import Ota
from fleetd.ports import UnitOfWork
from fleetd.protocol.manifest import Content, ContentFile, Manifest
from fleetd.protocol.topics import BlobTopic, CameraTopic, ReleaseTopic, format_topic, parse_topic
from fleetd.registry import Registry
from fleetd.store import migrate, tables
from fleetd.store.engine import SqlStore
from fleetd.store.landing import Arrival, Landing

START: Final = 1_700_000_000.0
PREFIX: Final = "fleet/v1"
BOARD: Final = "OMVRT1060 32768 SDRAM"
MOST_STEPS: Final = 2_000  # more in one go is an endless loop
_KEY: Final = OperatorKey.generate()


@functools.cache
def _empty_database() -> bytes:
    """A migrated database, made once."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "empty.db"
        store = SqlStore(f"sqlite:///{file}")
        migrate.upgrade(store)
        store.close()
        return file.read_bytes()


def _hurry(connection: Any, _record: object) -> None:
    """Processes are killed here, machines are not: nothing has to be on the disk."""
    connection.execute("PRAGMA synchronous=OFF")


@functools.cache
def _signed(key: OperatorKey, payload: bytes) -> bytes:
    """Signatures differ each time; tests that compare two runs need the same one."""
    return key.sign(payload)


class Killed(BaseException):
    """The process ended here."""


class Broker:
    """Keeps what was published, as a broker does once it has acknowledged it; counts and can fail."""

    def __init__(self) -> None:
        self.retained: dict[str, bytes] = {}
        self.log: list[tuple[str, bytes, bool]] = []
        self.published = 0
        self.most_waiting = 0
        self.kill_at: int | None = None  # the publish that never happens
        self.down = False
        self.deaf = False  # takes everything and acknowledges nothing
        self._waiting: list[tuple[str, bytes, bool]] = []

    def publish(self, topic: str, payload: bytes, *, retain: bool) -> None:
        if self.down:
            raise BrokerError
        self.published += 1
        if self.published == self.kill_at:
            raise Killed
        self._waiting.append((topic, payload, retain))
        self.most_waiting = max(self.most_waiting, len(self._waiting))

    def flush(self, timeout: float) -> bool:
        assert timeout > 0
        if self.down or self.deaf:
            self._waiting.clear()
            return False
        for topic, payload, retain in self._waiting:
            self.log.append((topic, payload, retain))
            if retain and payload:
                self.retained[topic] = payload
            elif retain:
                self.retained.pop(topic, None)
        self._waiting.clear()
        return True

    def forget(self) -> None:
        """A restart of a broker that keeps nothing."""
        self.retained.clear()
        self.drop_waiting()

    def drop_waiting(self) -> None:
        """What was handed over and not acknowledged never arrives."""
        self._waiting.clear()

    def desired(self, camera: str) -> dict[str, Any]:
        """What the camera reads in its retained desired state; empty when there is none."""
        found = self.retained.get(format_topic(CameraTopic(camera, "down", "desired"), PREFIX))
        return {} if found is None else dict(json.loads(found))

    def sent(self, topic: str) -> list[dict[str, Any]]:
        """Everything that was ever published on this topic, under the prefix."""
        return [json.loads(payload) for name, payload, _ in self.log if name == f"{PREFIX}/{topic}"]

    def has(self, release_id: str, manifest: Manifest) -> bool:
        """Whether the release's manifest and all its blocks are retained."""
        topics = [format_topic(ReleaseTopic(release_id), PREFIX)]
        for one in manifest.encodings:
            topics += [format_topic(BlobTopic(one.sha256, n), PREFIX) for n in range(one.blocks)]
            topics += [format_topic(BlobTopic(digest, 0), PREFIX) for digest in one.index]
        return all(topic in self.retained for topic in topics)

    def blobs(self) -> set[str]:
        """The topics of all retained blocks."""
        return {topic for topic in self.retained if isinstance(parse_topic(topic, PREFIX), BlobTopic)}


class FragileStore:
    """The store of a process that can be killed before or after each of its commits."""

    def __init__(self, store: SqlStore) -> None:
        self._store = store
        self.commits = 0
        self.kill_before: int | None = None
        self.kill_after: int | None = None

    @contextmanager
    def transaction(self) -> Iterator[UnitOfWork]:
        self.commits += 1
        mine = self.commits
        with self._store.transaction() as work:
            yield work
            if mine == self.kill_before:
                raise Killed
        if mine == self.kill_after:
            raise Killed

    def reading(self) -> AbstractContextManager[UnitOfWork]:
        return self._store.reading()


class Camera:
    """One camera: says what a test tells it to, or updates by itself with `act`."""

    def __init__(self, rig: "Rig", name: str) -> None:
        self._rig = rig
        self.name = name
        self.running = ("model-1", rig.digest("model-1"), 1)
        self.trial: str | None = None
        self.behaviour = "confirm"
        self.begun: list[int] = []  # generations of the updates it began
        self._boots = 0
        self.boot = ""
        self._seq = 0
        self._handled = 0
        self._booted_at = 0.0
        self.reboot()

    @property
    def desired(self) -> dict[str, Any]:
        return self._rig.broker.desired(self.name)

    @property
    def generation(self) -> int:
        return int(self.desired.get("generation", 0))

    def reboot(self) -> None:
        """Starts anew, with another boot id."""
        self._boots += 1
        self.boot = hashlib.sha256(f"{self.name}{self._boots}".encode()).hexdigest()[:16]
        self._seq = 0
        self._booted_at = self._rig.elapsed

    def status(self, **facts: Any) -> None:
        """Sends its status."""
        release, digest, sequence = self.running
        body = {
            "online": True,
            "board": BOARD,
            "firmware": "4.8.1",
            "generation": self.generation,
            "release": {"id": release, "digest": digest, "sequence": sequence, "epoch": 1},
            "trial": self.trial,
            **facts,
        }
        self._send("status", {name: value for name, value in body.items() if value != ""})

    def disconnect(self) -> None:
        """Its last will arrives, and it stays silent for long."""
        with self._rig.database.connect(write=True) as connection:
            state = tables.camera_state
            connection.execute(
                sa.update(state)
                .where(state.c.camera_id == self.id)
                .values(connected=False, seen_at=self._rig.now - 3600)
            )

    @property
    def id(self) -> int:
        with self._rig.database.reading() as work:
            found = work.cameras.get(self.name)
        assert found is not None
        return found.id

    def report(self, state: str, **facts: Any) -> None:
        """Reports on the update it was offered last."""
        body = {"generation": self.generation, "release": self.desired.get("release"), "state": state}
        if state == "confirmed":
            body["digest"] = self._rig.digest(str(facts.get("release", body["release"])))
        self._send("update", {**body, **facts})

    def see(self, labels: Sequence[str], score: float = 0.9, ms: float = 50.0) -> None:
        """Sends results, one for each label, with what it runs."""
        results = [{"label": label, "score": score, "inference_ms": ms} for label in labels]
        self._send("result", {"release": self.running[0], "results": results})

    def see_all(self, answers: Sequence[tuple[str, float]]) -> None:
        """Sends results: a label and a score each."""
        results = [{"label": label, "score": score, "inference_ms": 50.0} for label, score in answers]
        self._send("result", {"release": self.running[0], "results": results})

    def act(self) -> None:
        """Does one thing about what it is asked for, as `behaviour` says."""
        release, generation = self.desired.get("release"), self.generation
        if generation <= self._handled or self.behaviour == "away":
            return
        self._handled = generation
        if release is None or release == self.running[0]:
            self.status()
            return
        assert self._rig.broker.has(release, self._rig.manifests[release]), "it was offered what is not there"
        self.begun.append(generation)
        if self.behaviour == "silent":
            self.report("transferring")
            return
        steps = {
            "confirm": ("transferring", "verifying", "trial", "confirmed"),
            "revert": ("transferring", "verifying", "trial", "reverted"),
            "reject": ("rejected",),
            "flaky": ("transferring", "failed"),
        }
        for state in steps[self.behaviour]:
            self.report(state, **({"reason": "connection-lost"} if state == "failed" else {}))
        if self.behaviour == "flaky":  # the next time all goes well
            self.behaviour = "confirm"
            return
        if self.behaviour == "confirm":
            self.running = (release, self._rig.digest(release), self._rig.manifests[release].sequence)
        self.status()

    def _send(self, channel: str, body: dict[str, Any]) -> None:
        self._seq += 1
        up_ms = int((self._rig.elapsed - self._booted_at) * 1000)
        message = {"boot": self.boot, "seq": self._seq, "up_ms": up_ms, **body}
        arrival = Arrival(self.name, channel, "", message, self._rig.now, retained=False)
        self._rig.land(arrival)


class Rig:
    """One database, one broker, cameras, and a process around them that can be started anew."""

    def __init__(self, folder: Path, url: str = "") -> None:
        self._now = START
        self.elapsed = 0.0  # what clocks that nobody sets show, in seconds
        file = folder / "fleet.db"
        url = url or f"sqlite:///{file}"
        self.database = SqlStore(url)
        if self.database.is_sqlite:
            file.write_bytes(_empty_database())
            sa.event.listen(self.database.engine, "connect", _hurry)
        self.store = FragileStore(self.database)
        self.broker = Broker()
        self.landing = Landing(self.database)
        self.registry = Registry(self.database, lambda: self.now)
        self.manifests: dict[str, Manifest] = {}
        self.contents: dict[str, bytes] = {}
        self._cameras: dict[str, Camera] = {}
        self._sessions = 0
        self._held: list[Arrival] | None = None
        self.wakes = 0
        self.listening = True
        self.restart()
        self.ota.add_key(_KEY.public.hex(), "desk", actor="me")
        self.release(1)

    def restart(self) -> None:
        """A new process on the same database."""
        self.ota = Ota(self.store, lambda: self.now, self._wake, listening=lambda: self.listening)
        self.delivery = Delivery(self.store, self.broker, lambda: self.now, PREFIX)
        self.connect()

    def connect(self) -> None:
        """A new session with the broker."""
        self._sessions += 1
        self.delivery.broker_connected(f"session-{self._sessions}")

    def close(self) -> None:
        self.database.close()

    def land(self, arrival: Arrival) -> None:
        """Stores a message, or keeps it for the end of `in_one_batch`."""
        if self._held is None:
            self.landing.write([arrival])
        else:
            self._held.append(arrival)

    @contextmanager
    def in_one_batch(self) -> Iterator[None]:
        """What cameras say meanwhile is stored at the end, in one transaction."""
        self._held = []
        yield
        held, self._held = self._held, None
        self.landing.write(held)

    def settle(self) -> None:
        """Does everything that is due, and publishes what follows."""
        for _ in range(MOST_STEPS):
            if not self.ota.process() and not self.delivery.step():
                return
        raise AssertionError("it never comes to rest")

    def cameras(self, *names: str) -> list[Camera]:
        """Enrols cameras; they are online and run model-1."""
        for name in names:
            self.registry.enrol(name, actor="me")
            self._cameras[name] = Camera(self, name)
            self._cameras[name].status()
        return [self._cameras[name] for name in names]

    def camera(self, name: str) -> Camera:
        return self._cameras[name]

    @property
    def fleet(self) -> list[Camera]:
        """All cameras."""
        return list(self._cameras.values())

    def site(self, camera: str) -> str:
        """Where a camera is."""
        return self.registry.camera(camera).camera.site

    def act(self) -> None:
        """Every camera does one thing."""
        for camera in self._cameras.values():
            camera.act()

    def release(
        self,
        sequence: int,
        *,
        content: bytes | None = None,
        boards: Sequence[str] = ("OMVRT1060",),
        expires: int | None = None,
        key: OperatorKey = _KEY,
        labels: tuple[str, ...] = ("bee", "wasp"),
    ) -> Release:
        """Stores model-<sequence>, signed. The content is as good as any: only cameras read it."""
        content = self.contents[f"model-{sequence}"] = (
            content or bytes((n * sequence + n // 7) % 251 for n in range(9_000)) * 3
        )
        squeeze = zlib.compressobj(level=0, wbits=-12)
        encoded = cut("deflate", squeeze.compress(content) + squeeze.flush())
        digest = hashlib.sha256(content).hexdigest()
        file = ContentFile(path="trained.tflite", offset=0, size=len(content), sha256=digest)
        manifest = Manifest(
            format=1,
            release=f"model-{sequence}",
            kind="model",
            name="bees",
            version=str(sequence),
            epoch=1,
            sequence=sequence,
            created=int(START),
            expires=expires,
            boards=list(boards),
            content=Content(size=len(content), sha256=digest, files=[file]),
            encodings=[encoded.entry()],
        )
        blob = _signed(key, canonical(manifest))
        release = Release(
            id=manifest.release,
            kind="model",
            name="bees",
            version=str(sequence),
            epoch=1,
            sequence=sequence,
            key_id=key.key_id.hex(),
            digest=hashlib.sha256(blob).hexdigest(),
            content_sha256=digest,
            content_size=len(content),
            labels=labels,
            uploaded_at=self.now,
            uploaded_by="me",
        )
        stored = StoredEncoding(encoded.sha256, encoded.kind, encoded.base, encoded.size, encoded.data)
        with self.database.transaction() as work:
            work.releases.add(release, blob, [stored])
        self.manifests[release.id] = manifest
        return release

    def content(self, release_id: str) -> bytes:
        """What that release puts into a slot."""
        return self.contents[release_id]

    def digest(self, release_id: str) -> str:
        """The digest of that release's content; of no content for a release that does not exist."""
        found = self.manifests.get(release_id)
        return "0" * 64 if found is None else found.content.sha256

    def states(self, rollout_id: int = 1) -> dict[str, AssignmentState]:
        """Each camera's state in a rollout."""
        return {one.camera: one.state for one in self.ota.rollout(rollout_id).assignments}

    def audit(self) -> list[tuple[str, str, str]]:
        """Who did what to what, in order."""
        with self.database.reading() as work:
            entries = work.access.entries(10_000)
        return [(entry["actor"], entry["action"], entry["subject"]) for entry in reversed(entries)]

    def busy(self, rollout_id: int = 1) -> list[str]:
        """Cameras that are at it."""
        return [name for name, state in self.states(rollout_id).items() if state in BUSY]

    @property
    def now(self) -> float:
        """fleetd's clock. Moving it lets time pass, unless it is moved back or by a year: then it was set."""
        return self._now

    @now.setter
    def now(self, at: float) -> None:
        if 0 < at - self._now < 365 * 86400:
            self.elapsed += at - self._now
        self._now = at

    def _wake(self) -> None:
        self.wakes += 1
