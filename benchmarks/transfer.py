"""What it costs to bring one model to many cameras, beside other ways to do it in the same run.

fleetd's own delivery publishes a release through a proxy that counts; cameras are raw protocol clients that pull as the
agent does, in a window, and check every block. Beside it: the broker's fan-out of the same bytes from one publisher to
all of them (the floor: nobody asks, nobody checks), and request and reply, where a server answers each block to each
camera. Then one camera with the agent's own code on a slow link, against bytes / rate. At last what a patch saves.

    python -m benchmarks.transfer [--cameras 200] [--kb 300] [--shared ../shared/data]
"""

import argparse
import asyncio
import hashlib
import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from benchmarks.wire import Client, Proxy, counted
from camera_agent.link import Link
from camera_agent.outbox import Outbox
from camera_agent.sockets import open_stream
from camera_agent.transfer import Transfer
from fleetd import logs
from fleetd.broker import BrokerLink
from fleetd.bundles.encodings import cut
from fleetd.bundles.inflating import deflate
from fleetd.bundles.manifests import canonical
from fleetd.bundles.opening import open_bundle
from fleetd.bundles.packing import pack
from fleetd.bundles.signing import OperatorKey
from fleetd.delivery import Delivery
from fleetd.domain.records import Release, StoredEncoding
from fleetd.ota import Ota
from fleetd.protocol.manifest import HEADER_BYTES, Content, ContentFile, Manifest
from fleetd.protocol.topics import DEFAULT_PREFIX
from fleetd.registry import Registry
from fleetd.store import migrate
from fleetd.store.engine import SqlStore
from tests.brokers import Mosquitto

WINDOW: Final = 4  # blocks that a raw camera asks for ahead; there is no delay to hide on this machine
PATIENCE_S: Final = 120.0
LINK_BITS: Final = 5_000_000
LINK_ROUNDS: Final = 3
LINK_DELAYS_S: Final = (0.015, 0.030)  # each way


