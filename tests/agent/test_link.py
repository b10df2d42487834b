"""The connection's state machine against a broker in memory, with a clock that the test moves."""

import json
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from camera_agent import link as link_module
from camera_agent import protocol
from camera_agent.link import WANTED_MAX, Link
from camera_agent.outbox import Outbox
from tests.agent.fake_stream import FakeBroker, FakeHal, publish, strings
from tests.agent.micropython import DEVICE_FAKES, Arch, run_device

PREFIX = b"fleet/v1/"
STATUS = PREFIX + b"cam-07/up/status"
RESULT = PREFIX + b"cam-07/up/result"
DOWN = PREFIX + b"cam-07/down/"
DAEMON = PREFIX + b"_fleetd/status"
DIGEST = "ab" * 32


class Camera:
    """A link with its outbox, a broker, and what handlers were given."""

    def __init__(self, seed: int = 1, **config: object) -> None:
        self.broker = FakeBroker()
        self.hal = FakeHal(self.broker, seed)
        self.outbox: Any = Outbox(self.hal)
        self.config = {"camera": "cam-07", "host": "broker", "password": "secret", **config}
        self.link: Any = Link(self.hal, self.config, self.outbox, lambda: {"agent": "1.0"})
        self.handled: list[tuple[str, tuple[object, ...], Any]] = []
        for kind in ("desired", "cmd", "release", "blob"):
            self.link.handlers[kind] = self._handle

    def _handle(self, kind: str, parts: tuple[object, ...], payload: Any) -> None:
        self.handled.append((kind, parts, bytes(payload) if isinstance(payload, memoryview) else payload))

    def settle(self) -> None:
        """Steps until nothing more happens at this moment."""
        for _ in range(1000):
            if not self.link.step():
                return
        pytest.fail("it never settles")

    def run(self, seconds: float, step_ms: int = 100) -> None:
        """The capture loop for so long."""
        for _ in range(int(seconds * 1000 / step_ms)):
            self.hal.now += step_ms
            self.link.step()

    def connect(self) -> None:
        self.settle()
        assert self.link.connected, self.link.last_error

    def fleetd(self, online: bool = True, instance: str = "one") -> None:
        """What fleetd says of itself."""
        body = json.dumps({"online": online, "instance": instance}).encode()
        self.broker.send(DAEMON, body, retain=True)
        self.settle()

    def receipt(self, *ranges: list[int]) -> None:
        body = json.dumps({"boot": self.outbox.boot, "seq": ranges}).encode()
        self.broker.send(DOWN + b"ack", body)
        self.settle()

    def published(self) -> list[tuple[str, int]]:
        """(channel, seq) of what the broker got, then forgets them."""
        got = [
            (topic.decode().rpartition("/up/")[2], json.loads(payload)["seq"])
            for topic, payload, _ in self.broker.published
        ]
        self.broker.published.clear()
        return got


@pytest.fixture
def camera() -> Camera:
    return Camera()


@pytest.fixture
def connected(camera: Camera) -> Camera:
    camera.connect()
    camera.broker.published.clear()
    camera.broker.asked.clear()
    return camera


# --- connecting -------------------------------------------------------------------------------------------


def test_a_connection_subscribes_then_says_its_status_then_what_waited(camera: Camera) -> None:
    camera.outbox.put("event", {"kind": "boot"})
    camera.connect()
    assert camera.broker.asked == [("subscribe", [DOWN + b"#", DAEMON])]
    assert camera.broker.subscribed == {DOWN + b"#": 1, DAEMON: 0}
    (topic, payload, retain), (second, _, second_retain) = camera.broker.published
    assert (topic, retain) == (STATUS, True)
    status = json.loads(payload)
    assert status["online"] is True
    assert status["agent"] == "1.0"
    assert (second, second_retain) == (PREFIX + b"cam-07/up/event", False)


def test_the_last_will_is_a_retained_status_of_this_boot(camera: Camera) -> None:
    camera.connect()
    [body] = camera.broker.connects
    assert body[7] & 0x3C == 0x2C  # will, retained, QoS 1
    client, topic, will, user, password = strings(body[10:])
    assert (client, topic, user, password) == (b"cam-07", STATUS, b"cam-07", b"secret")
    assert json.loads(will) == {"boot": camera.outbox.boot, "seq": 0, "up_ms": 0, "online": False}


