"""What fleetctl prints cannot move a cursor, and times are read as people write them."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetd.cli.errors import UNUSABLE, CliError
from fleetd.cli.text import as_json, as_json_line, duration, moment, number, safe, size, when


@given(st.text())
def test_nothing_a_terminal_acts_on_survives(text: str) -> None:
    shown = safe(text)
    assert all(unicodedata.category(char)[0] != "C" for char in shown)
    assert "\n" not in shown
    assert "\u2028" not in shown


@given(st.text(alphabet=st.characters(categories=["L", "N", "P", "S", "Zs", "M"])))
def test_ordinary_text_is_printed_as_it_is(text: str) -> None:
    assert safe(text) == text


@pytest.mark.parametrize(
    ("hostile", "shown"),
    [
        ("\x1b[2J", r"\x1b[2J"),
        ("a\r\nlogin ok", r"a\x0d\x0alogin ok"),
        ("\x9b31m", r"\x9b31m"),  # the 8-bit form of ESC [
        ("gpj\u202eexe", r"gpj\u202eexe"),
        ("\ud800", r"\ud800"),
        ("\U000e0001", r"\U000e0001"),
        ("\x00", r"\x00"),
    ],
)
def test_control_characters_are_spelled_out(hostile: str, shown: str) -> None:
    assert safe(hostile) == shown


@given(st.dictionaries(st.text(), st.text()))
def test_json_output_is_plain_ascii(data: dict[str, str]) -> None:
    for text in (as_json(data), as_json_line(data)):
        assert text.isascii()
        assert "\x1b" not in text
        assert "\x7f" not in text
    assert "\n" not in as_json_line(data)


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("90s", 9910.0),
        ("15m", 9100.0),
        ("2h", 2800.0),
        ("0.5h", 8200.0),
        (" 2H ", 2800.0),
        ("1w", 0.0),
        ("5000", 5000.0),
        ("0", 0.0),
        (None, None),
    ],
)
def test_a_moment_is_how_long_ago_or_unix_seconds(text: str | None, at: float | None) -> None:
    assert moment(text, now=10_000.0) == at


@pytest.mark.parametrize(
    "text", ["", "yesterday", "-5", "15 minutes", "nan", "inf", "1e300", "5x", "\x1b[2J"]
)
def test_what_is_no_time_says_how_to_write_one(text: str) -> None:
    with pytest.raises(CliError) as caught:
        moment(text, now=10_000.0)
    assert caught.value.exit_code == UNUSABLE
    assert "15m" in caught.value.todo
    assert "\x1b" not in caught.value.message


@given(st.text(max_size=20))
def test_any_text_is_a_moment_or_a_clear_error(text: str) -> None:
    try:
        at = moment(text, now=1e9)
    except CliError:
        return
    assert at is not None
    assert 0 <= at <= 2**40


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"),
        (-3.0, "0s"),
        (45.9, "45s"),
        (60, "1m"),
        (3599, "59m"),
        (12_000, "3h 20m"),
        (187_200, "2d 4h"),
    ],
)
def test_durations_have_the_two_units_that_matter(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (None, "-"),
        (0, "0 B"),
        (1023, "1023 B"),
        (42_189, "41.2 KB"),
        (3 * 1024**2, "3.0 MB"),
        (2**40, "1024.0 GB"),
    ],
)
def test_sizes_are_readable(count: float | None, text: str) -> None:
    assert size(count) == text


def test_a_time_no_calendar_knows_is_printed_as_a_number() -> None:
    assert when(1e300).isdigit()
    assert when(None) == "-"
    assert when(1_700_000_000.0).startswith("2023-11-1")


def test_missing_measurements_are_dashes() -> None:
    assert (number(None), number(12.345), number(0.5, 2)) == ("-", "12.3", "0.50")
