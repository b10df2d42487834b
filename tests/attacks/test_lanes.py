"""A camera's credential opens that camera's lane and nothing else: every forbidden pair, on both brokers."""

import json
import time
from collections.abc import Iterator
from typing import Final

import pytest

from fleetd.app import Daemon
from tests.attacks.brokers import PREFIX, Client, fleet, reader, until

DIGEST: Final = "ab" * 32
MARK: Final = b'{"forbidden":true}'

# What cam-1 must not publish on: others' lanes, fleetd's, and everything outside the prefix.
NOT_TO_PUBLISH: Final = [
    *(
        f"{PREFIX}/cam-2/up/{channel}"
        for channel in ("status", "result", "telemetry", "led", "update", "event")
    ),
    *(f"{PREFIX}/cam-2/up/reply/identify", f"{PREFIX}/cam-2/up/image/x/1", f"{PREFIX}/cam-9/up/result"),
    *(
        f"{PREFIX}/{camera}/down/{what}"
        for camera in ("cam-1", "cam-2")
        for what in ("desired", "ack", "cmd/x")
    ),
    *(
        f"{PREFIX}/_release/x",
        f"{PREFIX}/_blob/{DIGEST}/0",
        f"{PREFIX}/_fleetd/status",
        f"{PREFIX}/_fleetd/event",
    ),
    *(
        f"{PREFIX}/_fleetd/up/x",
        f"{PREFIX}/watcher/up/result",
        f"{PREFIX}/cam-1",
        f"{PREFIX}/cam-1/x",
        PREFIX,
    ),
    *(f"{PREFIX}//up/result", f"{PREFIX}/CAM-1/up/result", f"{PREFIX}/cam-1 /up/x", f"/{PREFIX}/cam-1/up/x"),
    *("x", "fleet/v2/cam-1/up/result", "fleet", "/", "homeassistant/sensor/x/config"),
    *("$SYS/x", "$CONTROL/dynamic-security/v1", f"$share/g/{PREFIX}/cam-1/up/result", "$x"),
]
# What cam-1 may ask for on mosquitto, which grants every subscription, but must not get anything by.
NOT_TO_READ: Final = [
    *("#", "+/#", "+/+/+/up/#", f"{PREFIX}/#", f"{PREFIX}/+/#", f"{PREFIX}/+/up/#", f"{PREFIX}/+/down/#"),
    *(
        f"{PREFIX}/cam-2/#",
        f"{PREFIX}/cam-2/down/desired",
        f"{PREFIX}/cam-2/up/status",
        f"{PREFIX}/cam-1/up/#",
    ),
    *(f"{PREFIX}/_fleetd/event", f"{PREFIX}/_fleetd/#", "$SYS/#", "$SYS/broker/clients/total", "$CONTROL/#"),
    *("$share/g/#", f"$share/g/{PREFIX}/+/up/#", f"$share/g/{PREFIX}/cam-2/down/#"),
]


@pytest.fixture(scope="module", params=["mosquitto", "amqtt"])
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator["Site"]:
    with fleet(tmp_path_factory.mktemp(request.param), request.param) as daemon:
        yield Site(daemon)


