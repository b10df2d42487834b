"""`fleetd doctor`: is everything as it should be, and if not, what to do. Looks only; works beside a running fleetd."""

import json
import os
import resource
import shutil
import socket
import stat
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from fleetd.domain.presence import PresenceRules, presence
from fleetd.errors import FleetError, StoreError
from fleetd.settings import Settings
from fleetd.store import migrate
from fleetd.store.engine import SqlStore

Level = Literal["ok", "note", "bad"]
LEAST_FREE_BYTES = 500_000_000
LEAST_FREE_SHARE = 0.05
LEAST_FILES = 4096
CLOCK_S = 5.0  # of difference to the database server's clock
ANSWER_SECONDS = 3.0
NOT_BEFORE = 1_735_689_600.0  # 2025: an older clock was never set
SYNCHRONIZED = Path("/run/systemd/timesync/synchronized")
PRIVATE = 0o077


class Finding(NamedTuple):
    """One line of the report. `do` says what to do, when there is something."""

    about: str
    level: Level
    said: str
    do: str = ""


def examine(settings: Settings) -> list[Finding]:
    """Everything there is to say, in the order of importance for someone whose fleet does not work."""
    found: list[Finding] = []
    for look in (_service, _broker, _database, _disk, _clock, _limits, _files):
        try:
            found += look(settings)
        except (FleetError, OSError) as error:
            found.append(
                Finding(look.__name__.strip("_"), "bad", str(error), "See the message; nothing was changed.")
            )
    return found


def _service(settings: Settings) -> Iterator[Finding]:
    file = settings.state_dir / "endpoint.json"
    if not file.exists():
        yield Finding("service", "note", "fleetd has never run with this state_dir", "Start it: fleetd serve")
        return
    url = str(json.loads(file.read_text(encoding="utf-8"))["url"])
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"{url}/readyz", timeout=ANSWER_SECONDS) as answer:
            answer.read(1000)
        yield Finding("service", "ok", f"runs and is ready at {url}")
    except urllib.error.HTTPError as error:
        with error:
            said = json.loads(error.read(10_000) or b"{}").get("waiting_for", [])
        yield Finding(
            "service",
            "bad",
            f"runs at {url}, but waits for: {', '.join(said)}",
            "See below, and `fleetctl status`.",
        )
    except (OSError, ValueError) as error:
        yield Finding(
            "service",
            "bad",
            f"does not answer at {url} ({error})",
            "Start it: fleetd serve; its log says why it ended.",
        )


def _broker(settings: Settings) -> Iterator[Finding]:
    broker = settings.broker
    if broker.host is None:
        yield Finding(
            "broker",
            "note",
            "fleetd's own, on this machine only",
            "For real cameras set broker.host: docs/operating.md",
        )
        return
    try:
        with socket.create_connection((broker.host, broker.port), timeout=ANSWER_SECONDS):
            pass
        yield Finding("broker", "ok", f"{broker.host}:{broker.port} takes connections")
    except OSError as error:
        yield Finding(
            "broker",
            "bad",
            f"{broker.host}:{broker.port} cannot be reached ({error})",
            "Start the broker, or set broker.host and broker.port. Cameras keep their results meanwhile.",
        )


def _open(settings: Settings) -> SqlStore | None:
    """The database; None where there is none yet, which is not made by looking."""
    url = settings.database_url
    if url.startswith("sqlite:///") and not Path(url.removeprefix("sqlite:///")).exists():
        return None
    return SqlStore(url)


def _database(settings: Settings) -> Iterator[Finding]:
    store = _open(settings)
    if store is None:
        yield Finding("database", "note", "there is none yet", "`fleetd serve` makes it.")
        return
    try:
        began = time.monotonic()
        revision = migrate.current_revision(store)
        waited = time.monotonic() - began
        newest = migrate.newest_revision()
        name = store.url.render_as_string(hide_password=True)
        if revision is None:
            yield Finding(
                "database", "note", f"{name} is empty", "`fleetd serve` or `fleetd migrate` fills it."
            )
            return
        if revision != newest:
            do = (
                "Stop fleetd, `fleetd backup FILE`, `fleetd migrate`."
                if revision < newest
                else "Start the newer fleetd."
            )
            yield Finding(
                "database", "bad", f"{name} is at revision {revision}, this fleetd needs {newest}", do
            )
            return
        yield Finding("database", "ok", f"{name}, revision {revision}, answers in {waited * 1000:.0f} ms")
        if store.is_sqlite:
            yield _whole(store)
        yield from _cameras(store, settings)
    except StoreError as error:
        yield Finding("database", "bad", str(error), "Results wait on the broker and on the cameras.")
    finally:
        store.close()


