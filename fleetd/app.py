"""The only place that builds and wires. Start order, and the same order backwards at the end.

Start: lock the state folder, open and migrate the database, take the HTTP port (a clash shows before anything
runs), broker, landing, connection to the broker, jobs, HTTP. Stop: HTTP, jobs, landing (stores and acknowledges
what it has), connection, broker, database: a stop by signal loses nothing and leaves no work to be repeated.
"""

import contextlib
import fcntl
import json
import secrets
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Self

from fleetd import __version__, notify
from fleetd.access import AccessControl
from fleetd.accountfiles import write_private
from fleetd.accounts import Accounts
from fleetd.broker import SESSION_SECONDS, BrokerLink
from fleetd.brokerhost import BrokerHost
from fleetd.delivery import Delivery
from fleetd.domain.incidents import IncidentRules
from fleetd.domain.presence import PresenceRules
from fleetd.errors import BrokerError, SettingsError, StoreError
from fleetd.freshness import Freshness
from fleetd.incidents import Incidents
from fleetd.ingest import Ingest
from fleetd.jobs import Job, Jobs
from fleetd.logs import get_logger
from fleetd.notices import Notices, Sender
from fleetd.ota import Ota
from fleetd.ports import Inbound
from fleetd.protocol.topics import DaemonTopic, all_up, format_topic
from fleetd.recovery import RecoveryService
from fleetd.registry import Registry
from fleetd.sdnotify import Watchdog
from fleetd.sdnotify import notify as notify_systemd
from fleetd.settings import Settings
from fleetd.store import migrate
from fleetd.store.engine import SqlStore
from fleetd.store.landing import Landed, Landing
from fleetd.store.leader import Leader
from fleetd.tuner import Tuner
from fleetd.upkeep import Keeping, Upkeep
from fleetd.web.app import create_app
from fleetd.web.server import serve
from fleetd.workers import Workers

log = get_logger(__name__)

BROKER_WAIT_SECONDS = 10.0
STUCK_SECONDS = 120.0  # a writer that does nothing for so long, not even waiting, hangs


