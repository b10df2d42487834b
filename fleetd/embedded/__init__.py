"""A broker for those who have none: a mosquitto that fleetd starts and watches, else amqtt inside fleetd."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from fleetd.embedded.configuration import Accounts, TlsListener, mosquitto_conf
from fleetd.embedded.guarding import Authority
from fleetd.embedded.inprocess import InProcessAmqtt
from fleetd.embedded.mosquitto import SupervisedMosquitto, end_left_behind
from fleetd.embedded.ports import LOOPBACK, PortTakenError, answers
from fleetd.errors import BrokerError, SettingsError

__all__ = [
    "start_broker",
    "find_mosquitto",
    "mosquitto_conf",
    "end_left_behind",
    "answers",
    "LOOPBACK",
    "Accounts",
    "Authority",
    "TlsListener",
    "BrokerMode",
    "RunningBroker",
    "SupervisedMosquitto",
    "InProcessAmqtt",
    "PortTakenError",
]

BrokerMode = Literal["auto", "mosquitto", "amqtt"]
RunningBroker = SupervisedMosquitto | InProcessAmqtt

# Where daemons are that an ordinary user's PATH does not name.
_FOLDERS = ("/usr/sbin", "/usr/local/sbin", "/opt/homebrew/sbin")


def start_broker(
    mode: BrokerMode,
    *,
    state_dir: Path,
    port: int = 0,
    binary: Path | None = None,
    host: str = LOOPBACK,
    durable: bool = False,
    accounts: Accounts | None = None,
    authority: Authority | None = None,
    tls: TlsListener | None = None,
    on_restart: Callable[[], None] | None = None,
) -> RunningBroker:
    """Starts a broker, on loopback unless told; it answers when this returns. `port` 0 means any free one.

    Who is let in: mosquitto reads it in `accounts`, amqtt asks `authority`. Without them: everybody.

    `auto` takes amqtt only where there is no mosquitto at all: one that is there and does not start is an
    error, not a reason to go on with less. Raises BrokerError or SettingsError; then nothing runs.
    """
    found = find_mosquitto(binary) if mode != "amqtt" else None
    if found is not None:
        mosquitto = SupervisedMosquitto(
            state_dir,
            found,
            host=host,
            port=port,
            durable=durable,
            accounts=accounts,
            tls=tls,
            on_restart=on_restart,
        )
        mosquitto.start()
        return mosquitto
    if mode == "mosquitto":
        raise BrokerError(
            "mosquitto is not installed, or not where it is looked for; nothing was started. Install it "
            "(Debian: apt install mosquitto), name the program in the settings, or use another broker."
        )
    if tls is not None:
        raise SettingsError("The broker inside fleetd has no TLS; install mosquitto. Nothing was started.")
    amqtt = InProcessAmqtt(host=host, port=port, authority=authority)
    amqtt.start()
    return amqtt


def find_mosquitto(explicit: Path | None = None) -> Path | None:
    """The mosquitto to start, or None. One that is named and is not there is a SettingsError."""
    if explicit is not None:
        named = shutil.which(explicit)
        if named is None:
            raise SettingsError(f"There is no program {explicit}; fleetd did not start.", path=str(explicit))
        return Path(named)
    found = shutil.which("mosquitto", path=os.pathsep.join([os.environ.get("PATH", ""), *_FOLDERS]))
    return Path(found) if found else None
