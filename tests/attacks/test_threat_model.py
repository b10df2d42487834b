"""docs/threat-model.md names tests that exist, and the suite is as large as it says."""

import re
from pathlib import Path

from tests.attacks.manifests import MANIFESTS
from tests.attacks.test_broker import CONFIGS, LIES, MESSAGES
from tests.attacks.test_content import DEFLATES, DELIVERIES, PATCHES

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = (ROOT / "docs" / "threat-model.md").read_text(encoding="utf-8")
NAMED = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", DOCUMENT)


def test_every_test_that_the_document_names_exists() -> None:
    assert len(NAMED) > 20
    for path, name in NAMED:
        text = (ROOT / path).read_text(encoding="utf-8")
        assert not name or f"def {name}(" in text, f"{path}::{name}"


def test_there_are_more_named_attacks_than_in_the_suites_we_learned_from() -> None:
    """TUF's conformance suite has 113 cases."""
    named = [*MANIFESTS, *DELIVERIES, *PATCHES, *DEFLATES, *MESSAGES, *LIES, *CONFIGS]
    assert len(named) > 200