def test_without_password_no_account_is_named() -> None:
    camera = Camera(password=None)
    camera.connect()
    assert len(strings(camera.broker.connects[0][10:])) == 3


def test_the_prefix_is_configurable() -> None:
    camera = Camera(prefix="plant-2/fleet")
    camera.connect()
    assert camera.broker.published[0][0] == b"plant-2/fleet/cam-07/up/status"


@pytest.mark.parametrize("wrong", [{"camera": "Cam 7"}, {"camera": "_fleetd"}, {"prefix": "a/#"}])
def test_impossible_names_are_refused_at_once(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"camera id|prefix"):
        Camera(**wrong)


def test_nothing_is_tried_without_a_network(camera: Camera) -> None:
    camera.hal.network = False
    camera.run(60)
    assert camera.link.state == "no-network"
    assert camera.broker.streams == []
    camera.hal.network = True
    camera.connect()


def test_a_refused_subscription_to_its_own_lane_is_a_failed_connection(camera: Camera) -> None:
    camera.broker.refuses = {DOWN + b"#"}
    camera.run(120)
    assert not camera.link.connected
    assert camera.link.last_error == "subscription-refused"
    assert len(camera.broker.streams) < 20


def test_a_broker_that_hides_fleetd_is_good_enough(camera: Camera) -> None:
    camera.broker.refuses = {DAEMON}
    camera.connect()
    assert camera.link.stats()["refused"] == 1


# --- backing off ------------------------------------------------------------------------------------------


def tries(camera: Camera) -> list[int]:
    """When connections were begun during an hour, in ms."""
    began = []
    opened = camera.broker.open

    def note() -> Any:
        began.append(camera.hal.now)
        return opened()

    camera.broker.open = note  # type: ignore[method-assign]
    camera.run(3600)
    return began


def _kicks(broker: FakeBroker) -> None:
    broker.kicks = True


def _refuses_connections(broker: FakeBroker) -> None:
    broker.accepts = False


def _refuses_the_password(broker: FakeBroker) -> None:
    broker.connack = b"\x20\x02\x00\x04"


def _talks_nonsense(broker: FakeBroker) -> None:
    broker.connack = b"HTTP/1.1 400 Bad Request\r\n\r\n"


@pytest.mark.parametrize("fault", [_kicks, _refuses_connections, _refuses_the_password, _talks_nonsense])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_backoff_grows_to_a_minute_with_full_jitter_whatever_fails(
    fault: Callable[[FakeBroker], None], seed: int
) -> None:
    """Also when the broker accepts and kicks at once (rainmaker-neo #1)."""
    camera = Camera(seed)
    fault(camera.broker)
    began = tries(camera)
    gaps = [late - early for early, late in pairwise(began)]
    assert 80 < len(began) < 180  # a mean of 30 s
    assert gaps[0] <= 1_200
    assert gaps[1] <= 2_200
    assert max(gaps) <= 60_200
    assert max(gaps) > 50_000
    assert min(gaps[6:]) < 10_000  # jitter is full, not a little around the end


def test_being_kicked_is_counted_and_named(camera: Camera) -> None:
    camera.broker.kicks = True
    camera.run(300)
    stats = camera.link.stats()
    assert stats["kicked"] == len(camera.broker.streams)
    assert stats["last_error"] == "closed-by-peer"


def test_a_refused_password_is_named(camera: Camera) -> None:
    _refuses_the_password(camera.broker)
    camera.run(5)
    assert camera.link.last_error == "refused-password"
    assert camera.link.stats()["failed"] > 0


def test_a_connection_that_lasted_starts_the_backoff_anew(camera: Camera) -> None:
    camera.broker.accepts = False
    camera.run(600)
    camera.broker.accepts = True
    camera.run(61)
    assert camera.link.connected
    camera.run(10)
    camera.broker.stream.eof = True
    camera.run(1.3)
    assert camera.link.connected
    assert camera.link.reconnects == 1


def test_a_connection_that_did_not_last_does_not(camera: Camera) -> None:
    camera.broker.accepts = False
    camera.run(600)
    camera.broker.accepts = True
    again = []
    for _ in range(30):
        while not camera.link.connected:
            camera.run(0.1)
        camera.run(5)
        camera.broker.stream.eof = True
        start = camera.hal.now
        while camera.link.connected:
            camera.run(0.1)
        while not camera.link.connected:
            camera.run(0.1)
        again.append(camera.hal.now - start)
    assert max(again) > 30_000


