"""TLS to a real mosquitto, on CPython and on MicroPython: the right broker is believed, every other one is not."""

import datetime
import json
import socket
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from camera_agent.errors import StreamError
from camera_agent.link import Link
from camera_agent.outbox import Outbox
from camera_agent.secure import Secure, why
from camera_agent.sockets import open_stream
from tests.agent.certificates import Authority
from tests.agent.fake_stream import FakeHal
from tests.agent.micropython import DEVICE_FAKES, run_device
from tests.brokers import Mosquitto, free_port

CHECK = DEVICE_FAKES / "check_tls.py"


class Site(NamedTuple):
    """A broker with listeners for good and bad certificates, and who signed them."""

    broker: Mosquitto
    authority: Authority
    ports: dict[str, int]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("tls")
    authority = Authority.make()
    files = {
        "good": authority.issue(folder),
        "nameless": authority.issue(folder, address=None),
        "expired": authority.issue(folder, valid_until=datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)),
        "future": authority.issue(folder, valid_from=datetime.datetime(2040, 1, 1, tzinfo=datetime.UTC)),
    }
    ports = {name: free_port() for name in files}
    listeners = [
        f"listener {ports[name]} 127.0.0.1\ncertfile {path}\nkeyfile {path}" for name, path in files.items()
    ]
    with Mosquitto(folder, *listeners) as broker:
        yield Site(broker, authority, {**ports, "plain": broker.port})


class DeskHal(FakeHal):
    """The real clock and a real socket."""

    def __init__(self, secure: Any) -> None:
        super().__init__()
        self._secure = secure

    def ticks_ms(self) -> int:
        return int(time.monotonic() * 1000)

    def sleep_ms(self, duration: int) -> None:
        time.sleep(duration / 1000)

    def open_socket(self, host: str, port: int, timeout_ms: int) -> Any:
        return open_stream(host, port, timeout_ms, self, self._secure)


def on_cpython(port: int, ca: str, name: str | None) -> dict[str, Any]:
    hal = DeskHal(Secure({"ca": ca, "name": name}, "127.0.0.1"))
    outbox: Any = Outbox(hal)
    settings = {"camera": "cam-01", "host": "127.0.0.1", "port": port, "password": "a secret"}
    link: Any = Link(hal, settings, outbox, lambda: {"agent": "1"})
    outbox.put("event", {"kind": "note", "text": "x" * 6000})
    done, until = False, time.monotonic() + 30
    while not done and link.last_error is None and time.monotonic() < until:
        if not link.step():
            time.sleep(0.005)
        done = link.connected and all(message.state == 2 for message in outbox._held)
    link.close(2000)
    return {"done": done, "error": link.last_error}


def attempt(python: str, port: int, ca: str, name: str | None, *extra: str) -> dict[str, Any]:
    """Connects once; whether everything that waited was published, else why not."""
    if python == "cpython":
        return on_cpython(port, ca, name)
    assert python in ("i386", "amd64")
    arguments = ("127.0.0.1", str(port), name or "-", *extra)
    run = run_device(python, CHECK, *arguments, heapsize="256k", env={"CA": ca})  # type: ignore[arg-type]
    return dict(json.loads(run.stdout))


def connections(site: Site) -> int:
    """How often the camera's name was said to the broker: it comes with the credential."""
    return site.broker.log_text().count(" as cam-01 ")


@pytest.mark.parametrize("python", ["cpython", "i386", "amd64"])
def test_the_right_broker_is_believed_by_address_and_by_name(site: Site, python: str) -> None:
    before = connections(site)
    for name in (None, "broker"):
        answer = attempt(python, site.ports["good"], site.authority.setting, name)
        assert (answer["done"], answer["error"]) == (True, None)
    assert connections(site) == before + 2


@pytest.mark.parametrize("python", ["cpython", "i386"])
@pytest.mark.parametrize(
    ("listener", "name", "reason"),
    [
        ("good", "elsewhere", "tls-wrong-host"),
        ("nameless", None, "tls-wrong-host"),
        ("expired", "broker", "tls-expired"),
        ("future", "broker", "tls-not-yet-valid"),
    ],
)
def test_every_other_broker_is_refused_by_name_before_anything_is_said(
    site: Site, python: str, listener: str, name: str | None, reason: str
) -> None:
    before = connections(site)
    answer = attempt(python, site.ports[listener], site.authority.setting, name)
    assert (answer["done"], answer["error"]) == (False, reason)
    assert connections(site) == before


@pytest.mark.parametrize("python", ["cpython", "i386", "amd64"])
def test_another_ca_is_not_ours(site: Site, python: str) -> None:
    before = connections(site)
    other = Authority.make("somebody else").setting
    answer = attempt(python, site.ports["good"], other, "broker")
    assert (answer["done"], answer["error"]) == (False, "tls-wrong-ca")
    assert connections(site) == before


def test_a_driver_like_the_winc_shields_carries_tls(site: Site) -> None:
    answer = attempt("i386", site.ports["good"], site.authority.setting, "broker", "winc")
    assert (answer["done"], answer["error"]) == (True, None)


@pytest.mark.parametrize("python", ["cpython", "i386"])
def test_a_port_without_tls_gets_no_credential(site: Site, python: str) -> None:
    before = connections(site)
    answer = attempt(python, site.ports["plain"], site.authority.setting, "broker")
    assert not answer["done"]
    assert answer["error"] in ("tls-failed", "tls-not-spoken", "closed-by-peer")
    assert connections(site) == before


def test_a_peer_that_says_nothing_costs_a_bounded_time() -> None:
    hal = FakeHal()
    secure = Secure({"ca": Authority.make().setting}, "broker")
    with socket.create_server(("127.0.0.1", 0)) as server:
        stream = open_stream("127.0.0.1", server.getsockname()[1], 500, hal, secure)
        began = hal.now
        with pytest.raises(StreamError) as caught:
            stream.write(b"hello")
        assert caught.value.why == "tls-timeout"
        assert hal.now - began < 7000
        stream.close()


def test_a_ca_that_is_none_is_named() -> None:
    with pytest.raises(StreamError) as caught:
        Secure({"ca": "MIIB" * 40}, "broker")
    assert caught.value.why == "tls-ca-invalid"


@pytest.mark.parametrize(
    ("error", "word"),
    [
        (MemoryError(), "tls-out-of-memory"),
        (OSError(-9984), "tls-certificate"),
        (OSError(-9984, "MBEDTLS_ERR_X509_CERT_VERIFY_FAILED"), "tls-certificate"),
        (OSError(-29184), "tls-not-spoken"),
        (ValueError("\nThe certificate validity has expired\n"), "tls-expired"),
        (OSError(), "tls-failed"),
    ],
)
def test_firmware_that_says_less_gets_a_word_too(error: Exception, word: str) -> None:
    assert why(error) == word


def test_what_tls_adds_to_the_agents_own_memory_is_small(site: Site) -> None:
    answer = attempt("i386", site.ports["good"], site.authority.setting, "broker")
    assert answer["code"] < 6000, answer
    assert answer["context"] < 4000, answer
