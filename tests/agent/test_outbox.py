"""The outbox: nothing leaves it without fleetd's receipt, and it never grows over its bounds."""

import json
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from camera_agent.outbox import Outbox
from fleetd.protocol import messages
from tests.agent.fake_stream import FakeHal
from tests.agent.micropython import DEVICE_FAKES, run_device


class Box:
    """An outbox, and a link that sends from it with packet ids of its own."""

    def __init__(self, **bounds: int) -> None:
        self.hal = FakeHal()
        self.outbox: Any = Outbox(self.hal, **bounds)
        self.ids = 0

    def put(self, channel: str = "result", **body: object) -> int:
        return int(self.outbox.put(channel, body))

    def send(self, online: bool = True) -> Any:
        message = self.outbox.next(self.hal.now, online)
        if message is not None:
            self.ids += 1
            self.outbox.sent(message, self.ids)
        return message

    def publish(self, online: bool = True) -> Any:
        message = self.send(online)
        if message is not None:
            self.outbox.published(message.packet_id, self.hal.now)
        return message

    def publish_all(self, online: bool = True) -> list[int]:
        seqs = []
        while message := self.publish(online):
            seqs.append(message.seq)
        return seqs

    def ack(self, *ranges: list[int]) -> int:
        return int(self.outbox.ack(self.outbox.boot, list(ranges)))

    def wait(self, seconds: float) -> None:
        self.hal.now += int(seconds * 1000)

    def held(self) -> list[int]:
        return [message.seq for message in self.outbox._held]


def sent_body(message: Any) -> Any:
    return json.loads(message.payload)


# --- envelope ---------------------------------------------------------------------------------------------


def test_put_adds_the_envelope_and_numbers_from_one() -> None:
    box = Box()
    box.hal.now = 4321
    assert box.put(results=[{"label": "ball", "score": 0.9}]) == 1
    assert box.put("event", kind="boot") == 2
    assert sent_body(box.send()) == {
        "boot": box.outbox.boot,
        "seq": 1,
        "up_ms": 4321,
        "results": [{"label": "ball", "score": 0.9}],
    }
    assert messages.EVENT.validate_json(box.send().payload)["kind"] == "boot"


def test_the_boot_id_is_random_and_stays() -> None:
    box = Box()
    assert len(box.outbox.boot) == 16
    assert box.outbox.boot != Outbox(FakeHal(seed=2)).boot


def test_time_of_day_is_said_only_while_the_clock_is_trusted() -> None:
    box = Box()
    box.put()
    box.hal.clock = 1_790_000_000
    box.put()
    first, second = sent_body(box.send()), sent_body(box.send())
    assert "t" not in first
    assert second["t"] == 1_790_000_000


def test_low_rides_in_status_and_telemetry_and_names_the_oldest_held() -> None:
    box = Box()
    box.put("telemetry")
    for _ in range(3):
        box.put("result")
    box.publish_all()
    box.ack([1, 2])
    box.put("status", online=True)
    status = sent_body(box.send())
    assert status["seq"] == 5
    assert status["low"] == box.outbox.low == 3
    assert "low" not in sent_body(box.outbox._held[0])


def test_low_of_an_empty_box_is_the_next_number() -> None:
    box = Box()
    assert box.outbox.low == 1
    box.put("status", online=True)
    assert sent_body(box.send())["low"] == 1
    box.ack([1, 1])
    assert box.outbox.low == 2


def test_a_caller_cannot_forge_the_envelope() -> None:
    box = Box()
    box.put("event", seq=99, boot="f" * 16)
    assert sent_body(box.send())["seq"] == 1


def test_numbers_that_json_has_no_word_for_cost_their_field_only() -> None:
    box = Box()
    box.put("telemetry", fps=float("nan"), heap_free=3, rssi=float("-inf"), picture={"mean": float("inf")})
    assert "NaN" not in box.outbox._held[0].payload.decode()
    assert messages.TELEMETRY.validate_json(box.send().payload)["heap_free"] == 3


