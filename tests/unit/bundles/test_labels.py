import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetd.bundles.errors import BundleError
from fleetd.bundles.labels import format_labels, parse_labels


def test_plain_labels_are_taken_as_they_are() -> None:
    assert parse_labels(b"background\nblue ball\nlego figure") == (
        ("background", "blue ball", "lego figure"),
        [],
    )


@pytest.mark.parametrize("end", [b"", b"\n", b"\n\n\n", b"\n  \n"])
def test_blank_lines_at_the_end_mean_nothing(end: bytes) -> None:
    assert parse_labels(b"cat\ndog" + end) == (("cat", "dog"), [])


@pytest.mark.parametrize(
    ("data", "labels", "warning"),
    [
        (b"cat\r\ndog\r\n", ("cat", "dog"), "Windows line ends"),
        (b"\xef\xbb\xbfcat\ndog", ("cat", "dog"), "byte order mark"),
        (b"cat \ndog", ("cat", "dog"), "blanks around"),
        (b"cat\n\ndog", ("cat", "class 2", "dog"), "Line 2 of labels.txt is blank"),
        (b"dog\ncat", ("dog", "cat"), "not sorted"),
        (b"### Model ver 1\ncat", ("### Model ver 1", "cat"), "looks like a note"),
    ],
)
def test_what_editors_do_to_labels_is_put_right_and_said(
    data: bytes, labels: tuple[str, ...], warning: str
) -> None:
    found, warnings = parse_labels(data)
    assert found == labels
    assert len(warnings) == 1
    assert warning in warnings[0]


@pytest.mark.parametrize("data", [b"Apple\nbanana\nCherry", b"100sign\n40sign\nbackground"])
def test_either_way_of_sorting_is_sorted(data: bytes) -> None:
    assert parse_labels(data)[1] == []


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty"),
        (b"\n\n", "empty"),
        (b"cat\ndog\ncat", "more than once"),
        (b"cat\n\nclass 2", "more than once"),
        (b"ca\x1b[2Jt\ndog", "U\\+001B"),
        (b"cat\tdog", "U\\+0009"),
        (b"cat\rdog", "U\\+000D"),
        ("cat\u202egod".encode(), "U\\+202E"),
        ("cat\u200bdog".encode(), "U\\+200B"),
        ("cat\u2028dog".encode(), "U\\+2028"),
        ("cat\x85dog".encode(), "U\\+0085"),
        (b"c" * 65, "too long"),
        ("\N{GRINNING FACE}".encode() * 17, "too long"),
        (b"\n".join(b"%03d" % n for n in range(257)), "at most 256"),
        (b"caf\xe9", "not UTF-8"),
        ("cat\ndog".encode("utf-16"), "Save it as UTF-8"),
        (b"cat\0dog", "not UTF-8"),
        (b"x" * 70_000, "Is it another file"),
    ],
)
def test_what_cannot_be_meant_is_refused(data: bytes, words: str) -> None:
    with pytest.raises(BundleError, match=words):
        parse_labels(data)


def test_labels_of_other_scripts_are_fine() -> None:
    assert parse_labels("Äpfel\n猫\n👩‍🔬".encode())[0] == ("Äpfel", "猫", "👩‍🔬")


@given(st.binary(max_size=300))
def test_any_bytes_give_labels_or_a_reason(data: bytes) -> None:
    try:
        labels, _ = parse_labels(data)
    except BundleError:
        return
    assert labels
    assert all(labels)
    assert parse_labels(format_labels(labels))[0] == labels
    assert format_labels(labels).decode().split("\n") == [*labels, ""]