def _whole(store: SqlStore) -> Finding:
    with store.connect(write=False) as connection:
        said = str(connection.exec_driver_sql("PRAGMA quick_check(1)").scalar())
    if said == "ok":
        return Finding("database", "ok", "the file is whole")
    return Finding(
        "database",
        "bad",
        f"the file is damaged: {said}",
        "Stop fleetd and restore a backup: fleetd restore FILE",
    )


def _cameras(store: SqlStore, settings: Settings) -> Iterator[Finding]:
    rules = PresenceRules(settings.presence.late_after, settings.presence.offline_after)
    now = time.time()
    with store.reading() as work:
        cameras = work.cameras.all()
        strangers, letters = len(work.cameras.unknown(1000)), len(work.history.dead_letters(limit=1000))
    count = Counter(
        presence(seen_at=one.seen_at, connected=one.connected, now=now, rules=rules).value for one in cameras
    )
    said = ", ".join(f"{number} {word}" for word, number in sorted(count.items())) or "none enrolled"
    silent = count["offline"] > 0
    do = "`fleetctl incidents list` says why, `fleetctl recover CAMERA` brings one back." if silent else ""
    if not cameras:
        do = "Enrol one: fleetctl cameras add NAME"
    yield Finding("cameras", "note" if do else "ok", said, do)
    if strangers:
        yield Finding(
            "cameras",
            "note",
            f"{strangers} names publish without being enrolled",
            "`fleetctl cameras unknown`",
        )
    if letters:
        yield Finding(
            "cameras", "note", f"{letters} messages could not be understood", "`fleetctl dead-letters`"
        )


def _disk(settings: Settings) -> Iterator[Finding]:
    folder = next(
        path
        for path in (settings.state_dir.absolute(), *settings.state_dir.absolute().parents)
        if path.exists()
    )
    disk = shutil.disk_usage(folder)
    said = f"{disk.free / 1e9:.1f} GB of {disk.total / 1e9:.1f} GB are free at {folder}"
    if disk.free < LEAST_FREE_BYTES or disk.free < disk.total * LEAST_FREE_SHARE:
        yield Finding(
            "disk",
            "bad",
            said,
            "Free space, or keep less: retention.raw_days. Nothing is lost while it is full.",
        )
    else:
        yield Finding("disk", "ok", said)


def _clock(settings: Settings) -> Iterator[Finding]:
    if time.time() < NOT_BEFORE:
        yield Finding(
            "clock",
            "bad",
            "this machine's clock was never set",
            "Start a time service, e.g. systemd-timesyncd.",
        )
        return
    if SYNCHRONIZED.parent.exists() and not SYNCHRONIZED.exists():
        yield Finding("clock", "note", "not synchronized yet", "timedatectl status")
    store = _open(settings)
    try:
        if store is None or store.is_sqlite:
            yield Finding("clock", "ok", time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()))
            return
        with store.connect(write=False) as connection:
            theirs = float(
                connection.exec_driver_sql("SELECT extract(epoch FROM clock_timestamp())").scalar_one()
            )
        apart = theirs - time.time()
        level: Level = "ok" if abs(apart) < CLOCK_S else "bad"
        yield Finding(
            "clock",
            level,
            f"{apart:+.1f} s to the database server's",
            "" if level == "ok" else "Let both machines set their clocks by NTP.",
        )
    finally:
        if store is not None:
            store.close()


def _limits(_settings: Settings) -> Iterator[Finding]:
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= files < LEAST_FILES:
        yield Finding(
            "limits", "note", f"{files} open files", f"LimitNOFILE={LEAST_FILES} in the unit, or ulimit -n"
        )
    else:
        yield Finding("limits", "ok", f"{files} open files")
    if os.geteuid() == 0:
        yield Finding(
            "limits", "note", "runs as root", "Use the unit in deploy/: it runs as a user of its own."
        )


def _files(settings: Settings) -> Iterator[Finding]:
    open_to_others = [
        path.name
        for path in (settings.state_dir, *sorted(settings.state_dir.glob("*")))
        if path.exists()
        and stat.S_IMODE(path.stat().st_mode) & PRIVATE
        and path.suffix not in {".lock", ".leader"}
    ]
    if open_to_others:
        yield Finding(
            "files",
            "bad",
            f"others may read {', '.join(open_to_others[:5])}",
            f"chmod -R go= {settings.state_dir}",
        )
    elif settings.state_dir.exists():
        yield Finding("files", "ok", f"{settings.state_dir} is its owner's only")


def report(found: list[Finding], say: Callable[[str], None]) -> bool:
    """Prints one page; False when something is bad."""
    for one in found:
        say(f"{one.level:>4}  {one.about:9} {one.said}")
        if one.do:
            say(f"{'':16}-> {one.do}")
    return all(one.level != "bad" for one in found)