# --- losing the connection --------------------------------------------------------------------------------


def test_a_half_open_link_is_noticed_within_26_seconds_and_everything_is_sent_again(
    connected: Camera,
) -> None:
    connected.broker.answering = False
    connected.outbox.put("result", {"results": []})
    began = connected.hal.now
    while connected.link.connected:
        connected.run(0.1)
    assert connected.hal.now - began < 26_000
    assert connected.link.stats()["dead"] == 1
    assert connected.link.last_error == "no-pingresp"
    connected.broker.answering = True
    connected.published()
    connected.run(2)
    assert connected.published() == [("status", 3), ("result", 2)]


def test_a_broker_that_never_acknowledges_is_given_up(connected: Camera) -> None:
    connected.broker.pubacks = False
    connected.outbox.put("result", {"results": []})
    connected.run(61)
    assert connected.link.stats()["last_error"] == "no-answer"


def test_a_lost_network_ends_the_connection_and_it_comes_back(connected: Camera) -> None:
    connected.hal.network = False
    connected.link.step()
    assert not connected.link.connected
    assert connected.broker.stream.closed
    assert connected.link.last_error == "network-lost"
    connected.hal.network = True
    connected.run(2)
    assert connected.link.connected


def test_every_stream_but_the_present_one_is_closed(camera: Camera) -> None:
    camera.broker.kicks = True
    camera.run(600)
    camera.broker.kicks = False
    camera.run(61)
    assert camera.link.connected
    assert len(camera.broker.streams) > 5
    assert [stream.closed for stream in camera.broker.streams[:-1]] == [True] * (
        len(camera.broker.streams) - 1
    )


def test_the_status_after_a_reconnect_is_new_and_the_old_one_is_not_repeated(connected: Camera) -> None:
    connected.broker.stream.eof = True
    connected.run(2)
    assert connected.published() == [("status", 2)]
    connected.run(600)
    assert {seq for _, seq in connected.published()} <= {2}


# --- sending ----------------------------------------------------------------------------------------------


def test_one_step_sends_a_bounded_number_of_messages_and_never_waits(connected: Camera) -> None:
    connected.broker.pubacks = False
    for _ in range(30):
        connected.outbox.put("result", {"results": []})
    at = connected.hal.now
    connected.link.step()
    assert len(connected.published()) == 4
    connected.settle()
    assert len(connected.published()) == 4  # the window of 8 is full
    connected.settle()
    assert connected.published() == []
    assert connected.hal.now == at


def test_receipts_empty_the_outbox_and_those_for_another_boot_do_not(connected: Camera) -> None:
    connected.outbox.put("result", {"results": []})
    connected.settle()
    connected.broker.send(DOWN + b"ack", json.dumps({"boot": "0" * 16, "seq": [[0, 99]]}).encode())
    connected.settle()
    assert len(connected.outbox) == 2
    connected.receipt([1, 2])
    assert len(connected.outbox) == 0


def test_publish_status_tells_the_state_of_the_moment(connected: Camera) -> None:
    connected.link.publish_status()
    connected.settle()
    [(topic, payload, retain)] = connected.broker.published
    assert (topic, retain, json.loads(payload)["online"]) == (STATUS, True, True)


# --- fleetd comes and goes --------------------------------------------------------------------------------


def test_a_new_instance_of_fleetd_gets_what_is_not_receipted_within_five_seconds(connected: Camera) -> None:
    connected.fleetd(instance="one")
    connected.run(6)
    connected.published()
    connected.outbox.put("result", {"results": []})
    connected.run(1)
    connected.published()
    connected.fleetd(instance="two")
    assert connected.published() == []
    connected.run(5.2)
    assert connected.published() == [("status", 1), ("result", 2)]
    assert connected.link.fleetd_instance == "two"


def test_cameras_do_not_all_repeat_at_the_same_moment() -> None:
    """A restarted fleetd is not stampeded (meshmonitor #5081)."""
    moments = []
    for seed in range(40):
        camera = Camera(seed)
        camera.connect()
        camera.fleetd()
        camera.published()
        camera.fleetd(instance="two")
        start = camera.hal.now
        while not camera.published():
            camera.run(0.1)
        moments.append(camera.hal.now - start)
    assert max(moments) <= 5_200
    assert min(moments) < 1_500
    assert max(moments) > 3_500