def test_micropython_leaves_out_what_json_has_no_word_for_wherever_it_stands() -> None:
    done = run_device("i386", DEVICE_FAKES / "check_encode.py")
    *lines, words = [json.loads(line, parse_constant=pytest.fail) for line in done.stdout.splitlines()]
    assert lines == [{}, {"a": 1, "b": [2], "c": {}}, {"a": [1]}] * 4
    assert words == {"inference_ms": 3, "infinite": "nano,inf"}


def test_words_that_look_like_not_a_number_are_left_alone() -> None:
    box = Box()
    box.put("result", results=[{"label": "banana", "score": 1.0}, {"label": "info", "score": 0.5}])
    assert [each["label"] for each in sent_body(box.send())["results"]] == ["banana", "info"]


def test_what_cannot_be_encoded_or_is_too_large_is_refused_and_uses_no_number() -> None:
    box = Box(most_bytes=100_000)
    assert box.put("event", text=object()) == 0
    assert box.put("event", text="x" * 16_384) == 0
    assert box.outbox.refused == 2
    assert box.put("event", text="fine") == 1


def test_a_refused_status_leaves_the_old_one_in_place() -> None:
    box = Box()
    box.put("status", online=True)
    assert box.put("status", online=True, uid="x" * 20_000) == 0
    assert box.held() == [1]


# --- receipts and repeats ---------------------------------------------------------------------------------


def test_a_puback_alone_removes_nothing() -> None:
    box = Box()
    box.put()
    box.publish()
    assert box.held() == [1]
    assert box.ack([1, 1]) == 1
    assert box.held() == []


def test_a_receipt_takes_out_exactly_the_ranges_it_names() -> None:
    box = Box()
    for _ in range(10):
        box.put()
    box.publish_all()
    assert box.ack([2, 3], [7, 7], [9, 900]) == 5
    assert box.held() == [1, 4, 5, 6, 8]


def test_a_receipt_of_another_boot_or_an_upside_down_range_takes_out_nothing() -> None:
    box = Box()
    box.put()
    box.publish()
    assert box.outbox.ack("0" * 16, [[0, 100]]) == 0
    assert box.ack([5, 0]) == 0
    assert box.held() == [1]


def test_a_receipt_for_what_was_never_sent_is_not_believed() -> None:
    box = Box()
    box.put()
    box.put()
    box.publish()
    box.ack([0, 2**53 - 1])
    assert box.held() == [2]


def test_a_receipt_that_comes_before_the_puback_is_enough() -> None:
    box = Box()
    box.put()
    message = box.send()
    box.ack([1, 1])
    box.outbox.published(message.packet_id, box.hal.now)
    assert len(box.outbox) == 0


def test_everything_unreceipted_is_sent_again_after_a_reconnect() -> None:
    box = Box()
    for _ in range(3):
        box.put()
    box.publish()
    box.send()
    assert box.send().seq == 3
    box.outbox.connection_lost()
    assert box.publish_all(online=False) == [1, 2, 3]
    assert box.outbox.resent == 3


def test_a_puback_of_the_old_connection_marks_nothing_of_the_new_one() -> None:
    box = Box()
    box.put()
    old = box.send().packet_id
    box.outbox.connection_lost()
    box.outbox.published(old, box.hal.now)
    assert box.send().seq == 1


def test_without_receipt_a_message_is_repeated_after_30_s_doubling_to_300_s() -> None:
    box = Box()
    box.put()
    box.publish()
    assert [seconds_until_repeated(box) for _ in range(6)] == [30, 60, 120, 240, 300, 300]


def seconds_until_repeated(box: Box) -> int:
    for seconds in range(1000):
        if box.publish() is not None:
            return seconds
        box.wait(1)
    raise AssertionError("it is never repeated")


