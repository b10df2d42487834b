"""docs/protocol.md says what the code does: its examples are the golden messages, its numbers the limits."""

import re
from pathlib import Path
from typing import get_args

from fleetd.protocol import limits, messages, topics
from tests.contract.goldens import FLEETD, FOLDER, name_of

DOCUMENT = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text()
EXAMPLES = re.findall(r"<!-- golden: (\S+) -->\n```json\n(.*?)```", DOCUMENT, re.DOTALL)


def test_every_example_is_a_golden_message_to_the_letter() -> None:
    assert EXAMPLES
    for name, text in EXAMPLES:
        assert text == (FOLDER / name).read_text(), name
    assert DOCUMENT.count("```json") == len(EXAMPLES)


def test_every_message_has_an_example() -> None:
    assert {name_of(FOLDER / name) for name, _ in EXAMPLES} == set(FLEETD)


def test_every_topic_is_in_the_table() -> None:
    rows = re.findall(r"^\| `([^`]+)` \| (?:fleetd|camera)", DOCUMENT, re.MULTILINE)
    shown = {
        re.sub(r"<n>|<sha256>|<\w+>", lambda part: {"<n>": "7", "<sha256>": "ab" * 32}.get(part[0], "x"), row)
        for row in rows
    }
    assert len(shown) == len(rows) == 16
    parsed = [topics.parse_topic(f"fleet/v1/{topic}") for topic in shown]
    assert None not in parsed
    channels = {topic.channel for topic in parsed if isinstance(topic, topics.CameraTopic)}
    expected = {*topics.UP_CHANNELS, *topics.DOWN_CHANNELS, "reply/x", "cmd/x", "image/x/7"}
    assert channels == expected


def test_every_limit_is_shown_with_its_value() -> None:
    shown = {name: int(value) for name, value in re.findall(r"\| `([A-Z_]+)` \| (\d+) \|", DOCUMENT)}
    assert shown == {name: value for name, value in vars(limits).items() if name.isupper()}


def test_every_state_and_reason_of_an_update_is_named() -> None:
    words = (*get_args(messages.UpdateState), *get_args(messages.UpdateReason))
    assert [word for word in words if f"`{word}`" not in DOCUMENT] == []
