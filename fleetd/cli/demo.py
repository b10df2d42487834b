"""`fleetd demo`: the whole main job on one machine, with virtual cameras that run the real agent and model.

A broker that fleetd starts itself, SQLite, `fleetctl push-model` twice: a weak first model, then a better one
over the air. The cameras look at drawings whose content is known, so the difference can be shown as numbers.
Everything lies in a temporary folder and is gone afterwards.
"""

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from rich.console import Console
from rich.table import Table

from fleetd import logs
from fleetd.app import Daemon
from fleetd.bundles.signing import OperatorKey
from fleetd.settings import load_settings
from fleetd.simulator.assets import make_zip
from fleetd.simulator.errors import check_available

if TYPE_CHECKING:
    from fleetd.simulator.camera import VirtualCamera

INTERVAL_MS = 100  # between two frames of a camera
FRAMES = 60  # per camera and model, before the results are counted
READY_SECONDS = 60.0
PUSH_SECONDS = 150
BEAT_SECONDS = 10.0


class Score(NamedTuple):
    """How a camera did with one release."""

    right: int
    seen: int

    def __str__(self) -> str:
        return f"{self.right / self.seen:.0%} of {self.seen}" if self.seen else "-"


class DemoFailedError(Exception):
    """The demo did not get where it should; the text says how far it came."""


def run_demo(*, cameras: int, once: bool, stopping: threading.Event) -> int:
    """Runs the demo; the exit code is 0 when every camera took both models."""
    check_available()
    logs.configure(level="warning")
    console = Console(highlight=False)
    with tempfile.TemporaryDirectory(prefix="fleetd-demo-") as folder:
        try:
            _Demo(Path(folder), cameras, console, stopping).run(once=once)
        except DemoFailedError as error:
            if stopping.is_set():
                return 130
            console.print(f"[red]The demo did not finish:[/red] {error}")
            return 1
    return 0