class Daemon:
    """fleetd with everything it needs. `start()` returns when it works; `stop()` when nothing is left."""

    def __init__(self, settings: Settings, config: Path | None = None) -> None:
        self.settings = settings
        self._config = config  # the file that workers read too
        self.instance = secrets.token_hex(8)
        self.started_at = time.time()
        self._closing = contextlib.ExitStack()
        self._jobs: Jobs | None = None
        self.url = ""
        self._key_serial = 0  # of the newest key record that the broker has

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Starts everything in order; whatever fails, what was started is stopped again."""
        with contextlib.ExitStack() as stack:
            self._start(stack)
            self._closing = stack.pop_all()

    def stop(self) -> None:
        """Stops everything in the opposite order."""
        self._closing.close()

    def _start(self, stack: contextlib.ExitStack) -> None:
        settings = self.settings
        make_private(settings.state_dir)
        stack.enter_context(only_one(settings.state_dir))
        self.store = SqlStore(settings.database_url)
        stack.callback(self.store.close)
        if migrate.upgrade(self.store):
            log.info("database_migrated", revision=migrate.newest_revision())
        rules = PresenceRules(settings.presence.late_after, settings.presence.offline_after)
        self.accounts = Accounts(self.store, time.time, changed=self._accounts_changed)
        self.registry = Registry(
            self.store,
            time.time,
            rules=rules,
            wake=self._wake_delivery,
            accounts_changed=self._accounts_changed,
        )
        self.ota = Ota(
            self.store, time.time, wake=self._wake_delivery, rules=rules, listening=lambda: self.link.ready
        )
        self.access = AccessControl(self.store, time.time)
        senders = self._senders()
        self.incidents = Incidents(
            self.store,
            rules=IncidentRules(
                silence_s=settings.incidents.silence_after,
                clear_s=settings.incidents.clear_after,
                site_least=settings.incidents.site_least,
                site_share=settings.incidents.site_share,
            ),
            presence=rules,
            channels=tuple(senders),
            listening=lambda: self.link.ready,
            wake=self._wake_notices,
        )
        self.notices = Notices(self.store, senders)
        self.recovery = RecoveryService(self.store, presence=rules)
        self.freshness = Freshness(self.store, time.time)
        api = create_app(
            self.registry,
            self.ota,
            self.access,
            self.incidents,
            self.recovery,
            self.freshness,
            self.accounts,
            Tuner(self.store, time.time, rules=rules, wake=self._wake_delivery),
            status=self.status,
            allowed_hosts=_allowed_hosts(settings),
        )
        http = serve(api, settings.http.host, settings.http.port)
        stack.callback(http.stop)
        self.url = http.url

        self.host = BrokerHost(settings, self.accounts, later=self._wake_accounts)
        self.host.start()
        stack.callback(self.host.stop)
        landing = Landing(self.store)
        self.workers: Workers | None = None
        if settings.landing.workers:
            if self.host.running is not None:
                raise SettingsError(
                    "landing.workers needs a broker of your own (broker.host): fleetd's serves one process."
                )
            self.workers = Workers(settings.landing.workers, self._config)
            stack.callback(self.workers.stop)
        status_topic = format_topic(DaemonTopic("status"), settings.prefix)
        self.link = BrokerLink(
            host=self.host.host,
            port=self.host.port,
            client_id=settings.broker.client_id,
            subscribe=status_topic if self.workers else all_up(settings.prefix),
            session_seconds=0 if self.workers else SESSION_SECONDS,
            receive=self._receive,
            connected=self._broker_connected,
            will=(status_topic, self._own_status(online=False)),
            username=self.host.username,
            password=self.host.password,
            tls=settings.broker.tls and self.host.running is None,
            ca_file=settings.broker.ca_file,
            version="3.1.1" if self.host.kind == "amqtt" else "5.0",
        )
        self.ingest = Ingest(
            landing,
            self.link,
            prefix=settings.prefix,
            receipt_seconds=settings.landing.receipt_seconds,
            landed=self._landed,
        )
        self.delivery = Delivery(self.store, self.link, time.time, settings.prefix, self._announce_keys)
        self.ingest.start()
        stack.callback(self.link.stop, (status_topic, self._own_status(online=False)))
        stack.callback(self.ingest.stop)
        self.link.start()
        if not self.link.wait_ready(BROKER_WAIT_SECONDS):
            if self.host.running is not None:
                raise BrokerError(f"fleetd's own broker does not let it in: {self.link.last_error}")
            log.warning("broker_not_reached", broker=self.link.address, reason=self.link.last_error)
        if self.workers is not None:
            self.workers.start()
        leader = Leader(self.store)
        stack.callback(leader.close)
        self._jobs = Jobs(
            [
                Job("rollouts", 1.0, self.ota.process),
                Job("delivery", 1.0, self._deliver),
                Job("incidents", 5.0, self.incidents.process),
                Job("notices", 5.0, self.notices.process),
                Job("upkeep", 60.0, Upkeep(self.store, time.time, Keeping(**dict(settings.retention))).step),
                Job("accounts", 1.0, self.host.step),
                Job("certificate", 3600.0, self.host.renew),
            ],
            leader.leads,
        )
        self._jobs.start()
        stack.callback(self._jobs.stop)
        self._write_entry_points()
        http.start()
        stack.callback(
            http.stop
        )  # first to stop; the earlier entry only gives the port back after a failed start
        log.info("fleetd_started", version=__version__, http=self.url, mqtt=self.link.address)

    def _write_entry_points(self) -> None:
        """What `fleetctl` on this machine needs: the address, and the first admin token when it is made."""
        folder = self.settings.state_dir
        write_private(folder / "endpoint.json", json.dumps({"url": self.url}) + "\n")
        file = folder / "admin.token"
        if self.access.make_first_admin(lambda secret: write_private(file, secret + "\n")):
            log.info("first_admin", note="its key is in the file", file=str(file))

    def status(self) -> Mapping[str, Any]:
        """What fleetd knows about itself, for people and probes."""
        problems = []
        if not self.link.ready:
            problems.append(f"MQTT broker at {self.link.address}: {self.link.last_error or 'not connected'}")
        problems += [f"MQTT broker at {self.link.address}: {what}" for what in self.link.shortcomings]
        if self.ingest.trouble:
            problems.append(f"database: {self.ingest.trouble}")
        if self._jobs is not None:
            problems += [f"job {name}: {error}" for name, error in self._jobs.failures.items()]
        try:
            counts: Mapping[str, int] = self.registry.counts()
        except StoreError as error:
            counts = {}
            problems.append(f"database: {error}")
        return {
            "version": __version__,
            "ok": not problems,
            "problems": problems,
            "instance": self.instance,
            "uptime_s": round(time.time() - self.started_at, 1),
            "database": self.store.url.render_as_string(hide_password=True),
            "broker": {
                "kind": self.host.kind,
                "address": self.link.address,
                "for_cameras": self.host.for_cameras(),
                "connected": self.link.ready,
                "mqtt": self.link.version,
                "connects": self.link.connects,
            },
            "prefix": self.settings.prefix,
            "landing": dict(self.ingest.health()),
            "workers": self.workers.state() if self.workers is not None else [],
            "counts": dict(counts),
        }

    def _own_status(self, *, online: bool) -> bytes:
        body: dict[str, Any] = {"online": online, "instance": self.instance, "version": __version__}
        if online and self._key_serial:
            body["keys"] = self._key_serial
        return json.dumps(body, separators=(",", ":")).encode()

    def _broker_connected(self, session_present: bool) -> None:
        """Every connection may be to a broker that has forgotten everything.

        When it has forgotten our session, what cameras published meanwhile is gone: a new instance tells them
        to repeat what they hold.
        """
        if not session_present and self.link.connects > 1:
            self.instance = secrets.token_hex(8)
        with contextlib.suppress(BrokerError):  # it went away again: the next connection says it
            self._say_online()
        self.delivery.broker_connected(secrets.token_hex(8))
        self._wake_delivery()

    def _announce_keys(self, serial: int) -> None:
        self._key_serial = serial
        self._say_online()

    def _say_online(self) -> None:
        topic = format_topic(DaemonTopic("status"), self.settings.prefix)
        self.link.publish(topic, self._own_status(online=True), retain=True)

    def _receive(self, batch: Sequence[Inbound]) -> None:
        if self.workers is not None:  # our own words, which we subscribe to for the sake of a subscription
            self.link.acknowledge(batch)
            return
        self.ingest.receive(batch)

    def _landed(self, landed: Landed) -> None:
        if landed.nonces:
            self.freshness.answer(landed.nonces, self.link, self.settings.prefix)
        if landed.updates and self._jobs is not None:
            self._jobs.wake("rollouts")

    def _wake_delivery(self) -> None:
        if self._jobs is not None:
            self._jobs.wake("delivery")

    def _wake_notices(self) -> None:
        if self._jobs is not None:
            self._jobs.wake("notices")

    def _senders(self) -> dict[str, Sender]:
        """Who is told of incidents, by channel."""
        wanted, found = self.settings.notify, dict[str, Sender]()
        if wanted.mqtt:
            found["mqtt"] = self._publish_notice
        if wanted.webhook is not None:
            secret = wanted.webhook_secret
            found["webhook"] = notify.webhook(
                wanted.webhook, None if secret is None else secret.get_secret_value()
            )
        if wanted.mail_to and wanted.smtp_host is not None:
            found["email"] = notify.email(
                wanted.smtp_host,
                wanted.smtp_port,
                security=wanted.smtp_security,
                user=wanted.smtp_user,
                password=wanted.mail_secret(),
                sender=wanted.mail_from,
                to=wanted.mail_to,
            )
        return found

    def _publish_notice(self, notice: Mapping[str, Any]) -> None:
        notify.mqtt(self.link, self.settings.prefix)(notice)

    def _wake_accounts(self) -> None:
        if self._jobs is not None:
            self._jobs.wake("accounts")

    def _accounts_changed(self, urgent: bool) -> None:
        self.host.changed(urgent)

    def _deliver(self) -> bool:
        return self.link.ready and self.delivery.step()


def run(settings: Settings, stopping: threading.Event, config: Path | None = None) -> None:
    """Runs fleetd until `stopping` is set."""
    with Daemon(settings, config) as daemon:
        watchdog = Watchdog(lambda: daemon.ingest.alive(STUCK_SECONDS))
        watchdog.start()
        notify_systemd("READY=1")
        stopping.wait()
        notify_systemd("STOPPING=1")
        log.info("fleetd_stopping")
        watchdog.stop()
    log.info("fleetd_stopped")


def _allowed_hosts(settings: Settings) -> list[str]:
    return ["localhost", "127.0.0.1", "::1", settings.http.host, *settings.http.allowed_hosts]


def make_private(folder: Path) -> None:
    """Makes the folder, for its owner only."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise SettingsError(f"The folder {folder} (setting state_dir) cannot be made: {error}") from error


