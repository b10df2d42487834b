"""The brokers that fleetd runs itself: real processes, real crashes."""

import contextlib
import os
import queue
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion
from structlog.testing import capture_logs

import fleetd.embedded
from fleetd.embedded import (
    Accounts,
    BrokerMode,
    InProcessAmqtt,
    PortTakenError,
    SupervisedMosquitto,
    TlsListener,
    answers,
    end_left_behind,
    find_mosquitto,
    mosquitto,
    start_broker,
)
from fleetd.errors import BrokerError, SettingsError
from tests.brokers import ROOT, Mosquitto, free_port, mosquitto_binary


@pytest.fixture
def binary() -> Path:
    return Path(mosquitto_binary())


@contextlib.contextmanager
def client(port: int, name: str, *, clean: bool = True) -> Iterator[tuple[paho.Client, "queue.Queue[bytes]"]]:
    """A connected client and what it receives."""
    received: queue.Queue[bytes] = queue.Queue()
    made = paho.Client(CallbackAPIVersion.VERSION2, name, clean_session=clean)
    made.on_message = lambda *call: received.put(call[2].payload)
    made.connect("127.0.0.1", port)
    made.loop_start()
    try:
        until(made.is_connected)
        yield made, received
    finally:
        made.disconnect()
        made.loop_stop()


def until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def leave_a_session(port: int) -> None:
    """fleetd's session: subscribed, then gone; the broker collects for it."""
    with client(port, "fleetd", clean=False) as (one, _):
        done = threading.Event()
        one.on_subscribe = lambda *_: done.set()
        one.subscribe("#", qos=1)
        assert done.wait(5)


def send(port: int, count: int) -> None:
    with client(port, "camera") as (one, _):
        for message in [one.publish("up/result", str(n), qos=1) for n in range(count)]:
            message.wait_for_publish(10)


def collect(port: int, count: int) -> list[int]:
    with client(port, "fleetd", clean=False) as (_, received):
        return [int(received.get(timeout=10)) for _ in range(count)]


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/stat")  # nobody may have asked for the exit code of an orphan
    return not (status.exists() and status.read_text().rpartition(")")[2].split()[0] == "Z")


def fleetd_that_will_be_killed(folder: Path, **settings: object) -> tuple["subprocess.Popen[str]", int]:
    """A process that runs a broker in `folder`, as fleetd would; and the broker's port."""
    program = (
        "import sys, time; from pathlib import Path; from fleetd.embedded import start_broker\n"
        f"broker = start_broker('mosquitto', state_dir=Path(sys.argv[1]), binary=Path(sys.argv[2]), **{settings!r})\n"
        "print('PORT', broker.port, flush=True); time.sleep(600)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, folder, mosquitto_binary()],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("PORT"):
            return process, int(line.split()[1])
    raise AssertionError(f"it ended with {process.wait()}")


@pytest.mark.parametrize("mode", ["mosquitto", "amqtt"])
def test_a_broker_answers_within_five_seconds_and_leaves_nothing_behind(
    mode: BrokerMode, tmp_path: Path, binary: Path
) -> None:
    threads = set(threading.enumerate())
    begin = time.monotonic()
    broker = start_broker(mode, state_dir=tmp_path / "broker", binary=binary)
    assert time.monotonic() - begin < 5
    assert (broker.kind, broker.host, broker.restarts) == (mode, "127.0.0.1", 0)
    with client(broker.port, "one") as (one, received):
        one.subscribe("hello", qos=1)
        one.publish("hello", b"x" * 20_000, qos=1, retain=True)
        assert received.get(timeout=5) == b"x" * 20_000
    pid = broker.pid if isinstance(broker, SupervisedMosquitto) else None
    broker.stop()
    assert not answers(broker.host, broker.port)
    assert set(threading.enumerate()) <= threads
    assert pid is None or not is_alive(pid)
    broker.stop()  # once more does no harm


def test_amqtt_ends_in_time_although_clients_stay_connected() -> None:
    with InProcessAmqtt() as broker, contextlib.ExitStack() as open_links:
        for _ in range(5):
            open_links.enter_context(client(broker.port, f"camera-{_}"))
            open_links.enter_context(socket.create_connection((broker.host, broker.port)))
        begin = time.monotonic()
        broker.stop()
        assert time.monotonic() - begin < 9
        assert not [t for t in threading.enumerate() if t.name == "amqtt"]


def test_a_mosquitto_that_dies_is_started_again_on_the_same_port(tmp_path: Path, binary: Path) -> None:
    noted = threading.Event()
    with SupervisedMosquitto(tmp_path, binary, on_restart=noted.set) as broker, capture_logs() as logs:
        port, first = broker.port, broker.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        assert noted.wait(10)
        assert (broker.port, broker.restarts) == (port, 1)
        assert broker.pid not in {first, None}
        assert answers("127.0.0.1", port)
    events = [line["event"] for line in logs]
    assert events == ["broker_died", "broker_restarted"]


def test_a_mosquitto_that_cannot_start_again_is_tried_until_it_can(tmp_path: Path, binary: Path) -> None:
    with SupervisedMosquitto(tmp_path, binary) as broker, capture_logs() as logs:
        pid = broker.pid
        assert pid is not None
        with socket.socket() as squatter:
            squatter.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            os.kill(pid, signal.SIGKILL)

            def takes_the_port() -> bool:
                with contextlib.suppress(OSError):
                    squatter.bind((broker.host, broker.port))
                    squatter.listen()
                    return True
                return False

            until(takes_the_port)
            until(lambda: any(line["event"] == "broker_restart_failed" for line in logs))
            assert broker.pid is None
        until(lambda: broker.restarts == 1)
        assert answers(broker.host, broker.port)


def test_a_failing_restart_callback_does_not_end_the_watch(tmp_path: Path, binary: Path) -> None:
    def fails() -> None:
        raise ValueError("no")

    with SupervisedMosquitto(tmp_path, binary, on_restart=fails) as broker:
        first = broker.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        until(lambda: broker.restarts == 1)
        second = broker.pid
        assert second is not None
        os.kill(second, signal.SIGKILL)
        until(lambda: broker.restarts == 2)


def test_a_killed_fleetd_finds_its_broker_again_with_everything_that_waits_in_it(
    tmp_path: Path, binary: Path
) -> None:
    process, port = fleetd_that_will_be_killed(tmp_path)
    with process:
        leave_a_session(port)
        process.kill()
    send(port, 200)  # cameras do not notice
    with SupervisedMosquitto(tmp_path, binary) as broker:
        assert broker.adopted
        assert broker.port == port
        assert collect(port, 200) == list(range(200))
        pid = broker.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)  # it is watched as well as one that was started here
        until(lambda: broker.restarts == 1)
        second = broker.pid
        assert second is not None
    assert not is_alive(second)


