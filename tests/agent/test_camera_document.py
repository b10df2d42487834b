"""docs/cameras.md explains every word that a camera uses to say what is wrong."""

import re

import pytest

from tests.agent.micropython import ROOT

DOCUMENT = (ROOT / "docs" / "cameras.md").read_text()
CODE = {path.stem: path.read_text() for path in (ROOT / "camera_agent").glob("*.py")}


def words(pattern: str, *modules: str) -> set[str]:
    """What the pattern's group finds in these modules, or in all."""
    return {word for name in modules or CODE for word in re.findall(pattern, CODE[name])}


def explained(heading: str) -> set[str]:
    """The first column of the table under a heading."""
    section = DOCUMENT.split(f"### {heading}")[1].split("\n##")[0]
    return set(re.findall(r"^\| `([\w:-]+)` \|", section, re.MULTILINE))


def test_every_problem_is_explained_and_no_other() -> None:
    found = words(r'\.problem\("([a-z-]+)"\)', "updater", "running") | words(
        r'problem = "([a-z-]+)"', "pointer", "decision", "rawflash"
    )
    found |= words(r'problem(?:"\] =|s\.append\(| =) "([a-z-]+)"', "boot", "proving", "hal")
    found |= words(r'return \["([a-z-]+)"\]', "resting")
    found |= words(r'StorageError\(\s*"([a-z-]+)"', "regions", "volume") | {
        "no-model",
        "no-camera",
        "no-keys",
    }
    found |= words(r'"(spool-[a-z-]+)"', "outbox", "spool", "spooling") | words(
        r'"(sleep-[a-z-]+)"', "sleeping"
    )
    found |= words(r'return \["([a-z-]+)"\]', "fresh")
    listed = explained("`problems`")
    assert found <= listed
    assert listed - found == {
        "config-ignored:NAME",
        *(f"model-failed:{reason}" for reason in ("out-of-memory", "storage-error", "model-load-failed")),
        "model-failed:labels-mismatch",
    }


def test_every_reason_why_a_model_cannot_be_used_is_explained() -> None:
    reasons = words(r'ModelError\(\s*"([a-z-]+)"', "models", "vision")
    reasons |= words(r'_give_up\(error, (?:"[a-z-]+" if is_memory else )?"([a-z-]+)"', "vision")
    reasons -= {"trial-crashed"}  # only ever ends a trial
    assert {f"model-failed:{reason}" for reason in reasons} <= explained("`problems`")


def test_every_event_is_explained_and_no_other() -> None:
    found = words(r'"kind": "([a-z-]+)"', "agent", "flight", "trouble") | words(
        r'"(network-[a-z]+)"', "netconfig"
    )
    assert found == explained("Events")


def test_every_refusal_of_the_settings_is_explained_and_no_other() -> None:
    assert words(r'SettingsError\("([a-z-]+)"', "settings") == explained("Without usable settings")


def test_every_refusal_of_a_command_is_explained_and_no_other() -> None:
    reasons = words(r'_reply\(name, id_, "([a-z-]+)"\)', "commands")
    reasons |= words(r'(?:return|_end\()\s*"([a-z-]+)"', "bench", "pictures")
    reasons |= words(r'_end\("([a-z-]+)"', "snapshot")
    assert reasons == explained("Commands")


def test_every_reason_for_a_missing_connection_is_explained_and_no_other() -> None:
    reasons = words(r'MqttError\("([a-z-]+)"', "mqtt", "link") - {"closed"}  # a bug, never the peer's doing
    reasons |= words(r'"(refused-[a-z-]+)"', "packets") | words(r'_lost\("([a-z-]+)"', "link")
    reasons |= words(r'"((?:connect|tls|no-route|name)[a-z-]*)"', "sockets", "secure") - {"tls", "name"}
    reasons |= words(r'MqttError\("[a-z-]+" if \w+ == 2 else "([a-z-]+)"', "packets") | {
        "refused",
        "write-failed",
    }
    reasons |= words(r'(?:_fail\(|or \(|else |: |return )"([a-z]+(?:-[a-z]+)+)"', "netif", "winc")
    section = DOCUMENT.split("### Why there is no connection")[1].split("\n##")[0]
    listed = set(re.findall(r"`([a-z-]+)`", "".join(re.findall(r"^\| (`.*?) \|", section, re.MULTILINE))))
    assert reasons == listed


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(([^)#]+\.md)", DOCUMENT))))
def test_links_lead_somewhere(link: str) -> None:
    assert (ROOT / "docs" / link).exists()
