"""Kills landing, housekeeping and migrations at every system call that writes, and makes those calls fail.

    python -m tests.faults.syscalls --seconds 600 --seed 7

The work runs in a forked child under strace, which ends it (SIGKILL) just before its k-th call, or lets that call fail
(disk full, input/output error), for k = 1, 2, ... until a run comes to its end. After each the database is opened as a
restart would, everything is said again as cameras do, and the checker looks at it.
"""

import argparse
import contextlib
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event

from fleetd import logs
from fleetd.errors import StoreError
from fleetd.simulator.thin import Truth
from fleetd.store import chunks, migrate, tables
from fleetd.store.engine import SqlStore
from fleetd.store.landing import Arrival, Landing
from fleetd.upkeep import DAY_S, Keeping, Upkeep
from tests.brokers import ROOT
from tests.faults.checker import check

CALLS = ("pwrite64", "fdatasync", "fsync", "ftruncate", "unlink", "rename")
ERRORS = ("ENOSPC", "EIO")
CAMERAS = 6
NOW = 2_000_000_000.0
OLD = NOW - 200 * DAY_S


def strace() -> str | None:
    """The program, from .tools or this machine."""
    return shutil.which("strace", path=f"{ROOT / '.tools' / 'bin'}{os.pathsep}{os.environ['PATH']}")


def works() -> bool:
    """Whether this machine lets a process trace another."""
    program = strace()
    if program is None:
        return False
    done = subprocess.run([program, "-qq", "-e", "trace=none", "true"], capture_output=True, check=False)
    return done.returncode == 0


def open_store(file: Path) -> SqlStore:
    """The database with frequent checkpoints, so that their writes are cut too."""
    store = SqlStore(f"sqlite:///{file}")

    def often(connection: sqlite3.Connection, _record: object) -> None:
        connection.execute("PRAGMA wal_autocheckpoint=8")

    event.listen(store.engine, "connect", often)
    return store


def messages(chance: random.Random, at: float) -> list[list[Arrival]]:
    """Some batches: results, telemetry and statuses of a few cameras, with repeats among them."""
    batches: list[list[Arrival]] = []
    seqs = [0] * CAMERAS
    for _ in range(5):
        batch = []
        for _ in range(chance.randint(3, 12)):
            camera = chance.randrange(CAMERAS)
            seqs[camera] += 1
            body: dict[str, Any] = {
                "boot": f"{camera:016x}",
                "seq": seqs[camera],
                "up_ms": seqs[camera] * 1000,
            }
            kind = chance.choice(("result", "result", "result", "telemetry", "status"))
            if kind == "result":
                body["results"] = [{"label": f"n{seqs[camera]}", "score": 0.5}]
            elif kind == "status":
                body["online"] = True
            batch.append(Arrival(f"cam-{camera}", kind, "", body, at, retained=False))
        batches.append(batch + chance.sample(batch, 1))
    return batches


def truths(batches: list[list[Arrival]], acknowledged: int) -> list[Truth]:
    """What cameras know once the first so many batches were acknowledged."""
    found = {n: Truth(f"cam-{n}", f"{n:016x}") for n in range(CAMERAS)}
    for number, batch in enumerate(batches):
        for arrival in batch:
            truth = found[int(arrival.camera[4:])]
            if arrival.channel == "result":
                truth.sent[arrival.body["seq"]] = arrival.body["results"][0]["label"]
            if number < acknowledged:
                truth.receipted.add(arrival.body["seq"])
    return list(found.values())


class Work:
    """Something to be interrupted. `do` says one byte for each piece that it promises to be safe."""

    def prepare(self, file: Path, chance: random.Random) -> None:
        """Makes the database."""
        raise NotImplementedError

    def do(self, file: Path, promise: Callable[[], None]) -> None:
        """The work itself, in the child."""
        raise NotImplementedError

    def verify(self, file: Path, promised: int) -> list[str]:
        """Violations, after a restart."""
        raise NotImplementedError