class Raw:
    """One camera as the broker sees it: waits for a desired state, then pulls manifest, index and blocks."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.done_at: float | None = None
        self._encoding: dict[str, Any] = {}
        self._index = b""
        self._next = 0
        self._left = 0
        client.on_message = self._on_message

    def _on_message(self, topic: str, payload: bytes) -> None:
        if not payload or self.done_at is not None:
            return
        tail = topic.removeprefix(f"{DEFAULT_PREFIX}/")
        if tail.endswith("/down/desired"):
            self.client.subscribe(f"{DEFAULT_PREFIX}/_release/{json.loads(payload)['release']}")
        elif tail.startswith("_release/"):
            self._encoding = json.loads(payload[HEADER_BYTES:])["encodings"][0]
            self._left = -(-self._encoding["size"] // 4096)
            self.client.unsubscribe(topic)
            self.client.subscribe(f"{DEFAULT_PREFIX}/_blob/{self._encoding['index'][0]}/0")
        elif not self._index:
            assert hashlib.sha256(payload).hexdigest() == self._encoding["index"][0]
            self._index = payload
            self.client.unsubscribe(topic)
            for _ in range(WINDOW):
                self._ask()
        else:
            number = int(tail.rpartition("/")[2])
            assert hashlib.sha256(payload).digest() == self._index[32 * number : 32 * number + 32]
            self.client.unsubscribe(topic)
            self._left -= 1
            if not self._left:
                self.done_at = time.perf_counter()
            self._ask()

    def _ask(self) -> None:
        if self._next < -(-self._encoding["size"] // 4096):
            self.client.subscribe(f"{DEFAULT_PREFIX}/_blob/{self._encoding['sha256']}/{self._next}")
            self._next += 1


def _content(size: int) -> bytes:
    """Bytes that no compression helps, as quantised weights nearly are."""
    return random.Random(7).randbytes(size)


def _store_release(store: SqlStore, key: OperatorKey, content: bytes) -> Manifest:
    """A release of any bytes: what is measured does not depend on its being a model."""
    encoded = cut("deflate", deflate(content))
    digest = hashlib.sha256(content).hexdigest()
    file = ContentFile(path="trained.tflite", offset=0, size=len(content), sha256=digest)
    manifest = Manifest(
        format=1,
        release="model-1",
        kind="model",
        name="any bytes",
        version="1",
        epoch=1,
        sequence=1,
        created=1_750_000_000,
        boards=["*"],
        content=Content(size=len(content), sha256=digest, files=[file]),
        encodings=[encoded.entry()],
    )
    blob = key.sign(canonical(manifest))
    release = Release(
        id="model-1",
        kind="model",
        name="any bytes",
        version="1",
        epoch=1,
        sequence=1,
        key_id=key.key_id.hex(),
        digest=hashlib.sha256(blob).hexdigest(),
        content_sha256=digest,
        content_size=len(content),
        labels=("a", "b"),
        uploaded_at=0.0,
        uploaded_by="bench",
    )
    stored = StoredEncoding(encoded.sha256, "deflate", None, encoded.size, encoded.data)
    with store.transaction() as work:
        work.releases.add(release, blob, [stored])
    return manifest


async def _wait(condition: Callable[[], bool], what: str) -> None:
    deadline = time.perf_counter() + PATIENCE_S
    while not condition():
        assert time.perf_counter() < deadline, f"no {what} in {PATIENCE_S:.0f} s"
        await asyncio.sleep(0.002)


async def by_fleetd(port: int, cameras: int, size: int, folder: Path) -> dict[str, Any]:
    """fleetd's delivery and pulling cameras."""
    store = SqlStore(f"sqlite:///{folder / 'bench.db'}")
    migrate.upgrade(store)
    key = OperatorKey.generate()
    registry, ota = Registry(store, time.time), Ota(store, time.time)
    ota.add_key(key.public.hex(), "bench", actor="bench")
    names = [f"cam-{n:04}" for n in range(cameras)]
    for name in names:
        registry.enrol(name, actor="bench")
    manifest = _store_release(store, key, _content(size))
    raw = [Raw(await Client.connect(port, name)) for name in names]
    await asyncio.gather(*(one.client.subscribe(f"{DEFAULT_PREFIX}/{one.client.name}/down/#") for one in raw))
    with counted(port) as proxy:
        link = BrokerLink(
            host="127.0.0.1",
            port=proxy.port,
            client_id="fleetd",
            subscribe="bench/nothing",
            receive=lambda _batch: None,
        )
        link.start()
        assert link.wait_ready(10)
        delivery = Delivery(store, link, time.time, DEFAULT_PREFIX)
        delivery.broker_connected("bench")
        before = proxy.up
        ota.start_rollout("model-1", "all", actor="bench")
        began = time.perf_counter()
        cpu = time.process_time()

        def deliver() -> int:
            """All of it; the bytes up to the first desired state: the release itself."""
            delivery._publish_release("bench")
            release_bytes = proxy.up - before
            while delivery.step():
                pass
            return release_bytes

        release_bytes = await asyncio.to_thread(deliver)
        published = time.perf_counter() - began
        await _wait(lambda: all(one.done_at for one in raw), "transfer to all")
        total = proxy.up - before
        link.stop()
    took = sorted(one.done_at - began for one in raw if one.done_at)
    for one in raw:
        one.client.close()
    store.close()
    encoded = manifest.encodings[0].size
    return {
        "encoding_bytes": encoded,
        "release_bytes_out": release_bytes,
        "control_bytes_out": total - release_bytes,
        "copies": release_bytes / encoded,
        "published_s": published,
        "first_s": took[0],
        "median_s": statistics.median(took),
        "last_s": took[-1],
        "process_cpu_s": time.process_time() - cpu,
    }


