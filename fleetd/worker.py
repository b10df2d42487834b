"""`fleetd ingest`: a process that only lands messages. Any number of them share one subscription (MQTT 5 `$share`).

Any may die at any time: what it had not acknowledged the broker or the cameras repeat, to whoever is left.
"""

import secrets
import socket
import threading
import time
from collections.abc import Sequence

from fleetd.broker import BrokerLink
from fleetd.errors import SettingsError
from fleetd.freshness import Freshness
from fleetd.ingest import Ingest
from fleetd.logs import get_logger
from fleetd.ports import Inbound
from fleetd.protocol.topics import all_up
from fleetd.sdnotify import Watchdog, notify
from fleetd.settings import Settings
from fleetd.store import migrate
from fleetd.store.engine import SqlStore
from fleetd.store.landing import Landed, Landing

log = get_logger(__name__)

GROUP = "ingest_group"  # the fact that names the shared subscription's group
STUCK_SECONDS = 120.0  # a writer that does nothing for so long, not even waiting, hangs
ABSENCE_SECONDS = 60  # how long the broker waits for a worker that is gone, before it shares its messages out


class IngestWorker:
    """Store, link and writer, without anything else."""

    def __init__(self, settings: Settings, name: str) -> None:
        broker = settings.broker
        if broker.host is None:
            raise SettingsError(
                "broker.host names no broker. `fleetd ingest` lands what comes from a broker that `fleetd serve` "
                "uses too; fleetd's own broker serves one process."
            )
        self.name = name
        self._store = SqlStore(settings.database_url)
        migrate.upgrade(self._store)
        self.link = BrokerLink(
            host=broker.host,
            port=broker.port,
            client_id=f"{broker.client_id}-ingest-{name}",
            subscribe=f"$share/{_group(self._store)}/{all_up(settings.prefix)}",
            session_seconds=ABSENCE_SECONDS,
            receive=self._receive,
            username=broker.username,
            password=broker.secret(),
            tls=broker.tls,
            ca_file=broker.ca_file,
        )
        self.freshness = Freshness(self._store, time.time)
        self._prefix = settings.prefix
        self.ingest = Ingest(
            Landing(self._store),
            self.link,
            prefix=settings.prefix,
            receipt_seconds=settings.landing.receipt_seconds,
            landed=self._landed,
        )

    def _landed(self, landed: Landed) -> None:
        if landed.nonces:
            self.freshness.answer(landed.nonces, self.link, self._prefix)

    def _receive(self, batch: Sequence[Inbound]) -> None:
        self.ingest.receive(batch)

    def start(self) -> None:
        """Begins landing, as soon as the broker answers."""
        self.ingest.start()
        self.link.start()

    def stop(self) -> None:
        """Stores and acknowledges what it has, then ends."""
        self.ingest.stop()
        self.link.stop()
        self._store.close()


def _group(store: SqlStore) -> str:
    """The group of this installation's shared subscription, made the first time.

    A secret: mosquitto lets every account join a group, and gives messages that the account may not read to nobody.
    """
    with store.transaction() as work:
        found = work.access.get_fact(GROUP)
        if found is None:
            found = f"fleetd-{secrets.token_hex(16)}"
            work.access.set_fact(GROUP, found)
    return found


def run(settings: Settings, name: str | None, stopping: threading.Event) -> None:
    """Lands messages until `stopping` is set. The name makes its MQTT client id; by default the host's."""
    worker = IngestWorker(settings, name or socket.gethostname().partition(".")[0])
    worker.start()
    log.info("ingest_started", name=worker.name, mqtt=worker.link.address)
    watchdog = Watchdog(lambda: worker.ingest.alive(STUCK_SECONDS))
    watchdog.start()
    notify("READY=1")
    stopping.wait()
    notify("STOPPING=1")
    watchdog.stop()
    worker.stop()
    log.info("ingest_stopped", name=worker.name, **worker.ingest.health())
