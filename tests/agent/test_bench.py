"""The camera's benchmark: measures sizes one picture at a time, gives the sensor back, and says why it cannot."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from camera_agent import bench, protocol
from camera_agent.eye import Eye
from tests.agent.core_kit import Bench, CoreHal, model_release
from tests.agent.micropython import Arch, run_device

ARGS = {"sizes": [240, 320], "frames": 5}


class BenchHal:
    """A clock and a sensor: a picture takes a millisecond for each 16 pixels of its edge."""

    def __init__(self) -> None:
        self.now_us = 1_000_000
        self.prepared: list[tuple[Any, ...]] = []
        self.settle = 2
        self.errors: dict[int, Exception] = {}
        self.endless = False
        self._settling = 0

    def ticks_ms(self) -> int:
        return self.now_us // 1000

    def ticks_us(self) -> int:
        return self.now_us

    def prepare(self, *wanted: Any) -> None:
        self.prepared.append(wanted)
        self._settling = self.settle

    def capture(self) -> str | None:
        size = self.prepared[-1][0]
        self.now_us += 1000 * size // 16
        if size in self.errors:
            raise self.errors[size]
        if self._settling or self.endless:
            self._settling -= 1
            return None
        return "picture"


class BenchModel:
    """A classifier that takes 74.25 ms."""

    input_shape = (96, 96, 3)

    def __init__(self, hal: BenchHal) -> None:
        self._hal = hal
        self.error: Exception | None = None

    def classify(self, frame: str) -> list[float]:
        assert frame == "picture"
        self._hal.now_us += 74_250
        if self.error:
            raise self.error
        return [1.0]


class BenchVision:
    """What the benchmark uses of vision."""

    def __init__(self, model: BenchModel | None) -> None:
        self.model = model
        self.flushed = 0

    def flush(self) -> None:
        self.flushed += 1


class Desk:
    """A benchmark with everything around it."""

    def __init__(self) -> None:
        self.hal = BenchHal()
        self.model = BenchModel(self.hal)
        self.vision = BenchVision(self.model)
        self.busy = False
        self.sent: list[tuple[str, dict[str, Any]]] = []

    def begin(self, args: Any = None) -> tuple[Any, str | None]:
        made: tuple[Any, str | None] = bench.begin(
            self.hal,
            self.vision,
            lambda channel, body: self.sent.append((channel, body)),
            lambda: self.busy,
            "c-1",
            ARGS if args is None else args,
        )
        return made

    def run(self, args: Any = None, between: Callable[[int], None] = lambda n: None) -> dict[str, Any]:
        """To the end; `between` is called after every step."""
        under_way, reason = self.begin(args)
        assert reason is None
        n = 0
        while under_way.step():
            between(n)
            n += 1
            assert n < 5000, "it does not end"
        assert len(self.sent) == 1
        channel, body = self.sent[0]
        assert channel == "reply/benchmark"
        assert body["id"] == "c-1"
        return body


@pytest.fixture
def desk() -> Desk:
    return Desk()


def test_every_size_is_measured_and_told_in_one_reply(desk: Desk) -> None:
    body = desk.run()
    assert body["ok"]
    assert body["data"]["input"] == [96, 96, 3]
    assert body["data"]["sizes"] == [
        {
            "size": size,
            "frames": 5,
            "fps": pytest.approx(1000 / (capture + 74.25), abs=0.01),
            "capture_ms": capture,
            "inference_ms": 74.25,
            "total_ms": capture + 74.25,
            "slowest_ms": capture + 74.25,
        }
        for size, capture in ((240, 15.0), (320, 20.0))
    ]


def test_without_arguments_it_measures_the_sizes_of_the_published_table(desk: Desk) -> None:
    assert [one["size"] for one in desk.run({})["data"]["sizes"]] == [240, 320, 640, 1024]


def test_what_the_agent_does_between_two_pictures_counts_for_the_rate_only(desk: Desk) -> None:
    def work(_n: int) -> None:
        desk.hal.now_us += 10_000

    first = desk.run(between=work)["data"]["sizes"][0]
    assert first["total_ms"] == 89.25
    assert first["fps"] == pytest.approx(1000 / 99.25, abs=0.01)


def test_a_step_takes_one_picture_at_most(desk: Desk) -> None:
    under_way, _ = desk.begin()
    while True:
        before = desk.hal.now_us
        if not under_way.step():
            break
        assert desk.hal.now_us - before <= 1000 * 320 // 16 + 74_250


def test_the_sensor_gets_exact_windows_and_then_its_old_one_back(desk: Desk) -> None:
    desk.run()
    assert desk.hal.prepared == [(240, 240, 3, True), (320, 320, 3, True), (96, 96, 3)]
    assert desk.vision.flushed == 1


def test_a_size_that_the_sensor_cannot_do_is_told_and_the_others_are_measured(desk: Desk) -> None:
    desk.hal.errors[240] = RuntimeError("Frame buffer overflow, try reducing the frame size." + "x" * 200)
    sizes = desk.run()["data"]["sizes"]
    assert sizes[0] == {"size": 240, "error": sizes[0]["error"]}
    assert sizes[0]["error"].startswith("RuntimeError: Frame buffer overflow")
    assert len(sizes[0]["error"]) <= 120
    assert sizes[1]["frames"] == 5


def test_a_model_that_raises_is_told_per_size(desk: Desk) -> None:
    desk.model.error = ValueError("Invoke failed")
    assert {one["error"] for one in desk.run()["data"]["sizes"]} == {"ValueError: Invoke failed"}


def test_a_sensor_that_never_settles_is_given_up(desk: Desk) -> None:
    desk.hal.endless = True
    assert desk.run({"sizes": [240]})["data"]["sizes"] == [
        {"size": 240, "error": "OSError: no picture within 15 s"}
    ]


def test_a_slow_camera_tells_what_it_has_after_a_minute(desk: Desk) -> None:
    def work(_n: int) -> None:
        desk.hal.now_us += 3_000_000

    desk.hal.settle = 0
    (size,) = desk.run({"sizes": [240], "frames": 200}, between=work)["data"]["sizes"]
    assert 15 <= size["frames"] <= 21


@pytest.mark.parametrize("what", ["update", "model"])
def test_an_update_ends_it_and_keeps_its_hands_off_the_sensor_of_another_model(desk: Desk, what: str) -> None:
    def disturb(n: int) -> None:
        if n == 4:
            if what == "update":
                desk.busy = True
            else:
                desk.vision.model = BenchModel(desk.hal)

    body = desk.run(between=disturb)
    assert body == {"id": "c-1", "ok": False, "reason": "interrupted"}
    assert (desk.hal.prepared[-1] == (96, 96, 3)) == (what == "update")


@pytest.mark.parametrize(
    "args",
    [
        {"sizes": []},
        {"sizes": 240},
        {"sizes": "240"},
        {"sizes": [240] * 9},
        {"sizes": [31]},
        {"sizes": [1601]},
        {"sizes": [240.0]},
        {"sizes": [True]},
        {"sizes": None},
        {"frames": 0},
        {"frames": 201},
        {"frames": "20"},
        {"frames": True},
    ],
)
def test_arguments_that_make_no_sense_are_refused(desk: Desk, args: Any) -> None:
    assert desk.begin(args) == (None, "bad-arguments")
    assert desk.hal.prepared == []


def test_it_is_refused_while_an_update_runs_and_without_a_model(desk: Desk) -> None:
    desk.busy = True
    assert desk.begin() == (None, "busy")
    desk.busy = False
    desk.vision.model = None
    assert desk.begin() == (None, "no-model")
    assert desk.vision.flushed == 0


def test_the_longest_reply_fits_into_a_message(desk: Desk) -> None:
    desk.model.error = ValueError("x" * 500)
    body = desk.run({"sizes": [1600] * 8, "frames": 200})
    assert len(json.dumps(body)) < protocol.UP_BYTES - 1000


def test_a_board_without_microseconds_is_measured_in_milliseconds(desk: Desk) -> None:
    class Coarse:
        def __init__(self, hal: BenchHal) -> None:
            self.ticks_ms, self.prepare, self.capture = hal.ticks_ms, hal.prepare, hal.capture

    under_way, _ = bench.begin(
        Coarse(desk.hal), desk.vision, lambda c, b: desk.sent.append((c, b)), lambda: False, "c-1", ARGS
    )
    while under_way.step():
        pass
    size = desk.sent[0][1]["data"]["sizes"][0]
    assert size["total_ms"] == pytest.approx(89.25, abs=1)


class SizedHal(CoreHal):
    """A whole camera whose sensor notes the windows it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.windows: list[tuple[int, bool]] = []

    def prepare(self, width: int, height: int, channels: int, exact: bool = False) -> None:
        super().prepare(width, height, channels)
        self.windows.append((width, exact))


