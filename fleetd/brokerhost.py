"""Where the broker is, who runs it, and who is let in.

fleetd's own broker has accounts from its first start: one for each enrolled camera, for people who read, and for
fleetd itself. mosquitto gets them as files, amqtt asks. An external broker's accounts are its owner's affair.
"""

import time
from collections.abc import Callable, Mapping
from ipaddress import ip_address
from typing import Any

from fleetd.accountfiles import AccountFiles, Keeper, reload_site
from fleetd.accounts import Accounts, Rights
from fleetd.certificates import BROKER_NAME, Authority
from fleetd.domain.lanes import DAEMON
from fleetd.domain.records import Roll
from fleetd.embedded import LOOPBACK, RunningBroker, TlsListener, start_broker
from fleetd.embedded import Accounts as Files
from fleetd.errors import SettingsError
from fleetd.logs import get_logger
from fleetd.settings import Settings

log = get_logger(__name__)


class BrokerHost:
    """The broker of one fleetd. `later` is called when `step` has something to do."""

    def __init__(self, settings: Settings, accounts: Accounts, later: Callable[[], None]) -> None:
        self._settings = settings.broker
        self._folder = settings.state_dir / "broker"
        self._later = later
        self._authority = Authority(settings.state_dir / "ca")
        self._rights: Rights | None = None
        self._files: AccountFiles | None = None
        self._keeper: Keeper | None = None
        self.running: RunningBroker | None = None
        self.host, self.port = self._settings.host or "", self._settings.port
        self.username, self.password = self._settings.username, None
        site = self._settings.site
        self._site = site.absolute() if site is not None and self._is_external() else None
        if not self._is_external() or self._site is not None:
            self._files = AccountFiles(self._site or self._folder, settings.prefix)
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
            if self._site is None:
                self.password = self._settings.secret()
            else:
                self.step()
            return
        assert self._files is not None  # noqa: S101  # own brokers have them
        wanted = self._settings
        tls = self._tls()
        self.step()
        self.running = start_broker(
            "auto" if wanted.mode == "external" else wanted.mode,
            state_dir=self._folder,
            host=wanted.listen if wanted.is_open and tls is None else LOOPBACK,
            port=wanted.port,
            binary=wanted.mosquitto,
            durable=wanted.durable,
            tls=tls,
            accounts=Files(self._files.passwords, self._files.acl),
            authority=self._rights,
        )
        self.host, self.port = self.running.host, self.running.port
        if self.host != LOOPBACK and ip_address(self.host).is_unspecified:
            self.host = "::1" if ":" in self.host else LOOPBACK
        if self.running.adopted:
            self.running.reload()  # it runs since before these files were written

    def stop(self) -> None:
        """Stops the broker, if it is fleetd's."""
        if self.running is not None:
            self.running.stop()

    def for_cameras(self) -> Mapping[str, Any]:
        """Where cameras find the broker, and what they need to trust it; for `fleetctl provision`."""
        if self.running is None and self._site is None:
            return {"address": _joined(str(self._settings.host), self._settings.port), "tls": None}
        host = self._settings.public_host or (self._settings.listen if self._settings.is_open else self.host)
        if not self._is_encrypted() or not self._authority.exists:
            return {"address": _joined(host, self.port), "tls": None}
        trust = {"ca": self._authority.for_cameras(), "name": BROKER_NAME}
        return {"address": _joined(host, self._settings.tls_port), "tls": trust}

    def renew(self) -> bool:
        """Makes the broker a new certificate when its own ends before long; False: there is nothing more to do."""
        now = time.time()
        if self.running is not None and self._is_encrypted() and self._authority.needs_renewal(now):
            self._authority.renew([], now)
            self.running.reload()
            log.info("broker_certificate_renewed", ends_at=self._authority.broker().ends_at)
        return False

    def changed(self, urgent: bool) -> None:
        """Somebody is let in from now on, or (urgent) not any more."""
        if self._keeper is not None and not self._keeper.changed(urgent=urgent):
            self._later()

    def step(self) -> bool:
        """Carries changes of accounts to the broker; True when there were some."""
        return self._keeper is not None and self._keeper.step()

    def _is_encrypted(self) -> bool:
        return (self._settings.is_open or self._settings.tls) and not self._settings.plain

    def _tls(self) -> TlsListener | None:
        """The way in for others, when there is to be one and not a plain one. SettingsError: no certificates."""
        wanted = self._settings
        if not self._is_encrypted():
            return None
        if not self._authority.exists:
            raise SettingsError(
                f"The broker is to speak TLS on {wanted.listen}, and there are no certificates. "
                "Run `fleetd ca init` once. Without TLS everyone on the network could read credentials: if that is "
                "all right, set broker.plain = true. fleetd did not start."
            )
        authority = self._authority
        return TlsListener(wanted.listen, wanted.tls_port, authority.broker_certificate, authority.broker_key)

    def _is_external(self) -> bool:
        mode = self._settings.mode
        return mode == "external" or (mode == "auto" and self._settings.host is not None)

    def _apply(self, roll: Roll) -> None:
        assert self._files is not None and self._rights is not None  # noqa: S101, PT018
        self._files.write(roll)
        self._rights.take(roll)
        if self.running is not None:
            self.running.reload()
        elif self._site is not None:
            reload_site(self._site)


def _joined(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