def only_one(folder: Path) -> AbstractContextManager[None]:
    """Holds the state folder's lock: two daemons on one database would take each other's messages."""
    taken = f"Another fleetd is running with the folder {folder}. Stop it, or set another state_dir."
    return _locked(folder / "fleetd.lock", fcntl.LOCK_EX, taken)


def landing_beside(folder: Path, *, alone: bool = False) -> AbstractContextManager[None]:
    """Holds the lock that `fleetd ingest` processes share; `alone`: refuses while there are any on this machine."""
    taken = "A restore is under way. Start `fleetd ingest` again when it is done."
    if alone:
        taken = "`fleetd ingest` is running on this database. Nothing was changed; stop it first, everywhere."
    return _locked(folder / "ingest.lock", fcntl.LOCK_EX if alone else fcntl.LOCK_SH, taken)


@contextlib.contextmanager
def _locked(file: Path, how: int, taken: str) -> Iterator[None]:
    make_private(file.parent)
    try:
        lock = file.open("a")
    except OSError as error:
        raise SettingsError(
            f"The folder {file.parent} (setting state_dir) cannot be written: {error.strerror}."
        ) from error
    with lock:
        try:
            fcntl.flock(lock, how | fcntl.LOCK_NB)
        except OSError as error:
            raise SettingsError(taken) from error
        yield