def test_a_stopped_adopted_broker_is_gone(tmp_path: Path, binary: Path) -> None:
    process, port = fleetd_that_will_be_killed(tmp_path)
    with process:
        process.kill()
    with SupervisedMosquitto(tmp_path, binary) as broker:
        assert broker.adopted
        pid = broker.pid
        assert pid is not None
    until(lambda: not is_alive(pid))
    assert not answers("127.0.0.1", port)


def test_a_left_broker_can_be_ended_without_a_fleetd_but_not_under_one(tmp_path: Path, binary: Path) -> None:
    assert not end_left_behind(tmp_path / "nothing")
    process, port = fleetd_that_will_be_killed(tmp_path)
    with process:
        assert not end_left_behind(tmp_path)
        assert answers("127.0.0.1", port)
        process.kill()
    assert end_left_behind(tmp_path)
    assert not answers("127.0.0.1", port)
    assert not end_left_behind(tmp_path)


def test_a_left_broker_that_hangs_is_replaced(
    tmp_path: Path, binary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mosquitto, "START_SECONDS", 2.0)
    monkeypatch.setattr(mosquitto, "STOP_SECONDS", 1.0)
    process, port = fleetd_that_will_be_killed(tmp_path)
    with process:
        process.kill()
    os.kill(int((tmp_path / "mosquitto.pid").read_text()), signal.SIGSTOP)
    with SupervisedMosquitto(tmp_path, binary) as broker:
        assert not broker.adopted
        assert broker.port == port
        assert answers(broker.host, port)


def test_a_left_broker_with_an_old_configuration_is_replaced_and_keeps_its_messages(
    tmp_path: Path, binary: Path
) -> None:
    process, port = fleetd_that_will_be_killed(tmp_path, durable=True)
    with process:
        leave_a_session(port)
        process.kill()
    send(port, 150)
    with SupervisedMosquitto(tmp_path, binary, durable=False) as broker:
        assert not broker.adopted
        assert broker.port == port
        assert collect(port, 150) == list(range(150))


def test_a_left_broker_whose_process_id_is_unknown_is_still_found(tmp_path: Path, binary: Path) -> None:
    process, port = fleetd_that_will_be_killed(tmp_path)
    with process:
        process.kill()
    id_file = tmp_path / "mosquitto.pid"
    written = id_file.read_text()
    id_file.unlink()
    with SupervisedMosquitto(tmp_path, binary) as broker:
        assert broker.adopted
        assert broker.port == port
        id_file.write_text(written)


def test_a_stop_and_a_start_keep_port_and_messages(tmp_path: Path, binary: Path) -> None:
    broker = SupervisedMosquitto(tmp_path, binary)
    with broker:
        port = broker.port
        leave_a_session(port)
        send(port, 50)
    with SupervisedMosquitto(tmp_path, binary) as again:
        assert again.port == port
        assert collect(port, 50) == list(range(50))
    with broker:  # the same object too
        assert broker.port == port


def test_two_fleetds_do_not_share_a_folder(tmp_path: Path, binary: Path) -> None:
    with SupervisedMosquitto(tmp_path, binary) as broker:
        with pytest.raises(BrokerError, match="Another fleetd"):
            SupervisedMosquitto(tmp_path, binary).start()
        assert answers(broker.host, broker.port)