class Site:
    """A fleetd with two cameras and their credentials."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self.kind = daemon.host.kind
        self.secrets = {name: daemon.registry.enrol(name, actor="test")[1] for name in ("cam-1", "cam-2")}
        self._watchers = 0

    def camera(self, name: str, **how: object) -> Client:
        return Client(self.daemon, name, self.secrets[name], **how)  # type: ignore[arg-type]

    def watcher(self) -> Client:
        self._watchers += 1
        return reader(self.daemon, self.daemon.accounts, f"watcher-{self._watchers}")


def seen(client: Client, payload: bytes) -> bool:
    return any(body == payload for _, body in client.got)


def test_a_camera_publishes_on_no_topic_but_its_own(site: Site) -> None:
    with site.watcher() as watcher:
        assert watcher.subscribe(f"{PREFIX}/#")
        for topic in NOT_TO_PUBLISH:
            with site.camera("cam-1") as camera:
                assert camera.inside, topic
                camera.publish(topic, MARK, retain=True)
        with site.camera("cam-1") as camera:
            camera.publish(f"{PREFIX}/cam-1/up/event", b"allowed")
            until(lambda: seen(watcher, b"allowed"), "the one message that is allowed")
        assert not seen(watcher, MARK)
        with site.watcher() as later:  # nothing of it is retained either
            later.subscribe(f"{PREFIX}/#")
            site.daemon.link.publish(f"{PREFIX}/_fleetd/event", b"end", retain=False)
            until(lambda: seen(later, b"end"), "the end")
            assert not seen(later, MARK)
    dead = [letter["payload"] for letter in site.daemon.registry.dead_letters()]
    assert MARK not in dead, "fleetd itself received one"


def test_mosquitto_refuses_each_forbidden_publication_by_its_reason_code(site: Site) -> None:
    if site.kind != "mosquitto":
        pytest.skip("amqtt speaks MQTT 3.1.1, which has no reason codes")
    import paho.mqtt.client as mqtt
    from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

    codes: dict[int, int] = {}
    client = mqtt.Client(CallbackAPIVersion.VERSION2, "x", protocol=MQTTProtocolVersion.MQTTv5)
    client.username_pw_set("cam-1", site.secrets["cam-1"])
    client.on_publish = lambda *call: codes.__setitem__(call[2], call[3].value)
    client.connect(site.daemon.host.host, site.daemon.host.port)
    client.loop_start()
    try:
        until(client.is_connected)
        for topic in NOT_TO_PUBLISH:
            mid = client.publish(topic, MARK, 1).mid
            until(lambda mid=mid: mid in codes, topic)  # type: ignore[misc]
            assert codes[mid] == 0x87, f"{topic}: {codes[mid]:#x}"
    finally:
        client.disconnect()
        client.loop_stop()


def test_a_camera_reads_nothing_but_its_own_lane_and_what_is_for_all(site: Site) -> None:
    link = site.daemon.link
    others = {
        f"{PREFIX}/cam-2/down/desired": True,
        f"{PREFIX}/cam-2/down/cmd/identify": False,
        f"{PREFIX}/_fleetd/event": False,
    }
    for_all = [f"{PREFIX}/_release/r", f"{PREFIX}/_blob/{DIGEST}/0", f"{PREFIX}/_fleetd/status"]
    link.publish(f"{PREFIX}/cam-2/down/desired", MARK, retain=True)
    assert link.flush(10)
    for wanted in NOT_TO_READ:
        with site.camera("cam-1") as camera, site.camera("cam-2") as other:
            other.publish(f"{PREFIX}/cam-2/up/status", MARK, retain=True)
            granted = camera.subscribe(wanted)
            assert not granted or site.kind == "mosquitto", f"{wanted} was granted"
            if not camera.inside:
                continue
            assert camera.subscribe(f"{PREFIX}/cam-1/down/#")
            for topic, retained in others.items():
                link.publish(topic, MARK, retain=retained)
            other.publish(f"{PREFIX}/cam-2/up/result", MARK)
            link.publish(f"{PREFIX}/cam-1/down/cmd/identify", b"mine", retain=False)
            until(lambda camera=camera: seen(camera, b"mine"), "its own command")  # type: ignore[misc]
            foreign = [
                topic
                for topic, _ in camera.got
                if topic not in (*for_all, f"{PREFIX}/cam-1/down/cmd/identify")
            ]
            assert not foreign, f"{wanted} brought {foreign}"
    for topic in (f"{PREFIX}/cam-2/down/desired", f"{PREFIX}/cam-2/up/status"):
        link.publish(topic, b"", retain=True)


def test_a_camera_reads_releases_blocks_and_fleetds_word(site: Site) -> None:
    link = site.daemon.link
    with site.camera("cam-1") as camera:
        for wanted in (f"{PREFIX}/_release/+", f"{PREFIX}/_blob/+/+", f"{PREFIX}/_fleetd/status"):
            assert camera.subscribe(wanted)
        link.publish(f"{PREFIX}/_release/r", b"manifest", retain=False)
        link.publish(f"{PREFIX}/_blob/{DIGEST}/0", b"block", retain=False)
        until(lambda: len(camera.got) >= 3, "all three")
        assert {topic.split("/")[2] for topic, _ in camera.got} == {"_release", "_blob", "_fleetd"}


def test_people_read_and_publish_nothing(site: Site) -> None:
    with site.watcher() as watcher, site.watcher() as mute:
        assert watcher.subscribe(f"{PREFIX}/#")
        for topic in (*NOT_TO_PUBLISH[:12], f"{PREFIX}/cam-1/up/result", f"{PREFIX}/{mute.name}/up/result"):
            mute.publish(topic, b"by a person", retain=True)
        with site.camera("cam-1") as camera:
            camera.publish(f"{PREFIX}/cam-1/up/event", b"by a camera")
            until(lambda: seen(watcher, b"by a camera"))  # amqtt loses what a client leaves behind too soon
        assert not seen(watcher, b"by a person")


def test_what_is_desired_of_a_camera_is_read_by_nobody_else(site: Site) -> None:
    """Another WiFi's key may stand in it."""
    topic, secret = f"{PREFIX}/cam-1/down/desired", b'{"generation":0,"config":{"wifi":{"key":"secret"}}}'
    with site.watcher() as watcher, site.camera("cam-1") as camera:
        assert watcher.subscribe(f"{PREFIX}/#")
        watcher.subscribe(topic)
        assert camera.subscribe(topic)
        site.daemon.link.publish(topic, secret, retain=True)
        until(lambda: seen(camera, secret))
        with site.watcher() as later:
            assert later.subscribe(f"{PREFIX}/#")
            later.subscribe(f"{PREFIX}/+/down/desired")
            camera.publish(f"{PREFIX}/cam-1/up/event", b"after it")
            until(lambda: seen(watcher, b"after it") and seen(later, b"after it"))
            assert not seen(later, secret)
        assert not seen(watcher, secret)
        site.daemon.link.publish(topic, b"", retain=True)


