"""Presence is what the clock makes of the facts."""

from hypothesis import given
from hypothesis import strategies as st

from fleetd.domain.presence import Presence, PresenceRules, presence

RULES = PresenceRules(late_after=75, offline_after=180)


def at(silent: float, *, connected: bool = True) -> Presence:
    return presence(seen_at=1000.0, connected=connected, now=1000.0 + silent, rules=RULES)


def test_a_camera_that_never_spoke_is_new() -> None:
    assert presence(seen_at=None, connected=False, now=5.0, rules=RULES) is Presence.NEW


def test_silence_turns_online_into_late_and_then_offline() -> None:
    assert [at(s) for s in (0, 74, 75, 179, 180)] == [
        Presence.ONLINE,
        Presence.ONLINE,
        Presence.LATE,
        Presence.LATE,
        Presence.OFFLINE,
    ]


def test_a_last_will_is_late_at_first_because_most_outages_are_short() -> None:
    assert at(10, connected=False) is Presence.LATE
    assert at(80, connected=False) is Presence.OFFLINE


@given(st.floats(0, 1e6), st.floats(0, 1e6), st.booleans())
def test_longer_silence_never_looks_better(a: float, b: float, connected: bool) -> None:
    order = [Presence.ONLINE, Presence.LATE, Presence.OFFLINE]
    short, long = sorted((a, b))
    assert order.index(at(short, connected=connected)) <= order.index(at(long, connected=connected))


def test_a_camera_seen_in_the_future_is_as_doubtful_as_one_seen_that_long_ago() -> None:
    """The clock was set back by a day; a camera that still talks is seen anew within seconds."""
    assert at(-86400, connected=True) is Presence.OFFLINE
    assert at(-5, connected=True) is Presence.ONLINE


# --- asleep -----------------------------------------------------------------------------------------------


def sleeping(silent: float, *, connected: bool = False, seconds: float = 600) -> Presence:
    return presence(
        seen_at=1000.0, connected=connected, now=1000.0 + silent, rules=RULES, asleep_until=1000.0 + seconds
    )


def test_a_camera_that_said_it_would_sleep_is_asleep_until_some_time_after_it_wanted_to_be_back() -> None:
    assert [sleeping(s) for s in (0, 100, 599, 719)] == [Presence.ASLEEP] * 4
    assert sleeping(721) is Presence.OFFLINE


def test_a_camera_that_woke_early_or_never_slept_is_judged_as_ever() -> None:
    assert sleeping(10, connected=True) is Presence.ONLINE
    assert sleeping(100, connected=True) is Presence.LATE


def test_one_that_never_spoke_is_new_whatever_is_claimed() -> None:
    assert presence(seen_at=None, connected=False, now=1.0, rules=RULES, asleep_until=1e9) is Presence.NEW
