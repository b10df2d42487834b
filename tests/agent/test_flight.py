"""The flight recorder: what is remembered without a connection, what is told, and when only a restart is left."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from camera_agent import flight
from tests.agent.core_kit import CoreHal

HOUR_MS = 3_600_000


class Recorder:
    """A flight recorder and what it has sent."""

    def __init__(self, hal: CoreHal | None = None) -> None:
        self.hal = hal or CoreHal()
        self.sent: list[dict[str, Any]] = []
        self.flight = flight.Flight(self.hal, lambda _channel, body: self.sent.append(body))

    def step(self, seconds: float, *, connected: bool) -> None:
        self.hal.now += int(seconds * 1000)
        self.flight.step(self.hal.now, connected)

    def texts(self) -> list[str]:
        return [body["text"] for body in self.sent]


@pytest.fixture
def recorder() -> Recorder:
    made = Recorder()
    made.step(1, connected=True)
    return made


def test_a_start_without_trouble_is_no_event(recorder: Recorder) -> None:
    recorder.step(1000, connected=True)
    assert recorder.sent == []


def test_only_the_newest_reasons_are_kept_and_the_others_counted(recorder: Recorder) -> None:
    for n in range(12):
        recorder.flight.note(f"reason-{n}", "x" * 500)
    recorder.step(61, connected=True)
    [text] = recorder.texts()
    assert "4 earlier ones, reason-4 (" in text
    assert len(text) < 2000


@given(st.lists(st.tuples(st.text(max_size=100), st.none() | st.text()), max_size=60))
def test_whatever_is_noted_fits_an_event_and_a_note(reasons: list[tuple[str, str | None]]) -> None:
    recorder = Recorder()
    for word, detail in reasons:
        recorder.flight.note(word, detail)
    recorder.flight.keep()
    again = Recorder(recorder.hal)
    again.step(100, connected=True)
    assert all(len(text) <= 2000 for text in again.texts())
    assert again.flight.resets == 0


def test_without_a_link_patience_doubles_with_every_restart() -> None:
    waited = []
    hal = CoreHal()
    for _ in range(8):
        recorder = Recorder(hal)
        recorder.flight.note("no-such-network")
        began, at = hal.now, hal.now
        while not recorder.flight.is_stuck(at, False, 3600):
            at += 60_000
            recorder.flight.step(at, False)
        waited.append((at - began) // HOUR_MS)
        recorder.flight.keep()
    assert waited == [1, 2, 4, 8, 16, 24, 24, 24]


@pytest.mark.parametrize(("reason", "hours"), [("connect-timeout", 4), ("refused-password", None)])
def test_with_a_link_only_a_broker_that_nobody_finds_leads_to_a_restart(
    recorder: Recorder, reason: str, hours: int | None
) -> None:
    recorder.step(1, connected=False)
    recorder.flight.note(reason)
    began = recorder.hal.now
    for minute in range(100 * 60):
        if recorder.flight.is_stuck(began + 60_000 * minute, True, 3600):
            assert minute // 60 == hours
            return
    assert hours is None


def test_zero_means_never(recorder: Recorder) -> None:
    recorder.step(1, connected=False)
    assert not recorder.flight.is_stuck(recorder.hal.now + 1000 * HOUR_MS, False, 0)


@pytest.mark.parametrize("note", ["", "junk", "1", "x y", "99999 text", "-1 text", "\x00\x00 \x00"])
def test_a_note_that_makes_no_sense_counts_for_nothing(note: str) -> None:
    hal = CoreHal()
    hal.notes["flight"] = note
    assert Recorder(hal).flight.resets == 0


def test_storage_that_refuses_the_note_stops_nothing(recorder: Recorder) -> None:
    def refuse(_text: str, _name: str) -> None:
        raise OSError(28)

    recorder.hal.keep = refuse  # type: ignore[method-assign,assignment]
    recorder.flight.resets = 3
    recorder.flight.keep()
    recorder.step(1, connected=False)
    recorder.step(1, connected=True)
    assert recorder.flight.resets == 0