def test_a_fleetd_seen_for_the_first_time_counts_as_new(connected: Camera) -> None:
    """What was published before fleetd first subscribed is nowhere."""
    connected.outbox.put("result", {"results": []})
    connected.run(100)
    connected.published()
    connected.fleetd()
    connected.run(5.2)
    assert connected.published() == [("status", 1), ("result", 2)]


def test_nothing_is_repeated_while_fleetd_is_away_and_30_s_after_it_came_back(connected: Camera) -> None:
    connected.fleetd()
    connected.run(6)
    connected.fleetd(online=False)
    connected.published()
    connected.run(600)
    assert connected.published() == []
    connected.fleetd(online=True)
    connected.run(29)
    assert connected.published() == []
    connected.run(2)
    assert connected.published() == [("status", 1)]


def test_whether_fleetd_is_there_is_unknown_after_a_reconnect(connected: Camera) -> None:
    assert connected.link.fleetd_online is None
    connected.fleetd()
    assert connected.link.fleetd_online is True
    connected.broker.stream.eof = True
    connected.run(2)
    assert connected.link.connected
    assert connected.link.fleetd_online is None
    assert connected.link.fleetd_instance == "one"


# --- what comes down --------------------------------------------------------------------------------------


def test_desired_state_and_commands_reach_their_handlers_checked(connected: Camera) -> None:
    desired = {"generation": 4, "release": "m-2", "digest": DIGEST, "config": {"a": 1}, "more": True}
    connected.broker.send(DOWN + b"desired", json.dumps(desired).encode(), qos=1, retain=True)
    connected.broker.send(DOWN + b"cmd/identify", b'{"id":"c1","t":1790000000,"ttl":60}', qos=1)
    connected.settle()
    del desired["more"]
    assert connected.handled == [
        ("desired", (), {**desired, "deadline": None}),
        ("cmd", ("identify",), {"id": "c1", "t": 1790000000, "ttl": 60, "args": {}}),
    ]


@pytest.mark.parametrize(
    ("channel", "payload"),
    [
        (b"desired", b"{"),
        (b"desired", b'{"generation":1}'),
        (b"desired", b"\xff\xfe"),
        (b"desired", b'{"generation":1,"release":null,"config":{"x":"' + b"x" * 4096 + b'"}}'),
        (b"cmd/identify", b'{"id":"c1"}'),
        (b"ack", b'{"boot":"x","seq":[]}'),
    ],
)
def test_a_message_that_is_not_in_the_contract_is_counted_and_reaches_nobody(
    connected: Camera, channel: bytes, payload: bytes
) -> None:
    connected.broker.send(DOWN + channel, payload, qos=1)
    connected.settle()
    assert connected.handled == []
    assert connected.link.stats()["bad"] == 1
    assert connected.link.last_bad.startswith(channel.decode().partition("/")[0])
    assert connected.link.connected


def test_a_retained_command_is_never_carried_out(connected: Camera) -> None:
    connected.broker.send(DOWN + b"cmd/reboot", b'{"id":"c1","t":1790000000,"ttl":60}', qos=1, retain=True)
    connected.settle()
    assert connected.handled == []
    assert connected.link.last_bad == "cmd: retained"


@pytest.mark.parametrize(
    "topic",
    [
        PREFIX + b"cam-08/down/desired",
        DOWN + b"cmd/UPPER",
        DOWN + b"cmd/" + b"x" * 33,
        DOWN + b"cmd/\xff",
        DOWN + b"other",
        PREFIX + b"_blob/\xff/0",
        PREFIX + b"_blob/" + DIGEST.encode() + b"/0",
        PREFIX + b"_release/m-2",
        b"elsewhere",
        b"x" * 2000,
    ],
)
def test_topics_that_nobody_asked_for_are_counted_and_reach_nobody(connected: Camera, topic: bytes) -> None:
    connected.broker.send(topic, b'{"generation":1,"release":null}')
    connected.settle()
    assert connected.handled == []
    assert connected.link.stats()["unwanted"] == 1
    assert connected.link.stats()["bad"] == 0


