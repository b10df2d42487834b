"""The hardware of a virtual camera: what `camera_agent.hal.Hal` is on a board, with knobs for faults."""

import errno
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from camera_agent import regions, seeing, volume
from camera_agent.models import ModelError
from camera_agent.secure import Secure
from camera_agent.sockets import open_stream
from fleetd.simulator.drawings import LABELS, as_jpeg, draw
from fleetd.simulator.models import Engine, load_engine

TRUTHS_KEPT = 100_000
SLOT_BYTES = 256 * 1024  # a demo model with its labels is 41 KB; five cameras fit on any disk


class ResetRequested(BaseException):  # no error: the board restarts, and nothing may catch it
    """The agent asked for a restart."""


@dataclass(slots=True)
class Faults:
    """What is wrong with this camera. May be changed while it runs."""

    offline: bool = False  # no network
    no_camera: bool = False
    crash_on_load: bool = False  # the board hangs when a model is loaded, as a damaged one can make it
    load_fails: bool = False
    slow_ms: int = 0  # added to every inference
    full_disk: bool = False


class DeskModel:
    """What `load_model` answers."""

    def __init__(self, hal: "DeskHal", engine: Engine) -> None:
        self._hal = hal
        self._engine = engine
        self.input_shape = engine.input_shape
        self.output_len = engine.output_len

    def classify(self, frame: tuple[int, Any]) -> list[float]:
        """Scores of a frame that `capture` made; its truth is remembered under the frame's number."""
        kind, picture = frame
        if self._hal.faults.slow_ms:
            time.sleep(self._hal.faults.slow_ms / 1000)
        scores = self._engine.classify(_scaled(picture, self.input_shape))
        self._hal.note_truth(LABELS[kind])
        return scores

    def answer(self, fill: Callable[[memoryview], None]) -> list[float]:
        """Scores of an input tensor that `fill` writes."""
        tensor = bytearray(self._engine.input_bytes)
        fill(memoryview(tensor))
        return self._engine.answer(bytes(tensor))


