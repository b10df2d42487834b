"""Telling systemd that fleetd is ready, stops, and is alive. Without systemd nothing happens."""

import contextlib
import os
import socket
import threading
from collections.abc import Callable

LEAST_SECONDS = 0.5
SEND_SECONDS = 1.0


def notify(state: str) -> bool:
    """Sends e.g. "READY=1"; False when nobody wants to know."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    if address.startswith("@"):  # the kernel's own names begin with a zero byte
        address = "\0" + address[1:]
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as link:
        link.settimeout(SEND_SECONDS)  # a systemd that does not read must not stop us
        link.sendto(state.encode(), address)
        return True
    return False


def watchdog_seconds() -> float | None:
    """Within how many seconds systemd wants a sign of life; None: it does not ask."""
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    asked = os.environ.get("WATCHDOG_USEC", "")
    return int(asked) / 1e6 if asked.isdigit() and int(asked) > 0 else None


class Watchdog:
    """Gives a sign of life as long as `alive` answers True; systemd starts a fleetd again that gives none."""

    def __init__(self, alive: Callable[[], bool]) -> None:
        self._alive = alive
        self._stopping = threading.Event()
        self._every = watchdog_seconds()
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)

    def start(self) -> None:
        """Begins, when systemd asks for it."""
        if self._every is not None:
            self._thread.start()

    def stop(self) -> None:
        """Ends; what is left to do must fit into the unit's TimeoutStopSec."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        assert self._every is not None  # noqa: S101  # else it is not started
        while not self._stopping.wait(max(LEAST_SECONDS, self._every / 3)):
            if self._alive():
                notify("WATCHDOG=1")