def test_a_cleared_retained_message_is_no_message(connected: Camera) -> None:
    connected.broker.send(DOWN + b"desired", b"", qos=1)
    connected.settle()
    assert connected.handled == []
    assert connected.link.stats()["bad"] == 0


def test_what_a_handler_raises_leaves_the_step_and_the_connection_stays(connected: Camera) -> None:
    def fail(*_: object) -> None:
        raise OSError("no space")

    connected.link.handlers["desired"] = fail
    connected.broker.send(DOWN + b"desired", b'{"generation":1,"release":null}', qos=1)
    connected.broker.send(DOWN + b"cmd/identify", b'{"id":"c1","t":0,"ttl":60}', qos=1)
    with pytest.raises(OSError, match="no space"):
        connected.settle()
    connected.settle()
    assert connected.link.connected
    assert [kind for kind, _, _ in connected.handled] == ["cmd"]


def test_a_flood_of_foreign_retained_messages_costs_a_bounded_piece_of_every_step(camera: Camera) -> None:
    """Some brokers replay everything they hold to everyone."""
    camera.link.step()
    foreign = publish(PREFIX + b"_blob/" + DIGEST.encode() + b"/7", bytes(4096), retain=True)
    camera.broker.stream.feed(*[foreign] * 2000, publish(b"x", bytes(20_000)))
    camera.run(60)
    assert camera.link.connected
    assert camera.link.stats()["unwanted"] == 2000
    assert camera.link.stats()["oversize"] == 1
    assert camera.handled == []


# --- what the updater wants -------------------------------------------------------------------------------


def blob(number: int) -> bytes:
    return PREFIX + b"_blob/" + DIGEST.encode() + b"/" + str(number).encode()


def test_a_wanted_block_arrives_with_its_name_and_number(connected: Camera) -> None:
    connected.broker.retained = {blob(3): b"the block", PREFIX + b"_release/m-2": b"the manifest"}
    assert connected.link.want(connected.link.topics.blob(DIGEST, 3))
    assert connected.link.want(connected.link.topics.release("m-2"))
    connected.settle()
    assert connected.handled == [
        ("blob", (DIGEST, 3), b"the block"),
        ("release", ("m-2",), b"the manifest"),
    ]
    assert connected.broker.subscribed[blob(3)] == 0


def test_changes_between_two_steps_leave_in_one_write(connected: Camera) -> None:
    for number in range(4):
        connected.link.want(blob(number))
    connected.settle()
    connected.broker.stream.writes.clear()
    for number in range(4):
        connected.link.unwant(blob(number))
        connected.link.want(blob(number + 4))
    connected.settle()
    assert len(connected.broker.stream.writes) == 1
    assert connected.broker.asked[-2:] == [
        ("unsubscribe", [blob(number) for number in range(4)]),
        ("subscribe", [blob(number) for number in range(4, 8)]),
    ]


def test_wanting_again_asks_the_broker_again(connected: Camera) -> None:
    connected.link.want(blob(0))
    connected.settle()
    connected.broker.retained[blob(0)] = b"late"
    connected.link.want(blob(0))
    connected.settle()
    assert [payload for _, _, payload in connected.handled] == [b"late"]


def test_a_block_that_comes_after_it_was_given_up_reaches_nobody(connected: Camera) -> None:
    connected.link.want(blob(0))
    connected.settle()
    connected.link.unwant(blob(0))
    connected.broker.send(blob(0), b"late")
    connected.settle()
    assert connected.handled == []
    assert connected.link.stats()["unwanted"] == 1


def test_a_handler_may_want_the_next_block(connected: Camera) -> None:
    def next_block(kind: str, parts: tuple[str, int], payload: memoryview) -> None:
        connected.handled.append((kind, parts, bytes(payload)))
        connected.link.unwant(blob(parts[1]))
        if parts[1] < 20:
            connected.link.want(blob(parts[1] + 1))

    connected.link.handlers["blob"] = next_block
    connected.broker.retained = {blob(number): b"%d" % number for number in range(21)}
    connected.link.want(blob(0))
    connected.settle()
    assert [payload for _, _, payload in connected.handled] == [b"%d" % number for number in range(21)]
    assert set(connected.broker.subscribed) == {DOWN + b"#", DAEMON}


