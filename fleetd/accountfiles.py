"""mosquitto's password and ACL files, kept in step with who is enrolled.

Only what has changed is written, each file in one step, so that a mosquitto that reads them at that moment sees
the old or the new one. fleetd's own password lies beside them.
"""

import os
import secrets
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

from fleetd.domain.lanes import DAEMON, acl_file
from fleetd.domain.passwords import SALT_BYTES, password_hash
from fleetd.domain.records import Roll
from fleetd.errors import FleetError
from fleetd.logs import get_logger

log = get_logger(__name__)

SECRET_BYTES = 20
FEW = 1000  # accounts; up to that many every change is in force when it is answered
REST_FACTOR = 10  # beyond, enrolling thousands would write the whole file for each


class AccountFiles:
    """`passwords`, `acl` and `fleetd.password` in one folder, readable by their owner only."""

    def __init__(self, folder: Path, prefix: str) -> None:
        self.folder = folder.absolute()
        self.passwords = self.folder / "passwords"
        self.acl = self.folder / "acl"
        self._own = self.folder / "fleetd.password"
        self._prefix = prefix
        self._own_hash = ""

    def own_secret(self) -> str:
        """The password of fleetd's own account, made the first time."""
        try:
            if self._own.exists():
                return self._own.read_text(encoding="ascii").strip()
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except (OSError, ValueError) as error:
            raise FleetError(f"{self._own} cannot be read: {error}") from error
        secret = secrets.token_hex(SECRET_BYTES)
        write_private(self._own, secret + "\n")
        return secret

    def write(self, roll: Roll) -> None:
        """Writes both files. FleetError: the disk did not take them; the old ones are still whole."""
        if not self._own_hash:
            self._own_hash = password_hash(self.own_secret(), secrets.token_bytes(SALT_BYTES))
        lines = [f"{DAEMON}:{self._own_hash}\n"]
        lines += [f"{name}:{stored}\n" for name, stored in roll.people.items()]
        lines += [f"{name}:{stored}\n" for name, stored in roll.cameras.items()]
        write_private(self.acl, acl_file(self._prefix, roll.people.keys()))
        write_private(self.passwords, "".join(lines))


class Keeper:
    """Carries changes of accounts to the broker: at once, or together when there are many."""

    def __init__(
        self, version: Callable[[], str | None], roll: Callable[[], Roll], apply: Callable[[Roll], None]
    ) -> None:
        self._version = version
        self._roll = roll
        self._apply = apply
        self._lock = threading.Lock()
        self._applied: str | None = None
        self._ever = False
        self._rests_until = 0.0

    def step(self) -> bool:
        """Applies what has changed since the last time; True when something had."""
        with self._lock:
            if self._ever and self._version() == self._applied:
                return False
            began = time.monotonic()
            roll = self._roll()
            self._apply(roll)
            self._applied, self._ever = roll.version, True
            took = time.monotonic() - began
            is_large = len(roll.cameras) + len(roll.people) > FEW
            self._rests_until = began + took * REST_FACTOR if is_large else 0.0
            log.info(
                "accounts_applied", cameras=len(roll.cameras), people=len(roll.people), ms=round(took * 1000)
            )
            return True

    def changed(self, *, urgent: bool) -> bool:
        """Carries a change out now if it is urgent or the fleet is small; False: `step` has to, soon.

        Errors are left to `step`, which repeats and reports them: the change itself is stored already.
        """
        if not urgent and time.monotonic() < self._rests_until:
            return False
        try:
            self.step()
        except FleetError as error:
            log.warning("accounts_not_applied", error=str(error))
            return False
        return True


def reload_site(folder: Path) -> None:
    """Has the mosquitto of that folder read its files again; one that does not run reads them when it starts.

    FleetError: it runs, and fleetd may not send it a signal.
    """
    try:
        pid = int((folder / "mosquitto.pid").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return
    told = Path(f"/proc/{pid}/cmdline")
    try:
        if told.parent.parent.is_dir() and str(folder / "mosquitto.conf").encode() not in told.read_bytes():
            return  # its number belongs to another program now
        os.kill(pid, signal.SIGHUP)
    except (FileNotFoundError, ProcessLookupError):
        return
    except PermissionError as error:
        raise FleetError(
            f"The mosquitto in {folder} runs as another user, so fleetd cannot have it read its accounts again. "
            "Run both as the same user, or reload it yourself. The files are written."
        ) from error


def write_private(path: Path, text: str) -> None:
    """Writes a file that only its owner may read, in one step."""
    temporary = path.with_name(path.name + ".new")
    try:
        temporary.unlink(missing_ok=True)
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise FleetError(f"{path} cannot be written: {error}") from error
