"""The camera's hardware modules against stand-ins for the firmware's: old and new ones, and what boards lack."""

import hashlib
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from camera_agent import board as board_module
from camera_agent import clock, engine, eye, hal, models, netif, sockets
from camera_agent.errors import StreamError
from camera_agent.models import ModelError
from tests.agent.core_kit import settings_of

# --- sockets ----------------------------------------------------------------------------------------------


class Ticks:
    """The part of the hal that sockets need, on the real clock."""

    def ticks_ms(self) -> int:
        return int(time.monotonic() * 1000)

    def sleep_ms(self, duration: int) -> None:
        time.sleep(duration / 1000)


@contextmanager
def peer() -> Iterator[tuple[Any, socket.socket]]:
    """A stream and the socket at its other end."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        stream = sockets.open_stream("127.0.0.1", server.getsockname()[1], 2000, Ticks())
        other, _ = server.accept()
        with other:
            try:
                yield stream, other
            finally:
                stream.close()


def read(stream: Any, size: int) -> bytes:
    """What comes within a second."""
    buffer, got = bytearray(4096), b""
    until = time.monotonic() + 1
    while len(got) < size and time.monotonic() < until:
        count = stream.readinto(memoryview(buffer))
        got += buffer[:count]
    return got


def test_a_read_gives_what_is_there_and_never_waits() -> None:
    with peer() as (stream, other):
        began = time.monotonic()
        assert stream.readinto(memoryview(bytearray(4096))) == 0
        assert time.monotonic() - began < 0.5
        other.sendall(b"hello")
        assert read(stream, 5) == b"hello"


def test_a_peer_that_leaves_is_an_error() -> None:
    with peer() as (stream, other):
        other.sendall(b"bye")
        other.close()
        assert read(stream, 3) == b"bye"
        time.sleep(0.05)
        with pytest.raises(OSError, match="closed"):
            stream.readinto(memoryview(bytearray(16)))


def test_a_write_is_complete_even_through_a_slow_peer() -> None:
    data = bytes(range(256)) * 8192  # 2 MB: more than the kernel buffers
    with peer() as (stream, other):
        got = bytearray()

        def drain() -> None:
            while len(got) < len(data):
                got.extend(other.recv(65536))

        reader = threading.Thread(target=drain)
        reader.start()
        stream.write(memoryview(data))
        reader.join(10)
        assert got == data


def test_a_write_to_a_peer_that_does_not_read_ends_with_an_error() -> None:
    with peer() as (stream, _other):
        stream._timeout_ms = 100
        with pytest.raises(OSError, match="timed out"):
            stream.write(bytes(50_000_000))


def test_nobody_there_is_an_error_and_leaves_no_socket_open() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(StreamError) as caught:
        sockets.open_stream("127.0.0.1", port, 500, Ticks())
    assert caught.value.why == "connect-refused"


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (OSError(110), "connect-timeout"),
        (TimeoutError("timed out"), "connect-timeout"),
        (OSError(113), "no-route"),
        (OSError(22), "connect-failed"),
        (OSError(), "connect-failed"),
    ],
)
def test_a_connection_that_does_not_come_about_says_why(
    monkeypatch: pytest.MonkeyPatch, error: OSError, why: str
) -> None:
    class Refusing:
        def settimeout(self, _seconds: float) -> None:
            pass

        def connect(self, _address: object) -> None:
            raise error

        def close(self) -> None:
            pass

    monkeypatch.setattr(sockets.socket, "socket", Refusing)
    with pytest.raises(StreamError) as caught:
        sockets.open_stream("127.0.0.1", 1, 500, Ticks())
    assert caught.value.why == why


def test_a_name_that_nobody_knows_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object) -> None:
        raise OSError(-2)

    monkeypatch.setattr(sockets.socket, "getaddrinfo", unknown)
    with pytest.raises(StreamError) as caught:
        sockets.open_stream("broker.invalid", 1, 500, Ticks())
    assert caught.value.why == "name-not-found"


class MicroSocket:
    """A socket as MicroPython has it: None or ETIMEDOUT for "nothing there", readinto instead of recv_into."""

    def __init__(self, *answers: object) -> None:
        self.answers = list(answers)
        self.is_blocking = True

    def setblocking(self, flag: bool) -> None:
        self.is_blocking = flag

    def readinto(self, _view: memoryview) -> object:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.mark.parametrize(
    "nothing", [None, OSError(11), OSError(110), OSError(116), TimeoutError("timed out")]
)
def test_every_way_of_saying_nothing_there_is_understood(nothing: object) -> None:
    sock = MicroSocket(nothing, 7)
    stream = sockets.Stream(sock, 1000, Ticks())
    assert not sock.is_blocking
    assert stream.readinto(memoryview(bytearray(8))) == 0
    assert stream.readinto(memoryview(bytearray(8))) == 7


@pytest.mark.parametrize("gone", [0, OSError(104), OSError(22), OSError()])
def test_every_other_answer_is_a_lost_connection(gone: object) -> None:
    stream = sockets.Stream(MicroSocket(gone), 1000, Ticks())
    with pytest.raises(OSError, match=r"closed|104|22|^$"):
        stream.readinto(memoryview(bytearray(8)))


# --- network ----------------------------------------------------------------------------------------------


class Nic:
    """A network interface of the firmware."""

    def __init__(self, network: "Network", mode: object = None) -> None:
        self.network = network
        self.calls: list[tuple[Any, ...]] = []
        network.nics.append(self)

    def active(self, flag: bool) -> None:
        self.calls.append(("active", flag))

    def connect(self, *args: str) -> None:
        if self.network.fails:
            raise self.network.fails
        self.calls.append(("connect", *args))

    def disconnect(self) -> None:
        self.calls.append(("disconnect",))

    def isconnected(self) -> bool:
        return self.network.up

    def ifconfig(self) -> tuple[str, ...]:
        return (self.network.address, "255.255.255.0", "10.0.0.1", "10.0.0.1")

    def status(self, what: str | None = None) -> int:
        assert what in (None, "rssi")
        return self.network.word if what is None else -61


class Network:
    """The module `network`."""

    STA_IF = 0

    def __init__(self, *, lan: bool = False) -> None:
        self.nics: list[Nic] = []
        self.up = False
        self.address = "10.0.0.7"
        self.word = 1  # what status() says
        self.fails: Exception | None = None
        self.named: list[str] = []
        self.WLAN = lambda mode: Nic(self, mode)
        if lan:
            self.LAN = lambda: Nic(self)

    def country(self, code: str) -> None:
        self.named.append(code)

    def hostname(self, name: str) -> None:
        self.named.append(name)


class Joining:
    """An Interface on a clock that the test moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, network: Network | None, **settings: Any) -> None:
        monkeypatch.setitem(sys.modules, "network", network)
        self.now = 1000
        self.net = netif.Interface(settings_of(**settings), lambda: self.now)

    def run(self, seconds: float) -> bool:
        is_up = False
        for _ in range(int(seconds * 10)):
            is_up = self.net.step()
            self.now += 100
        return is_up