def _scaled(picture: Any, shape: tuple[int, int, int]) -> Any:
    """The picture in the model's size: the nearest pixel of each place, as the firmware does it."""
    height, width = picture.shape[:2]
    if (height, width) == shape[:2]:
        return picture
    rows = [n * height // shape[0] for n in range(shape[0])]
    columns = [n * width // shape[1] for n in range(shape[1])]
    return picture[rows][:, columns]


class DeskHal:
    """One camera on the desk. See `camera_agent/hal.py` for what each method promises."""

    def __init__(
        self, folder: Path, *, seed: int, cause: str = "power-on", faults: Faults | None = None
    ) -> None:
        self._folder = folder
        self._seed = seed
        self._cause = cause
        self._shape = (96, 96, 3)
        self._began = time.monotonic()
        self._captured = 0
        self._tls: dict[str, Any] | None = None
        self._secure: Any = None
        self.faults = faults or Faults()
        self.truths: dict[int, str] = {}  # number of the classified frame, from 1 -> what it showed
        self._classified = 0
        self.led_state = ("off", "off")
        self.said: list[str] = []

    def configure(self, settings: dict[str, Any]) -> None:
        """The desk has no radio, clock or watchdog to set up."""
        self._tls = settings["tls"]

    def ticks_ms(self) -> int:
        """Milliseconds since this boot."""
        return int((time.monotonic() - self._began) * 1000)

    def ticks_us(self) -> int:
        """Microseconds since this boot."""
        return int((time.monotonic() - self._began) * 1_000_000)

    def unix(self) -> int | None:
        """The desk's clock is not the camera's: fleetd estimates times by itself."""
        return None

    def set_unix(self, seconds: int) -> None:
        """Fleetd estimates times by itself here."""

    def sleep_ms(self, duration: int) -> None:
        """Wait."""
        time.sleep(duration / 1000)

    def urandom(self, count: int) -> bytes:
        """Random bytes."""
        return os.urandom(count)

    def uid(self) -> str:
        """Eight bytes in hex."""
        return f"{self._seed & (2**64 - 1):016x}"

    def arch(self) -> str:
        """A virtual camera is an RT1062 to everyone."""
        return "OMVRT1060 32768 SDRAM"

    def firmware(self) -> str:
        """As a current board says."""
        return "5.0.0"

    def reset_cause(self) -> str:
        """Why this boot began."""
        return self._cause

    def heap_free(self) -> int:
        """What an RT1062 has free after its start; the desk's memory says nothing about a board."""
        return 8_000_000

    def telemetry(self) -> dict[str, Any]:
        """Nothing more is measured on the desk."""
        return {}

    def network_step(self) -> bool:
        """There is a network unless the fault says otherwise."""
        return not self.faults.offline

    def network_info(self) -> dict[str, Any]:
        """Loopback."""
        return {"kind": "desk", "ip": "127.0.0.1"}

    def network_trouble(self) -> tuple[int, str | None, str | None]:
        """The desk's network has none of its own."""
        return 0, None, None

    def network_rebuild(self) -> None:
        """There is no radio to start anew."""

    def open_socket(self, host: str, port: int, timeout_ms: int) -> Any:
        """The agent's own stream over a real socket."""
        if self._tls and self._secure is None:
            self._secure = Secure(self._tls, host)
        return open_stream(host, port, timeout_ms, self, self._secure)

    def led(self, color: str, pattern: str) -> None:
        """Remembered, for whoever looks."""
        self.led_state = (color, pattern)

    def led_step(self) -> None:
        """Nothing blinks on the desk."""

    def has_watchdog(self) -> bool:
        """Threads have none."""
        return False

    def feed(self) -> None:
        """Nobody bites."""

    def adopt_watchdog(self, _watchdog: object) -> None:
        """There is none."""

    def comes_back(self) -> bool:
        """Nothing starts a thread again."""
        return False

    def can_change_agent(self) -> bool:
        """A virtual camera goes through all of an agent's update, but goes on running the code it was started with."""
        return True

    def can_sleep(self) -> bool:
        """A thread has no deep sleep."""
        return False

    def reset(self) -> None:
        """Boot anew."""
        raise ResetRequested

    def say(self, text: str) -> None:
        """What a person at the REPL would read."""
        self.said.append(text)

    def storage_path(self) -> str:
        """The camera's own folder."""
        return str(self._folder)

    def config_path(self) -> str:
        """Where a process of its own finds its settings."""
        return str(self._folder / "fleet" / "config.json")

    def storage_info(self) -> dict[str, Any]:
        """Free space as the desk has it, or none."""
        if self.faults.full_disk:
            return {"backend": "flash", "free": 0, "total": 4_000_000}
        usage = shutil.disk_usage(self._folder)
        return {"backend": "flash", "free": usage.free, "total": usage.total}

    def open_regions(self, slot_bytes: int | None) -> Any:
        """Slots and pointers as files under the camera's folder."""
        free = self.storage_info()["free"]
        wanted = None if self.faults.full_disk else (slot_bytes or SLOT_BYTES)
        return regions.open_files(str(self._folder), free, wanted, self.feed)

    def open_spool(self, size: int) -> Any:
        """A file, as on an SD card."""
        (self._folder / "fleet").mkdir(exist_ok=True)
        region = volume.allocate(str(self._folder / "fleet" / "spool.bin"), size, self.feed)
        region.unit = 512
        return region

    def keep(self, text: str, name: str = "note") -> None:
        """Keep a short text over a restart."""
        (self._folder / name).write_text(text, encoding="utf-8")

    def kept(self, name: str = "note") -> str:
        """What was kept, or nothing."""
        try:
            return (self._folder / name).read_text(encoding="utf-8")
        except OSError:
            return ""

    def prepare(self, width: int, height: int, channels: int, _exact: bool = False) -> None:
        """What the model wants to see, or the size that is to be measured: pictures are drawn in any size."""
        self._shape = (height, width, channels)

    def capture(self) -> tuple[int, Any]:
        """The next drawing with its class: each camera has its own endless sequence."""
        if self.faults.no_camera:
            raise OSError(errno.ENODEV, "Failed to detect the image sensor or image sensor is detached.")
        self._captured += 1
        seed = self._seed * 1_000_003 + self._captured
        kind = (seed * 2_654_435_761 >> 7) % len(LABELS)
        edge = self._shape[0]
        return kind, draw(kind, seed, -(-edge // 8) * 8)[:edge, :edge]  # drawings are made of 8 x 8 squares

    def digest(self, frame: tuple[int, Any]) -> str | None:
        """As a board does it."""
        found = seeing.digest(frame[1].tobytes())
        return None if found is None else str(found)

    def jpeg(self, frame: tuple[int, Any], quality: int) -> bytes:
        """The drawing as a JPEG."""
        return as_jpeg(frame[1], quality)

    def note_truth(self, label: str) -> None:
        """Remembers what the frame that was just classified showed; the oldest are forgotten."""
        self._classified += 1
        self.truths[self._classified] = label
        self.truths.pop(self._classified - TRUTHS_KEPT, None)

    def load_model(self, content: Any, files: Any, _slot: str) -> DeskModel:
        """A model in LiteRT. Raises ModelError."""
        if self.faults.crash_on_load:
            raise ResetRequested
        if self.faults.load_fails:
            raise ModelError("out-of-memory", "injected")
        return DeskModel(self, load_engine(content, files))

    def free_model(self, _model: DeskModel) -> None:
        """Engines are shared; nothing to free."""