class _Demo:
    def __init__(self, folder: Path, count: int, console: Console, stopping: threading.Event) -> None:
        self._folder = folder
        self._names = [f"demo-{number}" for number in range(1, count + 1)]
        self._console = console
        self._stopping = stopping
        self._key = folder / "operator.pem"

    def run(self, *, once: bool) -> None:
        began = time.monotonic()
        state = self._folder / "state"
        settings = load_settings(
            state_dir=state,
            broker={"port": _preferred_port(1883)},
            http={"port": _preferred_port(8080)},
            landing={"receipt_seconds": 1.0},
        )
        with Daemon(settings) as self._daemon:
            kind = self._daemon.host.kind
            address, port = self._daemon.link.address.split(":")
            self._say(f"fleetd is at {self._daemon.url}, its broker ({kind}) at {address}:{port}.")
            reader = self._daemon.accounts.add_user("demo", actor="demo")
            self._say("To see what cameras say, in another terminal:")
            self._command(
                f"mosquitto_sub -h {address} -p {port} -u demo -P {reader} -v -t 'fleet/v1/+/up/result'"
            )
            OperatorKey.generate().save(self._key, None)
            public = OperatorKey.load(self._key).public.hex()
            self._daemon.ota.add_key(public, "demo", actor="demo")
            with self._cameras(address, int(port), public) as cameras:
                self._say(f"{len(cameras)} virtual cameras run the real agent. They have no model yet.")
                self._wait(lambda: self._online() == len(cameras), READY_SECONDS, "cameras to report")
                first = self._push("demo-v1", "1")
                self._wait_frames(first)
                second = self._push("demo-v2", "2")
                self._wait_frames(second)
                self._show(cameras, first, second)
                self._say(f"That took {time.monotonic() - began:.0f} s.")
                if not once:
                    self._stay(state)
                self._say("Stopping: cameras say goodbye, what was received is stored.")

    @contextlib.contextmanager
    def _cameras(self, host: str, port: int, public: str) -> Iterator[list["VirtualCamera"]]:
        from fleetd.simulator.camera import VirtualCamera  # noqa: PLC0415  # needs the extra `demo`

        cameras = []
        for number, name in enumerate(self._names):
            _, secret = self._daemon.registry.enrol(name, actor="demo", tags=["demo"])
            folder = self._folder / name
            folder.mkdir()
            camera = VirtualCamera(
                name,
                folder,
                host,
                port,
                [public],
                seed=1000 * number,
                password=secret,
                fresh_key=self._daemon.freshness.new_key(name, actor="demo"),
                interval_ms=INTERVAL_MS,
            )
            cameras.append(camera)
        try:
            for camera in cameras:
                camera.start()
            yield cameras
        finally:
            for camera in cameras:
                camera.stop()

    def _push(self, model: str, version: str) -> str:
        """Pushes one of our models with fleetctl, as an operator would; the release's id."""
        bundle = self._folder / f"{model}.zip"
        make_zip(model, bundle)
        # All at once: five cameras that can be looked at need no canary, and nobody likes to wait for a demo.
        choices = ["--to", "tag=demo", "--version", version, "--waves", "100"]
        wish = ["push-model", str(bundle), *choices, "--yes"]
        self._command(f"fleetctl push-model {bundle.name} {' '.join(choices)}")
        state = self._folder / "state"
        environment = {
            **os.environ,
            "FLEETCTL_URL": self._daemon.url,
            "FLEETCTL_TOKEN_FILE": str(state / "admin.token"),
            "NO_COLOR": "1",
        }
        with subprocess.Popen(
            [sys.executable, "-m", "fleetd.cli", *wish, "--key", str(self._key)], env=environment
        ) as fleetctl:
            deadline = time.monotonic() + PUSH_SECONDS
            while fleetctl.poll() is None:
                if self._stopping.wait(0.1) or time.monotonic() > deadline:
                    fleetctl.terminate()
                    raise DemoFailedError(f"pushing {model} took longer than {PUSH_SECONDS} s")
        if fleetctl.returncode != 0:
            raise DemoFailedError(f"fleetctl push-model ended with {fleetctl.returncode}")
        return max(self._daemon.ota.releases(), key=lambda release: (release.epoch, release.sequence)).id

    def _online(self) -> int:
        return sum(view.presence == "online" for view in self._daemon.registry.cameras())

    def _wait_frames(self, release: str) -> None:
        self._say(f"The cameras classify with {release} ...")

        def done() -> bool:
            return all(self._seen(name, release) >= FRAMES for name in self._names)

        self._wait(done, READY_SECONDS + FRAMES * INTERVAL_MS / 1000, f"{FRAMES} results per camera")

    def _seen(self, camera: str, release: str) -> int:
        counts = self._daemon.registry.label_counts(camera=camera, since=0)
        return sum(row["count"] for row in counts if row["release_id"] == release)

    def _show(self, cameras: Sequence["VirtualCamera"], *releases: str) -> None:
        table = Table(title="Right answers, counted from the database")
        table.add_column("camera")
        for release in releases:
            table.add_column(release, justify="right")
        table.add_column(f"what it saw with {releases[-1]}")
        totals: dict[str, Score] = dict.fromkeys(releases, Score(0, 0))
        for camera in cameras:
            rows = self._daemon.registry.results(camera=camera.name, limit=1000)
            cells = []
            for release in releases:
                own = [row for row in rows if row["release_id"] == release]
                right = sum(camera.truth(row["boot"], row["frame"]) == row["label"] for row in own)
                score = Score(right, len(own))
                totals[release] = Score(totals[release].right + right, totals[release].seen + len(own))
                cells.append(str(score))
            seen = Counter(row["label"] for row in rows if row["release_id"] == releases[-1])
            shown = ", ".join(f"{count} {label}" for label, count in sorted(seen.items()))
            table.add_row(camera.name, *cells, shown)
        table.add_section()
        table.add_row("all", *(str(totals[release]) for release in releases), "")
        self._console.print(table)

    def _stay(self, state: Path) -> None:
        self._say("The fleet keeps running until Ctrl-C. Try, in another terminal:")
        self._command(f"export FLEETD_STATE_DIR={state}")
        for words in (
            "status",
            "cameras list",
            "results --limit 5",
            "rollouts show 2",
            "commands send demo-1 identify",
        ):
            self._command(f"fleetctl {words}")
        while not self._stopping.wait(BEAT_SECONDS):
            counts = self._daemon.registry.counts()
            self._say(f"{self._online()} online, {counts['results']} results stored")

    def _wait(self, condition: Callable[[], bool], seconds: float, what: str) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            if self._stopping.wait(0.2):
                raise DemoFailedError("stopped")
            if time.monotonic() > deadline:
                raise DemoFailedError(f"waited {seconds:.0f} s for {what}")

    def _say(self, text: str) -> None:
        self._console.print(text, markup=False, soft_wrap=True)

    def _command(self, text: str) -> None:
        self._console.print(f"  $ {text}", style="bold", markup=False, soft_wrap=True)


def _preferred_port(port: int) -> int:
    """`port` when it is free, else 0: any."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return 0
    return port