def test_a_reconnect_and_a_new_fleetd_start_the_doubling_anew() -> None:
    box = Box()
    box.put()
    box.publish()
    assert [seconds_until_repeated(box) for _ in range(2)] == [30, 60]
    box.outbox.connection_lost()
    box.publish()
    assert [seconds_until_repeated(box) for _ in range(2)] == [30, 60]
    box.outbox.repeat(box.hal.now)
    assert [seconds_until_repeated(box) for _ in range(3)] == [0, 30, 60]


def test_nothing_is_repeated_while_fleetd_is_not_known_to_be_there() -> None:
    box = Box()
    box.put()
    box.publish()
    box.wait(1000)
    assert box.send(online=False) is None
    assert box.send(online=True).seq == 1


def test_a_new_instance_of_fleetd_makes_everything_published_due_early() -> None:
    box = Box()
    for _ in range(3):
        box.put()
    box.publish_all()
    box.outbox.repeat(box.hal.now + 2000)
    box.wait(1.999)
    assert box.send() is None
    box.wait(0.001)
    assert box.publish_all() == [1, 2, 3]


def test_a_new_instance_never_delays_what_is_due_sooner() -> None:
    box = Box()
    box.put()
    box.publish()
    box.wait(29)
    box.outbox.repeat(box.hal.now + 5000)
    box.wait(1)
    assert box.send().seq == 1


def test_fleetd_back_from_an_absence_hastens_nothing() -> None:
    box = Box()
    box.put()
    box.publish()
    assert [seconds_until_repeated(box) for _ in range(3)] == [30, 60, 120]
    box.outbox.postpone(box.hal.now + 30_000)
    assert seconds_until_repeated(box) == 240


def test_fleetd_back_from_an_absence_gets_time_to_read_its_backlog() -> None:
    box = Box()
    box.put()
    box.publish()
    box.wait(500)
    box.outbox.postpone(box.hal.now + 30_000)
    assert box.send() is None
    box.wait(30)
    assert box.send().seq == 1


# --- order and status -------------------------------------------------------------------------------------


def test_the_status_goes_first_and_the_rest_by_number() -> None:
    box = Box()
    box.put("telemetry")
    box.put("event")
    box.put("status", online=True)
    assert box.publish_all() == [3, 1, 2]


def test_a_new_status_replaces_every_older_one() -> None:
    box = Box()
    box.put("status", online=True)
    in_flight = box.send()
    box.put("status", online=True)
    box.put("status", online=False)
    assert box.held() == [3]
    assert box.outbox.replaced == 2
    box.outbox.published(in_flight.packet_id, box.hal.now)
    assert box.send().seq == 3
    assert not box.outbox.dropped


def test_only_the_status_is_retained() -> None:
    box = Box()
    box.put("status", online=True)
    box.put("result")
    assert [box.send().retain, box.send().retain] == [True, False]


# --- overflow ---------------------------------------------------------------------------------------------


def test_overflow_drops_the_oldest_of_the_least_important_class_and_counts_it() -> None:
    box = Box(most_messages=6)
    for channel in ("status", "event", "update", "led", "result", "telemetry"):
        box.put(channel)
    dropped = []
    for _ in range(8):
        before = set(box.held())
        box.put("event")
        dropped += list(before - set(box.held()))
    assert dropped == [6, 5, 4, 3, 2, 7, 8, 9]  # and never the status, number 1
    assert box.outbox.dropped == {"telemetry": 1, "result": 1, "led": 1, "update": 1, "event": 4}


def test_a_new_telemetry_does_not_push_out_anything_more_important() -> None:
    box = Box(most_messages=2)
    box.put("result")
    box.put("event")
    box.put("telemetry")
    assert box.held() == [1, 2]
    assert box.outbox.dropped == {"telemetry": 1}


def test_replies_are_counted_as_one_class() -> None:
    box = Box(most_messages=1)
    box.put("reply/snapshot", id="a", ok=True)
    box.put("reply/identify", id="b", ok=True)
    assert box.outbox.dropped == {"reply": 1}


def test_bytes_are_bounded_as_well_as_messages() -> None:
    box = Box(most_bytes=2000)
    for number in range(30):
        box.put("event", text="x" * (20 * number))
    assert box.outbox.bytes == sum(len(message.payload) for message in box.outbox._held) <= 2000
    assert len(box.outbox) + box.outbox.dropped["event"] == 30