class LandingWork(Work):
    """Messages are landed; a failed batch is tried again, as the writer thread does."""

    def prepare(self, file: Path, chance: random.Random) -> None:
        store = open_store(file)
        migrate.upgrade(store)
        with store.transaction() as work:
            for number in range(CAMERAS):
                work.cameras.add(f"cam-{number}", None, 0.0)
        store.close()
        self.batches = messages(chance, NOW)

    def do(self, file: Path, promise: Callable[[], None]) -> None:
        landing = Landing(open_store(file))
        for batch in self.batches:
            for _ in range(5):
                try:
                    landing.write(batch)
                except StoreError:
                    continue
                promise()
                break
            else:
                raise AssertionError("one failed call makes the database unusable")

    def verify(self, file: Path, promised: int) -> list[str]:
        store = open_store(file)
        first = check(store, truths(self.batches, promised))
        landing = Landing(store)
        for batch in self.batches:  # what has no receipt is repeated, and some that has
            landing.write(batch)
        last = check(store, truths(self.batches, len(self.batches)))
        store.close()
        return first.violations + last.violations


class UpkeepWork(Work):
    """Old rows become sums."""

    def prepare(self, file: Path, chance: random.Random) -> None:
        store = open_store(file)
        migrate.upgrade(store)
        with store.transaction() as work:
            for number in range(CAMERAS):
                work.cameras.add(f"cam-{number}", None, 0.0)
        landing = Landing(store)
        self.results = 0
        for batch in messages(chance, OLD):
            self.results += len(
                {a.body["seq"] * 10 + int(a.camera[4:]) for a in batch if a.channel == "result"}
            )
            landing.write(batch)
            landing._chunks = chunks.NONE  # every batch in a chunk of its own
        store.close()

    def do(self, file: Path, promise: Callable[[], None]) -> None:
        upkeep = Upkeep(open_store(file), lambda: NOW, Keeping(raw_days=90))
        for _ in range(20):
            with contextlib.suppress(StoreError):
                if not upkeep.step():
                    promise()
                    return
        raise AssertionError("housekeeping never comes to an end")

    def verify(self, file: Path, promised: int) -> list[str]:
        store = open_store(file)
        found = []
        for moment in ("after the restart", "at the end"):
            with store.reading() as work:
                counted = sum(row["count"] for row in work.history.labels(camera=None, since=0.0))
            if counted != self.results:
                found.append(f"{counted} of {self.results} results are counted {moment}")
            self.do(file, lambda: None)
        with store.connect(write=False) as connection:
            left = connection.execute(sa.select(sa.func.count()).select_from(tables.results)).scalar_one()
            whole = connection.exec_driver_sql("PRAGMA integrity_check").scalar()
        store.close()
        return [
            *found,
            *([f"{left} old rows are left"] if left else []),
            *([str(whole)] if whole != "ok" else []),
        ]


class MigrationWork(Work):
    """A database of the first schema is brought to the newest."""

    def prepare(self, file: Path, chance: random.Random) -> None:
        store = open_store(file)
        migrate.upgrade(store, "0001")
        self.rows = chance.randint(50, 300)
        with store.connect(write=True) as connection:
            connection.execute(sa.text("INSERT INTO cameras (id, name, created_at) VALUES (1, 'cam-1', 0)"))
            connection.execute(
                sa.text(
                    "INSERT INTO results (camera_id, boot_id, seq, at, received_at, n, label, score) "
                    "VALUES (1, 1, :n, :n, :n, 0, 'ball', 0.5)"
                ),
                [{"n": n} for n in range(self.rows)],
            )
        store.close()

    def do(self, file: Path, promise: Callable[[], None]) -> None:
        for _ in range(3):
            with contextlib.suppress(StoreError):
                migrate.upgrade(open_store(file))
                promise()
                return
        raise AssertionError("one failed call makes migrating impossible")

    def verify(self, file: Path, promised: int) -> list[str]:
        store = open_store(file)
        if promised and migrate.current_revision(store) != migrate.newest_revision():
            return ["the migration was reported as done, and is not there"]
        if migrate.current_revision(store) not in ("0001", migrate.newest_revision()):
            return [f"the schema is half way, at {migrate.current_revision(store)}"]
        migrate.upgrade(store)
        with store.reading() as work:
            rows = work.history.results(camera="cam-1", since=None, until=None, label=None, limit=1000)
        found = [] if len(rows) == self.rows else [f"{len(rows)} of {self.rows} rows are there"]
        found += [str(difference) for difference in migrate.differences(store)]
        store.close()
        return found


