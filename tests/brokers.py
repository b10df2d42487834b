"""Real brokers for tests, each its own process on its own port, always ended with the test.

    def test_something(mosquitto: Mosquitto) -> None:
        mosquitto.kill()       # as a power cut would
        mosquitto.start()      # the same port, the same data

Run as a program (`python -m tests.brokers PORT`) this is amqtt, as fleetd configures it.
"""

import contextlib
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Self

import pytest

ROOT = Path(__file__).resolve().parents[1]
HOST = "127.0.0.1"
START_TIMEOUT = 10.0  # seconds until a broker must answer
STOP_TIMEOUT = 10.0  # seconds until a broker must have ended after SIGTERM
# Below every system's range for outgoing connections: while a broker is down between two starts, no
# connection of anybody can be given its port.
_PORTS = range(12_000, 32_000)


def free_port() -> int:
    """A port on loopback that nothing listens on, and that no outgoing connection will take."""
    for _ in range(200):
        port = random.SystemRandom().choice(_PORTS)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((HOST, port))
            return port
    raise RuntimeError("no free port found")


def answers(port: int, timeout: float = 1.0) -> bool:
    """True when an MQTT broker on `port` answers a CONNECT, whether or not it lets us in."""
    client = b"probe-" + secrets.token_hex(4).encode()
    body = b"\x00\x04MQTT\x04\x02\x00\x05" + len(client).to_bytes(2) + client
    try:
        with socket.create_connection((HOST, port), timeout=timeout) as link:
            link.sendall(b"\x10" + bytes([len(body)]) + body)
            connack = link.recv(4)
            with contextlib.suppress(OSError):
                link.sendall(b"\xe0\x00")
            return connack[:1] == b"\x20"
    except OSError:
        return False


def mosquitto_binary() -> str:
    """The mosquitto to test with: the machine's own or the fetched one."""
    folders = [str(ROOT / ".tools" / "bin"), os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"]
    if elsewhere := os.environ.get("FLEETD_TOOLS"):
        folders.insert(1, f"{elsewhere}/bin")
    found = shutil.which("mosquitto", path=os.pathsep.join(folders))
    if found is None:
        pytest.fail("mosquitto is not here; `make tools` fetches it", pytrace=False)
    return found


class BrokerProcess:
    """A broker as a child process. It keeps its port over restarts; its output goes to `log`."""

    def __init__(self, folder: Path, name: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.host = HOST
        self.port = free_port()
        self.log = folder / f"{name}.log"
        self._name = name
        self._process: subprocess.Popen[bytes] | None = None
        self._started_before = False

    def command(self) -> Sequence[str]:
        """What to run, for the present port."""
        raise NotImplementedError

    @property
    def pid(self) -> int | None:
        """Process id while it runs."""
        return self._process.pid if self._process and self._process.poll() is None else None

    def start(self) -> None:
        """Starts it and waits until it answers. The first start may move to another port, later ones not."""
        if self.pid is not None:
            raise RuntimeError(f"{self._name} runs already")
        for _ in range(5):
            if self._try_start():
                self._started_before = True
                return
            if self._started_before:
                break
            self.port = free_port()  # somebody was quicker
        raise AssertionError(f"{self._name} did not start on port {self.port}:\n{self.log_text()}")

    def _try_start(self) -> bool:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.command(), cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )
        deadline = time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline and self._process.poll() is None:
            # A stranger may answer on that port: only a broker that stays alive is ours.
            if answers(self.port) and self._process.poll() is None:
                return True
            time.sleep(0.02)
        self.kill()
        return False

    def stop(self) -> None:
        """SIGTERM: it may write down what it has. Fails when it takes longer than ten seconds."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL, as in a crash. Nothing is written."""
        self._end(signal.SIGKILL)

    def restart(self, *, crash: bool = False) -> None:
        """Stops (or crashes) it and starts it again on the same port with the same data."""
        self._end(signal.SIGKILL if crash else signal.SIGTERM)
        self.start()

    def pause(self) -> None:
        """SIGSTOP: connections stay open, nothing answers. `resume` ends it; stop and kill work too."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Ends a pause."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        with process:
            process.send_signal(how)
            process.send_signal(signal.SIGCONT)
            try:
                process.wait(STOP_TIMEOUT)
            except BaseException:
                process.kill()
                raise

    def log_text(self) -> str:
        """Everything it has said so far."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


class Mosquitto(BrokerProcess):
    """mosquitto as a distribution ships it: persistence on, written at SIGTERM and every 30 minutes only.

    `settings` are lines for its configuration file; one that starts with the same word as a default
    replaces it, e.g. `Mosquitto(folder, "max_inflight_messages 20", "persistence false")`.
    """

    DEFAULTS = (
        "allow_anonymous true",
        "persistence true",
        "max_inflight_messages 1000",
        "max_queued_messages 1000000",
        "set_tcp_nodelay true",
        "log_type all",
        "log_timestamp_format %Y-%m-%dT%H:%M:%S",
    )

    def __init__(self, folder: Path, *settings: str) -> None:
        super().__init__(folder, "mosquitto")
        self._settings = settings
        self.config = folder / "mosquitto.conf"
        self.data = folder / "data"
        self.data.mkdir(exist_ok=True)

    def command(self) -> Sequence[str]:
        """Writes the configuration for the present port and answers the command line."""
        replaced = {line.split()[0] for line in self._settings}
        kept = [line for line in self.DEFAULTS if line.split()[0] not in replaced]
        # As root mosquitto changes to another user, who could not write to a test's folder.
        own = ["user root"] if os.geteuid() == 0 else []
        fixed = [f"persistence_location {self.data}/", "log_dest stderr", *own]
        listener = [f"listener {self.port} {HOST}"]
        self.config.write_text("\n".join(_in_order([*listener, *fixed, *kept, *self._settings])) + "\n")
        return (mosquitto_binary(), "-c", str(self.config))


class AmqttProcess(BrokerProcess):
    """amqtt as fleetd configures it, in a process of its own. It keeps nothing over a restart."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, "amqtt")

    def command(self) -> Sequence[str]:
        """The command line for the present port."""
        return (sys.executable, "-m", "tests.brokers", str(self.port))


def _in_order(lines: Iterable[str]) -> list[str]:
    """Without empty lines, general settings before the listener's."""
    return sorted(filter(None, lines), key=lambda line: line.startswith("listener "))


def _serve_amqtt(port: int) -> None:
    from fleetd.embedded import InProcessAmqtt

    broker = InProcessAmqtt(port=port)
    broker.start()
    try:
        signal.sigwait({signal.SIGTERM, signal.SIGINT})
    finally:
        broker.stop()


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    _serve_amqtt(int(sys.argv[1]))