def test_a_last_will_on_a_foreign_topic_is_never_heard(site: Site) -> None:
    with site.watcher() as watcher:
        watcher.subscribe(f"{PREFIX}/#")
        with site.camera("cam-1", will=(f"{PREFIX}/cam-2/up/status", MARK)) as camera:
            if camera.inside:
                camera.drop()
        with site.camera("cam-1", will=(f"{PREFIX}/cam-1/up/status", b"own will")) as camera:
            assert camera.inside
            camera.drop()
        until(lambda: seen(watcher, b"own will"), "the allowed will")
        assert not seen(watcher, MARK)


def test_naming_anothers_client_id_disturbs_nobody(site: Site) -> None:
    with site.camera("cam-2") as victim:
        victim.subscribe(f"{PREFIX}/cam-2/down/#")
        with site.camera("cam-1", client_id="cam-2", clean=False) as thief:
            assert thief.inside
            for user, password in (
                ("cam-2", "wrong"),
                ("_fleetd", "wrong"),
                ("cam-1", site.secrets["cam-2"]),
            ):
                with Client(site.daemon, user, password, client_id="cam-2") as liar:
                    assert not liar.inside
            with Client(site.daemon, None, None, client_id="cam-2") as nobody:
                assert not nobody.inside
            site.daemon.link.publish(f"{PREFIX}/cam-2/down/cmd/identify", b"for cam-2", retain=False)
            until(lambda: seen(victim, b"for cam-2"), "the victim's message")
            assert victim.inside
            assert not seen(thief, b"for cam-2")


