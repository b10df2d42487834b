"""Logs: one line an event, no secrets, no control characters, whoever writes."""

import json
import logging
import subprocess
import sys

import pytest

CANARY = "s3cret-canary"

PROGRAM = """
import logging, sys
from fleetd import logs
logs.configure(style=sys.argv[1])
log = logs.get_logger("x")
log.info("something", camera="cam\\x1b[2J\\n2026 INFO login ok", password="{canary}", api_token="{canary}")
def fails():
    authorization = "{canary}"
    raise ValueError("broken")
try:
    fails()
except ValueError:
    log.error("it_failed", exc_info=True)
    logging.getLogger("uvicorn.error").error("it failed too", exc_info=True)
"""


@pytest.fixture(params=["text", "json"])
def lines(request: pytest.FixtureRequest) -> list[str]:
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(canary=CANARY), request.param],
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout == ""
    return ran.stderr.splitlines()


def test_no_secret_reaches_the_log_by_name_or_by_traceback(lines: list[str]) -> None:
    text = "\n".join(lines)
    assert CANARY not in text.replace(f'authorization = "{CANARY}"', "")
    assert "[hidden]" in text
    assert "ValueError: broken" in text, "tracebacks are kept"


def test_what_a_camera_is_called_cannot_forge_a_line_or_clear_the_screen(lines: list[str]) -> None:
    assert not any(line.startswith("2026 INFO login ok") for line in lines)
    assert "\x1b[2J" not in "\n".join(lines)


def test_json_logs_are_one_object_a_line() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(canary=CANARY), "json"],
        capture_output=True,
        text=True,
        check=True,
    )
    events = [json.loads(line) for line in ran.stderr.splitlines()]
    assert [event["event"] for event in events] == ["something", "it_failed", "it failed too"]
    assert logging.getLogger().handlers, "this process is untouched"
