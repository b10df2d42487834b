"""The `fleetd ingest` processes of one `fleetd serve`: started, watched, started again when they die."""

import contextlib
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from fleetd.logs import get_logger

log = get_logger(__name__)

LOOK_SECONDS = 0.2
AGAIN_SECONDS = (0.5, 30.0)  # pause before a worker that died is started again; doubles while it dies at once
GOOD_AFTER_SECONDS = 10.0
STOP_SECONDS = 20.0


class _Worker:
    def __init__(self, name: str, command: Sequence[str]) -> None:
        self.name = name
        self.restarts = -1
        self._command = [*command, "--name", name]
        self._process: subprocess.Popen[bytes] | None = None
        self._began = 0.0
        self._next_at = 0.0
        self._pause = AGAIN_SECONDS[0]

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def look(self, now: float) -> None:
        """Starts it when it is due."""
        process = self._process
        if process is not None:
            if (code := process.poll()) is None:
                return
            self._process = None
            process.communicate()  # closes our end of its pipe
            good = now - self._began > GOOD_AFTER_SECONDS
            self._pause = AGAIN_SECONDS[0] if good else min(self._pause * 2, AGAIN_SECONDS[1])
            self._next_at = now + self._pause
            log.warning("worker_died", worker=self.name, code=code, again_in_s=self._pause)
        if now >= self._next_at:
            self._began = now
            self.restarts += 1
            # It ends when our end of this pipe does: one that outlived us would have its successor's client id.
            self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE)

    def end(self, *, now: bool) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                (self._process.kill if now else self._process.terminate)()

    def wait(self, timeout: float) -> None:
        if self._process is None:
            return
        try:
            self._process.wait(max(0.1, timeout))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class Workers:
    """So many processes that land messages."""

    def __init__(self, count: int, config: Path | None) -> None:
        command = [sys.executable, "-m", "fleetd.cli.daemon", "ingest", "--follow"]
        if config is not None:
            command += ["--config", str(config)]
        self._workers = [_Worker(str(number + 1), command) for number in range(count)]
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="workers", daemon=True)

    def start(self) -> None:
        """Starts all of them; does not wait."""
        self._thread.start()

    def stop(self) -> None:
        """Lets each store what it has, then ends it."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()
        for worker in self._workers:
            worker.end(now=False)
        deadline = time.monotonic() + STOP_SECONDS
        for worker in self._workers:
            worker.wait(deadline - time.monotonic())

    def state(self) -> list[Mapping[str, object]]:
        """For the status: name, process id (None: not running), how often it was started again."""
        return [
            {"name": worker.name, "pid": worker.pid, "restarts": max(0, worker.restarts)}
            for worker in self._workers
        ]

    def _watch(self) -> None:
        while not self._stopping.is_set():
            for worker in self._workers:
                try:
                    worker.look(time.monotonic())
                except OSError as error:
                    log.warning("worker_not_started", worker=worker.name, error=str(error))
            self._stopping.wait(LOOK_SECONDS)