@pytest.mark.parametrize(
    "name",
    [
        "",
        "+",
        "#",
        "a/b",
        "../x",
        "%u",
        "$SYS",
        "_fleetd",
        "cam-1/up",
        "CAM-1",
        "cam-1\u200b",
        "c\u0430m-1",
        "x" * 300,
    ],
)
def test_hostile_names_are_let_in_nowhere(site: Site, name: str) -> None:
    from fleetd.errors import FleetError

    with pytest.raises(FleetError):
        site.daemon.registry.enrol(name, actor="test")
    with pytest.raises(FleetError):
        site.daemon.accounts.add_user(name, actor="test")
    with Client(site.daemon, name, site.secrets["cam-1"], client_id="x") as client:
        assert not client.inside


def test_a_stolen_camera_is_cut_off_within_a_second_and_does_not_come_back(site: Site) -> None:
    daemon = site.daemon
    _, secret = daemon.registry.enrol("stolen", actor="test")
    with site.camera("cam-1") as other, Client(daemon, "stolen", secret) as stolen:
        until(lambda: stolen.inside)
        began = time.monotonic()
        daemon.registry.revoke("stolen", actor="alice")
        assert stolen.closed.wait(60), "it was never cut off"
        took = time.monotonic() - began
        assert other.inside
    print(f"{site.kind}: revoked and cut off after {1000 * took:.0f} ms")
    assert took < 10, "a loaded machine may be slow, but not that slow; alone it takes 0.1 s"
    with Client(daemon, "stolen", secret) as again:
        assert not again.inside
    with Client(daemon, "stolen", daemon.registry.reinstate("stolen", actor="alice")) as back:
        assert back.inside
    with Client(daemon, "stolen", secret) as again:
        assert not again.inside, "the stolen credential stays worthless"


def test_a_new_credential_ends_the_old_one_and_its_connection(site: Site) -> None:
    _, secret = site.daemon.registry.enrol("rotated", actor="test")
    with Client(site.daemon, "rotated", secret) as before:
        until(lambda: before.inside)
        new = site.daemon.registry.rotate_secret("rotated", actor="alice")
        assert before.closed.wait(60)
    with Client(site.daemon, "rotated", secret) as old, Client(site.daemon, "rotated", new) as fresh:
        assert not old.inside
        assert fresh.inside


def test_a_removed_cameras_word_is_taken_off_the_broker(site: Site) -> None:
    daemon = site.daemon
    _, secret = daemon.registry.enrol("leaving", actor="test")
    status, desired = f"{PREFIX}/leaving/up/status", f"{PREFIX}/leaving/down/desired"
    with site.watcher() as watcher, Client(daemon, "leaving", secret) as camera:
        watcher.subscribe(f"{PREFIX}/leaving/#")
        camera.subscribe(desired)
        camera.publish(status, json.dumps({"online": True}).encode(), retain=True)
        daemon.link.publish(desired, b"{}", retain=True)
        until(lambda: watcher.got and camera.got, "both retained messages")
        daemon.registry.remove("leaving", actor="alice")
        until(lambda: (status, b"") in watcher.got, "the status cleared")
    _, secret = daemon.registry.enrol("leaving", actor="test")
    with Client(daemon, "leaving", secret) as again:
        again.subscribe(f"{PREFIX}/leaving/down/#")
        daemon.link.publish(f"{PREFIX}/leaving/down/ack", b"end", retain=False)
        until(lambda: seen(again, b"end"))
        assert [topic for topic, _ in again.got] == [f"{PREFIX}/leaving/down/ack"], (
            "the desired state is gone"
        )
    with site.watcher() as later:
        later.subscribe(f"{PREFIX}/leaving/#")
        later.subscribe(f"{PREFIX}/_fleetd/event")
        daemon.link.publish(f"{PREFIX}/_fleetd/event", b"end", retain=False)
        until(lambda: seen(later, b"end"))
        assert [topic for topic, _ in later.got] == [f"{PREFIX}/_fleetd/event"]
