"""Where the broker is, who runs it, and who is let in.

fleetd's own broker has accounts from its first start: one for each enrolled camera, for people who read, and for
fleetd itself. mosquitto gets them as files, amqtt asks. An external broker's accounts are its owner's affair.
"""

from collections.abc import Callable

from fleetd.accountfiles import AccountFiles, Keeper
from fleetd.accounts import Accounts, Rights
from fleetd.domain.lanes import DAEMON
from fleetd.domain.records import Roll
from fleetd.embedded import Accounts as Files
from fleetd.embedded import RunningBroker, start_broker
from fleetd.errors import SettingsError
from fleetd.settings import Settings


class BrokerHost:
    """The broker of one fleetd. `later` is called when `step` has something to do."""

    def __init__(self, settings: Settings, accounts: Accounts, later: Callable[[], None]) -> None:
        self._settings = settings.broker
        self._folder = settings.state_dir / "broker"
        self._later = later
        self._rights: Rights | None = None
        self._files: AccountFiles | None = None
        self._keeper: Keeper | None = None
        self.running: RunningBroker | None = None
        self.host, self.port = self._settings.host or "", self._settings.port
        self.username, self.password = self._settings.username, None
        if not self._is_external():
            self._files = AccountFiles(self._folder, settings.prefix)
            self._rights = Rights(settings.prefix, self._files.own_secret())
            self._keeper = Keeper(accounts.version, accounts.roll, self._apply)
            self.username, self.password = DAEMON, self._files.own_secret()

    @property
    def kind(self) -> str:
        """What it is: mosquitto, amqtt or external."""
        return self.running.kind if self.running is not None else "external"

    def start(self) -> None:
        """Starts the broker, if it is fleetd's to start; it answers when this returns."""
        if self._is_external():
            if self._settings.host is None:
                raise SettingsError("broker.mode is external, but broker.host names no broker.")
            self.password = self._settings.secret()
            return
        assert self._files is not None  # noqa: S101  # own brokers have them
        self.step()
        self.running = start_broker(
            "auto" if self._settings.mode == "external" else self._settings.mode,
            state_dir=self._folder,
            port=self._settings.port,
            binary=self._settings.mosquitto,
            durable=self._settings.durable,
            accounts=Files(self._files.passwords, self._files.acl),
            authority=self._rights,
        )
        self.host, self.port = self.running.host, self.running.port
        if self.running.adopted:
            self.running.reload()  # it runs since before these files were written

    def stop(self) -> None:
        """Stops the broker, if it is fleetd's."""
        if self.running is not None:
            self.running.stop()

    def changed(self, urgent: bool) -> None:
        """Somebody is let in from now on, or (urgent) not any more."""
        if self._keeper is not None and not self._keeper.changed(urgent=urgent):
            self._later()

    def step(self) -> bool:
        """Carries changes of accounts to the broker; True when there were some."""
        return self._keeper is not None and self._keeper.step()

    def _is_external(self) -> bool:
        mode = self._settings.mode
        return mode == "external" or (mode == "auto" and self._settings.host is not None)

    def _apply(self, roll: Roll) -> None:
        assert self._files is not None and self._rights is not None  # noqa: S101, PT018
        self._files.write(roll)
        self._rights.take(roll)
        if self.running is not None:
            self.running.reload()
