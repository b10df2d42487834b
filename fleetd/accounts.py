"""Who may connect to the broker, and with which rights: cameras, people who read, and fleetd itself.

Cameras get their account by being enrolled. People get one here: they may read everything under the prefix and
publish nothing. Passwords are random, shown once, and stored in the form in which mosquitto reads them.
"""

import re
import secrets
from collections.abc import Callable, Mapping

from fleetd.domain import lanes
from fleetd.domain.lanes import DAEMON, Part
from fleetd.domain.passwords import SALT_BYTES, is_password, password_hash
from fleetd.domain.records import MqttUser, Roll
from fleetd.errors import ConflictError, InvalidError, NotFoundError
from fleetd.ports import Clock, Store

SECRET_BYTES = 20
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")


class Accounts:
    """The service around MQTT accounts. `changed` is called when the broker has to learn of it."""

    def __init__(
        self, store: Store, clock: Clock, *, changed: Callable[[bool], None] = lambda _urgent: None
    ) -> None:
        self._store = store
        self._clock = clock
        self._changed = changed

    def version(self) -> str | None:
        """Changes whenever an account is made, changed or taken away."""
        with self._store.reading() as work:
            return work.accounts.version()

    def roll(self) -> Roll:
        """All accounts in force."""
        with self._store.reading() as work:
            accounts = work.accounts
            return Roll(accounts.version(), accounts.cameras(), accounts.people())

    def users(self) -> list[MqttUser]:
        """The people who may read, by name."""
        with self._store.reading() as work:
            return work.accounts.users()

    def add_user(self, name: str, *, actor: str) -> str:
        """Lets somebody read everything over MQTT and answers the password, which is shown this once only."""
        if not _NAME.fullmatch(name):
            raise InvalidError(
                f"{name!r} cannot be a name for MQTT: use 1 to 63 lower case letters, digits and dashes, "
                "beginning with a letter or digit.",
                name=name,
            )
        secret = secrets.token_hex(SECRET_BYTES)
        stored = password_hash(secret, secrets.token_bytes(SALT_BYTES))
        with self._store.transaction() as work:
            if work.cameras.get(name) is not None:
                raise ConflictError(f"{name} is a camera. Choose another name.", name=name)
            if name in work.accounts.people():
                raise ConflictError(
                    f"There is an MQTT user named {name} already. Nothing was changed. "
                    "Remove it first to get another password.",
                    name=name,
                )
            work.accounts.add_user(name, stored, actor, self._clock())
            work.access.record(actor, "mqtt-user.add", name, {}, self._clock())
        self._changed(False)
        return secret

    def remove_user(self, name: str, *, actor: str) -> None:
        """Ends somebody's account at once."""
        with self._store.transaction() as work:
            if not work.accounts.remove_user(name):
                raise NotFoundError(f"There is no MQTT user named {name}.", name=name)
            work.access.record(actor, "mqtt-user.remove", name, {}, self._clock())
        self._changed(True)


class Rights:
    """Answers a broker inside fleetd: who is let in, and what they may do. Default: no.

    `take` replaces what is known, from any thread; questions come from the broker's.
    """

    def __init__(self, prefix: str, own_secret: str) -> None:
        self._prefix = prefix
        self._own = password_hash(own_secret, secrets.token_bytes(SALT_BYTES))
        self._roll = Roll(None)

    def take(self, roll: Roll) -> None:
        """These are the accounts now."""
        self._roll = roll

    def admits(self, name: str, password: bytes) -> bool:
        """Whether that is an account's password."""
        stored = self.holds(name)
        return stored is not None and is_password(password, stored)

    def holds(self, name: str) -> str | None:
        """The hash of that account's password, to notice when it changes; None: there is no such account."""
        part = self._part(name)
        if part is None:
            return None
        return self._own if part is Part.DAEMON else self._of(part).get(name)

    def may_publish(self, name: str, topic: str) -> bool:
        """Whether that account may publish on this topic."""
        part = self._part(name)
        return part is not None and lanes.may_publish(part, name, topic, self._prefix)

    def may_read(self, name: str, topic: str) -> bool:
        """Whether that account may receive a message on this topic."""
        part = self._part(name)
        return part is not None and lanes.may_read(part, name, topic, self._prefix)

    def may_subscribe(self, name: str, wanted: str) -> bool:
        """Whether everything that this filter may match is that account's to read."""
        part = self._part(name)
        return part is not None and lanes.may_subscribe(part, name, wanted, self._prefix)

    def _of(self, part: Part) -> Mapping[str, str]:
        return self._roll.cameras if part is Part.CAMERA else self._roll.people

    def _part(self, name: str) -> Part | None:
        if name == DAEMON:
            return Part.DAEMON
        roll = self._roll
        if name in roll.cameras:
            return Part.CAMERA
        return Part.PERSON if name in roll.people else None