def test_what_is_wanted_is_subscribed_again_after_a_reconnect(connected: Camera) -> None:
    for number in range(6):
        connected.link.want(blob(number))
    connected.settle()
    connected.link.unwant(blob(0))
    connected.broker.stream.eof = True
    connected.run(2)
    connected.settle()
    assert set(connected.broker.subscribed) == {DOWN + b"#", DAEMON} | {blob(n) for n in range(1, 6)}


def test_what_was_given_up_just_before_a_loss_is_not_unsubscribed_on_the_new_connection(
    connected: Camera,
) -> None:
    connected.link.want(blob(0))
    connected.settle()
    connected.link.unwant(blob(0))
    connected.hal.network = False
    connected.link.step()
    connected.hal.network = True
    connected.run(2)
    assert connected.link.connected
    assert [asked for asked, _ in connected.broker.asked] == ["subscribe", "subscribe"]


def test_what_was_wanted_before_the_first_connection_is_subscribed(camera: Camera) -> None:
    camera.link.want(blob(0))
    camera.connect()
    camera.settle()
    assert blob(0) in camera.broker.subscribed


def test_the_number_of_wanted_topics_is_bounded(connected: Camera) -> None:
    assert all(connected.link.want(blob(number)) for number in range(WANTED_MAX))
    assert not connected.link.want(blob(WANTED_MAX))
    assert connected.link.want(blob(0))
    connected.settle()
    connected.settle()
    assert len(connected.broker.subscribed) == WANTED_MAX + 2


def test_the_longest_prefix_leaves_room_for_every_packet() -> None:
    camera = Camera(camera="c" * 63, prefix="/".join(["p" * 200] * 4), password="x" * 128)
    camera.connect()
    for number in range(WANTED_MAX):
        assert camera.link.want(camera.link.topics.blob(DIGEST, 900_000 + number))
    camera.settle()
    for number in range(WANTED_MAX):
        camera.link.unwant(camera.link.topics.blob(DIGEST, 900_000 + number))
        camera.link.want(camera.link.topics.blob("cd" * 32, 900_000 + number))
    camera.settle()
    assert camera.link.connected, camera.link.last_error
    assert len(camera.broker.subscribed) == WANTED_MAX + 2


def test_only_releases_and_blocks_can_be_wanted(connected: Camera) -> None:
    with pytest.raises(ValueError, match="release or block"):
        connected.link.want(DOWN + b"desired")


def test_an_oversize_block_is_refused(connected: Camera) -> None:
    connected.link.want(blob(0))
    connected.settle()
    connected.broker.send(blob(0), bytes(4097))
    connected.settle()
    assert connected.handled == []
    assert connected.link.last_bad == "blob: too large"


def test_a_manifest_without_memory_for_it_is_told_to_whoever_wanted_it(
    connected: Camera, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_size: int) -> bytearray:
        raise MemoryError

    monkeypatch.setattr(link_module, "bytearray", full, raising=False)
    connected.broker.retained = {PREFIX + b"_release/balls-2": bytes(protocol.MANIFEST_BYTES)}
    connected.link.want(connected.link.topics.release("balls-2"))
    connected.settle()
    assert connected.handled == [("release", ("balls-2",), None)]
    assert connected.link.connected


def test_a_message_that_is_too_large_for_a_manifest_gets_no_memory(connected: Camera) -> None:
    connected.broker.retained = {PREFIX + b"_release/balls-2": bytes(protocol.MANIFEST_BYTES + 1)}
    connected.link.want(connected.link.topics.release("balls-2"))
    connected.settle()
    assert connected.handled == []
    assert connected.link.stats()["oversize"] == 1


def test_the_largest_manifest_and_the_largest_block_come_through(connected: Camera) -> None:
    release = "r" * 64
    connected.broker.retained = {
        PREFIX + b"_release/" + release.encode(): bytes(protocol.MANIFEST_BYTES),
        blob(999_999): bytes(protocol.BLOCK_BYTES),
    }
    connected.link.want(connected.link.topics.release(release))
    connected.link.want(connected.link.topics.blob(DIGEST, 999_999))
    connected.settle()
    assert [len(payload) for _, _, payload in connected.handled] == [8192, 4096]


# --- goodbye ----------------------------------------------------------------------------------------------


