"""A real PostgreSQL for tests: its own folder, its own socket, no port, always ended with the test run.

    def test_something(postgres: Postgres) -> None:
        url = postgres.new_database()
        postgres.kill()        # as a power cut would
        postgres.start()       # the same data

The server refuses to run as root; started by root it runs as another user of this machine.
"""

import contextlib
import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import psycopg
import pytest

from fleetd.store import migrate
from fleetd.store.engine import SqlStore
from tests.brokers import ROOT

START_TIMEOUT = 60.0
# Debian keeps the server's programs out of the PATH.
_FOLDERS = (ROOT / ".tools" / "bin", *sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True))
_numbers = itertools.count(1)


def program(name: str) -> str:
    """A program of PostgreSQL: from .tools, from this machine, or the test fails and says what to do."""
    folders = [*map(str, _FOLDERS), os.environ.get("PATH", "")]
    if elsewhere := os.environ.get("FLEETD_TOOLS"):
        folders.insert(0, f"{elsewhere}/bin")
    found = shutil.which(name, path=os.pathsep.join(folders))
    if found is None:
        pytest.fail(f"PostgreSQL's {name} is not here; `make tools` fetches it", pytrace=False)
    return found


def _somebody() -> dict[str, Any]:
    """Arguments of Popen that make root run a program as an ordinary user."""
    if os.geteuid() != 0:
        return {}
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            user = pwd.getpwnam(name)
            return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    return {"user": 65534, "group": 65534, "extra_groups": []}


class Postgres:
    """A PostgreSQL server. `settings` are `name=value` for it; by default it does not wait for the disk."""

    def __init__(self, *settings: str) -> None:
        # Not below pytest's folders: those are closed to other users, and a socket's path must be short.
        self.folder = Path(tempfile.mkdtemp(prefix="fleetd-pg-"))
        self._as = _somebody()
        self._data = self.folder / "data"
        self._settings = settings or ("fsync=off", "synchronous_commit=off", "full_page_writes=off")
        self._process: subprocess.Popen[bytes] | None = None
        self.log = self.folder / "log"
        self._template: str | None = None
        if self._as:
            os.chown(self.folder, self._as["user"], self._as["group"])

    def start(self) -> None:
        """Makes the data folder at the first start; returns when the server answers."""
        if not self._data.exists():
            words = [program("initdb"), "-D", str(self._data), "-U", "fleet", "-A", "trust", "-E", "UTF8"]
            self._run([*words, "--locale=C", "--no-sync"])
        options = [f"unix_socket_directories={self.folder}", "listen_addresses=", "max_connections=60"]
        words = [program("postgres"), "-D", str(self._data)]
        for option in (*options, *self._settings):
            words += ["-c", option]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                words, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log, **self._as
            )
        deadline = time.monotonic() + START_TIMEOUT
        while True:
            with contextlib.suppress(psycopg.OperationalError):
                self._admin("SELECT 1")
                return
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"PostgreSQL did not start:\n{self.log.read_text(errors='replace')}")
            time.sleep(0.05)

    def _run(self, words: Sequence[str]) -> None:
        done = subprocess.run(
            words, cwd=self.folder, capture_output=True, text=True, check=False, timeout=120, **self._as
        )
        assert done.returncode == 0, f"{words[0]}: {done.stderr}{done.stdout}"

    def url(self, database: str = "postgres") -> str:
        """What fleetd takes as its `database` setting."""
        return f"postgresql+psycopg://fleet@/{database}?host={self.folder}"

    def _admin(self, statement: str) -> None:
        where = f"host={self.folder} user=fleet dbname=postgres"
        with psycopg.connect(where, autocommit=True) as connection:
            connection.execute(statement)

    def new_database(self) -> str:
        """The URL of a fresh, empty database."""
        name = f"fleet_{next(_numbers)}"
        self._admin(f"CREATE DATABASE {name}")
        return self.url(name)

    def migrated_database(self) -> str:
        """The URL of a database with the newest schema and nothing in it."""
        if self._template is None:
            url = self.new_database()
            store = SqlStore(url)
            migrate.upgrade(store)
            store.close()
            self._template = str(store.url.database)
        name = f"fleet_{next(_numbers)}"
        self._admin(f"CREATE DATABASE {name} TEMPLATE {self._template}")
        return self.url(name)

    @property
    def pid(self) -> int:
        """The server's main process."""
        assert self._process is not None
        return self._process.pid

    def kill(self) -> None:
        """SIGKILL of the main process: the others notice and end, nothing is written."""
        self._end(signal.SIGKILL)
        while pids := self._backends():  # they hold the data folder
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.02)

    def stop(self) -> None:
        """SIGINT: connections are cut, everything is written."""
        self._end(signal.SIGINT)

    def restart(self, *, crash: bool = False) -> None:
        """Stops (or crashes) it and starts it again with the same data."""
        if crash:
            self.kill()
        else:
            self.stop()
        self.start()

    def _backends(self) -> list[int]:
        """Processes that still work in our data folder."""
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if (entry / "cwd").readlink() == self._data:
                    found.append(int(entry.name))
        return found

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is not None:
            with process:
                process.send_signal(how)
                try:
                    process.wait(START_TIMEOUT)
                except BaseException:
                    process.kill()
                    raise

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)
