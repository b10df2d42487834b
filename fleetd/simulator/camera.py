"""A virtual camera: the real agent in a thread of its own, which can be stopped, cut off and booted again."""

import contextlib
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from camera_agent import boot
from camera_agent import settings as camera_settings
from camera_agent.agent import IDLE_MS, Agent
from fleetd.logs import get_logger
from fleetd.simulator.desk_hal import DeskHal, Faults, ResetRequested

log = get_logger(__name__)

BOOT_SECONDS = 0.2  # between a reset and the next boot
STOP_SECONDS = 10.0


class PowerCut(BaseException):  # no error, and nothing in the agent may catch it
    """The plug was pulled."""


class VirtualCamera:
    """One camera. Its folder is its storage and outlives every boot.

    `keys` are public keys in hex (x || y); further keywords are settings of `docs/cameras.md`.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        host: str,
        port: int,
        keys: Sequence[str],
        *,
        seed: int,
        password: str | None = None,
        **settings: Any,
    ) -> None:
        self.name = name
        self.folder = folder
        self.faults = Faults()
        self.boots = 0
        self._seed = seed
        self._wanted = {
            "camera": name,
            "host": host,
            "port": port,
            "keys": list(keys),
            "password": password,
            "outbox_messages": 2000,
            "outbox_bytes": 1_000_000,
            **settings,
        }
        camera_settings.check(self._wanted)  # a wrong setting shows here, not in a thread
        self._hal: DeskHal | None = None
        self._agent: Any = None
        self._truths: dict[str, dict[int, str]] = {}
        self._ending: type[BaseException] | None = None
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def alive(self) -> bool:
        """Whether it is running."""
        return self._thread is not None and self._thread.is_alive()

    @property
    def led(self) -> tuple[str, str]:
        """Colour and pattern of the status LED."""
        return ("off", "off") if self._hal is None or not self.alive else self._hal.led_state

    def truth(self, boot: str, frame: int) -> str | None:
        """What the picture of that boot's frame (from 1) really showed; None when that is long forgotten."""
        return self._truths.get(boot, {}).get(frame)

    def start(self) -> None:
        """Boots it."""
        if self.alive:
            raise RuntimeError(f"{self.name} is running already")
        self._stopping.clear()
        self._ending = None
        self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ends it properly: it says goodbye to the broker."""
        self._end(None)

    def power_cut(self) -> None:
        """Ends it at once: no goodbye, storage as it is."""
        self._end(PowerCut)

    def _end(self, how: type[BaseException] | None) -> None:
        self._ending = how
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(STOP_SECONDS)
            if self._thread.is_alive():
                raise RuntimeError(f"{self.name} does not stop")

    def _run(self) -> None:
        cause = "power-on"
        while not self._stopping.is_set():
            try:
                self._boot(cause)
                cause = "soft"
            except ResetRequested:
                cause = "soft"
            except PowerCut:
                break
            except Exception as error:  # noqa: BLE001  # as main.py does: whatever it was, the board restarts
                log.warning("virtual_camera_restarts", camera=self.name, error=repr(error))
                cause = "soft"
            self._stopping.wait(BOOT_SECONDS)

    def _boot(self, cause: str) -> None:
        """One boot, until the agent is over or somebody ends it."""
        self.boots += 1
        hal = _Interruptible(self, cause)
        self._hal = hal
        facts = boot.choose(str(self.folder), cause, lambda *_: True)
        agent = self._agent = Agent(hal, camera_settings.check(dict(self._wanted)), facts)
        self._truths[agent.outbox.boot] = hal.truths
        try:
            agent.start()
            while not agent.is_over and not self._stopping.is_set():
                if not agent.step():
                    hal.sleep_ms(IDLE_MS)
            agent.stop()
        finally:
            _drop(agent)

    def check_power(self) -> None:
        """Called by the hardware now and then; raises when the plug was pulled."""
        if self._ending is PowerCut and self._stopping.is_set():
            raise PowerCut


class _Interruptible(DeskHal):
    """Hardware that stops working in the middle of things when the plug is pulled."""

    def __init__(self, camera: VirtualCamera, cause: str) -> None:
        camera.folder.mkdir(parents=True, exist_ok=True)
        super().__init__(
            camera.folder, seed=camera._seed + 7_919 * camera.boots, cause=cause, faults=camera.faults
        )
        self._camera = camera

    def ticks_ms(self) -> int:
        self._camera.check_power()
        return super().ticks_ms()

    def feed(self) -> None:
        self._camera.check_power()

    def sleep_ms(self, duration: int) -> None:
        self._camera.check_power()
        time.sleep(duration / 1000)


def _drop(agent: Any) -> None:
    """Closes what the agent holds, without a word to anybody."""
    stream = getattr(agent.link, "_stream", None)
    if stream is not None:
        with contextlib.suppress(OSError):
            stream.close()
    if agent.files is not None:
        agent.files.close()