def test_close_says_offline_then_disconnects(connected: Camera) -> None:
    connected.outbox.put("result", {"results": []})
    connected.link.close()
    [(topic, payload, retain), *_] = connected.broker.published
    assert (topic, retain, json.loads(payload)["online"]) == (STATUS, True, False)
    assert connected.broker.stream.sent()[-1] == (0xE0, b"")
    assert connected.broker.stream.closed
    assert connected.link.state == "closed"
    assert not connected.link.step()


def test_close_gives_up_on_a_silent_broker_in_time(connected: Camera) -> None:
    connected.broker.answering = False
    start = connected.hal.now
    connected.link.close(timeout_ms=2000)
    assert connected.hal.now - start <= 2010
    assert connected.broker.stream.closed


def test_close_on_a_broken_or_missing_connection_raises_nothing(camera: Camera) -> None:
    camera.link.close()
    other = Camera()
    other.connect()
    other.broker.stream.broken = True
    other.link.close()
    assert other.link.state == "closed"
    assert other.broker.stream.closed


# --- on MicroPython ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("arch", "heap", "word"), [("amd64", "192k", 2), ("i386", "112k", 1)])
def test_on_micropython_receiving_and_waiting_cost_next_to_no_memory(
    arch: Arch, heap: str, word: int
) -> None:
    """`word`: how many times as large small objects are there as on a camera."""
    script = DEVICE_FAKES / "link_session.py"
    cost = json.loads(run_device(arch, script, heapsize=heap).stdout)
    assert cost["idle_step"] == 0
    assert cost["block"] <= 200 * word
    assert cost["drain_growth"] <= 100 * word
    assert cost["drain_steps"] >= 8
    assert cost["connected"] <= 15_000 + 1_500 * word
    assert (cost["outbox"] - cost["outbox_payloads"]) / 64 <= 120 * word


# --- all together -----------------------------------------------------------------------------------------

FAULTS = st.sampled_from(
    ["put", "run", "kick", "half-open", "recover", "fleetd-dies", "fleetd-new", "net", "flap"]
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(FAULTS, st.integers(1, 40)), max_size=30), st.integers(0, 1000))
def test_whatever_happens_every_message_lands_once_all_is_well_again(
    events: list[tuple[str, int]], seed: int
) -> None:
    """The broker here forgets what fleetd did not read, and fleetd's receipts get lost with connections."""
    camera = Camera(seed)
    landed: set[int] = set()
    alive = True
    instance = 0

    def fleetd_works() -> None:
        for topic, payload, _ in camera.broker.published:
            if alive and not topic.endswith(b"/down/"):
                landed.add(json.loads(payload)["seq"])
        camera.broker.published.clear()
        if alive and landed and camera.broker.streams:
            body = {"boot": camera.outbox.boot, "seq": [[seq, seq] for seq in sorted(landed)[-200:]]}
            camera.broker.send(DOWN + b"ack", json.dumps(body).encode())

    def say_status() -> None:
        status = json.dumps({"online": alive, "instance": str(instance)}).encode()
        camera.broker.retained[DAEMON] = status
        if camera.broker.streams and DAEMON in camera.broker.subscribed:
            camera.broker.send(DAEMON, status)

    say_status()
    for event, amount in events:
        if event == "put":
            for _ in range(amount % 5):
                camera.outbox.put("result", {"results": []})
        elif event == "run":
            camera.run(amount)
            fleetd_works()
        elif event == "kick" and camera.broker.streams:
            camera.broker.stream.eof = True
        elif event == "half-open":
            camera.broker.answering = False
        elif event == "recover":
            camera.broker.answering = True
        elif event == "net":
            camera.hal.network = not camera.hal.network
        elif event == "flap":
            camera.broker.kicks = not camera.broker.kicks
        else:
            alive = event == "fleetd-new"
            instance += alive
            say_status()
    camera.broker.answering = camera.hal.network = alive = True
    camera.broker.kicks = False
    instance += 1
    camera.broker.published.clear()
    say_status()
    for _ in range(150):
        camera.run(1, step_ms=250)
        fleetd_works()
    put = camera.outbox._seq
    gone = sum(camera.outbox.dropped.values()) + camera.outbox.replaced
    assert len(camera.outbox) == 0
    assert len(landed) >= put - gone
    assert camera.link.connected