async def by_request(port: int, cameras: int, size: int) -> dict[str, Any]:
    """A server that answers each block to each camera, window for window."""
    data = deflate(_content(size))
    blocks = [data[at : at + 4096] for at in range(0, len(data), 4096)]
    server = await Client.connect(port, "server")

    def answer(topic: str, payload: bytes) -> None:
        number = int(payload)
        server.publish(f"bench/{topic.rpartition('/')[2]}/{number}", blocks[number])

    server.on_message = answer
    await server.subscribe("bench/want/+")
    done = 0
    clients = [await Client.connect(port, f"req-{n}") for n in range(cameras)]

    def listen(client: Client) -> Callable[[str, bytes], None]:
        state = {"left": len(blocks), "next": WINDOW}

        def take(_topic: str, payload: bytes) -> None:
            nonlocal done
            hashlib.sha256(payload).digest()
            state["left"] -= 1
            if not state["left"]:
                done += 1
            if state["next"] < len(blocks):
                client.publish(f"bench/want/{client.name}", str(state["next"]).encode())
                state["next"] += 1

        return take

    for client in clients:
        client.on_message = listen(client)
        await client.subscribe(f"bench/{client.name}/+")
    sent, began = server.sent, time.perf_counter()
    for client in clients:
        for number in range(WINDOW):
            client.publish(f"bench/want/{client.name}", str(number).encode())
    await _wait(lambda: done == cameras, "answers to all")
    took = time.perf_counter() - began
    for client in (server, *clients):
        client.close()
    return {"bytes_out": server.sent - sent, "copies": (server.sent - sent) / len(data), "last_s": took}


async def by_fan_out(port: int, cameras: int, size: int) -> dict[str, Any]:
    """One publisher, everybody subscribed: what the broker can do with the same bytes."""
    data = deflate(_content(size))
    blocks = [data[at : at + 4096] for at in range(0, len(data), 4096)]
    got = 0

    def take(_topic: str, _payload: bytes) -> None:
        nonlocal got
        got += 1

    clients = [await Client.connect(port, f"fan-{n}") for n in range(cameras)]
    for client in clients:
        client.on_message = take
    await asyncio.gather(*(client.subscribe("bench/all") for client in clients))
    source = await Client.connect(port, "source")
    began = time.perf_counter()
    for number, block in enumerate(blocks, 1):
        source.publish("bench/all", block)
        if number % 8 == 0:  # the broker drops what does not fit its queues: nobody asks here
            await _wait(lambda n=number: got >= n * cameras, "fan-out")  # type: ignore[misc]
    await _wait(lambda: got == cameras * len(blocks), "fan-out to all")
    took = time.perf_counter() - began
    for client in (source, *clients):
        client.close()
    return {"copies": source.sent / len(data), "last_s": took}


class Hal:
    """What link and transfer ask of the hardware."""

    def ticks_ms(self) -> int:
        return time.monotonic_ns() // 1_000_000

    def unix(self) -> None:
        return None

    def urandom(self, count: int) -> bytes:
        return random.SystemRandom().randbytes(count)

    def network_step(self) -> bool:
        return True

    def open_socket(self, host: str, port: int, timeout_ms: int) -> Any:
        return open_stream(host, port, timeout_ms, self)

    def sleep_ms(self, duration: int) -> None:
        time.sleep(duration / 1000)


class Stage:
    """The camera's stage in memory."""

    def __init__(self, size: int) -> None:
        self.data = bytearray(size)
        self.size = size

    def readinto(self, offset: int, view: memoryview) -> int:
        view[:] = self.data[offset : offset + len(view)]
        return len(view)

    def write(self, offset: int, buf: bytes) -> None:
        self.data[offset : offset + len(buf)] = buf


