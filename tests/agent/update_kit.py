"""Builds signed releases and plays broker, camera and storage for the update tests.

Independent of fleetd.bundles on purpose: the formats are written down twice, so that the two check each other.
"""

import hashlib
import json
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from random import Random
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from camera_agent import crypto
from camera_agent.protocol import Topics
from camera_agent.regions import StorageError
from camera_agent.updater import Updater

BLOCK = 4096
ARCH = "OMVRT1060 32768 SDRAM"


# --- releases ---------------------------------------------------------------------------------------------


class Signer:
    """An operator's signing key."""

    def __init__(self, secret: int = 0x5EED) -> None:
        self._key = ec.derive_private_key(secret, ec.SECP256R1())
        point = self._key.public_key().public_numbers()
        self.public = point.x.to_bytes(32, "big") + point.y.to_bytes(32, "big")
        self.key_id = hashlib.sha256(self.public).digest()[:8]

    def sign(self, message: bytes) -> bytes:
        r, s = decode_dss_signature(self._key.sign(message, ec.ECDSA(hashes.SHA256())))
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")

    def manifest(self, text: bytes) -> bytes:
        """The signed manifest around these JSON bytes."""
        return b"FLM1" + self.key_id + self.sign(b"FLM1" + self.key_id + text) + text


def weights(size: int, seed: int = 1) -> bytes:
    """Content that compresses about as well as a quantised model."""
    return bytes(Random(seed).choices(range(64), k=size))