def test_the_agent_measures_between_its_other_work_and_then_classifies_again() -> None:
    hal = SizedHal()
    camera = Bench(hal, interval_ms=100).start().install(model_release("m-1"))
    frames = camera.agent.vision.frames
    begins = {"id": "c-1", "t": 1, "ttl": 600, "args": {"sizes": [240, 320], "frames": 50}}
    camera.down("cmd/benchmark", begins)
    camera.run(1)
    camera.down("cmd/benchmark", {**begins, "id": "c-2", "t": 2})
    camera.run(1)
    assert [reply["reason"] for reply in camera.sent("reply/benchmark")] == ["busy"]
    assert camera.agent.vision.frames <= frames + 1, "both took pictures"
    assert camera.agent.link.connected
    camera.run(5)
    reply = camera.sent("reply/benchmark")[-1]
    assert (reply["id"], reply["ok"]) == ("c-1", True)
    assert [(one["size"], one["frames"], one["inference_ms"]) for one in reply["data"]["sizes"]] == [
        (240, 50, 40),
        (320, 50, 40),
    ]
    assert hal.windows[-3:] == [(240, True), (320, True), (96, False)]
    assert camera.agent.vision.frames > frames + 5, "vision did not go on"
    assert "benchmark" in camera.status()["capabilities"]


