"""fleetd as a process of its own, to be killed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Self

import sqlalchemy as sa

from fleetd.domain.passwords import password_hash
from fleetd.embedded import end_left_behind
from fleetd.store import migrate, tables
from fleetd.store.engine import SqlStore
from tests.brokers import ROOT

PASSWORD = "of every camera here"


class FleetProcess:
    """`fleetd serve` on one folder. It may be killed and started as often as one likes."""

    def __init__(self, folder: Path, **settings: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.log = folder / "fleetd.log"
        self._settings = settings
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts it; does not wait."""
        environment = {
            **os.environ,
            "PATH": f"{ROOT / '.tools' / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "FLEETD_STATE_DIR": str(self.folder / "state"),
            "FLEETD_HTTP__PORT": "0",
            "FLEETD_LANDING__RECEIPT_SECONDS": "0.3",
            **self._settings,
        }
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "fleetd.cli.daemon", "serve"],
                cwd=self.folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    @property
    def running(self) -> bool:
        """Whether the process is alive."""
        return self._process is not None and self._process.poll() is None

    def kill(self) -> None:
        """SIGKILL: nothing is tidied up."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        return self._end(signal.SIGTERM)

    @property
    def pid(self) -> int | None:
        """Process id while it runs."""
        return self._process.pid if self._process is not None else None

    def send(self, number: signal.Signals) -> None:
        """Sends it a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    def children(self) -> list[int]:
        """Process ids of its workers."""
        if self._process is None:
            return []
        tasks = Path(f"/proc/{self._process.pid}/task").glob("*/children")
        return [int(pid) for task in tasks for pid in task.read_text().split()]

    def _end(self, how: signal.Signals) -> int:
        process, self._process = self._process, None
        if process is None:
            return 0
        with process:
            process.send_signal(how)
            try:
                return process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                raise

    def log_text(self) -> str:
        """Everything it has said so far."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.running:
            self.kill()
        end_left_behind(self.folder / "state" / "broker")


class Database:
    """The database from outside, while fleetd has it open."""

    def __init__(self, folder: Path) -> None:
        self._store = SqlStore(f"sqlite:///{folder}/state/fleet.db")

    def enrol(self, *names: str) -> None:
        """Makes the schema and the cameras."""
        migrate.upgrade(self._store)
        with self._store.transaction() as work:
            for name in names:
                work.cameras.add(name, None, time.time(), mqtt_hash=password_hash(PASSWORD, b"twelve bytes"))

    def numbers(self, camera: str) -> list[int]:
        """Every stored number of one camera, repeats included."""
        query = (
            sa.select(tables.results.c.label)
            .join(tables.cameras, tables.cameras.c.id == tables.results.c.camera_id)
            .where(tables.cameras.c.name == camera)
        )
        with self._store.connect(write=False) as connection:
            return [int(label) for label in connection.execute(query).scalars()]

    def count(self) -> int:
        """How many results are stored."""
        with self._store.connect(write=False) as connection:
            query = sa.select(sa.func.count()).select_from(tables.results)
            return int(connection.execute(query).scalar_one())

    def integrity(self) -> str:
        """What SQLite thinks of the file."""
        with self._store.connect(write=False) as connection:
            return str(connection.execute(sa.text("PRAGMA integrity_check")).scalar_one())

    def close(self) -> None:
        """Closes the file."""
        self._store.close()