# --- against a model --------------------------------------------------------------------------------------


class OutboxAgainstModel(RuleBasedStateMachine):
    """Whatever the order of events: bounds hold, every message is accounted for, numbers only grow."""

    CHANNELS = ("telemetry", "result", "led", "update", "event", "status", "reply/x")

    def __init__(self) -> None:
        super().__init__()
        self.box = Box(most_messages=6, most_bytes=900)
        self.put_seqs: list[int] = []
        self.receipted: set[int] = set()
        self.ever_sent: set[int] = set()
        self.newest_status: int | None = None
        self.low = 1
        self.flight: list[Any] = []

    @rule(channel=st.sampled_from(CHANNELS), size=st.integers(0, 300))
    def put(self, channel: str, size: int) -> None:
        seq = self.box.put(channel, text="x" * size)
        assert seq == len(self.put_seqs) + 1
        self.put_seqs.append(seq)
        if channel == "status":
            self.newest_status = seq

    @rule(online=st.booleans())
    def send(self, online: bool) -> None:
        message = self.box.send(online)
        if message is None:
            return
        assert message.seq in self.box.held()
        assert message.seq not in self.receipted
        self.ever_sent.add(message.seq)
        self.flight.append(message)

    @precondition(lambda self: self.flight)
    @rule(data=st.data())
    def puback(self, data: st.DataObject) -> None:
        message = self.flight.pop(data.draw(st.integers(0, len(self.flight) - 1)))
        self.box.outbox.published(message.packet_id, self.box.hal.now)

    @rule()
    def lose_the_connection(self) -> None:
        self.flight.clear()
        self.box.outbox.connection_lost()

    @rule(first=st.integers(0, 30), span=st.integers(-1, 10))
    def receipt(self, first: int, span: int) -> None:
        before = set(self.box.held())
        self.box.ack([first, first + span])
        gone = before - set(self.box.held())
        assert gone == {seq for seq in before & self.ever_sent if first <= seq <= first + span}
        self.receipted |= gone

    @rule(seconds=st.integers(0, 400))
    def time_passes(self, seconds: int) -> None:
        self.box.wait(seconds)

    @rule(delay=st.integers(0, 5000))
    def fleetd_is_new(self, delay: int) -> None:
        self.box.outbox.repeat(self.box.hal.now + delay)

    @rule(delay=st.integers(0, 30_000))
    def fleetd_was_away(self, delay: int) -> None:
        self.box.outbox.postpone(self.box.hal.now + delay)

    @invariant()
    def bounds_hold(self) -> None:
        outbox = self.box.outbox
        assert len(outbox) <= 6
        assert outbox.bytes == sum(len(message.payload) for message in outbox._held) <= 900

    @invariant()
    def every_message_is_accounted_for(self) -> None:
        outbox = self.box.outbox
        gone = sum(outbox.dropped.values()) + outbox.replaced + outbox.receipted
        assert len(self.put_seqs) == len(outbox) + gone
        assert outbox.receipted == len(self.receipted)
        assert outbox._waiting == sum(message.state == 0 for message in outbox._held)

    @invariant()
    def the_newest_status_is_kept_until_its_receipt(self) -> None:
        if self.newest_status is not None and self.newest_status not in self.receipted:
            assert self.newest_status in self.box.held()

    @invariant()
    def held_numbers_are_in_order_and_low_never_falls(self) -> None:
        held = self.box.held()
        assert held == sorted(held)
        assert self.box.outbox.low >= self.low
        self.low = self.box.outbox.low

    def teardown(self) -> None:
        """Nothing is stuck: after a reconnect everything held goes out."""
        self.box.outbox.connection_lost()
        assert sorted(self.box.publish_all(online=False)) == self.box.held()


OutboxAgainstModel.TestCase.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)
TestOutboxAgainstModel = OutboxAgainstModel.TestCase