def on_a_slow_link(port: int, size: int, delay_s: float) -> dict[str, Any]:
    """The agent's own link and transfer behind a shaped proxy, against bytes / rate."""
    encoded = cut("deflate", deflate(_content(size)))
    entry = encoded.entry().model_dump()
    with Proxy(port, delay_s=delay_s, rate=LINK_BITS) as proxy:
        hal = Hal()
        outbox = Outbox(hal, 64, 24_576)
        link = Link(hal, {"camera": "slow", "host": "127.0.0.1", "port": proxy.port}, outbox, dict)
        stage = Stage(-(-encoded.size // 4096) * 4096)
        transfer = Transfer(link, stage, entry, bytearray(4096))
        link.handlers["blob"] = lambda _kind, parts, payload: transfer.on_block(parts[0], parts[1], payload)
        while not link.connected:
            if not link.step():
                time.sleep(0.001)
        began, before = time.perf_counter(), proxy.down
        deadline = began + PATIENCE_S
        while not transfer.finished:
            busy = link.step()
            if not (transfer.step(hal.ticks_ms()) or busy):
                time.sleep(0.0005)
            assert time.perf_counter() < deadline, "the slow link is too slow"
        took, received = time.perf_counter() - began, proxy.down - before
        assert bytes(stage.data[: encoded.size]) == encoded.data
        link.close(500)
    return {
        "round_trip_ms": round(2000 * delay_s),
        "seconds": took,
        "bytes": encoded.size,
        "bytes_on_the_wire": received,
        "ratio": took / (encoded.size * 8 / LINK_BITS),
    }


def _best_of(rounds: int, port: int, size: int, delay_s: float) -> dict[str, Any]:
    """The round that was disturbed least by what else this machine does: nothing makes a link faster than it is."""
    return min(
        (on_a_slow_link(port, size, delay_s) for _ in range(rounds)), key=lambda one: float(one["ratio"])
    )


def patch_share(shared: Path) -> dict[str, Any] | None:
    """A retrained MobileNetV2, on a camera that runs another project's: real exports, where they are."""
    old, new = (shared / "models" / name / "v1" for name in ("singtown-mask", "nutriscan"))
    if not old.exists() or not new.exists():
        return None
    base = pack(open_bundle(old), ["OMVRT1060"])
    began = time.perf_counter()
    packed = pack(open_bundle(new), ["OMVRT1060"], bases=[base.image.data])
    took = time.perf_counter() - began
    size = packed.patches[0].size
    return {"bytes": size, "share": size / len(packed.image.data), "full": packed.full.size, "seconds": took}


async def _measure(port: int, cameras: int, size: int, folder: Path) -> dict[str, Any]:
    return {
        "fan_out": await by_fan_out(port, cameras, size),
        "fleetd": await by_fleetd(port, cameras, size, folder),
        "request_reply": await by_request(port, cameras, size),
    }


def main() -> None:
    """Prints a table for people and one line of JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--cameras", type=int, default=200)
    parser.add_argument("--kb", type=int, default=300)
    parser.add_argument(
        "--shared", type=Path, default=Path(__file__).resolve().parents[2] / "shared" / "data"
    )
    options = parser.parse_args()
    logs.configure(level="warning")
    size = options.kb * 1024
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with Mosquitto(folder / "broker") as broker:
            found = asyncio.run(_measure(broker.port, options.cameras, size, folder))
            found["links"] = [_best_of(LINK_ROUNDS, broker.port, size, delay) for delay in LINK_DELAYS_S]
    found["patch"] = patch_share(options.shared)
    fleetd, fan, asked = found["fleetd"], found["fan_out"], found["request_reply"]
    print(
        f"One model of {options.kb} KB to {options.cameras} cameras, mosquitto, everything on this machine\n"
    )
    print(f"{'':34}{'copies out':>12}{'last camera':>14}{'x floor':>10}")
    for label, copies, last in (
        ("broker's fan-out (floor)", fan["copies"], fan["last_s"]),
        ("fleetd: blocks retained once", fleetd["copies"], fleetd["last_s"]),
        ("request and reply", asked["copies"], asked["last_s"]),
    ):
        print(f"{label:34}{copies:12.3f}{last:12.2f} s{last / fan['last_s']:10.2f}")
    print(
        f"\nfleetd: {fleetd['release_bytes_out']} bytes of release for {fleetd['encoding_bytes']} of encoding, "
        f"{fleetd['control_bytes_out']} bytes of desired states; published in {fleetd['published_s']:.2f} s"
    )
    for link in found["links"]:
        print(
            f"one camera, agent's code, {LINK_BITS / 1e6:.0f} Mbit/s, {link['round_trip_ms']} ms there and back: "
            f"{link['seconds']:.2f} s = {link['ratio']:.2f} x bytes / rate"
        )
    if found["patch"]:
        patch = found["patch"]
        print(
            f"patch singtown-mask -> nutriscan v1: {patch['bytes']} bytes, {patch['share']:.1%} of the file"
        )
    else:
        print("patch: the real exports are not here (--shared)")
    print(json.dumps({"benchmark": "transfer", "cameras": options.cameras, "kb": options.kb, **found}))


if __name__ == "__main__":
    main()
