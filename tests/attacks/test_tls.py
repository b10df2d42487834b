"""TLS between cameras and fleetd's own broker, with certificates that fleetd made."""

import ssl
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from fleetd.app import Daemon
from fleetd.broker import BrokerLink
from fleetd.certificates import BROKER_NAME, Authority
from fleetd.errors import SettingsError
from fleetd.ports import Inbound
from fleetd.settings import load_settings
from fleetd.simulator.camera import VirtualCamera
from tests.attacks.brokers import fleet, until
from tests.brokers import free_port, mosquitto_binary


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    Authority(tmp_path / "state" / "ca").make(["localhost"], time.time())
    with fleet(tmp_path, "mosquitto", broker={"tls": True, "tls_port": free_port()}) as made:
        yield made


def shake_hands(daemon: Daemon, authority: Path, name: str) -> str:
    """The SHA-256 of the broker's certificate, if one would trust it."""
    import hashlib
    import socket

    context = ssl.create_default_context(cafile=authority)
    port = daemon.settings.broker.tls_port
    with (
        socket.create_connection(("127.0.0.1", port)) as raw,
        context.wrap_socket(raw, server_hostname=name) as link,
    ):
        assert link.version() in ("TLSv1.2", "TLSv1.3")
        return hashlib.sha256(link.getpeercert(binary_form=True) or b"").hexdigest()


def test_a_camera_trusts_what_provisioning_is_told(daemon: Daemon, tmp_path: Path) -> None:
    told = daemon.status()["broker"]["for_cameras"]
    _, secret = daemon.registry.enrol("cam-1", actor="test")
    port = int(told["address"].rpartition(":")[2])
    camera = VirtualCamera(
        "cam-1", tmp_path / "cam", "127.0.0.1", port, [], seed=1, password=secret, tls=told["tls"]
    )
    camera.start()
    try:
        until(lambda: daemon.registry.camera("cam-1").presence == "online", "the camera's word over TLS")
    finally:
        camera.stop()


def test_another_authority_or_another_name_is_refused(daemon: Daemon, tmp_path: Path) -> None:
    mine = Authority(tmp_path / "state" / "ca")
    other = Authority(tmp_path / "other")
    other.make(["localhost"], time.time())
    assert shake_hands(daemon, mine.certificate, BROKER_NAME) == mine.broker().sha256
    assert shake_hands(daemon, mine.certificate, "localhost")
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(daemon, other.certificate, BROKER_NAME)
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(daemon, mine.certificate, "elsewhere.example")


def test_a_renewed_certificate_is_in_use_without_disturbing_anybody(daemon: Daemon, tmp_path: Path) -> None:
    authority = Authority(tmp_path / "state" / "ca")
    connects = daemon.link.connects
    authority.renew([], time.time())
    assert daemon.host.running is not None
    daemon.host.running.reload()
    until(lambda: shake_hands(daemon, authority.certificate, BROKER_NAME) == authority.broker().sha256)
    assert daemon.link.connects == connects


def test_the_link_takes_everything_over_tls(daemon: Daemon, tmp_path: Path) -> None:
    """TLS decrypts in records of 16 KB, so more is often there than the socket says."""
    _, secret = daemon.registry.enrol("busy", actor="test")
    got: list[Inbound] = []

    def receive(batch: Sequence[Inbound]) -> None:
        got.extend(batch)
        link.acknowledge(batch)

    link = BrokerLink(
        host="localhost",
        port=daemon.settings.broker.tls_port,
        client_id="x",
        subscribe="fleet/v1/busy/up/#",
        receive=receive,
        username="reader",
        password=daemon.accounts.add_user("reader", actor="test"),
        tls=True,
        ca_file=tmp_path / "state" / "ca" / "ca.pem",
    )
    link.start()
    try:
        assert link.wait_ready(60), link.last_error
        camera = mqtt.Client(CallbackAPIVersion.VERSION2, "busy")
        camera.username_pw_set("busy", secret)
        camera.connect("127.0.0.1", daemon.host.port)
        camera.loop_start()
        for number in range(600):
            camera.publish("fleet/v1/busy/up/image/x/1", number.to_bytes(2) + bytes(number % 7 * 1000), 1)
        until(lambda: len(got) >= 600, "600 messages")
        camera.disconnect()
        camera.loop_stop()
    finally:
        link.stop()
    assert [int.from_bytes(one.payload[:2]) for one in got] == list(range(600))


def test_nobody_listens_beyond_loopback_without_certificates(tmp_path: Path) -> None:
    settings = load_settings(
        state_dir=tmp_path / "state",
        broker={"mode": "mosquitto", "listen": "0.0.0.0", "mosquitto": mosquitto_binary(), "port": 0},
        http={"port": 0},
    )
    with pytest.raises(SettingsError, match="fleetd ca init"):
        Daemon(settings).start()


def test_a_wrong_ca_file_refuses_to_start(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="ca_file"):
        BrokerLink(
            host="localhost",
            port=1,
            client_id="x",
            subscribe="#",
            receive=lambda _: None,
            tls=True,
            ca_file=tmp_path / "none.pem",
        )
