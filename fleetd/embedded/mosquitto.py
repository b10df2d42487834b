"""A mosquitto that fleetd starts, watches and starts again.

It is a process of its own with a configuration that fleetd writes, in a folder of its own. It outlives a
fleetd that is killed: cameras keep their connections, messages for fleetd wait in the broker, and the next
fleetd takes the running broker over. That it is the right one is told by a lock on a file, which mosquitto
inherits and holds as long as it lives; a process id alone could be anybody's. `stop` ends it, and a mosquitto
that is stopped has written down what it held.
"""

import contextlib
import fcntl
import ipaddress
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Literal, Self

from fleetd.embedded import ports
from fleetd.embedded.configuration import Accounts, TlsListener, mosquitto_conf
from fleetd.errors import BrokerError, SettingsError
from fleetd.logs import get_logger

log = get_logger(__name__)

START_SECONDS = 30.0  # a big queue has to be read back first
STOP_SECONDS = 10.0
WATCH_SECONDS = 0.2  # how soon a death is noticed
RESTART_PAUSES = (0.2, 30.0)  # first pause before a restart, and the longest; doubled each time
GOOD_SECONDS = 60.0  # after living this long the first pause counts again
LOG_BYTES = 4 * 1024 * 1024  # then the log becomes mosquitto.log.1
OPEN_FILES = 65_536