def retrained(base: bytes, seed: int = 2) -> bytes:
    """`base` with a changed head, an insertion and a few changed bytes: what a patch is good at."""
    made = bytearray(base)
    made[100:100] = b"a little longer"
    made[-len(base) // 10 :] = weights(len(base) // 10, seed)
    rnd = Random(seed)
    for _ in range(5):
        made[rnd.randrange(len(made) // 2)] = rnd.randrange(256)
    return bytes(made)


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -12)
    return packer.compress(data) + packer.flush()


def varint(number: int) -> bytes:
    made = bytearray()
    while number > 127:
        made.append(number & 127 | 128)
        number >>= 7
    made.append(number)
    return bytes(made)


def zigzag(number: int) -> bytes:
    return varint(number << 1 if number >= 0 else (-number << 1) - 1)


def operations(base: bytes, new: bytes) -> Iterator[tuple[bytes, int, int]]:
    """(literal, copy length, copy source) after each other make `new`. Greedy; matches of 16 bytes and more."""
    seen = {base[i : i + 16]: i for i in range(len(base) - 16, -1, -1)}
    at = start = 0
    while at < len(new):
        source = seen.get(new[at : at + 16], -1)
        if source < 0:
            at += 1
            continue
        length = 16
        while source + length < len(base) and at + length < len(new):
            if base[source + length] != new[at + length]:
                break
            length += 1
        yield new[start:at], length, source
        at = start = at + length
    if start < len(new):
        yield new[start:], 0, 0


def patch_stream(steps: Iterator[tuple[bytes, int, int]]) -> bytes:
    """The COPY/LITERAL operations as bytes, not yet deflated."""
    made = bytearray()
    expected = 0
    for literal, length, source in steps:
        made += varint(len(literal)) + literal + varint(length)
        if length:
            made += zigzag(source - (expected + len(literal)))
            expected = source + length
    return bytes(made)


@dataclass
class Encoding:
    kind: str
    data: bytes
    base: str | None = None

    @property
    def blocks(self) -> list[bytes]:
        return [self.data[i : i + BLOCK] for i in range(0, len(self.data), BLOCK)]

    @property
    def index(self) -> list[bytes]:
        digests = b"".join(hashlib.sha256(block).digest() for block in self.blocks)
        return [digests[i : i + BLOCK] for i in range(0, len(digests), BLOCK)]

    def describe(self) -> dict[str, Any]:
        made: dict[str, Any] = {"kind": self.kind, "size": len(self.data)}
        made["sha256"] = hashlib.sha256(self.data).hexdigest()
        made["index"] = [hashlib.sha256(part).hexdigest() for part in self.index]
        if self.base:
            made["base"] = self.base
        return made


def full(content: bytes) -> Encoding:
    return Encoding("deflate", raw_deflate(content))


def patch(base: bytes, content: bytes) -> Encoding:
    stream = patch_stream(operations(base, content))
    return Encoding("patch", raw_deflate(stream), hashlib.sha256(base).hexdigest())


@dataclass
class Release:
    id: str
    blob: bytes
    content: bytes
    encodings: list[Encoding] = field(default_factory=list)

    @property
    def digest(self) -> str:
        """SHA-256 of the content."""
        return hashlib.sha256(self.content).hexdigest()

    @property
    def manifest_digest(self) -> str:
        return hashlib.sha256(self.blob).hexdigest()

    def topics(self) -> dict[str, bytes]:
        """What fleetd retains for this release, by topic without the prefix."""
        made = {f"_release/{self.id}": self.blob}
        for encoding in self.encodings:
            for part in encoding.index:
                made[f"_blob/{hashlib.sha256(part).hexdigest()}/0"] = part
            for n, block in enumerate(encoding.blocks):
                made[f"_blob/{hashlib.sha256(encoding.data).hexdigest()}/{n}"] = block
        return made


def describe(
    release: str, content: bytes, encodings: list[Encoding], sequence: int = 1, **changes: Any
) -> dict[str, Any]:
    """A manifest's JSON object; `changes` replace fields."""
    cut = len(content) // 3
    parts = [("model.tflite", 0, content[cut:]), ("labels.txt", len(content) - cut, content[:cut])]
    made: dict[str, Any] = {
        "format": 1,
        "release": release,
        "kind": "model",
        "name": "shapes",
        "version": "1.0",
        "epoch": 1,
        "sequence": sequence,
        "created": 1_700_000_000,
        "boards": ["OMVRT1060"],
        "content": {
            "size": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
            "files": [
                {
                    "path": path,
                    "offset": offset,
                    "size": len(data),
                    "sha256": hashlib.sha256(data).hexdigest(),
                }
                for path, offset, data in parts
            ],
        },
        "encodings": [encoding.describe() for encoding in encodings],
        "model": {
            "input": {"shape": [1, 96, 96, 3], "dtype": "int8", "scale": 1 / 255, "zero_point": -128},
            "output": {"shape": [1, 3], "dtype": "int8", "scale": 1 / 256, "zero_point": -128},
            "labels": 3,
            "ops": ["CONV_2D", "SOFTMAX"],
            "arena_bytes": 100_000,
        },
        "threshold": 0.6,
    }
    made.update(changes)
    return made


def make_release(
    signer: Signer,
    release: str,
    content: bytes,
    sequence: int = 1,
    *,
    base: bytes | None = None,
    encodings: list[Encoding] | None = None,
    **changes: Any,
) -> Release:
    """A signed release in the full encoding, with `base` also as a patch."""
    if encodings is None:
        encodings = [full(content)] + ([patch(base, content)] if base is not None else [])
    described = describe(release, content, encodings, sequence, **changes)
    return Release(release, signer.manifest(json.dumps(described).encode()), content, encodings)


def lay_out(folder: Path, signer: Signer, releases: list[Release]) -> None:
    """Releases as files, for the broker of tests/agent/device/update_desk.py."""
    (folder / "key").write_bytes(signer.public)
    for release in releases:
        for topic, payload in release.topics().items():
            kind, name, *block = topic.split("/")
            tail = block[0] if kind == "_blob" else "manifest"
            (folder / f"{name}.{tail}").write_bytes(payload)


# --- storage ----------------------------------------------------------------------------------------------


class PowerCut(BaseException):
    """The supply is gone. Not an Exception: nothing in the agent may catch it."""


class Medium:
    """Storage that survives. Writes are pending until a sync; a cut decides what becomes of them.

    `cut_at`: the write or sync (counted from 1) at which the power goes. `tear`: what is then on the medium:
    "lost" nothing pending and not the write, "kept" all pending, "half" all pending and half of the write,
    "swapped" only the write (the medium reordered), "after" everything: the cut comes just after it.
    """

    def __init__(self) -> None:
        self.cut_at = 0
        self.tear = "lost"
        self.operations = 0
        self.regions: list[MemoryRegion] = []

    def __call__(self, region: "MemoryRegion", write: tuple[int, bytes] | None) -> None:
        """Note a write, or a sync when `write` is None."""
        self.operations += 1
        if self.operations == self.cut_at:
            self._cut(region, write)
        if write is None:
            region.settle()
        else:
            region.pending.append(write)

    def _cut(self, region: "MemoryRegion", write: tuple[int, bytes] | None) -> None:
        if self.tear == "swapped":
            for each in self.regions:
                each.pending.clear()
        if self.tear in ("kept", "half", "after"):
            for each in self.regions:
                each.settle()
        if write and self.tear in ("half", "swapped", "after"):
            offset, data = write
            region.pending.append((offset, data[: len(data) // 2] if self.tear == "half" else data))
            region.settle()
        for each in self.regions:
            each.pending.clear()
        raise PowerCut

    def power_on(self, cut_at: int = 0, tear: str = "lost") -> None:
        """Start counting again; cut the power at `cut_at`, or never."""
        self.operations = 0
        self.cut_at = cut_at
        self.tear = tear
        for region in self.regions:
            region.pending.clear()


class MemoryRegion:
    """A region whose medium can lose power, run full or break."""

    def __init__(self, medium: Medium, size: int) -> None:
        self.size = size
        self.settled = bytearray(size)
        self.pending: list[tuple[int, bytes]] = []
        self.medium = medium
        self.refuses: str | None = None  # a reason: every write fails
        self.broken = False  # every read fails
        self.writes: list[tuple[int, int]] = []  # offset and length
        medium.regions.append(self)

    def settle(self) -> None:
        for offset, data in self.pending:
            self.settled[offset : offset + len(data)] = data
        self.pending.clear()

    def seen(self) -> bytearray:
        """What a read sees: settled and pending."""
        seen = bytearray(self.settled)
        for offset, data in self.pending:
            seen[offset : offset + len(data)] = data
        return seen

    def readinto(self, offset: int, view: memoryview) -> int:
        if self.broken:
            raise StorageError("storage-error", "broken")
        data = self.seen()[offset : offset + len(view)]
        view[: len(data)] = data
        return len(data)

    def write(self, offset: int, buf: bytes | bytearray | memoryview) -> None:
        assert offset >= 0
        assert offset % BLOCK == len(buf) % BLOCK == 0, "only whole blocks are written"
        assert offset + len(buf) <= self.size, "a write past the end of the region"
        if self.refuses:
            raise StorageError(self.refuses, "refused")
        self.writes.append((offset, len(buf)))
        self.medium(self, (offset, bytes(buf)))

    def sync(self) -> None:
        self.medium(self, None)

    def stream(self) -> BytesIO:
        self.sync()
        return BytesIO(bytes(self.seen()))

    def close(self) -> None:
        pass


class MemoryFiles:
    """What regions.open_files answers, in memory."""

    def __init__(self, slot_bytes: int = 12288 + 65536, stage_bytes: int = 65536) -> None:
        self.medium = Medium()
        self.slot_a: MemoryRegion | None = MemoryRegion(self.medium, slot_bytes)
        self.slot_b: MemoryRegion | None = MemoryRegion(self.medium, slot_bytes)
        self.stage: MemoryRegion | None = MemoryRegion(self.medium, stage_bytes)
        self.pointer_0: MemoryRegion | None = MemoryRegion(self.medium, BLOCK)
        self.pointer_1: MemoryRegion | None = MemoryRegion(self.medium, BLOCK)
        self.boot_0: Any = None  # agent_slots() makes these
        self.boot_1: Any = None
        self.agent_a: Any = None
        self.agent_b: Any = None
        self.mirror: Any = None
        self.problem: str | None = None
        self.detail: str | None = None

    def agent_slots(self, agent_bytes: int = 12288 + 16384) -> "MemoryFiles":
        """With boot records and slots for the agent itself."""
        self.boot_0, self.boot_1 = MemoryRegion(self.medium, BLOCK), MemoryRegion(self.medium, BLOCK)
        self.agent_a, self.agent_b = (MemoryRegion(self.medium, agent_bytes) for _ in range(2))
        return self


# --- the camera and its broker ----------------------------------------------------------------------------


class Hal:
    """What the updater asks of the hardware."""

    def __init__(self) -> None:
        self.now = 1000
        self.clock: int | None = None
        self.cause = "power-on"
        self.board = ARCH
        self.fed = 0

    def ticks_ms(self) -> int:
        return self.now

    def unix(self) -> int | None:
        return self.clock

    def arch(self) -> str:
        return self.board

    def reset_cause(self) -> str:
        return self.cause

    def feed(self) -> None:
        self.fed += 1


class Broker:
    """Retained topics and the link's part of want/unwant. `deliver` hands over what waits.

    `alter`: may change, hold back (None) or multiply what is delivered: (topic, payload) -> payloads.
    """

    def __init__(self) -> None:
        self.topics = Topics("cam-01")
        self.connected = True
        self.retained: dict[str, bytes] = {}
        self.wanted: list[str] = []
        self.waiting: list[str] = []
        self.asked: list[str] = []  # every want, in order
        self.most_wanted = 0
        self.alter: Callable[[str, bytes], list[bytes]] = lambda _topic, payload: [payload]

    @staticmethod
    def _tail(topic: bytes) -> str:
        return topic.decode().removeprefix("fleet/v1/")

    def publish(self, release: Release) -> None:
        self.retained.update(release.topics())

    def want(self, topic: bytes) -> bool:
        tail = self._tail(topic)
        if tail not in self.wanted:
            self.wanted.append(tail)
        self.most_wanted = max(self.most_wanted, len(self.wanted))
        self.waiting.append(tail)
        self.asked.append(tail)
        return True

    def unwant(self, topic: bytes) -> None:
        self.wanted.remove(self._tail(topic))

    def reconnect(self) -> None:
        """The link subscribes again to everything that is wanted."""
        self.connected = True
        self.waiting = list(self.wanted)

    def deliver(self, updater: Any) -> bool:
        """Hand over everything that waits; whether there was anything."""
        if not self.connected:
            return False
        waiting, self.waiting = self.waiting, []
        delivered = False
        for tail in waiting:
            payload = self.retained.get(tail)
            if payload is None or tail not in self.wanted:
                continue
            for each in self.alter(tail, payload):
                delivered = True
                hand_over(updater, tail, each)
        return delivered


def hand_over(updater: Any, tail: str, payload: bytes) -> None:
    """A message for the updater, as the agent core passes it on."""
    parts = tail.split("/")
    # the link's receive buffer: whoever keeps a view of it will see it change
    buffer = bytearray(payload)
    if parts[0] == "_release":
        updater.on_release(parts[1], memoryview(buffer))
    else:
        updater.on_block(parts[1], int(parts[2]), memoryview(buffer))
    buffer[:] = b"\xee" * len(buffer)


def desired(release: Release | str | None, generation: int = 1, **changes: Any) -> dict[str, Any]:
    """`down/desired` as protocol.parse_desired answers it."""
    made: dict[str, Any] = {"generation": generation, "config": {}, "deadline": None, "digest": None}
    if isinstance(release, Release):
        made.update(release=release.id, digest=release.manifest_digest)
    else:
        made.update(release=release)
    made.update(changes)
    return made


class Camera:
    """One camera: storage that stays, an updater that is new after every boot, a broker to talk to."""

    def __init__(self, signer: Signer, files: Any = None, broker: Broker | None = None) -> None:
        self.hal = Hal()
        self.files = files or MemoryFiles()
        self.broker = broker or Broker()
        self.keys: dict[str, Any] = {"keys": [signer.public]}  # of config.json
        self.ring: Any = None
        self.reports: list[dict[str, Any]] = []
        self.updater: Any = None

    def _report(self, state: str, reason: str | None = None, detail: str | None = None, **extra: Any) -> None:
        self.reports.append({"state": state, "reason": reason, "detail": detail, **extra})

    def boot(self) -> "Camera":
        """Power on: everything in memory is gone."""
        self.broker.wanted.clear()
        self.broker.waiting.clear()
        self.ring = crypto.Ring(**self.keys)
        self.updater = Updater(self.hal, self.files, self.ring, self.broker, self._report)
        self.updater.boot()
        return self

    def want(self, release: Release | str | None, generation: int = 1, **changes: Any) -> "Camera":
        self.updater.on_desired(desired(release, generation, **changes))
        return self

    def run(self, steps: int = 5000, tick_ms: int = 1) -> "Camera":
        """Step and deliver until nothing happens any more."""
        for _ in range(steps):
            self.hal.now += tick_ms
            busy = self.updater.step()
            if not self.broker.deliver(self.updater) and not busy:
                return self
        raise AssertionError(f"still busy after {steps} steps: {self.reports[-3:]}")

    def classify(self, frames: int = 5, inference_ms: int = 50) -> "Camera":
        for _ in range(frames):
            self.updater.trial_frame_ok(inference_ms)
        return self

    def install(self, release: Release, generation: int = 1) -> "Camera":
        """The whole way to confirmed."""
        self.broker.publish(release)
        self.want(release, generation).run().classify().run()
        assert self.states()[-1] == "confirmed", self.reports
        return self

    def wait(self, seconds: float) -> "Camera":
        """Let time pass in steps of a second."""
        for _ in range(int(seconds)):
            self.hal.now += 1000
            self.updater.step()
            self.broker.deliver(self.updater)
        return self

    def states(self) -> list[str]:
        return [report["state"] for report in self.reports]

    def last(self) -> tuple[str, str | None]:
        """State and reason of the last report."""
        return self.reports[-1]["state"], self.reports[-1]["reason"]

    def model(self) -> tuple[str, bytes] | None:
        """Release and bytes of the model to use."""
        choice = self.updater.model_to_use()
        if choice is None:
            return None
        data = bytearray(choice.content.size)
        assert choice.content.readinto(0, memoryview(data)) == len(data)
        return choice.release, bytes(data)
