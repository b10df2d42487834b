"""The camera asks a time server: what is an answer, what is none, and what a board without a clock is given."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from camera_agent import clock

MARK = b"12345678"
NOW = 1_790_000_000


def answer(
    unix: int = NOW, *, mark: bytes = MARK, first: int = 0x24, stratum: int = 2, size: int = 48
) -> bytes:
    """What a time server says."""
    made = bytearray(48)
    made[0], made[1] = first, stratum
    made[24:32] = mark
    made[40:44] = ((unix + 2_208_988_800) % 2**32).to_bytes(4)
    return bytes(made[:size])


class Rtc:
    """A board's clock."""

    def __init__(self) -> None:
        self.set_to: list[tuple[int, ...]] = []

    def datetime(self, at: tuple[int, ...]) -> None:
        self.set_to.append(at)


@pytest.fixture
def board() -> Any:
    rtc = Rtc()
    return SimpleNamespace(RTC=lambda: rtc, rtc=rtc)


@contextmanager
def server(monkeypatch: pytest.MonkeyPatch, reply: Callable[[bytes], bytes]) -> Iterator[None]:
    """A time server on loopback that answers one question."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as here:
        here.bind(("127.0.0.1", 0))
        monkeypatch.setattr(clock, "_PORT", here.getsockname()[1])

        def serve() -> None:
            question, sender = here.recvfrom(100)
            here.sendto(reply(question), sender)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield
        thread.join(10)


def test_the_time_of_an_answer_is_what_the_board_is_set_to(
    monkeypatch: pytest.MonkeyPatch, board: Any
) -> None:
    with server(monkeypatch, lambda question: answer(mark=question[40:48])):
        clock.ask("127.0.0.1", board, 5000)
    at = time.gmtime(NOW)
    assert board.rtc.set_to == [
        (at.tm_year, at.tm_mon, at.tm_mday, at.tm_wday + 1, at.tm_hour, at.tm_min, at.tm_sec, 0)
    ]


def test_an_answer_to_somebody_elses_question_sets_nothing(
    monkeypatch: pytest.MonkeyPatch, board: Any
) -> None:
    with server(monkeypatch, lambda _: answer()), pytest.raises(OSError, match="no time"):
        clock.ask("127.0.0.1", board, 5000)
    assert board.rtc.set_to == []


@pytest.mark.parametrize(
    "wrong",
    [
        answer(size=47),
        answer(first=0x23),
        answer(stratum=0),
        answer(stratum=16),
        answer(mark=b"87654321"),
        answer(clock.FLOOR - 1 + 2**32 - 2**32),
        b"",
    ],
)
def test_what_is_no_time_is_none(wrong: bytes) -> None:
    assert clock.read(wrong, MARK) is None


def test_the_counter_may_begin_anew_in_2036() -> None:
    for unix in (clock.FLOOR, 2_085_978_495, 2_085_978_496, 2_200_000_000):
        assert clock.read(answer(unix), MARK) == unix


@given(st.binary(max_size=60))
def test_any_datagram_is_a_plausible_time_or_none(data: bytes) -> None:
    found = clock.read(data, MARK)
    assert found is None or clock.FLOOR <= found < 4_102_444_800


@pytest.mark.parametrize("epoch", [1970, 2000])
def test_a_clock_without_battery_gets_a_date_that_certificates_can_live_with(
    monkeypatch: pytest.MonkeyPatch, board: Any, epoch: int
) -> None:
    real = time.gmtime
    short = 946_684_800 if epoch == 2000 else 0
    monkeypatch.setattr(time, "time", lambda: 17.0)
    monkeypatch.setattr(time, "gmtime", lambda at: real(at + short))
    clock.floor(board)
    [at] = board.rtc.set_to
    assert at[:3] == (2026, 1, 1)


def test_a_clock_that_may_be_right_is_left_alone(board: Any) -> None:
    clock.floor(board)
    assert board.rtc.set_to == []


def test_a_board_without_a_clock_is_no_error() -> None:
    clock.floor(SimpleNamespace())