class SupervisedMosquitto:
    """One mosquitto in `folder`, started again whenever it dies, always on the same port.

    `accounts` are the files that say who is let in; without them everybody on this machine is, and nobody else can
    be. `tls` is a second way in. `extra` are further lines for its configuration. It writes its memory down once a
    minute and at `stop`; `durable` makes that after every 100 changes, so that a crash of the broker itself forgets
    about the last 100. `on_restart` is called from the watching thread when it answers again.
    """

    kind: Literal["mosquitto"] = "mosquitto"

    def __init__(
        self,
        folder: Path,
        binary: Path,
        *,
        host: str = ports.LOOPBACK,
        port: int = 0,
        durable: bool = False,
        accounts: Accounts | None = None,
        tls: TlsListener | None = None,
        extra: Sequence[str] = (),
        on_restart: Callable[[], None] | None = None,
    ) -> None:
        self._accounts = accounts
        self._tls = tls
        reachable = [line for line in extra if line.startswith("listener ")]
        if tls is not None:
            reachable.append(f"listener on {tls.host}")
        if not ipaddress.ip_address(host).is_loopback:
            reachable.append(f"listener on {host}")
        if reachable and accounts is None:
            raise SettingsError(
                f"The broker's {reachable[0]} needs accounts: anybody could use it otherwise."
            )
        self._folder = folder.resolve()
        self._binary = binary
        self.host = host
        self.port = port
        self.restarts = 0
        self.adopted = False  # whether `start` found it running, left behind by a fleetd that was killed
        self._durable = durable
        self._extra = tuple(extra)
        self._on_restart = on_restart
        self._config = self._folder / "mosquitto.conf"
        self._pid_file = self._folder / "mosquitto.pid"
        self._log_file = self._folder / "mosquitto.log"
        self._lock_file = self._folder / "mosquitto.lock"
        self._asking = threading.Lock()  # one thread's look at the lock file must not be taken for mosquitto
        self._child: subprocess.Popen[bytes] | None = None
        self._stopping = threading.Event()
        self._watcher: threading.Thread | None = None
        self._owner: IO[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pid(self) -> int | None:
        """Its process id while it lives."""
        if not self._lives():
            return None
        if self._child is not None:
            return self._child.pid
        with contextlib.suppress(OSError, ValueError):
            return int(self._pid_file.read_text())
        return None

    def start(self) -> None:
        """Starts mosquitto, or takes over one that runs in this folder; it answers when this returns."""
        (self._folder / "data").mkdir(parents=True, exist_ok=True)
        self._folder.chmod(0o700)  # it holds other people's messages
        self._owner = _lock(self._folder / "fleetd.lock")
        if self._owner is None:
            raise BrokerError(f"Another fleetd runs a broker in {self._folder}; nothing was started.")
        self._stopping.clear()
        try:
            self.port = self.port or self._former_port() or ports.any_free(self.host)
            self.adopted = self._adopt()
            if not self.adopted:
                self._launch()
        except BaseException:
            self._end()
            self._release()
            raise
        self._watcher = threading.Thread(target=self._watch, name="mosquitto-watch", daemon=True)
        self._watcher.start()
        log.info("broker_started", kind=self.kind, host=self.host, port=self.port, adopted=self.adopted)

    def stop(self) -> None:
        """Ends it: SIGTERM, so that it writes down what it holds, and SIGKILL after ten seconds."""
        self._stopping.set()
        if self._watcher is not None:
            self._watcher.join()
            self._watcher = None
        if self._owner is not None:
            self._end()
            self._release()
            log.info("broker_stopped", kind=self.kind)

    def configuration(self) -> str:
        """What mosquitto reads."""
        return mosquitto_conf(
            host=self.host,
            port=self.port,
            data=self._folder / "data",
            pid_file=self._pid_file,
            durable=self._durable,
            accounts=self._accounts,
            tls=self._tls,
            as_root=os.geteuid() == 0,
            extra=self._extra,
        )

    def reload(self) -> None:
        """Has it read its password and ACL files again: who has lost an account is cut off at once."""
        if (pid := self.pid) is not None:
            with contextlib.suppress(ProcessLookupError):  # the next one reads the files anyway
                os.kill(pid, signal.SIGHUP)

    def _former_port(self) -> int | None:
        """The port of the last time, if it can be had again: cameras and fleetd's own links know it."""
        with contextlib.suppress(OSError, ValueError, IndexError):
            lines = self._config.read_text(encoding="utf-8").splitlines()
            port = next(int(line.split()[1]) for line in lines if line.startswith("listener "))
            if self._lives() or ports.is_free(self.host, port):
                return port
        return None

    def _adopt(self) -> bool:
        """Takes over a mosquitto that a killed fleetd left, if it runs with today's configuration; else ends it."""
        if not self._lives():
            return False
        with contextlib.suppress(OSError):
            same = self._config.read_text(encoding="utf-8") == self.configuration()
            if same and self._wait_until_it_answers():
                return True
        log.info("broker_replaced", reason="it ran with another configuration or did not answer")
        self._end()
        return False

    def _launch(self) -> None:
        """Starts the process and waits until it answers, or until `stop` is called."""
        ports.require_free(self.host, self.port)
        self._config.write_text(self.configuration(), encoding="utf-8")
        with self._asking:
            lock = _lock(self._lock_file)
            if lock is None:
                raise BrokerError(f"The mosquitto in {self._folder} has not ended; no other was started.")
            # The child keeps the lock: closing our end does not release what it has inherited.
            with lock, self._log_file.open("ab") as output:
                self._pid_file.unlink(missing_ok=True)
                try:
                    self._child = subprocess.Popen(
                        [self._binary, "-c", self._config],
                        stdin=subprocess.DEVNULL,
                        stdout=output,
                        stderr=subprocess.STDOUT,
                        pass_fds=(lock.fileno(),),
                        start_new_session=True,  # Ctrl-C is for fleetd, which stops its broker last
                    )
                except OSError as error:
                    raise BrokerError(
                        f"mosquitto cannot be started: {error}", path=str(self._binary)
                    ) from error
        _allow_many_connections(self._child.pid)
        if not self._wait_until_it_answers():
            self._end()
            raise BrokerError(f"mosquitto did not start: {self._last_words()}", log=str(self._log_file))

    def _wait_until_it_answers(self) -> bool:
        """False when it has died or answers to nobody. True also when `stop` is called meanwhile."""
        deadline = time.monotonic() + START_SECONDS
        while self._lives() and time.monotonic() < deadline:
            if ports.answers(self.host, self.port) or self._stopping.wait(0.02):
                return True
        return False

    def _lives(self) -> bool:
        """Whether a mosquitto holds the lock of this folder."""
        with self._asking:
            if self._child is not None:
                self._child.poll()  # no zombie stays
            lock = _lock(self._lock_file)
            if lock is None:
                return True
            lock.close()
            return False

    def _watch(self) -> None:
        pause, longest = RESTART_PAUSES
        since = time.monotonic()
        while not self._stopping.wait(WATCH_SECONDS):
            if self._lives():
                if time.monotonic() - since > GOOD_SECONDS:
                    pause = RESTART_PAUSES[0]
                self._turn_log()
                continue
            log.warning("broker_died", kind=self.kind, said=self._last_words(), restart_in_s=pause)
            if self._stopping.wait(pause):
                return
            pause = min(pause * 2, longest)
            try:
                self._launch()
            except (BrokerError, OSError) as error:
                log.error("broker_restart_failed", kind=self.kind, reason=str(error))  # noqa: TRY400 - expected
                continue
            if self._stopping.is_set():
                return
            since = time.monotonic()
            self.restarts += 1
            log.info("broker_restarted", kind=self.kind, port=self.port, restarts=self.restarts)
            if self._on_restart is not None:
                try:
                    self._on_restart()
                except Exception:
                    log.exception("broker_restart_not_noted")

    def _end(self) -> bool:
        """Ends the process, whoever started it; False when none was alive. `stop` also ends the watch."""
        alive = self._lives()
        deadline = time.monotonic() + STOP_SECONDS
        while (pid := self.pid) is None and self._lives() and time.monotonic() < deadline:
            time.sleep(0.01)  # it has just been started and has not written its id yet
        for how in (signal.SIGTERM, signal.SIGKILL):
            if pid is None or not self._lives():
                break
            with contextlib.suppress(ProcessLookupError):  # it ended by itself just now
                os.kill(pid, how)
            deadline = time.monotonic() + STOP_SECONDS
            while self._lives() and time.monotonic() < deadline:
                time.sleep(0.01)
        if self._child is not None:
            self._child.wait()
            self._child = None
        return alive

    def _release(self) -> None:
        if self._owner is not None:
            self._owner.close()
            self._owner = None

    def _turn_log(self) -> None:
        """Keeps the log small. mosquitto appends, so it goes on at the beginning of the emptied file."""
        with contextlib.suppress(OSError):  # tried again in a moment
            if self._log_file.stat().st_size > LOG_BYTES:
                shutil.copyfile(self._log_file, self._log_file.with_suffix(".log.1"))
                os.truncate(self._log_file, 0)

    def _last_words(self) -> str:
        with contextlib.suppress(OSError):
            lines = self._log_file.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            if lines:
                return lines[-1]
        return "it said nothing"


def end_left_behind(folder: Path) -> bool:
    """Ends the mosquitto that a killed fleetd left in `folder`; False when there is none, or a fleetd owns it."""
    owner = _lock(folder / "fleetd.lock") if folder.is_dir() else None
    if owner is None:
        return False
    with owner:
        left = SupervisedMosquitto(folder, Path("mosquitto"))
        return left._end()


def _allow_many_connections(pid: int) -> None:
    """One open file per camera: the usual soft limit of 1024 would end a fleet at about a thousand."""
    if sys.platform == "linux":  # elsewhere a limit can only be set before the start
        with contextlib.suppress(OSError, ValueError):  # then the limit stays what it is
            _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            most = OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES)
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (most, hard))


def _lock(path: Path) -> IO[bytes] | None:
    """The file, locked until it is closed; None when somebody else has it."""
    file = path.open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        return None
    return file