@pytest.mark.parametrize("mode", ["mosquitto", "amqtt"])
def test_a_port_that_another_program_has_is_named_with_what_to_do(
    mode: BrokerMode, tmp_path: Path, binary: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(PortTakenError) as caught:
            start_broker(mode, state_dir=tmp_path / "broker", port=port, binary=binary)
    assert "another program" in caught.value.message
    assert "choose another port" in caught.value.message


def test_a_port_that_another_broker_has_suggests_to_use_that_broker(
    tmp_path: Path, binary: Path, mosquitto: Mosquitto
) -> None:
    with pytest.raises(PortTakenError, match="configure that one as the external broker"):
        start_broker("auto", state_dir=tmp_path / "broker", port=mosquitto.port, binary=binary)


def test_without_mosquitto_auto_takes_amqtt_and_says_its_limits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(fleetd.embedded, "_FOLDERS", ())
    with capture_logs() as logs:
        broker = start_broker("auto", state_dir=tmp_path / "broker", port=free_port())
    try:
        assert broker.kind == "amqtt"
        assert answers(broker.host, broker.port)
    finally:
        broker.stop()
    warning = next(line for line in logs if line["event"] == "broker_is_for_a_trial_only")
    assert warning["log_level"] == "warning"
    assert "install mosquitto" in warning["limits"]
    with pytest.raises(BrokerError, match="apt install mosquitto"):
        start_broker("mosquitto", state_dir=tmp_path / "broker")


def test_a_mosquitto_outside_the_path_is_found(
    tmp_path: Path, binary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(fleetd.embedded, "_FOLDERS", (str(binary.parent),))
    assert find_mosquitto() == binary
    assert find_mosquitto(binary) == binary


def test_a_named_program_that_is_not_there_refuses_to_start(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="no program"):
        start_broker("auto", state_dir=tmp_path, binary=tmp_path / "mosquitto")


def test_a_mosquitto_that_does_not_start_is_an_error_with_its_own_words(tmp_path: Path) -> None:
    broken = tmp_path / "mosquitto"
    broken.write_text("#!/bin/sh\necho Error: out of luck >&2\nexit 3\n")
    broken.chmod(0o755)
    with pytest.raises(BrokerError, match="out of luck"):
        start_broker("auto", state_dir=tmp_path / "broker", binary=broken)
    broken.write_text("not a program")
    with pytest.raises(BrokerError, match="cannot be started"):
        start_broker("auto", state_dir=tmp_path / "broker", binary=broken)


def test_the_configuration_is_safe_and_explicit(tmp_path: Path, binary: Path) -> None:
    broker = SupervisedMosquitto(tmp_path, binary, port=1883)
    lines = broker.configuration().splitlines()
    for expected in (
        "listener 1883 127.0.0.1",
        "allow_anonymous true",
        "persistence true",
        f"persistence_location {tmp_path}/data/",
        "max_inflight_messages 1000",
        "max_queued_messages 1000000",
        "max_packet_size 131072",
        "set_tcp_nodelay true",
        "autosave_on_changes false",
    ):
        assert expected in lines
    durable = SupervisedMosquitto(tmp_path, binary, durable=True).configuration()
    assert "autosave_on_changes true\nautosave_interval 100\n" in durable


def test_whoever_lets_others_in_needs_accounts(tmp_path: Path, binary: Path) -> None:
    with pytest.raises(SettingsError, match="accounts"):
        SupervisedMosquitto(tmp_path, binary, host="0.0.0.0")
    with pytest.raises(SettingsError, match="accounts"):
        SupervisedMosquitto(tmp_path, binary, extra=["listener 8883"])
    with pytest.raises(SettingsError, match="no TLS"):
        InProcessAmqtt(host="0.0.0.0")
    with pytest.raises(SettingsError, match="accounts"):
        SupervisedMosquitto(tmp_path, binary, tls=TlsListener("0.0.0.0", 8883, tmp_path, tmp_path))
    files = Accounts(tmp_path / "passwords", tmp_path / "acl")
    lines = SupervisedMosquitto(tmp_path, binary, host="0.0.0.0", accounts=files).configuration().splitlines()
    assert "allow_anonymous false" in lines
    assert "allow_anonymous true" not in lines
    assert f"password_file {tmp_path}/passwords" in lines
    assert lines[lines.index("listener 0 0.0.0.0") + 1] == "use_username_as_clientid true"


def test_messages_and_queues_stay_private_and_the_log_stays_small(
    tmp_path: Path, binary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mosquitto, "LOG_BYTES", 10)
    folder = tmp_path / "with a space"
    with SupervisedMosquitto(folder, binary):
        assert folder.stat().st_mode & 0o777 == 0o700
        kept = folder / "mosquitto.log.1"
        until(lambda: kept.exists() or (folder / "mosquitto.log").stat().st_size <= 10)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a limit can only be set before the start")
def test_a_low_limit_of_open_files_does_not_bound_the_fleet(tmp_path: Path, binary: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with SupervisedMosquitto(tmp_path / "broker", binary) as broker:
        assert broker.pid is not None
        wide, _ = resource.prlimit(broker.pid, resource.RLIMIT_NOFILE)
    assert wide == (65_536 if hard == resource.RLIM_INFINITY else min(hard, 65_536))
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (soft, hard), "fleetd's own stays"