WIFI = {"ssid": "hall 3", "key": "secret"}


def test_wifi_is_joined_once_and_known_by_its_address(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Network()
    joining = Joining(monkeypatch, network, wifi=WIFI, country="DE")
    assert not joining.run(3)
    network.up = True
    assert joining.run(2)
    (nic,) = network.nics
    assert nic.calls == [("active", True), ("connect", "hall 3", "secret")]
    assert network.named == ["DE", "cam-01"]
    known = joining.net.info()
    assert known == {"kind": "wifi", "ip": "10.0.0.7", "rssi": -61, "joins": 1, "rebuilds": 0}
    assert joining.net.error is None


def test_an_open_network_is_joined_without_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Network()
    Joining(monkeypatch, network, wifi={"ssid": "guests"}).run(1)
    assert network.nics[0].calls[-1] == ("connect", "guests")


def test_a_join_that_does_not_succeed_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Network()
    Joining(monkeypatch, network, wifi=WIFI).run(70)
    joins = [call for nic in network.nics for call in nic.calls if call[0] == "connect"]
    assert len(joins) == 4
    assert ("disconnect",) in network.nics[0].calls


def test_after_three_tries_the_radio_is_switched_off_and_begun_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Network()
    joining = Joining(monkeypatch, network, wifi=WIFI)
    joining.run(200)
    assert len(network.nics) == 4
    assert network.nics[0].calls[-1] == ("active", False)
    assert (joining.net.rebuilds, joining.net.failures) == (3, 9)
    network.up = True
    assert joining.run(21)
    joining.net.rebuild()
    assert joining.run(1), "asked for from outside it is back at once"


@pytest.mark.parametrize(
    ("word", "reason"),
    [(-3, "wrong-key"), (-2, "no-such-network"), (-1, "join-failed"), (1, "join-failed"), (2, "no-address")],
)
def test_why_the_wifi_was_not_joined_is_told_apart(
    monkeypatch: pytest.MonkeyPatch, word: int, reason: str
) -> None:
    network = Network()
    network.word = word
    joining = Joining(monkeypatch, network, wifi=WIFI)
    assert not joining.run(21)
    assert joining.net.error == reason
    network.up = True
    assert joining.run(2)
    assert joining.net.error is None


@pytest.mark.parametrize(("word", "reason"), [(0, "no-cable"), (2, "no-address")])
def test_a_cable_is_told_from_an_address(monkeypatch: pytest.MonkeyPatch, word: int, reason: str) -> None:
    network = Network(lan=True)
    network.word = word
    joining = Joining(monkeypatch, network)
    joining.run(21)
    assert joining.net.error == reason


class Winc(Nic):
    """The shield: joining blocks and raises, and there is no status."""

    status = None  # type: ignore[assignment]  # it has none

    def connect(self, *args: str) -> None:
        super().connect(*args)
        if args != ("hall 3", "secret"):
            raise OSError("could not connect")
        self.network.up = True

    def scan(self) -> list[tuple[Any, ...]]:
        if self.network.fails:
            raise self.network.fails
        return [(b"elsewhere", b"", 1, -80, 2, 1), (b"hall 3", b"", 6, -60, 2, 1)]

    def rssi(self) -> int:
        return -60


def shield() -> Network:
    network = Network()
    network.WINC = lambda: Winc(network)  # type: ignore[attr-defined]  # not every firmware has it
    return network


def test_the_winc_shield_is_joined_and_asked_in_its_own_way(monkeypatch: pytest.MonkeyPatch) -> None:
    network = shield()
    joining = Joining(monkeypatch, network, wifi=WIFI)
    assert joining.run(2)
    assert joining.net.is_winc
    assert joining.net.info()["rssi"] == -60


@pytest.mark.parametrize(
    ("wifi", "reason"),
    [({"ssid": "hall 3", "key": "wrong"}, "wrong-key"), ({"ssid": "5GHz", "key": "x"}, "no-such-network")],
)
def test_the_winc_shield_tells_a_wrong_key_from_a_missing_network(
    monkeypatch: pytest.MonkeyPatch, wifi: dict[str, str], reason: str
) -> None:
    joining = Joining(monkeypatch, shield(), wifi=wifi)
    joining.run(25)
    assert joining.net.error == reason


def test_a_wedged_winc_shield_gets_a_new_object(monkeypatch: pytest.MonkeyPatch) -> None:
    network = shield()
    network.fails = OSError(22)
    joining = Joining(monkeypatch, network, wifi=WIFI)
    joining.run(45)
    assert joining.net.error == "radio-error"
    assert len(network.nics) >= 2
    network.fails = None
    assert joining.run(45)


def test_a_link_without_an_address_is_no_link(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Network()
    network.up, network.address = True, "0.0.0.0"
    joining = Joining(monkeypatch, network, wifi=WIFI)
    assert not joining.run(2)
    network.address = "10.0.0.9"
    assert joining.run(2)


def test_a_lost_link_is_noticed_and_joined_again(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Network()
    joining = Joining(monkeypatch, network, wifi=WIFI)
    network.up = True
    assert joining.run(5)
    network.up = False
    assert not joining.run(1)
    joining.run(25)
    assert [call[0] for call in network.nics[0].calls].count("connect") >= 1
    network.up = True
    assert joining.run(1)


def test_a_radio_that_raises_gets_a_new_object_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Network()
    network.fails = OSError(22)
    joining = Joining(monkeypatch, network, wifi=WIFI)
    joining.run(50)
    assert 2 <= len(network.nics) <= 4
    assert joining.net.error == "radio-error"
    assert "22" in str(joining.net.detail)
    network.fails = None
    network.up = True
    assert joining.run(25)


def test_without_wifi_in_the_settings_ethernet_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Network(lan=True)
    network.up = True
    joining = Joining(monkeypatch, network)
    assert joining.run(1)
    assert network.nics[0].calls == [("active", True)]
    assert joining.net.info() == {"kind": "ethernet", "ip": "10.0.0.7", "joins": 0, "rebuilds": 0}


@pytest.mark.parametrize("network", [None, Network()])
def test_a_board_without_any_way_out_says_so(
    monkeypatch: pytest.MonkeyPatch, network: Network | None
) -> None:
    joining = Joining(monkeypatch, network)
    assert not joining.run(60)
    assert joining.net.error == "radio-error"
    assert "network" in joining.net.detail or "wifi" in joining.net.detail
    assert joining.net.info()["kind"] == "ethernet"


# --- image sensor -----------------------------------------------------------------------------------------


class Sensor:
    """Notes what is set, in either API's words."""

    def __init__(self) -> None:
        self.set: dict[str, Any] = {}
        self.resets = 0
        self.error: Exception | None = None

    def __getattr__(self, name: str) -> Callable[[Any], None]:
        return lambda value: self.set.__setitem__(name, value)

    def reset(self) -> None:
        self.resets += 1

    def snapshot(self) -> str:
        if self.error:
            raise self.error
        return "image"


CONSTANTS = {"RGB565": "rgb", "GRAYSCALE": "gray", "QVGA": "qvga", "VGA": "vga"}


def new_firmware(monkeypatch: pytest.MonkeyPatch) -> Sensor:
    sensor = Sensor()
    monkeypatch.setitem(sys.modules, "csi", SimpleNamespace(CSI=lambda: sensor, **CONSTANTS))
    monkeypatch.setitem(sys.modules, "sensor", None)
    return sensor


def old_firmware(monkeypatch: pytest.MonkeyPatch, *, csi_alias: bool = False) -> Sensor:
    sensor = Sensor()
    sensor.__dict__.update(CONSTANTS)
    monkeypatch.setitem(sys.modules, "sensor", sensor)
    # 4.6 and 4.7: `csi` is the old functions under a new name
    monkeypatch.setitem(sys.modules, "csi", SimpleNamespace(reset=None) if csi_alias else None)
    return sensor


class Look:
    """An Eye on a clock that the test moves."""

    def __init__(self) -> None:
        self.now = 1000
        self.eye = eye.Eye(lambda: self.now)

    def frame(self, after: int = 3000) -> Any:
        self.eye.frame()
        self.now += after
        return self.eye.frame()


def test_new_firmware_is_driven_through_the_class(monkeypatch: pytest.MonkeyPatch) -> None:
    sensor = new_firmware(monkeypatch)
    look = Look()
    look.eye.prepare(96, 96, 3)
    assert look.frame() == "image"
    assert sensor.set == {"pixformat": "rgb", "framesize": "qvga", "window": (240, 240)}


@pytest.mark.parametrize("csi_alias", [False, True])
def test_old_firmware_is_driven_through_the_functions(
    monkeypatch: pytest.MonkeyPatch, csi_alias: bool
) -> None:
    sensor = old_firmware(monkeypatch, csi_alias=csi_alias)
    look = Look()
    look.eye.prepare(96, 96, 1)
    assert look.frame() == "image"
    assert sensor.set == {"set_pixformat": "gray", "set_framesize": "qvga", "set_windowing": (240, 240)}


def test_a_picture_counts_only_after_exposure_has_settled(monkeypatch: pytest.MonkeyPatch) -> None:
    new_firmware(monkeypatch)
    look = Look()
    look.eye.prepare(96, 96, 3)
    assert look.eye.frame() is None
    look.now += 1900
    assert look.eye.frame() is None
    look.now += 200
    assert look.eye.frame() == "image"


def test_the_same_wishes_do_not_reset_the_sensor_and_others_do(monkeypatch: pytest.MonkeyPatch) -> None:
    sensor = new_firmware(monkeypatch)
    look = Look()
    look.eye.prepare(96, 96, 3)
    look.frame()
    look.eye.prepare(96, 96, 3)
    look.frame()
    assert sensor.resets == 1
    look.eye.prepare(160, 160, 1)
    look.frame()
    assert sensor.resets == 2
    assert sensor.set["pixformat"] == "gray"


def test_after_a_failure_the_sensor_is_set_up_again(monkeypatch: pytest.MonkeyPatch) -> None:
    sensor = new_firmware(monkeypatch)
    look = Look()
    look.eye.prepare(96, 96, 3)
    look.frame()
    sensor.error = RuntimeError("Frame capture has timed out.")
    with pytest.raises(RuntimeError):
        look.eye.frame()
    sensor.error = None
    assert look.frame() == "image"
    assert sensor.resets == 2


@pytest.mark.parametrize(
    ("size", "wanted", "part"),
    [
        ((320, 240), (96, 96), (240, 240)),
        ((640, 480), (480, 480), (480, 480)),
        ((320, 240), (160, 120), (320, 240)),
        ((320, 240), (120, 160), (180, 240)),
        ((320, 240), (200, 50), (320, 80)),
        ((320, 240), (1000, 1), (320, 1)),
    ],
)
def test_the_window_has_the_proportions_of_the_input(
    size: tuple[int, int], wanted: tuple[int, int], part: tuple[int, int]
) -> None:
    assert eye.window(size, *wanted) == part


def test_a_region_of_interest_and_a_frame_size_take_effect_with_the_next_frame(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sensor = new_firmware(monkeypatch)
    settings: dict[str, Any] = {"roi": None, "frame_size": None}
    seen: Any = eye.Eye(lambda: 1000)
    seen.configure(settings)
    seen.prepare(96, 96, 3)
    seen.frame()
    assert (sensor.set["framesize"], sensor.set["window"]) == ("qvga", (240, 240))
    settings.update(roi=[50, 0, 50, 50], frame_size="VGA")
    seen.frame()
    assert (sensor.set["framesize"], sensor.set["window"]) == ("vga", (360, 0, 240, 240))
    seen.frame()
    assert sensor.resets == 2


@given(
    st.tuples(st.integers(0, 90), st.integers(0, 90), st.integers(10, 100), st.integers(10, 100)),
    st.sampled_from([(320, 240), (640, 480), (1600, 1200)]),
    st.integers(1, 400),
    st.integers(1, 400),
)
def test_a_region_of_interest_stays_inside_the_frame(
    roi: tuple[int, int, int, int], size: tuple[int, int], width: int, height: int
) -> None:
    left, top, wide, high = roi[0], roi[1], min(roi[2], 100 - roi[0]), min(roi[3], 100 - roi[1])
    x, y, w, h = eye.placed(size, width, height, [left, top, wide, high])
    assert w >= 1
    assert h >= 1
    assert 0 <= x <= x + w <= size[0]
    assert 0 <= y <= y + h <= size[1]


@pytest.mark.parametrize(
    ("dtype", "scale", "zero", "is_good"),
    [
        ("b", 1 / 255, -128, True),
        ("B", 1 / 255, 0, True),
        ("f", 0.0, 0, True),
        ("b", 1 / 127.5, -1, False),
        ("b", 1 / 255, 0, False),
        ("h", 1 / 255, 0, False),
    ],
)
def test_a_model_that_was_quantised_for_other_pixels_is_refused(
    dtype: str, scale: float, zero: int, is_good: bool
) -> None:
    net = SimpleNamespace(input_dtype=(dtype,), input_scale=(scale,), input_zero_point=(zero,))
    if is_good:
        engine.check_input(net)
    else:
        with pytest.raises(ModelError) as caught:
            engine.check_input(net)
        assert caught.value.reason == "model-load-failed"


def test_a_large_input_gets_a_large_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    sensor = new_firmware(monkeypatch)
    look = Look()
    look.eye.prepare(320, 320, 3)
    look.frame()
    assert sensor.set["framesize"] == "vga"
    assert sensor.set["window"] == (480, 480)


# --- models -----------------------------------------------------------------------------------------------

MODEL = bytes(range(256)) * 40
PREFIX = b"\xd2\xcd\x31--labels--"


class Content:
    """A slot's content for reading, in uneven pieces."""

    def __init__(self, data: bytes, cut: int | None = None) -> None:
        self.data = data if cut is None else data[:cut]
        self.size = len(data)

    def readinto(self, offset: int, view: memoryview) -> int:
        part = self.data[offset : offset + min(len(view), 1000)]
        view[: len(part)] = part
        return len(part)


FILES = [
    {"path": "labels.txt", "offset": 3, "size": 10, "sha256": ""},
    {
        "path": "trained.tflite",
        "offset": len(PREFIX),
        "size": len(MODEL),
        "sha256": hashlib.sha256(MODEL).hexdigest(),
    },
]


class Net:
    """What ml.Model makes."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.input_shape: Any = ((1, 96, 96, 3),)
        self.output_shape: Any = ((1, 3),)

    def predict(self, inputs: list[Any]) -> list[Any]:
        (image,) = inputs
        assert image == "image"
        flat = SimpleNamespace(tolist=lambda: [0.1, 0.7, 0.2])
        return [SimpleNamespace(flatten=lambda: flat)]


class Firmware:
    """The modules ml, vfs and uctypes. `seen` collects the bytes that the engine was given."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, romfs: bool) -> None:
        self.mounted: dict[str, memoryview] = {}
        self.seen: list[bytes] = []
        self.fails: Exception | None = None
        self.net: Any = None
        monkeypatch.setitem(sys.modules, "ml", SimpleNamespace(Model=self._model))
        vfs = SimpleNamespace(mount=self._mount, umount=self._umount, VfsRom=lambda view: view)
        monkeypatch.setitem(sys.modules, "vfs", vfs if romfs else SimpleNamespace())
        monkeypatch.setitem(sys.modules, "uctypes", SimpleNamespace(addressof=lambda _buffer: 0x20000010))

    def _mount(self, view: memoryview, where: str) -> None:
        assert where not in self.mounted
        self.mounted[where] = view

    def _umount(self, where: str) -> None:
        if where not in self.mounted:
            raise OSError(22)
        del self.mounted[where]

    def _model(self, path: str) -> Any:
        if path.startswith(models.MOUNT):
            self.seen.append(bytes(self.mounted[models.MOUNT]))
        else:
            self.seen.append(Path(path).read_bytes())
        if self.fails:
            raise self.fails
        self.net = self.net or Net(path)
        return self.net


def load(folder: Path, content: Content | None = None, slot: str = "a") -> Any:
    return engine.load(content or Content(PREFIX + MODEL), FILES, str(folder), slot, lambda: None)


def test_where_romfs_can_be_mounted_the_model_is_used_in_one_buffer(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    firmware = Firmware(monkeypatch, romfs=True)
    model = load(tmp_path)
    assert firmware.seen == [PREFIX + MODEL]
    assert firmware.net.path == "/fleet_rom/trained.tflite"
    assert (model.input_shape, model.output_len) == ((96, 96, 3), 3)
    assert model.classify("image") == [0.1, 0.7, 0.2]
    assert list(tmp_path.iterdir()) == []
    model.close()
    assert firmware.mounted == {}


def test_loading_over_a_mount_that_was_left_behind_works(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    firmware = Firmware(monkeypatch, romfs=True)
    firmware.mounted[models.MOUNT] = memoryview(b"old")
    load(tmp_path)
    assert firmware.seen == [PREFIX + MODEL]


def test_a_failed_load_leaves_nothing_mounted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    firmware = Firmware(monkeypatch, romfs=True)
    firmware.fails = ValueError("Failed to allocate tensors")
    with pytest.raises(ModelError) as caught:
        load(tmp_path)
    assert (caught.value.reason, caught.value.detail) == (
        "model-load-failed",
        "ValueError: Failed to allocate tensors",
    )
    assert firmware.mounted == {}


def test_older_firmware_gets_the_model_as_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    firmware = Firmware(monkeypatch, romfs=False)
    model = load(tmp_path)
    assert firmware.seen == [MODEL]
    assert firmware.net.path == f"{tmp_path}/run_a.tflite"
    model.close()


def test_a_file_that_is_already_right_is_not_written_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    Firmware(monkeypatch, romfs=False)
    load(tmp_path)
    written = (tmp_path / "run_a.tflite").stat().st_mtime_ns
    load(tmp_path)
    assert (tmp_path / "run_a.tflite").stat().st_mtime_ns == written


@pytest.mark.parametrize("wrong", [b"", b"x" * len(MODEL), MODEL + b"x", MODEL[:-1]])
def test_a_file_that_is_wrong_is_replaced(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, wrong: bytes
) -> None:
    firmware = Firmware(monkeypatch, romfs=False)
    (tmp_path / "run_a.tflite").write_bytes(wrong)
    load(tmp_path)
    assert firmware.seen == [MODEL]


def test_the_two_slots_have_files_of_their_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    Firmware(monkeypatch, romfs=False)
    load(tmp_path, slot="a")
    load(tmp_path, slot="b")
    assert {path.name for path in tmp_path.iterdir()} == {"run_a.tflite", "run_b.tflite"}


@pytest.mark.parametrize("romfs", [True, False])
def test_a_slot_that_ends_too_early_never_reaches_the_engine(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, romfs: bool
) -> None:
    firmware = Firmware(monkeypatch, romfs=romfs)
    with pytest.raises(ModelError):
        load(tmp_path, Content(PREFIX + MODEL, cut=5000))
    assert firmware.seen == []


def test_content_that_is_not_what_was_signed_never_reaches_the_engine_as_a_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    firmware = Firmware(monkeypatch, romfs=False)
    with pytest.raises(ModelError) as caught:
        load(tmp_path, Content(PREFIX + MODEL[::-1]))
    assert caught.value.reason == "storage-error"
    assert firmware.seen == []


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (MemoryError("allocating 99"), "out-of-memory"),
        (ValueError("Unsupported model schema"), "model-load-failed"),
        (RuntimeError("Failed to load network"), "model-load-failed"),
        (OSError(2), "model-load-failed"),
    ],
)
def test_what_the_engine_raises_has_a_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: Exception, reason: str
) -> None:
    Firmware(monkeypatch, romfs=True).fails = error
    with pytest.raises(ModelError) as caught:
        load(tmp_path)
    assert caught.value.reason == reason


def test_firmware_without_the_engine_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "ml", None)
    with pytest.raises(ModelError) as caught:
        load(tmp_path)
    assert "ml" in str(caught.value.detail)


@pytest.mark.parametrize(
    ("inputs", "outputs"),
    [
        (((1, 96, 96, 3), (1, 4)), ((1, 3),)),
        (((96, 96, 3),), ((1, 3),)),
        (((1, 96, 96, 2),), ((1, 3),)),
        (((2, 96, 96, 3),), ((1, 3),)),
        (((1, 96, 96, 3),), ((1, 12, 12, 3),)),
        (((1, 96, 96, 3),), ((1, 3), (1, 1))),
    ],
)
def test_models_that_are_no_classifiers_of_pictures_are_refused(inputs: Any, outputs: Any) -> None:
    with pytest.raises(ModelError) as caught:
        engine.shapes(inputs, outputs)
    assert caught.value.reason == "model-load-failed"


def test_a_release_without_a_model_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    Firmware(monkeypatch, romfs=True)
    with pytest.raises(ModelError, match="model-load-failed"):
        engine.load(Content(PREFIX), FILES[:1], str(tmp_path), "a", lambda: None)


# --- the board itself -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "cause", "word"),
    [
        # i.MX RT: no names for a hard reset and for waking up
        ({"PWRON_RESET": 1, "WDT_RESET": 3, "SOFT_RESET": 5}, 1, "power-on"),
        ({"PWRON_RESET": 1, "WDT_RESET": 3, "SOFT_RESET": 5}, 3, "watchdog"),
        ({"PWRON_RESET": 1, "WDT_RESET": 3, "SOFT_RESET": 5}, 4, "deepsleep"),
        ({"PWRON_RESET": 1, "WDT_RESET": 3, "SOFT_RESET": 5}, 5, "soft"),
        # STM32
        (
            {"SOFT_RESET": 0, "PWRON_RESET": 1, "HARD_RESET": 2, "WDT_RESET": 3, "DEEPSLEEP_RESET": 4},
            0,
            "soft",
        ),
        (
            {"SOFT_RESET": 0, "PWRON_RESET": 1, "HARD_RESET": 2, "WDT_RESET": 3, "DEEPSLEEP_RESET": 4},
            2,
            "hard",
        ),
        # AE3 always says 0
        ({}, 0, "unknown"),
        ({"SOFT_RESET": 0, "PWRON_RESET": 1}, 77, "unknown"),
    ],
)
def test_reset_causes_of_every_port_become_the_contracts_words(
    names: dict[str, int], cause: int, word: str
) -> None:
    assert board_module.reset_word(SimpleNamespace(reset_cause=lambda: cause, **names)) == word


def test_a_port_without_reset_causes_has_an_unknown_one() -> None:
    assert board_module.reset_word(SimpleNamespace()) == "unknown"


class Lamp:
    """machine.LED."""

    lit: dict[str, bool]

    def __init__(self, name: str) -> None:
        if name not in self.lit:
            raise ValueError("unknown pin")
        self.name = name

    def on(self) -> None:
        self.lit[self.name] = True

    def off(self) -> None:
        self.lit[self.name] = False


class Board:
    """The modules machine, omv and the clock of a camera; `hal()` is the real one on it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        self.ticks = 2**30 - 500  # soon wraps
        self.folder = tmp_path
        (tmp_path / "fleet").mkdir()
        self.watchdogs: list[int] = []
        self.refuses_over: int | None = None
        self.resets = 0
        Lamp.lit = dict.fromkeys(("LED_RED", "LED_GREEN", "LED_BLUE"), False)
        self.machine = SimpleNamespace(
            LED=Lamp, WDT=self._watchdog, unique_id=lambda: b"\x01\xab", reset=self._reset
        )
        monkeypatch.setitem(sys.modules, "machine", self.machine)
        omv = SimpleNamespace(arch=lambda: "OMVRT1060 32768 SDRAM", version_string=lambda: "4.8.1")
        monkeypatch.setitem(sys.modules, "omv", omv)
        monkeypatch.setitem(sys.modules, "network", Network(lan=True))
        monkeypatch.setattr(time, "ticks_ms", lambda: self.ticks % 2**30, raising=False)
        monkeypatch.setattr(time, "ticks_diff", self._diff, raising=False)

    @staticmethod
    def _diff(later: int, earlier: int) -> int:
        return (later - earlier + 2**29) % 2**30 - 2**29

    def _watchdog(self, *, timeout: int) -> Any:
        if self.refuses_over is not None and timeout > self.refuses_over:
            raise ValueError("WDT timeout too long")
        self.watchdogs.append(timeout)
        return SimpleNamespace(feed=lambda: self.watchdogs.append(0))

    def _reset(self) -> None:
        self.resets += 1

    def hal(self, **settings: Any) -> Any:
        made = hal.Hal(str(self.folder))
        made.configure(settings_of(**settings))
        return made


@pytest.fixture
def board(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Board:
    return Board(monkeypatch, tmp_path)


def test_time_goes_on_when_the_counter_wraps(board: Board) -> None:
    made = board.hal()
    for _ in range(10):
        board.ticks += 300
        made.ticks_ms()
    assert made.ticks_ms() == 3000


def test_the_board_says_who_it_is(board: Board) -> None:
    made = board.hal()
    assert (made.uid(), made.arch(), made.firmware()) == ("01ab", "OMVRT1060 32768 SDRAM", "4.8.1")
    assert made.network_step() is False
    assert made.network_info()["kind"] == "ethernet"
    assert made.telemetry() == {}


def test_the_led_shows_colour_and_pattern(board: Board) -> None:
    made = board.hal()
    made.led("magenta", "blink")
    assert Lamp.lit == {"LED_RED": True, "LED_GREEN": False, "LED_BLUE": True}
    board.ticks += 700
    made.led_step()
    assert not any(Lamp.lit.values())
    made.led("blue", "solid")
    board.ticks += 100_000
    made.led_step()
    assert Lamp.lit == {"LED_RED": False, "LED_GREEN": False, "LED_BLUE": True}


def test_a_board_that_lacks_an_led_shows_the_others(board: Board) -> None:
    del Lamp.lit["LED_GREEN"]
    board.hal().led("white", "solid")
    assert Lamp.lit == {"LED_RED": True, "LED_BLUE": True}


@pytest.mark.parametrize(
    ("settings", "refuses_over", "armed"),
    [
        ({}, None, [60_000]),
        ({"watchdog_s": 128}, None, [128_000]),
        ({}, 32_700, [32_000]),  # STM32
        ({"watchdog_s": 0}, None, []),
        ({"debug": True}, None, []),
    ],
)
def test_the_watchdog_is_armed_as_far_as_the_board_can(
    board: Board, settings: dict[str, Any], refuses_over: int | None, armed: list[int]
) -> None:
    board.refuses_over = refuses_over
    made = board.hal(**settings)
    assert board.watchdogs == armed
    assert made.has_watchdog() is bool(armed)
    made.feed()
    assert board.watchdogs == armed + [0] * len(armed)


def test_a_board_without_a_watchdog_goes_without(board: Board) -> None:
    del board.machine.WDT
    made = board.hal()
    made.feed()
    assert made.has_watchdog() is False


def test_a_clock_is_trusted_only_after_it_was_set(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(clock, "ask", lambda server, *_: asked.append(server))
    made = board.hal(ntp="10.0.0.2")
    sys.modules["network"].up = True  # type: ignore[attr-defined]  # our stand-in
    assert made.unix() is None
    assert made.network_step()
    assert asked == ["10.0.0.2"]
    assert abs(made.unix() - time.time()) < 5
    board.ticks += 3_600_000
    made.network_step()
    assert len(asked) == 1, "not at every turn"


def test_a_time_server_that_does_not_answer_is_asked_again_later(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def fails(*_: object) -> None:
        asked.append(board.ticks)
        raise OSError(110)

    monkeypatch.setattr(clock, "ask", fails)
    made = board.hal(ntp="10.0.0.2")
    sys.modules["network"].up = True  # type: ignore[attr-defined]  # our stand-in
    for _ in range(600):
        made.network_step()
        board.ticks += 1000
    assert len(asked) == 2
    assert made.unix() is None


def test_ports_that_count_from_2000_have_unix_time_all_the_same(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = board.hal()
    made._is_clock_set = True
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now - 946_684_800)
    monkeypatch.setattr(time, "gmtime", lambda _at: (2000, 1, 1))
    assert made.unix() == int(now)


def test_storage_is_measured_and_opened(board: Board) -> None:
    made = board.hal()
    info = made.storage_info()
    assert info["backend"] == "flash"
    assert 0 < info["free"] <= info["total"]
    files = made.open_regions(65_536)
    assert files.problem is None
    assert files.slot_a.size == files.slot_b.size == 65_536
    files.close()


def test_storage_that_is_gone_is_no_exception(board: Board) -> None:
    made = board.hal()
    made._storage = str(board.folder / "pulled-out")
    assert made.storage_info() == {"backend": "flash"}


def test_a_short_text_is_kept_over_a_restart(board: Board) -> None:
    made = board.hal()
    assert made.kept() == ""
    made.keep("a-long-command-id-0123456789")
    made.keep("r-2")
    assert board.hal().kept() == "r-2"
    assert (board.folder / "fleet" / "note.bin").stat().st_size == 256


def test_a_restart_leaves_nothing_unwritten(board: Board) -> None:
    board.hal().reset()
    assert board.resets == 1


def test_settings_are_found_beside_the_slots(board: Board) -> None:
    assert board.hal().config_path() == f"{board.folder}/fleet/config.json"


def test_the_sensor_and_the_model_are_reached_through_the_hal(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    new_firmware(monkeypatch)
    Firmware(monkeypatch, romfs=True)
    made = board.hal()
    model = made.load_model(Content(PREFIX + MODEL), FILES, "a")
    made.prepare(96, 96, 3)
    assert made.capture() is None
    board.ticks += 3000
    assert model.classify(made.capture()) == [0.1, 0.7, 0.2]
    made.free_model(model)