WORKS: dict[str, Callable[[], Work]] = {
    "landing": LandingWork,
    "upkeep": UpkeepWork,
    "migration": MigrationWork,
}


def promise(pipe: int) -> None:
    """Says that another piece is safe, to whom the pipe belongs."""
    os.write(pipe, b".")


def _run_traced(work: Work, file: Path, injection: str) -> tuple[int, int]:
    """Does the work in a child under strace: how it ended (negative: the signal), and how much it promised."""
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        code = 3
        try:
            os.close(reading)
            while b"TracerPid:\t0\n" in Path("/proc/self/status").read_bytes():
                time.sleep(0.001)
            work.do(file, lambda: promise(writing))
            code = 0
        except BaseException:  # noqa: BLE001  # its exit code says so
            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(writing)
    traced = f"trace={injection.partition(':')[0]}"
    words = [str(strace()), "-qq", "-f", "-p", str(pid), "-e", traced, "-e", f"inject={injection}"]
    tracer = subprocess.Popen([*words, "-o", "/dev/null"], stderr=subprocess.DEVNULL)
    with tracer:
        _, status = os.waitpid(pid, 0)
    with os.fdopen(reading, "rb") as said:
        return os.waitstatus_to_exitcode(status), len(said.read())


def injections(call: str) -> Iterator[tuple[str, str]]:
    """Kinds of faults for a call: a name, and strace's words for it without the `when`."""
    yield "kill", f"{call}:signal=SIGKILL"
    if call in ("pwrite64", "fdatasync", "fsync"):
        for error in ERRORS:
            yield error, f"{call}:error={error}"


def walk(
    name: str, folder: Path, chance: random.Random, *, every: int = 1, until: float = float("inf")
) -> tuple[Counter[str], list[str]]:
    """One piece of work, interrupted at every call of every kind (or at every so many): counts and violations."""
    work = WORKS[name]()
    original = folder / f"{name}.db"
    work.prepare(original, chance)
    counts: Counter[str] = Counter()
    violations: list[str] = []
    for call in CALLS:
        for kind, words in injections(call):
            for when in range(1 + chance.randrange(every), 100_000, every):
                if time.monotonic() > until:
                    return counts, violations
                file = folder / "work.db"
                for old in folder.glob("work.db*"):
                    old.unlink()
                shutil.copy(original, file)
                ended, promised = _run_traced(work, file, f"{words}:when={when}")
                if ended == 0 and kind == "kill":
                    break  # there are not that many calls
                if ended not in (0, -signal.SIGKILL):
                    violations.append(f"{name}, {words}:when={when}: ended with {ended}")
                counts[kind] += 1
                found = work.verify(file, promised)
                violations += [f"{name}, {words}:when={when}: {one}" for one in found]
                if kind != "kill" and when > counts[f"most {call}"]:
                    break
                if kind == "kill":
                    counts[f"most {call}"] = when
    return counts, violations


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    options = parser.parse_args()
    logs.configure(level="error")
    if not works():
        print(
            "System calls cannot be traced here (strace is missing, or ptrace is forbidden): nothing was done."
        )
        return 1
    chance = random.Random(options.seed)
    began = time.monotonic()
    total: Counter[str] = Counter()
    violations: list[str] = []
    rounds = 0
    while time.monotonic() < began + options.seconds and not violations:
        for name in WORKS:
            with tempfile.TemporaryDirectory(prefix="fleetd-syscalls-") as folder:
                counts, found = walk(name, Path(folder), chance, until=began + options.seconds)
            total += Counter({kind: n for kind, n in counts.items() if not kind.startswith("most")})
            violations += found
        rounds += 1
    print(
        f"seed {options.seed}: {total['kill']} kills at system calls, "
        + ", ".join(f"{total[error]} times {error}" for error in ERRORS)
        + f", {rounds} rounds in {time.monotonic() - began:.0f} s, {len(violations)} violations"
    )
    for one in violations[:20]:
        print(f"  {one}")
    return 1 if violations else 0


if __name__ == "__main__":
    raise SystemExit(main())