def test_an_update_goes_before_a_benchmark() -> None:
    camera = Bench(SizedHal()).start().install(model_release("m-1"))
    camera.down("cmd/benchmark", {"id": "c-1", "t": 1, "ttl": 600, "args": {"frames": 200}})
    camera.run(1)
    camera.desire(model_release("m-2", 2), 2)
    camera.run(20)
    assert camera.sent("reply/benchmark")[-1]["reason"] == "interrupted"
    assert camera.updates()[-1] == ("confirmed", None)
    assert camera.agent.updater.status()["release"]["id"] == "m-2"


def test_a_camera_without_a_model_refuses_to_measure() -> None:
    camera = Bench(SizedHal()).start().run(1)
    camera.down("cmd/benchmark", {"id": "c-1", "t": 1, "ttl": 600})
    camera.run(1)
    assert camera.sent("reply/benchmark")[-1]["reason"] == "no-model"


DEVICE_SCRIPT = """
import json
from camera_agent import bench

class Hal:
    now = 0
    def ticks_ms(self):
        return self.now
    def prepare(self, *wanted):
        self.size = wanted[0]
    def capture(self):
        self.now += 10
        if self.size == 640:
            raise RuntimeError("Frame buffer overflow")
        return "picture"

class Model:
    input_shape = (96, 96, 3)
    def classify(self, frame):
        hal.now += 74

class Vision:
    model = Model()
    def flush(self):
        pass

hal = Hal()
args = {"sizes": [240, 640], "frames": 3}
under_way, reason = bench.begin(hal, Vision(), lambda c, b: print(c, json.dumps(b)), lambda: False, "c-1", args)
while under_way.step():
    pass
"""


@pytest.mark.parametrize("arch", ["amd64", "i386"])
def test_it_measures_on_micropython(arch: Arch, tmp_path: Path) -> None:
    script = tmp_path / "check_bench.py"
    script.write_text(DEVICE_SCRIPT)
    channel, _, body = run_device(arch, script).stdout.partition(" ")
    assert channel == "reply/benchmark"
    figures = {"fps": 11.9, "capture_ms": 10.0, "inference_ms": 74.0, "total_ms": 84.0, "slowest_ms": 84.0}
    assert json.loads(body)["data"]["sizes"] == [
        {"size": 240, "frames": 3, **figures},
        {"size": 640, "error": "RuntimeError: Frame buffer overflow"},
    ]


class Sensor:
    """`csi` as firmware 4.8 has it."""

    RGB565 = "RGB565"
    GRAYSCALE = "GRAYSCALE"
    QVGA, VGA, XGA, SXGA, UXGA = (320, 240), (640, 480), (1024, 768), (1280, 1024), (1600, 1200)

    def __init__(self) -> None:
        self.size: tuple[int, int] | None = None
        self.part: tuple[int, int] | None = None

    def CSI(self) -> "Sensor":
        return self

    def reset(self) -> None:
        self.size = self.part = None

    def pixformat(self, kind: str) -> None:
        assert kind == self.RGB565

    def framesize(self, size: tuple[int, int]) -> None:
        self.size = size

    def window(self, part: tuple[int, int]) -> None:
        self.part = part

    def snapshot(self) -> str:
        return "picture"


@pytest.mark.parametrize(
    ("size", "frame"),
    [(240, Sensor.QVGA), (320, Sensor.VGA), (640, Sensor.XGA), (1024, Sensor.SXGA), (1200, Sensor.UXGA)],
)
def test_the_eye_takes_the_smallest_frame_that_holds_an_exact_window(
    size: int, frame: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    sensor = Sensor()
    monkeypatch.setitem(__import__("sys").modules, "csi", sensor)
    eye = Eye(lambda: 0)
    eye.prepare(size, size, 3, True)
    eye.frame()
    assert (sensor.size, sensor.part) == (frame, (size, size))
    eye.prepare(96, 96, 3)
    eye.frame()
    assert (sensor.size, sensor.part) == (Sensor.QVGA, (240, 240))
    eye.prepare(1500, 1500, 3, True)
    with pytest.raises(ValueError, match="1500"):
        eye.frame()
