"""Who may publish and read what."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetd.domain import lanes
from fleetd.domain.lanes import DAEMON, Part, acl_file, covers, matches, may_publish, may_read, may_subscribe

P = "fleet/v1"
CAMERA, PERSON = Part.CAMERA, Part.PERSON
WORDS = st.sampled_from(["a", "b", "$x", "up", ""])
TOPICS = st.lists(WORDS, min_size=1, max_size=4).map("/".join)
FILTERS = st.builds(
    lambda words, tail: "/".join([*words, *tail]) or "a",
    st.lists(st.one_of(WORDS, st.just("+")), max_size=4),
    st.sampled_from([[], ["#"]]),
)


@pytest.mark.parametrize("topic", ["up/status", "up/result", "up/reply/identify", "up/image/x/3"])
def test_a_camera_publishes_in_its_own_lane_and_in_no_other(topic: str) -> None:
    assert may_publish(CAMERA, "cam-1", f"{P}/cam-1/{topic}", P)
    assert not may_publish(CAMERA, "cam-2", f"{P}/cam-1/{topic}", P)
    assert not may_publish(PERSON, "cam-1", f"{P}/cam-1/{topic}", P)
    assert not may_publish(CAMERA, "cam-1", f"other/{P}/cam-1/{topic}", P)


@pytest.mark.parametrize(
    "topic",
    [
        *(f"{P}/cam-1/down/desired", f"{P}/_release/x", f"{P}/_blob/{'0' * 64}/1", f"{P}/_fleetd/status"),
        *("$SYS/broker/uptime", "$CONTROL/dynamic-security/v1", "$share/g/fleet/v1/cam-1/up/x", "", "/", P),
        *(f"{P}/cam-1", f"{P}/cam-1/up/", f"{P}/cam-1/up", f"{P}/+/up/result", f"{P}/#", f"{P}/cam-1/up/#"),
    ],
)
def test_a_camera_publishes_nothing_else(topic: str) -> None:
    own = (f"{P}/cam-1/up/", f"{P}/cam-1/up")  # `up/#` matches them too; they are no messages to fleetd
    assert may_publish(CAMERA, "cam-1", topic, P) == (topic in own)


def test_people_read_everything_under_the_prefix_and_publish_nothing() -> None:
    for topic in (f"{P}/cam-1/up/result", f"{P}/cam-1/down/ack", f"{P}/_release/x", "$SYS/broker/uptime"):
        assert may_read(PERSON, "alice", topic, P)
        assert not may_publish(PERSON, "alice", topic, P)
    assert not may_publish(PERSON, "alice", f"{P}/alice/up/result", P)
    assert not may_read(PERSON, "alice", "elsewhere/x", P)
    assert not may_read(PERSON, "alice", f"{P}/cam-1/down/desired", P), "a WiFi's key may stand in it"


@pytest.mark.parametrize(
    "wanted",
    [
        "#",
        "+/#",
        f"{P}/#",
        f"{P}/+/down/#",
        f"{P}/cam-2/down/#",
        f"{P}/cam-1/#",
        f"{P}/cam-1/up/#",
        f"{P}/_blob/#",
        "$SYS/#",
        "$share/g/#",
        f"$share/g/{P}/cam-1/down/#",
        f"{P}/_fleetd/event",
        f"{P}/+/+/#",
    ],
)
def test_a_camera_subscribes_to_nothing_that_could_bring_another_ones_messages(wanted: str) -> None:
    assert not may_subscribe(CAMERA, "cam-1", wanted, P)


def test_a_camera_subscribes_to_what_it_needs() -> None:
    for wanted in (
        "cam-1/down/#",
        "cam-1/down/desired",
        "_release/+",
        "_release/x",
        "_blob/+/+",
        "_fleetd/status",
    ):
        assert may_subscribe(CAMERA, "cam-1", f"{P}/{wanted}", P)


def test_only_fleetd_shares_a_subscription() -> None:
    assert may_subscribe(Part.DAEMON, DAEMON, f"$share/x/{P}/+/up/#", P)
    assert not may_subscribe(PERSON, "alice", f"$share/x/{P}/+/up/#", P)


@given(allowed=FILTERS, wanted=FILTERS, topic=TOPICS)
def test_what_a_covered_filter_matches_the_covering_one_matches(
    allowed: str, wanted: str, topic: str
) -> None:
    if covers(allowed, wanted) and matches(wanted, topic):
        assert matches(allowed, topic)


@given(topic=TOPICS)
def test_a_topic_is_covered_exactly_by_what_matches_it(topic: str) -> None:
    for wanted in ("#", "+/#", "a/+", "a/#", "+/+", topic):
        assert covers(wanted, topic) == matches(wanted, topic)


def test_mosquittos_rules_are_the_same_table() -> None:
    lines = acl_file(P, ["bob", "alice"]).splitlines()
    patterns = [line for line in lines if line.startswith("pattern")]
    assert patterns == [f"pattern write {P}/{one}" for one in lanes._WRITES[CAMERA]] + [
        f"pattern read {P}/{one}" for one in lanes._READS[CAMERA]
    ]
    alice = lines[lines.index("user alice") : lines.index("user bob") - 1]
    denied = [f"topic deny {P}/alice/up/#", f"topic deny {P}/+/down/desired"]
    assert alice == ["user alice", *denied, f"topic read {P}/#", "topic read $SYS/#"]
    assert "topic write" not in "\n".join(lines[lines.index("user alice") :])
